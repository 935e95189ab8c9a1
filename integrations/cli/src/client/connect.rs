//! Connections of the client: by the core's connector, or to a socket of this machine.

#[cfg(unix)]
use std::future::Future;
#[cfg(unix)]
use std::path::Path;
#[cfg(unix)]
use std::pin::Pin;
#[cfg(unix)]
use std::sync::Arc;
#[cfg(unix)]
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
#[cfg(unix)]
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;
#[cfg(unix)]
use hyper_util::rt::TokioIo;
use tallygate::adapter::HttpsConnector;
#[cfg(unix)]
use tokio::net::UnixStream;
#[cfg(unix)]
use tower_service::Service;

use super::address::Address;
use crate::failure::{Failure, code};

/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Sends requests.
#[derive(Clone)]
pub(super) enum Wire {
    Web(Client<HttpsConnector, Full<Bytes>>),
    #[cfg(unix)]
    Socket(Client<SocketConnector, Full<Bytes>>),
}

impl Wire {
    pub(super) fn to(address: &Address) -> Result<Self, Failure> {
        match address {
            Address::Web { .. } => {
                let connector = HttpsConnector::new(Some(CONNECT_WITHIN))
                    .map_err(|error| Failure::new(code::FAILURE, error.to_string()))?;
                Ok(Self::Web(Client::builder(TokioExecutor::new()).build(connector)))
            }
            #[cfg(unix)]
            Address::Socket { path, .. } => {
                let connector = SocketConnector(path.as_path().into());
                Ok(Self::Socket(Client::builder(TokioExecutor::new()).build(connector)))
            }
        }
    }

    pub(super) fn send(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        match self {
            Self::Web(client) => client.request(request),
            #[cfg(unix)]
            Self::Socket(client) => client.request(request),
        }
    }
}

/// Connects to one socket, whatever the host of a request is.
#[cfg(unix)]
#[derive(Clone)]
pub(super) struct SocketConnector(Arc<Path>);

#[cfg(unix)]
impl Service<Uri> for SocketConnector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(&*path).await.map(TokioIo::new) })
    }
}
