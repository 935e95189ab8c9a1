//! View of an actix-web request for identification and routing.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use actix_web::dev::{Payload, RequestHead, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, Version, header};
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpRequest};
use futures_core::Stream;
use tallygate::adapter::{BytesRead, Decided, stated_length};
use tallygate::identity::{BodyDigest, Caller, Claims, Malformed, NamedHeader, Reads, RequestView};

/// A borrowed view of a request.
pub(crate) struct View<'a> {
    http: &'a HttpRequest,
    /// Set while the request is being routed: its matched pattern can be looked up.
    routed: Option<&'a ServiceRequest>,
    head: &'a RequestHead,
    peer: Option<IpAddr>,
    length: Option<u64>,
    /// See [`is_open_ended`].
    open_ended: bool,
    claims: Option<Claims>,
}

impl<'a> View<'a> {
    /// A request that has not reached its handler.
    pub(crate) fn of(request: &'a ServiceRequest) -> Self {
        let (http, payload) = request.parts();
        let length = length(http.head(), payload);
        let open_ended = is_open_ended(http.head(), payload);
        Self { length, open_ended, routed: Some(request), ..Self::of_handled(http) }
    }

    /// A request whose body is not counted.
    pub(crate) fn of_handled(request: &'a HttpRequest) -> Self {
        let peer = request.peer_addr().map(|address| address.ip());
        // A shared pointer, so nothing of the request stays borrowed.
        let claims = request.extensions().get::<Claims>().cloned();
        let head = request.head();
        Self { http: request, routed: None, head, peer, length: None, open_ended: false, claims }
    }
}

/// Over HTTP/2 no header says whether a body follows: the stream does, by ending with the head or
/// not. If it has not ended, the length is unknown and the handler gets the body.
pub(crate) fn settle_length(request: &mut ServiceRequest) {
    let head = request.head();
    let is_silent =
        head.version == Version::HTTP_2 && !head.headers.contains_key(header::CONTENT_LENGTH);
    if !is_silent {
        return;
    }
    let mut payload = request.take_payload();
    // The eventual reader registers its own waker.
    let polled = Pin::new(&mut payload).poll_next(&mut Context::from_waker(Waker::noop()));
    request.set_payload(match polled {
        Poll::Ready(None) => Payload::None,
        Poll::Pending => payload,
        Poll::Ready(Some(first)) => {
            Payload::Stream { payload: Box::pin(Begun { first: Some(first), rest: payload }) }
        }
    });
}

/// A body whose first chunk has been peeked at.
struct Begun {
    first: Option<Result<Bytes, PayloadError>>,
    rest: Payload,
}

impl Stream for Begun {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.first.take() {
            None => Pin::new(&mut self.rest).poll_next(cx),
            first => Poll::Ready(first),
        }
    }
}

/// Counts the bytes of a request's body as they are read.
pub(crate) fn count_reads(request: &mut ServiceRequest, read: BytesRead) {
    let payload: Payload = match request.take_payload() {
        Payload::None => Payload::None,
        payload => Payload::Stream { payload: Box::pin(Counted { payload, read }) },
    };
    request.set_payload(payload);
}

struct Counted {
    payload: Payload,
    read: BytesRead,
}

impl Stream for Counted {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(Pin::new(&mut self.payload).poll_next(cx));
        if let Some(Ok(bytes)) = &chunk {
            self.read.add(bytes.len());
        }
        Poll::Ready(chunk)
    }
}

/// The exact length of a body, if known. HTTP/1 announces every body (RFC 9112, section 6.3).
fn length(head: &RequestHead, payload: &Payload) -> Option<u64> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    match head.headers.get(header::CONTENT_LENGTH) {
        Some(_) => {
            let stated = head.headers.get_all(header::CONTENT_LENGTH);
            stated_length(stated.map(HeaderValue::as_bytes))
        }
        None => {
            let is_none = head.version < Version::HTTP_2 || matches!(payload, Payload::None);
            is_none.then_some(0)
        }
    }
}

/// Whether actix-http makes the rest of the connection the body of a request, whatever the handler
/// answers: of one for a WebSocket, and of a `CONNECT` without a length, where no chunks end it.
fn is_open_ended(head: &RequestHead, payload: &Payload) -> bool {
    if head.version >= Version::HTTP_2
        || matches!(payload, Payload::None)
        || head.headers.contains_key(header::TRANSFER_ENCODING)
    {
        return false;
    }
    let upgrade = head.headers.get(header::UPGRADE);
    upgrade.is_some_and(|to| to.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
        || head.method == Method::CONNECT && length(head, payload) == Some(0)
}

impl RequestView for View<'_> {
    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    fn path(&self) -> &str {
        self.head.uri.path()
    }

    fn query(&self) -> Option<&str> {
        self.http.uri().query()
    }

    fn is_open_ended(&self) -> bool {
        self.open_ended
    }

    fn counts_reads(&self) -> bool {
        true
    }

    fn body_digest(&self) -> Option<BodyDigest> {
        self.http.extensions().get().copied()
    }

    fn decided(&self) -> Option<Decided> {
        self.http.extensions().get().cloned()
    }

    fn reads(&self) -> Reads {
        Reads::Decoded
    }

    /// The first resource with that path, whatever its guards: the app has not routed the request
    /// yet, and will do so by its own decoded path. (`HttpRequest::match_pattern` uses the other.)
    fn matched_pattern(&self) -> Option<Cow<'_, str>> {
        let request = self.routed?;
        let path = request.match_info().as_str();
        request.resource_map().match_pattern(path).map(Cow::Owned)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.head.headers.get(name).map(|value| value.as_bytes())
    }

    fn headers<'b>(&'b self, name: &str) -> Vec<&'b [u8]> {
        self.head.headers.get_all(name).map(|value| value.as_bytes()).collect()
    }

    fn each_header(&self, f: &mut dyn FnMut(&str, &[u8])) {
        self.head.headers.iter().for_each(|(name, value)| f(name.as_str(), value.as_bytes()));
    }

    fn is_repeated(&self, name: &str) -> bool {
        self.head.headers.get_all(name).nth(1).is_some()
    }

    fn single(&self, name: &NamedHeader) -> Result<Option<&[u8]>, Malformed> {
        // A textual name is parsed again by every look-up.
        let mut values = match name.own(|name| HeaderName::try_from(name).ok()) {
            Some(Some(name)) => self.head.headers.get_all(name),
            // Not a legal header name.
            Some(None) => return Ok(None),
            None => self.head.headers.get_all(name.as_str()),
        };
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Malformed::Repeated),
            (value, None) => Ok(value.map(HeaderValue::as_bytes)),
        }
    }

    fn body_length(&self) -> Option<u64> {
        self.length.or_else(|| Some(self.body_digest()?.length()))
    }

    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        self.claims.as_ref()?.get(name).map(Cow::Borrowed)
    }

    fn caller(&self) -> Option<Caller> {
        self.http.extensions().get().cloned()
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn length_of(request: TestRequest) -> Option<u64> {
        let mut request = request.to_srv_request();
        settle_length(&mut request);
        View::of(&request).body_length()
    }

    #[test]
    fn a_body_is_as_long_as_it_says_and_no_body_is_nothing() {
        assert_eq!(length_of(TestRequest::get()), Some(0));
        assert_eq!(length_of(TestRequest::post()), Some(0));
        let twelve = || TestRequest::post().set_payload("twelve bytes");
        assert_eq!(length_of(twelve()), Some(12));
        assert_eq!(length_of(twelve().insert_header(("transfer-encoding", "chunked"))), None);
        assert_eq!(length_of(twelve().insert_header(("content-length", "-1"))), None);
    }

    #[test]
    fn what_http2_announces_is_known() {
        let stated = TestRequest::get().version(Version::HTTP_2).set_payload("stated");
        assert_eq!(length_of(stated), Some(6));
    }
}
