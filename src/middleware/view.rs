//! View of a `http::Request` for identification and routing.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Uri};

use crate::identity::{BodyDigest, Caller, Claims, Malformed, NamedHeader, RequestView};
use crate::serving::{Decided, stated_length};

/// The address of the connection's peer, put into the request's extensions by the host or adapter.
/// Without it, limits by address hold for all callers of a tenant together (`identity.no-scope`)
/// and no proxy is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Marks requests that the host serves by any method, in their extensions. For adapters.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct AnyMethod;

/// View of a `http::Request` for identification and routing.
#[derive(Clone, Copy)]
pub struct HttpView<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    peer: PeerOf<'a>,
    length: Option<u64>,
    claims: Option<&'a Extensions>,
    matched: Option<FindPattern>,
    route: Option<&'a str>,
    reads: bool,
}

/// Looked up only on demand: an API key needs no peer.
#[derive(Clone, Copy)]
enum PeerOf<'a> {
    Known(Option<IpAddr>),
    In(&'a Extensions, FindPeer),
}

/// Finds the connection's peer in a request's extensions.
pub(super) type FindPeer = fn(&Extensions) -> Option<IpAddr>;

/// Finds the pattern matched by a router in a request's extensions.
pub(super) type FindPattern = for<'a> fn(&'a Extensions) -> Option<&'a str>;

impl<'a> HttpView<'a> {
    /// A view of a request whose peer the host already knows.
    pub fn new(
        method: &'a Method,
        uri: &'a Uri,
        headers: &'a HeaderMap,
        peer: Option<IpAddr>,
    ) -> Self {
        let peer = PeerOf::Known(peer);
        Self {
            method,
            uri,
            headers,
            peer,
            length: None,
            claims: None,
            matched: None,
            route: None,
            reads: false,
        }
    }

    /// A view of a request, with functions that find its peer and matched pattern.
    pub(super) fn of<B>(
        request: &'a Request<B>,
        uri: &'a Uri,
        find: FindPeer,
        matched: Option<FindPattern>,
    ) -> Self {
        let (method, headers) = (request.method(), request.headers());
        let peer = PeerOf::In(request.extensions(), find);
        let claims = Some(request.extensions());
        Self {
            method,
            uri,
            headers,
            peer,
            length: None,
            claims,
            matched,
            route: None,
            reads: false,
        }
    }

    /// Adds the [`Claims`] in the request's extensions, if any.
    #[must_use]
    pub fn claims_in(mut self, extensions: &'a Extensions) -> Self {
        self.claims = Some(extensions);
        self
    }

    /// Adds the exact length of the body, if the body itself knows it.
    #[must_use]
    pub fn body_of(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }

    /// Names the route in the plan file.
    pub(super) fn on_route(mut self, route: Option<&'a str>) -> Self {
        self.route = route;
        self
    }

    /// Sets whether body bytes are counted as they are read.
    pub(super) fn counting_reads(mut self, reads: bool) -> Self {
        self.reads = reads;
        self
    }

    /// A view of a request's parts, with their [`Claims`].
    pub fn of_parts(parts: &'a Parts, peer: Option<IpAddr>) -> Self {
        Self::new(&parts.method, &parts.uri, &parts.headers, peer).claims_in(&parts.extensions)
    }
}

impl RequestView for HttpView<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    fn matched_pattern(&self) -> Option<Cow<'_, str>> {
        self.matched?(self.claims?).map(Cow::Borrowed)
    }

    fn route(&self) -> Option<&str> {
        self.route
    }

    fn is_of_any_method(&self) -> bool {
        // A router that reports its matches knows methods.
        self.matched.is_none() && self.claims.is_some_and(|it| it.get::<AnyMethod>().is_some())
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(|value| value.as_bytes())
    }

    fn headers<'b>(&'b self, name: &str) -> Vec<&'b [u8]> {
        self.headers.get_all(name).iter().map(|value| value.as_bytes()).collect()
    }

    fn each_header(&self, f: &mut dyn FnMut(&str, &[u8])) {
        self.headers.iter().for_each(|(name, value)| f(name.as_str(), value.as_bytes()));
    }

    fn is_repeated(&self, name: &str) -> bool {
        self.headers.get_all(name).iter().nth(1).is_some()
    }

    fn body_length(&self) -> Option<u64> {
        self.length.or_else(|| {
            // Chunks determine the length, whatever header stands beside them (RFC 9112, section
            // 6.3).
            if self.headers.contains_key(TRANSFER_ENCODING) {
                return None;
            }
            stated_length(self.headers.get_all(CONTENT_LENGTH).iter().map(|v| v.as_bytes()))
        })
    }

    fn single(&self, name: &NamedHeader) -> Result<Option<&[u8]>, Malformed> {
        let Some(name) = name.parsed() else { return Ok(None) };
        if self.headers.len() == self.headers.keys_len() {
            // No header is repeated: one look-up is enough.
            return Ok(self.headers.get(name).map(|value| value.as_bytes()));
        }
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Malformed::Repeated),
            (value, None) => Ok(value.map(|value| value.as_bytes())),
        }
    }

    fn counts_reads(&self) -> bool {
        self.reads
    }

    fn body_digest(&self) -> Option<BodyDigest> {
        self.claims?.get().copied()
    }

    fn decided(&self) -> Option<Decided> {
        self.claims?.get().cloned()
    }

    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        self.claims?.get::<Claims>()?.get(name).map(Cow::Borrowed)
    }

    fn caller(&self) -> Option<Caller> {
        self.claims?.get().cloned()
    }

    fn peer(&self) -> Option<IpAddr> {
        match self.peer {
            PeerOf::Known(peer) => peer,
            PeerOf::In(extensions, find) => find(extensions),
        }
    }
}

impl std::fmt::Debug for HttpView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers may hold credentials.
        f.debug_struct("HttpView").field("method", self.method).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(headers: &[(&'static str, &str)]) -> Option<u64> {
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        HttpView::of_parts(&parts, None).body_length()
    }

    #[test]
    fn a_length_beside_chunks_is_not_believed() {
        assert_eq!(length(&[("content-length", "5")]), Some(5));
        assert_eq!(length(&[("content-length", "5"), ("transfer-encoding", "chunked")]), None);
        assert_eq!(length(&[("content-length", "5"), ("content-length", "6")]), None);
        assert_eq!(length(&[("content-length", "+5")]), None);
    }
}
