//! A TCP proxy before the table, for what a good table does not do: answer late, or not at all.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// See the [module](self). It lasts as long as the test's process.
pub(crate) struct Proxy {
    endpoint: String,
    weather: Arc<Weather>,
}

#[derive(Default)]
struct Weather {
    delay_ms: AtomicU64,
    is_cut: AtomicBool,
}

impl Proxy {
    pub(crate) fn before(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let weather = Arc::<Weather>::default();
        let seen = weather.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, seen) = (server.clone(), seen.clone());
                thread::spawn(move || {
                    let Ok(server) = TcpStream::connect(server) else { return };
                    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let forth = seen.clone();
                    thread::spawn(move || carry(from, to, &forth, false));
                    carry(server, client, &seen, true);
                });
            }
        });
        Self { endpoint, weather }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn delay(&self, by: Duration) {
        self.weather.delay_ms.store(by.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn cut(&self, is_cut: bool) {
        self.weather.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

/// Carries bytes one way, until that way ends or is cut.
fn carry(mut from: TcpStream, mut to: TcpStream, weather: &Weather, is_answer: bool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        let delay = weather.delay_ms.load(Ordering::Relaxed);
        if is_answer && delay > 0 {
            thread::sleep(Duration::from_millis(delay));
        }
        if weather.is_cut.load(Ordering::Relaxed) || to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    // Whoever still reads or writes on either side learns of the end.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
