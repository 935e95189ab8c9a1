//! Requests as a gate sees them.

use std::net::IpAddr;

use tallygate::Gate;
use tallygate::adapter::{Answer, Step, Waited};
use tallygate::identity::RequestView;

/// Asks a gate as an adapter does: waits, and asks again.
pub async fn asked(gate: &Gate, view: &(dyn RequestView + Sync)) -> Answer {
    let mut waited = Waited::default();
    loop {
        match gate.admit_request(view, waited) {
            Step::Done(answer) => return answer,
            Step::Wait(pending) => waited = pending.await,
        }
    }
}

/// A request with these headers.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a, const N: usize> {
    method: &'a str,
    path: &'a str,
    headers: [(&'a str, &'a str); N],
    peer: Option<IpAddr>,
}

impl<'a, const N: usize> Call<'a, N> {
    /// A request from an unknown address. Names of headers are in lower case.
    pub const fn new(method: &'a str, path: &'a str, headers: [(&'a str, &'a str); N]) -> Self {
        Self { method, path, headers, peer: None }
    }

    /// The same from this address.
    pub const fn from(self, peer: IpAddr) -> Self {
        Self { peer: Some(peer), ..self }
    }
}

impl<const N: usize> RequestView for Call<'_, N> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes())
    }

    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        let of_name = self.headers.iter().filter(|(known, _)| *known == name);
        of_name.map(|(_, value)| value.as_bytes()).collect()
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }
}
