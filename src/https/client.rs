//! Requests whose answers fit in memory.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "notify")]
use http::response::Parts;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::HttpsError;
use super::connector::HttpsConnector;
use super::environment::Environment;

/// How long the rest of an answer is waited for whose head is all that is asked.
#[cfg(feature = "notify")]
const REST_WITHIN: Duration = Duration::from_millis(500);

/// A client for one origin. It follows no redirect and repeats nothing by itself.
#[derive(Clone, Debug)]
pub(crate) struct HttpsClient(Client<HttpsConnector, Full<Bytes>>);

impl HttpsClient {
    /// For requests to this origin, with at most so many idle connections kept to it. Connects to
    /// nothing yet. An origin of `http` needs no TLS.
    pub(crate) fn new(origin: &Uri, idle: usize) -> Result<Self, HttpsError> {
        match origin.scheme_str() {
            Some("https") => Self::with(&Environment::of_process()?, idle),
            _ => Ok(Self::over(HttpsConnector::plain(), idle)),
        }
    }

    /// For `https`, with this environment.
    pub(super) fn with(environment: &Environment, idle: usize) -> Result<Self, HttpsError> {
        Ok(Self::over(HttpsConnector::with(environment, None)?, idle))
    }

    fn over(connector: HttpsConnector, idle: usize) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(idle)
            // It would repeat a request whose connection was just closed: repeats are the callers'.
            .retry_canceled_requests(false)
            .build(connector);
        Self(client)
    }

    #[cfg_attr(
        not(any(feature = "jwt", feature = "stripe")),
        allow(dead_code, reason = "of an alert's answer only the head is read")
    )]
    /// Sends a request and reads its answer to the end: within this time, connection and body
    /// together, and up to so many bytes. The error names its causes, and no part of the request
    /// but its host.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
        max_body: usize,
    ) -> Result<Response<Bytes>, String> {
        let answered = async {
            let answer = self.0.request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, max_body).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        match tokio::time::timeout(within, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("no answer within {within:?}")),
        }
    }
}

#[cfg(feature = "notify")]
impl HttpsClient {
    /// Sends a request and returns the head of its answer, within this time. What follows the head
    /// is read as far as it is short and there, so that the connection serves again, and
    /// decides nothing.
    pub(crate) async fn head_of(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
        max_body: usize,
    ) -> Result<Parts, String> {
        match tokio::time::timeout(within, self.0.request(request)).await {
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                let rest = Limited::new(body, max_body).collect();
                let _ = tokio::time::timeout(REST_WITHIN, rest).await;
                Ok(head)
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {within:?}")),
        }
    }
}

/// An error with its causes: the client's own message is just "client error".
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
