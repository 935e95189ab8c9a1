//! Identification of callers: which tenant a request belongs to, and which of its keys and users
//! made it.
//!
//! Most hosts only write `[[identify]]` tables in the service file (`docs/identity.md`). A host
//! with its own notion of a caller implements [`Identify`] and passes it to
//! [`GateBuilder::identify`](crate::GateBuilder::identify). A layer in front that knows the caller
//! leaves a [`Caller`] in the request's extensions, or the adapter's layer makes it of what is
//! there
//! (`GateLayer::caller`); one that knows its verified claims leaves [`Claims`]. An adapter
//! implements [`RequestView`].
//!
//! Identification is synchronous: it turns a borrowed view of the request into what the request
//! presents, without access to plans, counters or the store.
//!
//! `Identifier::present` reads the request, `Identifier::probe` derives the in-memory cache key of
//! the credential, and only on a cache miss is it hashed (`Identifier::hashes`) or verified, and
//! then looked up in the [directory](crate::directory).
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
mod permissions;
mod present;
mod probe;
mod proxies;
mod scopes;
mod source;
mod unknown;

pub use crate::catalog::Reads;
pub use api_key::ApiKey;
pub(crate) use api_key::KeyForm;
pub use caller::{Caller, Identify, Identity};
pub use claims::Claims;
pub(crate) use credential::{CredentialHash, Pepper, Peppers, hex};
#[doc(hidden)]
pub use decided::Decided;
pub use digest::BodyDigest;
#[doc(hidden)]
pub use named_header::NamedHeader;
pub(crate) use permissions::{MAX_PERMISSIONS, Permissions};
pub use present::Malformed;
pub(crate) use present::{Identifier, Presented, named_caller};
pub(crate) use probe::{CredentialHasher, CredentialKey};
pub(crate) use proxies::Proxies;
pub(crate) use scopes::{ScopeHash, Scopes, line};
pub(crate) use source::{ClaimNames, CredentialSource};
pub(crate) use unknown::UnknownCache;

/// The anonymous tenant. Callers cannot name it; a directory may set limits for it as for any other
/// tenant.
pub(crate) const ANONYMOUS: &str = "~anonymous";

/// Whether `id` is reserved for the gate's own tenants, such as `~anonymous`.
pub(crate) fn is_own_id(id: &str) -> bool {
    id.starts_with('~')
}

/// Most characters of a tenant's outer id.
pub(crate) const MAX_TENANT_ID: usize = 256;

/// Whether `id` is valid as the outer id of a host's tenant: 1 to [`MAX_TENANT_ID`] characters of
/// any script, no control characters, no leading tilde. Ids with one are the gate's own: no name
/// from a caller, a claim or an event may collide with them.
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

/// The view of a request for identification and routing, independent of its framework.
pub trait RequestView {
    /// The method, upper case.
    fn method(&self) -> &str;
    /// The raw path, still percent-encoded, without the query.
    fn path(&self) -> &str;
    /// The raw query, without the `?`. It only distinguishes requests with the same idempotency
    /// key.
    fn query(&self) -> Option<&str> {
        None
    }
    /// The path decoding of the host's router.
    fn reads(&self) -> Reads {
        Reads::AsItCame
    }
    /// The pattern matched by the host's router, as written there (`/v1/{id}`), for the whole of
    /// [`path`](Self::path). Used only where the path alone does not determine the request's route.
    /// `None`: there is no router, or it does not report one.
    fn matched_pattern(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The name of the request's route in the plan file, where the host has said it at its router:
    /// then no pattern decides. A name that the plan file does not have is logged as an error, and
    /// patterns decide.
    fn route(&self) -> Option<&str> {
        None
    }
    /// Whether the host serves a path by whatever method a request has, as gRPC servers do: then
    /// the routes of `POST` hold for it as well.
    #[doc(hidden)]
    fn is_of_any_method(&self) -> bool {
        false
    }
    /// The first value of a header, by its lower-case name.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// Every value of a header, in order, by its lower-case name.
    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]>;
    /// Calls `f` with every header, in order, by its lower-case name: what a refused request was,
    /// for
    /// the host's own form of refusals.
    fn each_header(&self, _f: &mut dyn FnMut(&str, &[u8])) {}
    /// Whether a header came more than once. Adapters answer it without building the list, because
    /// it is called for every request with a credential.
    fn is_repeated(&self, name: &str) -> bool {
        self.headers(name).len() > 1
    }
    /// The only value of a header; [`Malformed::Repeated`] if it came more than once. Adapters that
    /// can find all values in one look-up override this.
    fn single(&self, name: &NamedHeader) -> Result<Option<&[u8]>, Malformed> {
        match self.header(name.as_str()) {
            Some(_) if self.is_repeated(name.as_str()) => Err(Malformed::Repeated),
            value => Ok(value),
        }
    }
    /// A claim already verified by the host or a gateway in front.
    fn claim(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// The caller as the host's own authentication has named it; it is asked for before everything
    /// else. An adapter finds it where its framework keeps request data.
    fn caller(&self) -> Option<Caller> {
        None
    }
    /// Length of the request's body; `None` if unknown. Frameworks that know better than
    /// `Content-Length` override this: without any length header, an HTTP/1.1 request has no body
    /// (RFC 9112, section 6.3).
    fn body_length(&self) -> Option<u64> {
        // A chunked body ends where its chunks end, whatever length is stated (RFC 9112, section
        // 6.3).
        if self.header("transfer-encoding").is_some() {
            return None;
        }
        stated_length(self.headers("content-length"))
    }
    /// Whether a body without an end may follow: the framework hands the rest of the connection to
    /// the handler of a request that asks for another protocol. Its bytes are counted as they are
    /// read, until the response upgrades the connection.
    #[doc(hidden)]
    fn is_open_ended(&self) -> bool {
        false
    }
    /// Whether the adapter counts the bytes read from the body, with the admission's counter
    /// ([`Running::reads`](crate::adapter::Running::reads)). Otherwise the length is charged, which
    /// must then be that of a buffered body.
    fn counts_reads(&self) -> bool {
        false
    }
    /// A digest of the request's body, if the host reads all of it before asking the gate: a
    /// request with the same idempotency key and another body is then refused.
    fn body_digest(&self) -> Option<BodyDigest> {
        None
    }
    /// The gate's answer to this request, if it was asked before the body was read
    /// ([`Gate::ask_ahead`](crate::Gate::ask_ahead)).
    fn decided(&self) -> Option<Decided> {
        None
    }
    /// The address of the connection's peer.
    fn peer(&self) -> Option<IpAddr>;
}

/// The length stated in a message's `Content-Length`: a single value, digits only.
#[doc(hidden)]
pub fn stated_length<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
    let mut values = values.into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    // `parse` would accept a sign too.
    let digits = value.iter().all(u8::is_ascii_digit).then_some(value)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
