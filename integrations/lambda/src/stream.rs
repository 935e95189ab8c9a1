//! Response streaming: an answer leaves as its handler writes it, instead of in one piece.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, SET_COOKIE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyDataStream;
use lambda_http::lambda_runtime::{Diagnostic, MetadataPrelude, Runtime, StreamResponse};
use lambda_http::request::LambdaRequest;
use lambda_http::{Body, Error, LambdaEvent, RequestExt};
use tallygate::Gate;
use tower_service::Service;

use crate::caller::name_caller;
use crate::event::makes_a_request;
use crate::run::serve;

/// The header in which a function finds its trace.
const TRACE: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// As [`run`](crate::run), for a function whose answers are streamed: a function URL with
/// `InvokeMode: RESPONSE_STREAM`, or a REST API's `STREAM` integration ([streaming]). An
/// answer may then have 200 MB instead of 6, and its first byte leaves at once, as a chat needs it.
/// HTTP APIs and load balancers cannot receive such answers: with them, use `run`.
///
/// Units are counted as they leave, and flushed after the last byte. Lambda goes on reading when
/// the client has hung up, so the whole answer is charged. One that breaks off (cut because its
/// quota is used up, or the handler's stream failed) ends there and fails the invocation; its
/// status had left before.
///
/// # Errors
///
/// As [`run`](crate::run).
///
/// # Panics
///
/// As [`run`](crate::run).
///
/// [streaming]: https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html
pub async fn run_streaming<S, B>(gate: &Gate, app: S) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Debug + Into<Diagnostic> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Debug,
{
    serve(gate, Runtime::new(Streamed { app })).await
}

/// An application as a service of events that are answered by streams.
#[derive(Clone, Debug)]
struct Streamed<S> {
    app: S,
}

type Stream<B> = StreamResponse<BodyDataStream<Chunks<B>>>;

impl<S, B> Service<LambdaEvent<LambdaRequest>> for Streamed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Debug,
{
    type Response = Stream<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.app.poll_ready(cx)
    }

    fn call(
        &mut self,
        LambdaEvent { payload, context }: LambdaEvent<LambdaRequest>,
    ) -> Self::Future {
        if !makes_a_request(&payload) {
            let refused = streamed(StatusCode::BAD_REQUEST, Chunks::none());
            return Box::pin(async { Ok(refused) });
        }
        let mut request: Request<Body> = payload.into();
        if let Some(trace) = context.xray_trace_id.as_deref().and_then(|it| it.parse().ok()) {
            request.headers_mut().insert(TRACE, trace);
        }
        let mut request = request.with_lambda_context(context);
        name_caller(&mut request);
        // As in a server, the body that GET would have returned is not read.
        let is_head = request.method() == Method::HEAD;
        let answered = self.app.call(request);
        Box::pin(async move {
            let (parts, body) = answered.await?.into_parts();
            let chunks = if is_head { Chunks::none() } else { Chunks::of(body) };
            let mut response = streamed(parts.status, chunks);
            let MetadataPrelude { headers, cookies, .. } = &mut response.metadata_prelude;
            *headers = parts.headers;
            // The front door adds its own length, and takes cookies as a list.
            headers.remove(CONTENT_LENGTH);
            let lines = headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
            *cookies = lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            headers.remove(SET_COOKIE);
            Ok(response)
        })
    }
}

fn streamed<B>(status: StatusCode, chunks: Chunks<B>) -> Stream<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Debug,
{
    let metadata_prelude = MetadataPrelude { status_code: status, ..MetadataPrelude::default() };
    StreamResponse { metadata_prelude, stream: BodyDataStream::new(chunks) }
}

/// A body that ends with its first error: the runtime reads on after one. It also sends an error's
/// text to the client, so that of the handler goes to the log instead.
struct Chunks<B> {
    body: Option<Pin<Box<B>>>,
}

impl<B> Chunks<B> {
    fn of(body: B) -> Self {
        Self { body: Some(Box::pin(body)) }
    }

    fn none() -> Self {
        Self { body: None }
    }
}

impl<B> http_body::Body for Chunks<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Debug,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(body.as_mut().poll_frame(cx)).map(|frame| {
            frame.map_err(|error| {
                tracing::warn!(?error, "an answer broke off");
                Error::from("the answer broke off")
            })
        });
        if matches!(frame, None | Some(Err(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{Full, StreamBody};
    use lambda_http::service_fn;
    use serde_json::{Value, json};
    use tallygate::middleware::GateLayer;
    use tallygate::{Amount, Gate, testing};
    use tokio_stream::StreamExt;
    use tower_layer::Layer;

    use super::*;

    const PLANS: &str = r#"
        default-plan = "free"
        [meter.traffic]
        count = "response-bytes"
        hold  = "4B"
        cut   = true
        [plan.free]
        quota.traffic = "10B/day"
    "#;

    fn event(change: impl FnOnce(&mut Value)) -> LambdaEvent<LambdaRequest> {
        let mut event = json!({
            "version": "2.0", "rawPath": "/", "rawQueryString": "",
            "headers": { "x-tenant": "acme" }, "isBase64Encoded": false,
            "requestContext": {
                "stage": "$default",
                "http": { "method": "GET", "path": "/", "sourceIp": "203.0.113.9" }
            }
        });
        change(&mut event);
        LambdaEvent::new(serde_json::from_value(event).unwrap(), lambda_http::Context::default())
    }

    /// Answers with these chunks, with cookies, and with a length if one is given.
    fn app(
        length: Option<u64>,
        chunks: &'static [Result<&'static str, &'static str>],
    ) -> impl Service<
        Request<Body>,
        Response = Response<
            impl http_body::Body<Data = Bytes, Error: Debug + Into<Error>> + Send + 'static,
        >,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone {
        service_fn(move |_: Request<Body>| async move {
            let frame = |chunk: &Result<&'static str, &'static str>| {
                chunk.map(|text| Frame::data(Bytes::from_static(text.as_bytes())))
            };
            let chunks = tokio_stream::iter(chunks.iter().map(frame));
            let mut response = Response::builder().header(SET_COOKIE, "a=1");
            response = response.header(SET_COOKIE, "b=2").header("x-own", "kept");
            if let Some(length) = length {
                response = response.header(CONTENT_LENGTH, length);
            }
            Ok(response.body(StreamBody::new(chunks)).unwrap())
        })
    }

    async fn used(gate: &Gate) -> Amount {
        let acme = tallygate::Identified::from(&gate.tenant("acme").await.unwrap());
        let report = gate.usage_report(&acme).await.unwrap();
        report.meters.iter().find(|meter| &*meter.name == "traffic").unwrap().used
    }

    #[tokio::test]
    async fn each_chunk_leaves_and_is_counted_when_it_is_written() {
        let (gate, _clock) = testing::gate(PLANS);
        let layer = GateLayer::new(&gate);
        let mut function = Streamed { app: layer.layer(app(Some(5), &[Ok("abc"), Ok("de")])) };
        let mut answer = function.call(event(|_| {})).await.unwrap();
        let MetadataPrelude { status_code, headers, cookies, .. } = &answer.metadata_prelude;
        assert_eq!((*status_code, headers["x-own"].as_bytes()), (StatusCode::OK, &b"kept"[..]));
        assert_eq!(cookies, &["a=1", "b=2"]);
        assert!(!headers.contains_key(SET_COOKIE) && !headers.contains_key(CONTENT_LENGTH));
        assert_eq!(answer.stream.next().await.unwrap().unwrap(), "abc");
        assert_eq!(answer.stream.next().await.unwrap().unwrap(), "de");
        assert!(answer.stream.next().await.is_none());
        assert!(used(&gate).await == 5);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_ends_after_one_error_that_says_nothing_of_the_handlers() {
        let broken: &[_] = &[Ok("half"), Err("secret"), Err("again")];
        let mut function = Streamed { app: app(None, broken) };
        let mut answer = function.call(event(|_| {})).await.unwrap();
        assert_eq!(answer.stream.next().await.unwrap().unwrap(), "half");
        let error = answer.stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the answer broke off");
        assert!(answer.stream.next().await.is_none());

        let (gate, _clock) = testing::gate(PLANS);
        let layer = GateLayer::new(&gate);
        let long: &[_] = &[Ok("12345"), Ok("67890"), Ok("12345"), Ok("67890")];
        let mut function = Streamed { app: layer.layer(app(None, long)) };
        let mut answer = function.call(event(|_| {})).await.unwrap();
        let mut sent = 0;
        while let Some(Ok(chunk)) = answer.stream.next().await {
            sent += chunk.len() as u64;
        }
        assert!(answer.stream.next().await.is_none());
        assert!(used(&gate).await == sent && sent <= 10, "{sent} of 10");
        drop(answer);
        let refused = function.call(event(|_| {})).await.unwrap();
        assert_eq!(refused.metadata_prelude.status_code, StatusCode::TOO_MANY_REQUESTS);
    }

    #[tokio::test]
    async fn head_reads_no_body_and_what_forms_no_request_is_a_400() {
        let head = |event: &mut Value| event["requestContext"]["http"]["method"] = json!("HEAD");
        let mut function = Streamed { app: app(Some(3), &[Ok("abc")]) };
        let mut answer = function.call(event(head)).await.unwrap();
        assert_eq!(answer.metadata_prelude.status_code, StatusCode::OK);
        assert!(answer.stream.next().await.is_none());
        let host = |event: &mut Value| event["headers"]["host"] = json!("a b");
        let answer = function.call(event(host)).await.unwrap();
        assert_eq!(answer.metadata_prelude.status_code, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_handler_sees_its_caller_its_context_and_its_trace() {
        let handler = service_fn(async |request: Request<Body>| {
            let peer = request.extensions().get::<tallygate::middleware::Peer>().unwrap();
            let trace = request.headers()[TRACE].to_str().unwrap();
            let seen = format!("{} {} {trace}", peer.0.ip(), request.lambda_context().request_id);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(seen))))
        });
        let mut event = event(|_| {});
        event.context.request_id = "r-1".into();
        event.context.xray_trace_id = Some("Root=1".into());
        let mut answer = Streamed { app: handler }.call(event).await.unwrap();
        assert_eq!(answer.stream.next().await.unwrap().unwrap(), "203.0.113.9 r-1 Root=1");
    }
}
