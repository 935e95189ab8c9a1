//! A decision written into actix-web's types. What is written is `tollgate::wire`'s business.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderMap, HeaderName, HeaderValue,
};
use tollgate::Gate;
use tollgate::serving::Serving;
use tollgate::wire::{LimitHeader, PolicyText, Reply};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A reply as a response.
pub(crate) fn response(reply: Reply) -> HttpResponse {
    with_body(reply, BoxBody::new)
}

/// The same with a body of the caller's type.
pub(crate) fn with_body<B>(reply: Reply, body: impl FnOnce(Vec<u8>) -> B) -> HttpResponse<B> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::with_body(status, body(reply.body));
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// The limits of an admitted request, as headers of its response; a response to a page of another
/// origin names the headers that its script may read.
pub(crate) fn limits(gate: &Gate, serving: &mut Serving, headers: &mut HeaderMap) {
    serving.limit_headers(gate, |header| {
        let (name, value) = match header {
            LimitHeader::RateLimit(line) => (RATE_LIMIT, HeaderValue::from_bytes(line).ok()),
            LimitHeader::Policy(text) => (RATE_LIMIT_POLICY, policy(text)),
            LimitHeader::Other(name, value) => {
                (HeaderName::from_static(name), HeaderValue::try_from(value).ok())
            }
        };
        if let Some(value) = value {
            headers.insert(name, value);
        }
    });
    if !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let known = headers.get(ACCESS_CONTROL_EXPOSE_HEADERS).and_then(|value| value.to_str().ok());
    if let Some(Ok(value)) = gate.expose_headers(known).map(HeaderValue::try_from) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}

/// A policy, which is checked once for all requests of a route.
fn policy(text: &PolicyText) -> Option<HeaderValue> {
    let checked = |text: &str| HeaderValue::from_str(text).ok();
    text.own(checked).cloned().unwrap_or_else(|| checked(text.as_str()))
}
