//! Runs a function: identifies the caller, flushes after each answer, drains at the end.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use lambda_http::lambda_runtime::{Diagnostic, LambdaInvocation, Runtime};
use lambda_http::{Body, Error};
use tallygate::{Gate, GateBuilder};
use tower_service::Service;

use crate::caller::name_caller;
use crate::clock::WallClock;
use crate::event::Events;
use crate::flush::{self, Answered};

/// Time for invocations in flight to be answered when a Managed Instance shuts down.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Time for an event that Lambda has already sent to be read.
const READ_WITHIN: Duration = Duration::from_millis(100);

/// Begins a gate for a Lambda function: [`Gate::builder`] with the clock and the setting for rates
/// that a function needs. Open it, then pass it to [`run`].
///
/// A sandbox has no persistent disk, and many of them share one table: the service file should say
/// `[store] kind = "dynamodb"` and `[flush] mode = "fast"`. Each invocation ends with a flush, so
/// `fast` loses at most the usage of an invocation that is killed.
///
/// Sandboxes are many, short-lived and frozen in between, so they cannot count one another.
/// Therefore a rate is leased by the slot unless it says `strict = false`
/// ([`GateBuilder::strict_rates`]); on a Managed Instance it is shared, as among servers.
pub fn builder(service_file: impl AsRef<Path>) -> GateBuilder {
    Gate::builder(service_file)
        .clock(WallClock::new())
        .strict_rates(!Environment::read().is_managed())
}

/// Serves the function's invocations until the process ends: a service of `http` types, such as an
/// axum `Router` or a `lambda_http` handler, with the gate's layer where it belongs in it. Returns
/// once SIGTERM has closed the gate.
///
/// # Errors
///
/// The function has SnapStart: every sandbox would be a copy of one process that has its place in
/// the table. Or the runtime or extensions API cannot be reached, or the usage counted could not be
/// written at the end.
///
/// # Panics
///
/// Outside a function's environment (without `AWS_LAMBDA_RUNTIME_API` and the like).
pub async fn run<S, B>(gate: &Gate, app: S) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Debug + Into<Diagnostic> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Debug,
{
    serve(gate, Runtime::new(Events::new(Function::new(app)))).await
}

/// Runs a function until SIGTERM, flushing after each answer; on a Managed Instance with as many
/// concurrent invocations as Lambda allows, flushing as a server does. The runtime asks for its
/// first event when first polled, which is after the extension has registered.
pub(crate) async fn serve<S>(gate: &Gate, runtime: Runtime<S>) -> Result<(), Error>
where
    S: Service<LambdaInvocation, Response = (), Error = Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let environment = Environment::read();
    environment.refuse_snapshots()?;
    let answered = Answered::default();
    let runtime = runtime.layer(answered.clone());
    let served = if environment.is_managed() {
        let extension = flush::register_for_the_end().await;
        let served = async { tokio::try_join!(runtime.run_concurrent(), extension) };
        let served = until_terminated(served).await;
        // Each runs as its own task and continues. One whose event arrived together with the signal
        // is not counted before it has been read.
        tokio::time::sleep(READ_WITHIN).await;
        answered.idle(ANSWER_WITHIN).await;
        served
    } else {
        let flushing = flush::register(gate, &answered).await?;
        until_terminated(async { tokio::try_join!(runtime.run(), flushing) }).await
    };
    // Also when the runtime has failed: usage was counted and must be written.
    let closed = gate.close().await;
    served?;
    Ok(closed?)
}

/// The parts of Lambda's environment that matter here.
#[derive(Default)]
struct Environment {
    initialization: Option<String>,
    max_concurrency: Option<String>,
}

impl Environment {
    fn read() -> Self {
        let env = |name: &str| std::env::var(name).ok();
        Self {
            initialization: env("AWS_LAMBDA_INITIALIZATION_TYPE"),
            max_concurrency: env("AWS_LAMBDA_MAX_CONCURRENCY"),
        }
    }

    /// Whether this is a Managed Instance, which is never frozen and serves several invocations at
    /// once.
    fn is_managed(&self) -> bool {
        let at_once = self.max_concurrency.as_ref().and_then(|most| most.parse::<u32>().ok());
        self.initialization.as_deref() == Some("lambda-managed-instances")
            || at_once.is_some_and(|most| most > 1)
    }

    /// A snapshot copies the memory of an open gate, and the copies would write one log: the second
    /// copy to write finds a foreign record in its place.
    fn refuse_snapshots(&self) -> Result<(), Error> {
        if self.initialization.as_deref() == Some("snap-start") {
            return Err("SnapStart copies an open gate: switch it off for this function".into());
        }
        Ok(())
    }
}

async fn until_terminated<T>(served: impl Future<Output = Result<T, Error>>) -> Result<(), Error> {
    tokio::select! {
        served = served => served.map(|_| ()),
        () = terminated() => Ok(()),
    }
}

/// Returns at SIGTERM, which Lambda sends to functions that have an extension, as this one does.
async fn terminated() {
    #[cfg(unix)]
    if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    {
        term.recv().await;
        return;
    }
    std::future::pending().await
}

/// An application as [`run`] calls it: with its caller in the request's extensions, and its
/// response in one piece. For tests that feed it recorded events, with
/// `lambda_http::request::from_str`.
#[derive(Clone, Debug)]
pub struct Function<S> {
    app: S,
}

impl<S> Function<S> {
    /// Wraps this application.
    pub fn new(app: S) -> Self {
        Self { app }
    }
}

impl<S, B> Service<Request<Body>> for Function<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Debug + Into<Diagnostic> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Debug,
{
    type Response = Response<Full<Bytes>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.app.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        name_caller(&mut request);
        let is_head = request.method() == Method::HEAD;
        let answered = self.app.call(request);
        Box::pin(async move {
            let response = answered.await?;
            // As in a server, the body that GET would have returned is not read.
            Ok(if is_head { response.map(|_| Full::default()) } else { whole(response).await })
        })
    }
}

/// Reads the response to its end, which is where the gate settles it. A response that breaks off
/// (cut because its quota is used up, or the handler's stream failed) becomes a 502: a function
/// answers whole or not at all.
async fn whole<B>(response: Response<B>) -> Response<Full<Bytes>>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Debug,
{
    let (mut parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            // The front door adds its own.
            parts.headers.remove(CONTENT_LENGTH);
            Response::from_parts(parts, Full::new(body.to_bytes()))
        }
        Err(error) => {
            tracing::warn!(?error, "an answer broke off");
            failed()
        }
    }
}

fn failed() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use lambda_http::service_fn;
    use tallygate::middleware::GateLayer;
    use tallygate::testing;
    use tower_layer::Layer;

    use super::*;

    const PLANS: &str = r#"
        default-plan = "free"
        [plan.free]
        quota.requests = "1/day"
    "#;

    fn request(tenant: &str) -> Request<Body> {
        let event = format!(
            r#"{{"version":"2.0","rawPath":"/","rawQueryString":"","headers":{{"x-tenant":
            "{tenant}"}},"requestContext":{{"stage":"$default","http":{{"method":"GET",
            "path":"/","sourceIp":"203.0.113.9"}}}},"isBase64Encoded":false}}"#
        );
        lambda_http::request::from_str(&event).unwrap()
    }

    #[tokio::test]
    async fn a_handler_sees_its_callers_claims_and_answers_whole() {
        let event = r#"{"version":"2.0","rawPath":"/","rawQueryString":"","headers":{},
            "requestContext":{"stage":"$default","authorizer":{"lambda":{"tenant":"acme"}},
            "http":{"method":"GET","path":"/","sourceIp":"203.0.113.9"}}}"#;
        let handler = service_fn(async |request: Request<Body>| {
            let claims = request.extensions().get::<tallygate::middleware::Claims>().unwrap();
            let peer = request.extensions().get::<tallygate::middleware::Peer>().unwrap();
            let said = format!("{} from {}", claims.get("tenant").unwrap(), peer.0.ip());
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
        });
        let mut called = Function::new(handler);
        let answer = called.call(lambda_http::request::from_str(event).unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "acme from 203.0.113.9");
    }

    #[tokio::test]
    async fn the_layer_stands_in_front_as_it_does_elsewhere() {
        let (gate, _clock) = testing::gate(PLANS);
        let handler = service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"found"))))
        });
        let mut called = Function::new(GateLayer::new(&gate).layer(handler));
        for status in [200, 429] {
            assert_eq!(called.call(request("acme")).await.unwrap().status(), status);
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_a_502_and_no_panic() {
        let handler = service_fn(async |_: Request<Body>| {
            let parts = [Ok(http_body::Frame::data(Bytes::from_static(b"half"))), Err("broken")];
            let stream = tokio_stream::iter(parts);
            Ok::<_, Infallible>(Response::new(StreamBody::new(stream)))
        });
        let mut called = Function::new(handler);
        assert_eq!(called.call(request("acme")).await.unwrap().status(), 502);
    }

    fn environment(initialization: Option<&str>, max_concurrency: Option<&str>) -> Environment {
        Environment {
            initialization: initialization.map(str::to_owned),
            max_concurrency: max_concurrency.map(str::to_owned),
        }
    }

    #[test]
    fn a_managed_instance_is_known_by_its_environment() {
        let at_once = |most| environment(None, Some(most)).is_managed();
        assert!(environment(Some("lambda-managed-instances"), None).is_managed());
        assert!(at_once("2") && at_once("64"));
        assert!(!at_once("1") && !at_once("0") && !at_once("many"));
        assert!(!environment(Some("on-demand"), None).is_managed());
        assert!(!Environment::default().is_managed());
    }

    #[test]
    fn snap_start_is_refused() {
        assert!(environment(Some("snap-start"), None).refuse_snapshots().is_err());
        for fine in [None, Some("on-demand"), Some("provisioned-concurrency")] {
            assert!(environment(fine, None).refuse_snapshots().is_ok());
        }
    }
}
