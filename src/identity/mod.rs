//! Who is calling. Identification is synchronous: from a borrowed view of the request to what it
//! presents, without a look at plans, counters or the store.
//!
//! `Identifier::present` reads the request, `Identifier::probe` names what it found for the
//! caches in memory, and only what no cache knows is hashed (`Identifier::hashes`) or verified,
//! and then looked up in the [directory](crate::directory). A host with its own idea of a caller
//! writes an [`Identify`] instead.
//!
//! The tenant is never read from a body or a query.

use std::borrow::Cow;
use std::net::IpAddr;

mod api_key;
mod caller;
mod claims;
mod credential;
mod decided;
mod digest;
#[cfg(feature = "jwt")]
pub(crate) mod jwt;
mod named_header;
mod present;
mod probe;
mod proxies;
mod scopes;
mod source;
mod unknown;

pub use crate::catalog::Reads;
pub use api_key::ApiKey;
pub use caller::{Caller, Identify, Identity};
pub use claims::Claims;
pub(crate) use credential::{CredentialHash, Pepper, Peppers, hex};
pub use decided::Decided;
pub use digest::BodyDigest;
pub use named_header::NamedHeader;
pub use present::Malformed;
pub(crate) use present::{Identifier, Presented, named_caller};
pub(crate) use probe::{CredentialHasher, CredentialKey};
pub(crate) use proxies::Proxies;
pub(crate) use scopes::{ScopeHash, Scopes, line};
pub(crate) use source::CredentialSource;
pub(crate) use unknown::UnknownCache;

/// The anonymous tenant. Callers cannot name it; a directory may hold limits for it as for any
/// other.
pub(crate) const ANONYMOUS: &str = "~anonymous";

/// Whether `id` is kept for the gate's own tenants, such as `~anonymous`.
pub(crate) fn is_own_id(id: &str) -> bool {
    id.starts_with('~')
}

/// Most characters of a tenant's outer id.
pub(crate) const MAX_TENANT_ID: usize = 256;

/// Whether `id` can be the outer id of a tenant of yours: 1 to [`MAX_TENANT_ID`] characters of any
/// script, no control characters, no tilde at the beginning. Ids that begin with one are the gate's
/// own: what a caller, a claim or an event names may not be taken for them.
pub(crate) fn is_tenant_id(id: &str) -> bool {
    if is_own_id(id) {
        return false;
    }
    // Nearly every id is short and of printable ASCII, which needs no decoding.
    if id.len() <= MAX_TENANT_ID && id.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return !id.is_empty();
    }
    let mut n = 0;
    id.chars().all(|c| {
        n += 1;
        n <= MAX_TENANT_ID && !c.is_control()
    }) && n > 0
}

/// The little that identification and routing see of a request, whatever framework it came through.
pub trait RequestView {
    /// The method, upper case.
    fn method(&self) -> &str;
    /// The path as it came, still percent-encoded, without the query.
    fn path(&self) -> &str;
    /// The query as it came, without the `?`. It tells requests with one idempotency key apart, and
    /// nothing else.
    fn query(&self) -> Option<&str> {
        None
    }
    /// How the host's router reads paths.
    fn reads(&self) -> Reads {
        Reads::AsItCame
    }
    /// The pattern that the host's router has matched, as it is written there (`/v1/{id}`), for the
    /// whole of [`path`](Self::path). It is asked for only where the path alone does not say on
    /// which route a request is. `None`: there is no router, or it does not say.
    fn matched_pattern(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The first value of a header, by its lower-case name.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// Every value of a header, in order, by its lower-case name.
    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]>;
    /// Whether a header came more than once. Adapters answer it without the list, because every
    /// request with a credential is asked.
    fn is_repeated(&self, name: &str) -> bool {
        self.headers(name).len() > 1
    }
    /// The only value of a header; [`Malformed::Repeated`] if it came more than once. Adapters that
    /// can find all values in one look-up answer it from that.
    fn single(&self, name: &NamedHeader) -> Result<Option<&[u8]>, Malformed> {
        match self.header(name.as_str()) {
            Some(_) if self.is_repeated(name.as_str()) => Err(Malformed::Repeated),
            value => Ok(value),
        }
    }
    /// A claim that the host or gateway in front has verified already.
    fn claim(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// How long the request's body is; `None` where it does not say. Frameworks that know better
    /// than `Content-Length` answer better: without any length header, an HTTP/1.1 request has no
    /// body (RFC 9112, section 6.3).
    fn body_length(&self) -> Option<u64> {
        // Chunks end where they end, whatever is stated beside (RFC 9112, section 6.3).
        if self.header("transfer-encoding").is_some() {
            return None;
        }
        stated_length(self.headers("content-length"))
    }
    /// Whether the adapter counts what is read of the body, with the counter that the admission
    /// brings ([`Running::reads`](crate::Running::reads)). Otherwise the length is charged, which
    /// then has to be that of a body in hand.
    fn counts_reads(&self) -> bool {
        false
    }
    /// A digest of the request's body, where the host has read all of it before the gate is asked:
    /// a request with the same idempotency key and another body is then refused.
    fn body_digest(&self) -> Option<BodyDigest> {
        None
    }
    /// What the gate has said of this request already, when it was asked before the body was read
    /// ([`Gate::ask_ahead`](crate::Gate::ask_ahead)).
    fn decided(&self) -> Option<Decided> {
        None
    }
    /// The address of the connection's other end.
    fn peer(&self) -> Option<IpAddr>;
}

/// The length that a message states in its `Content-Length`: one value, of digits alone.
pub fn stated_length<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
    let mut values = values.into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    // `parse` takes a sign too.
    let digits = value.iter().all(u8::is_ascii_digit).then_some(value)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
