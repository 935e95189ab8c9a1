//! A decision written into actix-web's types. What is written is `tollgate::wire`'s business.

use std::cell::RefCell;

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderMap, HeaderName, HeaderValue,
};
use actix_web::web::Bytes;
use tollgate::Gate;
use tollgate::serving::Serving;
use tollgate::wire::Reply;

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

thread_local! {
    /// The policy that this worker wrote last: to check each byte of it again would cost more than
    /// the rest of the header.
    static POLICY: RefCell<Option<(Bytes, HeaderValue)>> = const { RefCell::new(None) };
}

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
    serving.limit_headers(gate, |name, value| {
        let (name, value) = match name {
            "ratelimit" => (RATE_LIMIT.clone(), checked(value)),
            "ratelimit-policy" => (RATE_LIMIT_POLICY.clone(), policy(value)),
            other => (HeaderName::from_static(other), checked(value)),
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

fn checked(value: Bytes) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(value).ok()
}

/// A policy, which the gate makes once for each route of a plan.
fn policy(value: Bytes) -> Option<HeaderValue> {
    POLICY.with_borrow_mut(|last| {
        // The same place in memory is the same policy, for `last` keeps it there.
        let is_same = |of: &Bytes| (of.as_ptr(), of.len()) == (value.as_ptr(), value.len());
        if let Some((_, header)) = last.as_ref().filter(|(of, _)| is_same(of)) {
            return Some(header.clone());
        }
        let header = checked(value.clone())?;
        *last = Some((value, header.clone()));
        Some(header)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_is_written_as_it_is_whichever_was_before() {
        let [day, month] = ["\"day\";q=1", "\"month\";q=1"].map(|it| Bytes::from(it.to_owned()));
        for of in [&day, &day, &month, &day, &day.slice(..5), &Bytes::from(month.to_vec())] {
            assert_eq!(policy(of.clone()).unwrap().as_bytes(), of);
        }
        assert_eq!(policy(Bytes::from_static(b"a\nb")), None);
        assert_eq!(policy(month.clone()).unwrap().as_bytes(), &month);
    }
}
