//! Writes decisions into `http` types. The content comes from `wire`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;

use super::body::GateBody;
use super::shared::LayerShared;
use crate::decision::Refusal;
use crate::gate::Gate;
use crate::serving::{Serving, stated_length};
use crate::wire::{self, LimitHeader, Reply};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Not a constant, which would be made and dropped for each request.
static ORIGIN: HeaderName = header::ORIGIN;

/// A refusal returned by a handler, in the extensions of its response: the layer rewrites the
/// response as it would its own refusal. For adapters.
#[derive(Clone, Debug)]
pub struct Refused(pub Refusal);

/// Facts about a request that its response depends on.
#[derive(Clone, Copy)]
pub(super) struct RequestFacts {
    pub(super) is_head: bool,
    pub(super) is_connect: bool,
    pub(super) is_grpc: bool,
    /// Has an `Origin` header: the caller may be a page of another origin.
    pub(super) has_origin: bool,
}

impl RequestFacts {
    #[inline]
    pub(super) fn by<B>(request: &Request<B>) -> Self {
        Self {
            is_head: request.method() == Method::HEAD,
            is_connect: request.method() == Method::CONNECT,
            is_grpc: is_grpc(request),
            has_origin: request.headers().contains_key(&ORIGIN),
        }
    }
}

/// A refusal as a response in the request's protocol.
pub(super) fn refusal<R>(
    shared: &LayerShared,
    refusal: &Refusal,
    asked: RequestFacts,
) -> Response<GateBody<R>> {
    let mut reply = match asked.is_grpc {
        true => shared.gate.grpc_refusal_reply(refusal),
        false => shared.gate.refusal_reply(refusal),
    };
    if asked.has_origin {
        shared.gate.expose_refusal(&mut reply);
    }
    let mut response = response_of(reply);
    response.extensions_mut().insert(refusal.clone());
    response
}

/// Whether a request is a gRPC call. gRPC is always POST, so other methods cost no look-up.
fn is_grpc<B>(request: &Request<B>) -> bool {
    request.method() == Method::POST && has_grpc_type(request.headers())
}

fn has_grpc_type(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| wire::is_grpc(value.as_bytes()))
}

/// Where a response states how its request ended.
pub(super) enum StatusIn {
    Head(StatusCode),
    /// A gRPC call, whose body is followed by its status.
    Trailers,
}

/// Where this response to such a request states its status. A gRPC call travels as HTTP 200,
/// however it ends: its status is among the headers if it has no messages, and in the trailers
/// otherwise.
#[inline]
pub(super) fn status_in<R: Body>(asked: RequestFacts, response: &Response<R>) -> StatusIn {
    let status = response.status();
    if !asked.is_grpc || status != StatusCode::OK || !has_grpc_type(response.headers()) {
        return StatusIn::Head(status);
    }
    match response.headers().contains_key(GRPC_STATUS) || response.body().is_end_stream() {
        true => StatusIn::Head(grpc_status(response.headers())),
        false => StatusIn::Trailers,
    }
}

/// The status of a gRPC call, as headers or trailers state it.
pub(super) fn grpc_status(of: &HeaderMap) -> StatusCode {
    let stated = of.get(GRPC_STATUS).map_or(&[][..], |value| value.as_bytes());
    StatusCode::from_u16(wire::grpc_as_http(stated)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Length that a response states in its header but not through its body: hyper sends that many
/// bytes and then drops the body.
pub(super) fn length<R>(response: &Response<R>) -> Option<u64> {
    stated_length(response.headers().get_all(header::CONTENT_LENGTH).iter().map(|v| v.as_bytes()))
}

/// A reply as a response.
pub(super) fn response_of<R>(reply: Reply) -> Response<GateBody<R>> {
    let mut response = Response::new(GateBody::full(reply.body.into()));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    response
}

/// The limits of an admitted request, as headers of its response.
pub(super) fn limits(
    gate: &Gate,
    serving: &mut Serving,
    asked: RequestFacts,
    headers: &mut HeaderMap,
) {
    if asked.has_origin {
        expose(gate, headers);
    }
    serving.limit_headers(gate, |header| {
        // Inserted as soon as it is built: names and values are large, and reading them back right
        // after the write stalls the processor.
        match header {
            LimitHeader::RateLimit(line) => {
                if let Ok(value) = HeaderValue::from_bytes(line) {
                    headers.insert(RATE_LIMIT, value);
                }
            }
            LimitHeader::Policy(policy) => {
                if let Some(value) = policy.value() {
                    headers.insert(RATE_LIMIT_POLICY, value.clone());
                }
            }
            LimitHeader::Other(name, value) => {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
    });
}

/// Names the headers that a cross-origin page's script may read.
#[cold]
fn expose(gate: &Gate, headers: &mut HeaderMap) {
    let told = headers.get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS).iter();
    let told: Vec<_> = told.map(|line| line.as_bytes()).collect();
    let names = match gate.expose_headers(&told) {
        Some(Cow::Borrowed(names)) => HeaderValue::from_static(names),
        Some(Cow::Owned(names)) => match HeaderValue::try_from(names) {
            Ok(names) => names,
            Err(_) => return,
        },
        None => return,
    };
    headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, names);
}
