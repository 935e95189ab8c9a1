//! Writes decisions into actix-web's types. The content comes from `tallygate::wire`.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, HeaderMap, HeaderName, HeaderValue};
use tallygate::adapter::Serving;
use tallygate::wire::{LimitHeader, PolicyText, Reply};
use tallygate::{Gate, Refusal};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A reply as a response.
pub(crate) fn response(reply: Reply) -> HttpResponse {
    with_body(reply, BoxBody::new)
}

/// The same, with a caller-supplied body type.
pub(crate) fn with_body<B>(reply: Reply, body: impl FnOnce(Vec<u8>) -> B) -> HttpResponse<B> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::with_body(status, body(reply.body));
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A refusal. For a cross-origin caller it names the headers that the page's script may read.
pub(crate) fn refusal(gate: &Gate, refusal: &Refusal, has_origin: bool) -> Reply {
    let mut reply = gate.refusal_reply(refusal);
    if has_origin {
        gate.expose_refusal(&mut reply);
    }
    reply
}

/// The limits of an admitted request, as headers of its response.
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
}

/// Names the headers that a cross-origin page's script may read.
pub(crate) fn expose(gate: &Gate, headers: &mut HeaderMap) {
    let told = headers.get_all(ACCESS_CONTROL_EXPOSE_HEADERS);
    let told: Vec<_> = told.map(|line| line.as_bytes()).collect();
    let names = gate.expose_headers(&told).map(|names| HeaderValue::from_str(&names));
    if let Some(Ok(names)) = names {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

/// A policy header, validated once per route.
fn policy(text: &PolicyText) -> Option<HeaderValue> {
    let checked = |given: &str| HeaderValue::from_str(given).ok();
    text.own(checked).cloned().unwrap_or_else(|| checked(text.as_str()))
}
