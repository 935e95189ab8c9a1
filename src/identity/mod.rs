//! Who is calling. Identification is synchronous: from a borrowed view of the request to what it
//! presents, without a look at plans or counters.
//!
//! The tenant is never read from a body or a query.

use std::borrow::Cow;
use std::net::IpAddr;

/// The little that identification and routing see of a request, whatever framework it came through.
pub trait RequestView {
    /// The method, upper case.
    fn method(&self) -> &str;
    /// The path as it came, still percent-encoded, without the query.
    fn path(&self) -> &str;
    /// The first value of a header, by its lower-case name.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// Every value of a header, in order, by its lower-case name.
    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]>;
    /// A claim that the host or gateway in front has verified already.
    fn claim(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// The address of the connection's other end.
    fn peer(&self) -> Option<IpAddr>;
}
