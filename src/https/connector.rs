//! Connections: by TCP, through a proxy where there is one, with TLS for `https`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::HttpsError;
use super::environment::Environment;
use super::provider::provider;
use super::roots::roots;

type Stream = TokioIo<TcpStream>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, BoxError>> + Send>>;

/// Connections for a client of `hyper-util`. A host needs none: this is for `tallygate-lambda`, and
/// may change in any version.
#[derive(Clone, Debug)]
pub struct HttpsConnector(Connection);

#[derive(Clone, Debug)]
enum Connection {
    #[cfg_attr(
        not(any(feature = "jwt", feature = "notify", feature = "stripe")),
        allow(dead_code, reason = "only our own client asks for it")
    )]
    Plain(ToServer),
    Tls(hyper_rustls::HttpsConnector<ToServer>),
}

impl HttpsConnector {
    /// For `https` and `http`, as the environment and the features say. Opening a TCP connection
    /// takes at most this long, if it is given.
    ///
    /// # Errors
    ///
    /// There is no cryptography for TLS, the roots cannot be read, or the proxy is of a kind that
    /// is not supported.
    pub fn new(connect_within: Option<Duration>) -> Result<Self, HttpsError> {
        Self::with(&Environment::of_process()?, connect_within)
    }

    /// The same, with this environment.
    pub(super) fn with(
        environment: &Environment,
        connect_within: Option<Duration>,
    ) -> Result<Self, HttpsError> {
        let tls = ClientConfig::builder_with_provider(provider()?)
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpsError(error.to_string()))?
            .with_root_certificates(roots(environment.roots.as_deref())?)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(ToServer::new(environment.proxy.clone(), connect_within));
        Ok(Self(Connection::Tls(connector)))
    }

    /// For `http` alone, which needs no cryptography.
    #[cfg_attr(
        not(any(feature = "jwt", feature = "notify", feature = "stripe")),
        allow(dead_code, reason = "only our own client asks for it")
    )]
    pub(super) fn plain() -> Self {
        Self(Connection::Plain(ToServer::new(None, None)))
    }
}

impl Service<Uri> for HttpsConnector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Connection::Plain(route) => route.poll_ready(cx),
            Connection::Tls(connector) => connector.poll_ready(cx),
        }
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match &mut self.0 {
            Connection::Plain(route) => {
                let connecting = route.call(to);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Connection::Tls(connector) => connector.call(to),
        }
    }
}

/// The way to a host, below TLS.
#[derive(Clone, Debug)]
struct ToServer {
    tcp: HttpConnector,
    proxy: Option<Arc<Matcher>>,
}

impl ToServer {
    fn new(proxy: Option<Arc<Matcher>>, connect_within: Option<Duration>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(connect_within);
        Self { tcp, proxy }
    }
}

impl Service<Uri> for ToServer {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(via) = self.proxy.as_ref().and_then(|proxy| proxy.intercept(&to)) else {
            let connecting = self.tcp.call(to);
            return Box::pin(async move { Ok(connecting.await?) });
        };
        let mut tunnel = Tunnel::new(via.uri().clone(), self.tcp.clone());
        if let Some(password) = via.basic_auth() {
            tunnel = tunnel.with_auth(password.clone());
        }
        let connecting = tunnel.call(to);
        Box::pin(async move { Ok(connecting.await?) })
    }
}
