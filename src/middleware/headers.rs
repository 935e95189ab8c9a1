//! Decisions written into `http` types. What is written is `wire`'s business.

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::GateBody;
use super::held::Held;
use super::layer::Shared;
use crate::decision::Refusal;
use crate::gate::PolicyText;
use crate::wire::{self, Call, HeaderStyle, HeaderText, Reply};

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A refusal that a handler passes on, in the extensions of its response: the layer writes the
/// response anew, as it would its own. For adapters.
#[derive(Clone, Debug)]
pub struct Refused(pub Refusal);

/// A refusal as a response.
pub(super) fn refusal<R>(shared: &Shared, refusal: &Refusal) -> Response<GateBody<R>> {
    let mut response = response_of(shared.gate.refusal_reply(refusal));
    response.extensions_mut().insert(refusal.clone());
    response
}

/// A reply as a response.
pub(super) fn response_of<R>(reply: Reply) -> Response<GateBody<R>> {
    let mut response = Response::new(GateBody::full(reply.body.into()));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// The limits of an admitted request, as headers of its response.
pub(super) fn limits(shared: &Shared, held: &mut Held, parts: &mut Parts) {
    let inner = &shared.gate.inner;
    let style = inner.wire.style;
    if style == HeaderStyle::Off {
        return;
    }
    held.with(|hold| {
        let now = inner.clock.now();
        let rules = hold.of.rules();
        if rules.free {
            return;
        }
        if style == HeaderStyle::Draft11 {
            let mut line = HeaderText::new();
            let policy = match inner.write_limits(&hold.of, now, &mut line) {
                PolicyText::Kept(policy) => policy.map(HeaderValue::from_maybe_shared),
                PolicyText::Own(policy) => Some(HeaderValue::try_from(policy)),
            };
            if let Some(Ok(value)) =
                policy.filter(|value| value.as_ref().is_ok_and(|v| !v.is_empty()))
            {
                parts.headers.insert(&RATE_LIMIT_POLICY, value);
            }
            if !line.is_empty()
                && let Ok(value) = HeaderValue::from_bytes(&line)
            {
                parts.headers.insert(&RATE_LIMIT, value);
            }
        } else {
            let states = inner.limit_states(&hold.of, now);
            let mut pairs = Vec::new();
            wire::limit_headers(&states, style, Call::at(now.wall_ms), &mut pairs);
            for (name, value) in pairs {
                if let Ok(value) = HeaderValue::try_from(value) {
                    parts.headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
    });
    expose(&mut parts.headers, style);
}

/// A response to a page of another origin names the headers that its script may read.
fn expose(headers: &mut HeaderMap, style: HeaderStyle) {
    if !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let known = headers.get(header::ACCESS_CONTROL_EXPOSE_HEADERS).and_then(|v| v.to_str().ok());
    if let Some(Ok(value)) = wire::expose(known, style).map(HeaderValue::try_from) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}
