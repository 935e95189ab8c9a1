//! The tower layer around a plain service, called without a server.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use equality::answer::Answer;
use equality::api::{self, Api, Failed, Said};
use equality::front::Front;
use equality::trace::{self, Request};
use http::Response;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tallygate::middleware::{CountReads, GateBody, GateLayer, ReadBody, Refused};
use tallygate::{Admitted, Gate};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tower::{Layer, ServiceExt, service_fn};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// See the [module](self).
pub(crate) struct Plain {
    layer: GateLayer,
    api: Api,
    handle: Handle,
}

impl Plain {
    pub(crate) fn new(gate: &Gate, runtime: &Runtime) -> Self {
        let layer = GateLayer::new(gate).counting_reads();
        let api = Api::new(gate);
        Self { layer, api, handle: runtime.handle().clone() }
    }

    /// Serves a request on a task of its own, as a server does, and reads so many bytes of the
    /// answer. The body goes to who asked, unless it came to its end or the task panicked.
    fn serve(&self, request: &Request, bytes: usize) -> (Answer, Option<GateBody<Body>>) {
        let api = self.api.clone();
        let service = service_fn(move |request| handle(api.clone(), request));
        let service = self.layer.layer(CountReads(service));
        let request = http_request(request);
        let answer = Arc::new(Mutex::new(Answer::default()));
        let (seen, (keep, kept)) = (answer.clone(), oneshot::channel());
        let task = self.handle.spawn(async move {
            let is_head = request.method() == http::Method::HEAD;
            let response = service.oneshot(request).await.unwrap();
            let (parts, mut body) = response.into_parts();
            let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                (name.to_string(), value.to_str().unwrap().to_owned())
            };
            let head = Answer::head(parts.status.as_u16(), parts.headers.iter().map(text));
            *seen.lock().unwrap() = head;
            while seen.lock().unwrap().body.len() < bytes && !is_head {
                let frame = body.frame().await;
                let mut seen = seen.lock().unwrap();
                match frame {
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap();
                        seen.body.push_str(std::str::from_utf8(&data).unwrap());
                    }
                    end => {
                        seen.is_whole = end.is_none();
                        return;
                    }
                }
            }
            seen.lock().unwrap().is_whole = is_head;
            // What has been read to its end is not kept.
            let _ = keep.send(body);
        });
        let kept = self.handle.block_on(async {
            // A panic ends the task, as it ends a connection; what was sent before it counts.
            let _ = task.await;
            kept.await.ok()
        });
        let answer = answer.lock().unwrap().clone();
        (answer, kept)
    }
}

impl Front for Plain {
    type Open = Option<GateBody<Body>>;

    fn send(&mut self, request: &Request) -> Answer {
        self.serve(request, usize::MAX).0
    }

    fn open(&mut self, request: &Request, bytes: usize) -> (Answer, Self::Open) {
        self.serve(request, bytes)
    }
}

async fn handle(
    api: Api,
    request: http::Request<ReadBody<Body>>,
) -> Result<Response<Body>, Infallible> {
    let usage = request.extensions().get::<Admitted>().map(Admitted::usage);
    let target = request.uri().to_string();
    let received = request.into_body().collect().await?.to_bytes().len();
    let said = api.respond(&target, received, usage).await;
    let (status, body) = match said {
        Ok(Said::Text(status, text)) | Err(Failed::Error(status, text)) => {
            (status, Full::new(text.into()).boxed_unsync())
        }
        Ok(Said::Stream(chunks)) => {
            let frames = tokio_stream::StreamExt::map(chunks, |chunk| chunk.map(http_body_frame));
            (200, StreamBody::new(frames).boxed_unsync())
        }
        Err(Failed::Refused(refusal)) => {
            let mut response = Response::new(Full::default().boxed_unsync());
            response.extensions_mut().insert(Refused(*refusal));
            return Ok(response);
        }
    };
    let response = Response::builder().status(status);
    // What has no body has no type.
    let response = match status {
        204 => response,
        _ => response.header("content-type", api::TEXT),
    };
    Ok(response.body(body).unwrap())
}

fn http_body_frame(bytes: Bytes) -> http_body::Frame<Bytes> {
    http_body::Frame::data(bytes)
}

fn http_request(request: &Request) -> http::Request<Body> {
    let body = match request.body {
        trace::Body::None => Full::default().boxed_unsync(),
        trace::Body::Sized(n) => Full::new(Bytes::from(vec![b'y'; n])).boxed_unsync(),
        trace::Body::Chunked(n) => {
            let frame = Ok(http_body_frame(Bytes::from(vec![b'y'; n])));
            StreamBody::new(tokio_stream::once(frame)).boxed_unsync()
        }
    };
    let mut built = http::Request::builder().method(request.method).uri(&request.target);
    if let Some(tenant) = request.tenant {
        built = built.header("x-tenant", tenant);
    }
    if let Some(permission) = request.permission() {
        built = built.header("x-permission", permission);
    }
    if let Some(origin) = request.origin() {
        built = built.header("origin", origin);
    }
    if let trace::Body::Sized(n) = request.body {
        built = built.header("content-length", n);
    }
    built.body(body).unwrap()
}
