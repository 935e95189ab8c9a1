//! Reading credentials from requests: the sources of `[[identify]]`, in order.
//!
//! 1. The first source that finds something decides; later ones are not asked.
//! 2. Ambiguity is refused: a credential header that came twice, or two different API keys in two
//!    headers.
//! 3. A tenant id in a header counts only from a connection whose peer is a trusted proxy; from any
//!    other peer the header is ignored.
//! 4. Nothing here is looked up or verified: an API key may be unknown, a JWT false.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use super::api_key::KeyForm;
#[cfg(feature = "jwt")]
use super::jwt;
use super::{
    Caller, ClaimNames, CredentialHash, CredentialHasher, CredentialKey, CredentialSource,
    NamedHeader, Peppers, Proxies, RequestView, is_tenant_id,
};

/// Longest API key read: hashing a longer one would be wasted work.
pub(crate) const MAX_API_KEY: usize = 4 * 1024;
/// Longest JWT read: identity providers put groups into them.
#[cfg(feature = "jwt")]
pub(crate) const MAX_JWT: usize = 8 * 1024;
/// Most sources: each is tried on every request.
const MAX_SOURCES: usize = 16;

const AUTHORIZATION: &str = "authorization";

/// The credential of a request, borrowed from it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Presented<'a> {
    /// An API key.
    ApiKey {
        /// Index of the source.
        source: u16,
        /// The raw key.
        key: &'a [u8],
    },
    /// A JWT, not yet verified.
    #[cfg(feature = "jwt")]
    Jwt {
        /// Index of the first source that may verify it.
        source: u16,
        /// The raw token.
        token: &'a [u8],
    },
    /// A tenant named by a trusted party.
    Tenant {
        /// Index of the source.
        source: u16,
        /// The tenant's outer id, unchecked: see [`named_caller`].
        id: Cow<'a, [u8]>,
        /// The user within it.
        user: Option<Cow<'a, [u8]>>,
        /// The plan that it is on.
        plan: Option<Cow<'a, str>>,
        /// What its caller may do.
        permissions: Option<Cow<'a, str>>,
    },
    /// Nothing.
    Nothing,
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ApiKey { source, .. } => write!(f, "ApiKey({source}, ..)"),
            #[cfg(feature = "jwt")]
            Self::Jwt { source, .. } => write!(f, "Jwt({source}, ..)"),
            Self::Tenant { source, .. } => write!(f, "Tenant({source}, ..)"),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// Reasons why a request's credential cannot be read. The caller is refused, even where a
/// credential is optional. No message holds the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// An identifying header came more than once.
    #[error("a header that identifies the caller came more than once")]
    Repeated,
    /// Two headers hold different API keys.
    #[error("two headers hold different API keys")]
    Conflict,
    /// Longer than any key or token may be.
    #[error("the credential is too long")]
    TooLong,
    /// A key in our format whose checksum is wrong.
    #[error("the API key was cut or mistyped")]
    Checksum,
    /// A trusted header or claim with an invalid tenant id.
    #[error("the gateway's header is not a tenant id")]
    TenantId,
}

/// Reasons why an [`Identifier`] cannot be built.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IdentifierError {
    /// The configuration cannot work.
    #[error("identify: {0}")]
    Config(String),
    /// The system has no randomness.
    #[error("identify: no randomness from the system: {0}")]
    Random(String),
}

/// Reads callers from requests.
#[derive(Clone, Debug)]
pub(crate) struct Identifier {
    sources: Vec<CredentialSource>,
    peppers: Peppers,
    proxies: Proxies,
    prober: CredentialHasher,
    authorization: NamedHeader,
    has_jwt: bool,
    key_form: KeyForm,
}

impl Identifier {
    /// An identifier that tries these sources in order. Fails if one can never work: an API key
    /// without a pepper, a trusted header without a trusted proxy.
    pub(crate) fn new(
        sources: Vec<CredentialSource>,
        peppers: Peppers,
        proxies: Proxies,
    ) -> Result<Self, IdentifierError> {
        if sources.len() > MAX_SOURCES {
            let message = format!("{} sources, at most {MAX_SOURCES}", sources.len());
            return Err(IdentifierError::Config(message));
        }
        for source in &sources {
            source.check(&peppers, &proxies).map_err(IdentifierError::Config)?;
        }
        let prober = CredentialHasher::new().map_err(|e| IdentifierError::Random(e.to_string()))?;
        #[cfg(feature = "jwt")]
        let has_jwt = sources.iter().any(|source| matches!(source, CredentialSource::Jwt(_)));
        #[cfg(not(feature = "jwt"))]
        let has_jwt = false;
        let authorization = AUTHORIZATION.into();
        let key_form = KeyForm::default();
        Ok(Self { sources, peppers, proxies, prober, authorization, has_jwt, key_form })
    }

    /// The same for keys of this form.
    pub(crate) fn with_key_form(self, key_form: KeyForm) -> Self {
        Self { key_form, ..self }
    }

    pub(crate) fn key_form(&self) -> &KeyForm {
        &self.key_form
    }

    /// Whether there is any way in which a request can present a credential.
    pub(crate) fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// The headers that an API key may be in, as they are written; `None` where there are no keys.
    pub(crate) fn keys_go_in(&self) -> Option<String> {
        let written = |header: &NamedHeader| match header.as_str() {
            AUTHORIZATION => "`authorization: Bearer ..`".to_owned(),
            name => format!("`{name}: ..`"),
        };
        self.sources.iter().find_map(|source| match source {
            CredentialSource::ApiKey { headers } => {
                Some(headers.iter().map(written).collect::<Vec<_>>().join(" or "))
            }
            _ => None,
        })
    }

    /// The credential that the request presents.
    pub(crate) fn present<'a>(
        &'a self,
        view: &'a dyn RequestView,
    ) -> Result<Presented<'a>, Malformed> {
        let bearer = Bearer::default();
        for (n, source) in self.sources.iter().enumerate() {
            let presented = match source {
                CredentialSource::ApiKey { headers } => {
                    self.api_key(n as u16, headers, view, &bearer)?
                }
                #[cfg(feature = "jwt")]
                CredentialSource::Jwt(_) => self.jwt(n as u16, view, &bearer)?,
                CredentialSource::Header { tenant, user } => {
                    self.trusted_header(n as u16, tenant, user.as_ref(), view)?
                }
                CredentialSource::Network { networks, tenant } => match self.proxies.peer(view) {
                    Some(peer) if networks.trusts(peer) => {
                        let id = Cow::Borrowed(tenant.as_bytes());
                        Presented::tenant(n as u16, id, None)
                    }
                    _ => Presented::Nothing,
                },
                CredentialSource::Claim(names) => claimed(n as u16, names, view),
            };
            if !matches!(presented, Presented::Nothing) {
                return Ok(presented);
            }
        }
        Ok(Presented::Nothing)
    }

    /// The cache key of the credential in this process; `None` for nothing. It does not include the
    /// plan that is named beside the tenant.
    pub(crate) fn probe(&self, presented: &Presented<'_>) -> Option<CredentialKey> {
        match presented {
            Presented::ApiKey { source, key } => Some(self.prober.probe(*source, key)),
            #[cfg(feature = "jwt")]
            Presented::Jwt { source, token } => Some(self.prober.probe(*source, token)),
            Presented::Tenant { source, id, user, permissions, .. } => {
                let permissions = permissions.as_deref();
                Some(self.prober.probe_named(*source, id, user.as_deref(), permissions))
            }
            Presented::Nothing => None,
        }
    }

    /// All possible stored hashes of this API key, in lookup order. Costs a cryptographic hash for
    /// each pepper: ask the caches first.
    pub(crate) fn hashes(&self, key: &[u8]) -> Result<Vec<CredentialHash>, Malformed> {
        if self.key_form.is_broken(key) {
            return Err(Malformed::Checksum);
        }
        Ok(self.peppers.hashes(key))
    }

    /// Verifies a JWT at this wall-clock time (Unix milliseconds): the first source that accepts it
    /// decides. The error is that of the source that came furthest.
    #[cfg(feature = "jwt")]
    pub(crate) fn verify(&self, token: &[u8], now_ms: i64) -> Result<jwt::Verified, jwt::JwtError> {
        let mut furthest = jwt::JwtError::Malformed;
        let token = std::str::from_utf8(token).map_err(|_| furthest)?;
        for verifier in self.verifiers() {
            match verifier.verify(token, now_ms) {
                Ok(verified) => return Ok(verified),
                Err(error) => furthest = furthest.max(error),
            }
        }
        Err(furthest)
    }

    /// The JWT sources: the identifier's owner refreshes their keys.
    #[cfg(feature = "jwt")]
    pub(crate) fn verifiers(&self) -> impl Iterator<Item = &jwt::Verifier> {
        self.sources.iter().filter_map(|source| match source {
            CredentialSource::Jwt(verifier) => Some(verifier),
            _ => None,
        })
    }

    /// Whether a header may hold a credential.
    pub(crate) fn is_credential(&self, name: &str) -> bool {
        matches!(name, AUTHORIZATION | "proxy-authorization" | "cookie" | "x-api-key")
            || self.sources.iter().any(|source| match source {
                CredentialSource::ApiKey { headers } => {
                    headers.iter().any(|it| it.as_str() == name)
                }
                _ => false,
            })
    }

    /// The caller's address, resolved through the trusted proxies.
    pub(crate) fn peer(&self, view: &dyn RequestView) -> Option<IpAddr> {
        self.proxies.peer(view)
    }

    /// The peppers, for creating keys.
    pub(crate) fn peppers(&self) -> &Peppers {
        &self.peppers
    }

    fn api_key<'a>(
        &self,
        source: u16,
        headers: &[NamedHeader],
        view: &'a dyn RequestView,
        bearer: &Bearer<'a>,
    ) -> Result<Presented<'a>, Malformed> {
        let mut found: Option<&[u8]> = None;
        for name in headers {
            let Some(key) = self.key_in(name, view, bearer)? else {
                continue;
            };
            if found.is_some_and(|other| other != key) {
                return Err(Malformed::Conflict);
            }
            found = Some(key);
        }
        let Some(key) = found else {
            return Ok(Presented::Nothing);
        };
        self.refuse_other_keys(source, key, view, bearer)?;
        Ok(Presented::ApiKey { source, key })
    }

    /// The headers of later API key sources may repeat the key, but not contradict it.
    fn refuse_other_keys<'a>(
        &self,
        source: u16,
        key: &[u8],
        view: &'a dyn RequestView,
        bearer: &Bearer<'a>,
    ) -> Result<(), Malformed> {
        for later in &self.sources[usize::from(source) + 1..] {
            let CredentialSource::ApiKey { headers } = later else {
                continue;
            };
            for name in headers {
                if self.key_in(name, view, bearer)?.is_some_and(|other| other != key) {
                    return Err(Malformed::Conflict);
                }
            }
        }
        Ok(())
    }

    fn key_in<'a>(
        &self,
        name: &NamedHeader,
        view: &'a dyn RequestView,
        bearer: &Bearer<'a>,
    ) -> Result<Option<&'a [u8]>, Malformed> {
        let key = if *name == self.authorization {
            let token = bearer.token(name, view)?;
            token.filter(|token| !(self.has_jwt && bearer.is_jwt(token)))
        } else {
            view.single(name)?.map(<[u8]>::trim_ascii).filter(|key| !key.is_empty())
        };
        match key {
            Some(key) if key.len() > MAX_API_KEY => Err(Malformed::TooLong),
            key => Ok(key),
        }
    }

    #[cfg(feature = "jwt")]
    fn jwt<'a>(
        &self,
        source: u16,
        view: &'a dyn RequestView,
        bearer: &Bearer<'a>,
    ) -> Result<Presented<'a>, Malformed> {
        let token = bearer.token(&self.authorization, view)?;
        match token.filter(|token| bearer.is_jwt(token)) {
            None => Ok(Presented::Nothing),
            Some(token) if token.len() > MAX_JWT => Err(Malformed::TooLong),
            Some(token) => Ok(Presented::Jwt { source, token }),
        }
    }

    fn trusted_header<'a>(
        &self,
        source: u16,
        tenant: &NamedHeader,
        user: Option<&NamedHeader>,
        view: &'a dyn RequestView,
    ) -> Result<Presented<'a>, Malformed> {
        if !view.peer().is_some_and(|peer| self.proxies.trusts(peer)) {
            return Ok(Presented::Nothing);
        }
        let Some(id) = view.single(tenant)? else {
            return Ok(Presented::Nothing);
        };
        let user = match user {
            Some(user) => view.single(user)?.map(<[u8]>::trim_ascii),
            None => None,
        };
        let user = user.filter(|user| !user.is_empty()).map(Cow::Borrowed);
        Ok(Presented::tenant(source, id.trim_ascii().into(), user))
    }
}

impl<'a> Presented<'a> {
    /// A tenant and its user, of which no more is said.
    fn tenant(source: u16, id: Cow<'a, [u8]>, user: Option<Cow<'a, [u8]>>) -> Self {
        Self::Tenant { source, id, user, plan: None, permissions: None }
    }
}

fn claimed<'a>(source: u16, names: &ClaimNames, view: &'a dyn RequestView) -> Presented<'a> {
    let bytes = |claim: Cow<'a, str>| match claim {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    let Some(id) = view.claim(&names.tenant) else {
        return Presented::Nothing;
    };
    let filled = |name: &Option<String>| {
        name.as_ref().and_then(|name| view.claim(name)).filter(|claim| !claim.is_empty())
    };
    let (user, plan) = (filled(&names.user).map(bytes), filled(&names.plan));
    Presented::Tenant { source, id: bytes(id), user, plan, permissions: filled(&names.permissions) }
}

/// The caller named by a trusted party, if the id is valid. Called on cache misses: cached callers
/// were already checked.
pub(crate) fn named_caller(
    id: &[u8],
    user: Option<&[u8]>,
    plan: Option<&str>,
    permissions: Option<&str>,
) -> Result<Caller, Malformed> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed::TenantId);
    let id = text(id)?;
    if !is_tenant_id(id) {
        return Err(Malformed::TenantId);
    }
    let mut caller = Caller::new(id);
    if let Some(user) = user {
        caller = caller.user(text(user)?);
    }
    if let Some(permissions) = permissions {
        caller = caller.permission(permissions);
    }
    Ok(match plan {
        Some(plan) => caller.plan(plan),
        None => caller,
    })
}

/// The token of `Authorization: Bearer`, read and judged once for all sources of a request.
#[derive(Default)]
struct Bearer<'a> {
    token: OnceCell<Result<Option<&'a [u8]>, Malformed>>,
    is_jwt: OnceCell<bool>,
}

impl<'a> Bearer<'a> {
    #[inline]
    fn token(
        &self,
        authorization: &NamedHeader,
        view: &'a dyn RequestView,
    ) -> Result<Option<&'a [u8]>, Malformed> {
        *self.token.get_or_init(|| bearer(authorization, view))
    }

    /// Whether its token is a JWT.
    #[inline]
    fn is_jwt(&self, token: &[u8]) -> bool {
        *self.is_jwt.get_or_init(|| is_jwt(token))
    }
}

/// The token of `Authorization: Bearer`, RFC 6750 section 2.1. Other schemes are ignored.
fn bearer<'a>(
    authorization: &NamedHeader,
    view: &'a dyn RequestView,
) -> Result<Option<&'a [u8]>, Malformed> {
    let Some(value) = view.single(authorization)? else {
        return Ok(None);
    };
    let Some((scheme, token)) = value.split_at_checked(b"bearer".len()) else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") || !token.starts_with(b" ") {
        return Ok(None);
    }
    Ok(Some(token.trim_ascii()).filter(|token| !token.is_empty()))
}

/// Bytes that are counted in a byte: with wider counts the compiler makes vectors of a quarter.
const COUNTED: usize = 128;

/// Three base64url parts, of which the first begins like a header's JSON (`{"` or `{ `): foreign
/// API keys may have two dots, too.
///
/// It is asked of each request with a token, of some 250 bytes: so it counts to the end in vectors
/// and does not break off at the first other byte, which takes ten times the instructions.
fn is_jwt(token: &[u8]) -> bool {
    let (mut dots, mut others) = (0, 0);
    for part in token.chunks(COUNTED) {
        let (mut dots_here, mut others_here) = (0_u8, 0_u8);
        for byte in part {
            dots_here += u8::from(*byte == b'.');
            others_here += u8::from(!is_base64url(*byte));
        }
        dots += usize::from(dots_here);
        others += usize::from(others_here);
    }
    token.starts_with(b"ey") && dots == 2 && others == 2
}

/// Without a branch, so that it can be done in vectors.
#[inline]
fn is_base64url(byte: u8) -> bool {
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    is_letter | is_digit | (byte == b'-') | (byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::super::tests::View;
    use super::super::{ApiKey, Pepper};
    use super::*;

    fn identifier(sources: Vec<CredentialSource>) -> Identifier {
        let peppers = Peppers::new(vec![Pepper::new("1", &[7; 32]).unwrap()]).unwrap();
        let proxies = Proxies::new(["10.0.0.0/8"]).unwrap();
        Identifier::new(sources, peppers, proxies).unwrap()
    }

    fn api_key(headers: &[&str]) -> CredentialSource {
        CredentialSource::ApiKey { headers: headers.iter().map(|h| (*h).into()).collect() }
    }

    fn by_key() -> Identifier {
        identifier(vec![api_key(&["Authorization", "x-api-key"])])
    }

    fn by_header() -> Identifier {
        let user = Some("X-User".into());
        identifier(vec![CredentialSource::Header { tenant: "X-Tenant".into(), user }])
    }

    fn key(key: &[u8]) -> Result<Presented<'_>, Malformed> {
        Ok(Presented::ApiKey { source: 0, key })
    }

    #[test]
    fn a_token_is_three_parts_of_base64url() {
        let part = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        let plainly = |token: &str| {
            token.starts_with("ey") && token.split('.').count() == 3 && token.split('.').all(part)
        };
        let long = format!("ey{}.{}.{}", "aZ09-_".repeat(9), "x".repeat(70), "_-".repeat(21));
        assert!(is_jwt(long.as_bytes()) && plainly(&long));
        for (at, with) in (0..long.len()).flat_map(|at| [".", "a", "=", "/", "é"].map(|c| (at, c)))
        {
            let token = format!("{}{with}{}", &long[..at], &long[at + 1..]);
            assert_eq!(is_jwt(token.as_bytes()), plainly(&token), "{token}");
        }
        for token in ["", "ey", "ey..", "ey...", "ey.a", "xy.a.b", "ey.a.b.c"] {
            assert_eq!(is_jwt(token.as_bytes()), plainly(token), "{token}");
        }
    }

    #[test]
    fn reads_a_bearer_in_any_case_and_a_named_header() {
        for scheme in ["Bearer k1", "bearer k1", "BEARER   k1 "] {
            let view = View::default().with("authorization", scheme);
            assert_eq!(by_key().present(&view), key(b"k1"), "{scheme}");
        }
        let view = View::default().with("x-api-key", " k1 ");
        assert_eq!(by_key().present(&view), key(b"k1"));
    }

    #[test]
    fn other_schemes_and_empty_values_are_nothing() {
        for value in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearerk1", "", "B"] {
            let view = View::default().with("authorization", value);
            assert_eq!(by_key().present(&view), Ok(Presented::Nothing), "{value}");
        }
        assert_eq!(by_key().present(&View::default()), Ok(Presented::Nothing));
        assert_eq!(by_key().probe(&Presented::Nothing), None);
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        let twice = View::default().with("authorization", "Bearer a").with("authorization", "b");
        assert_eq!(by_key().present(&twice), Err(Malformed::Repeated));
        let twice = View::default().with("x-api-key", "a").with("x-api-key", "a");
        assert_eq!(by_key().present(&twice), Err(Malformed::Repeated));
        let two = View::default().with("authorization", "Bearer a").with("x-api-key", "b");
        assert_eq!(by_key().present(&two), Err(Malformed::Conflict));
        let apart = identifier(vec![api_key(&["x-api-key"]), api_key(&["authorization"])]);
        assert_eq!(apart.present(&two), Err(Malformed::Conflict));
        let same = View::default().with("authorization", "Bearer a").with("x-api-key", "a");
        assert_eq!(by_key().present(&same), key(b"a"));
    }

    #[test]
    fn reads_at_most_4_kib() {
        let longest = "k".repeat(MAX_API_KEY);
        let view = View::default().with("x-api-key", longest.clone());
        assert_eq!(by_key().present(&view), key(longest.as_bytes()));
        let view = View::default().with("x-api-key", longest + "k");
        assert_eq!(by_key().present(&view), Err(Malformed::TooLong));
    }

    #[test]
    fn believes_a_tenant_header_only_from_a_trusted_proxy() {
        let view = || View::default().with("x-tenant", "acme").with("x-user", "7");
        let (id, user) = (b"acme"[..].into(), Some(b"7"[..].into()));
        let presented = Presented::tenant(0, id, user);
        assert_eq!(by_header().present(&view().peered("10.1.1.1")), Ok(presented));
        for forged in [view().peered("203.0.113.9"), view()] {
            assert_eq!(by_header().present(&forged), Ok(Presented::Nothing));
        }
        let twice = view().with("x-tenant", "globex").peered("10.1.1.1");
        assert_eq!(by_header().present(&twice), Err(Malformed::Repeated));
        for bad in [&b""[..], b"a\x01b", b"\xff"] {
            let view = View::default().with("x-tenant", bad).peered("10.1.1.1");
            let identifier = by_header();
            let Ok(Presented::Tenant { id, .. }) = identifier.present(&view) else {
                panic!("the header counts")
            };
            assert_eq!(named_caller(&id, None, None, None), Err(Malformed::TenantId));
        }
        assert_eq!(named_caller(b"acme", Some(b"\xff"), None, None), Err(Malformed::TenantId));
        let (user, scope) = (Some(&b"7"[..]), Some("read write"));
        let caller = Caller::new("acme").user("7").permission("write").permission("read");
        assert_eq!(named_caller(b"acme", user, None, scope), Ok(caller));
    }

    #[test]
    fn the_first_source_that_presents_something_decides() {
        let user = Some("sub".into());
        let names = ClaimNames { tenant: "org".into(), user, ..ClaimNames::default() };
        let claim = CredentialSource::Claim(names);
        let identifier = identifier(vec![claim, api_key(&["x-api-key"])]);
        let view = View::default().with("x-api-key", "k").claiming("org", "acme");
        let presented = identifier.present(&view).unwrap();
        let id = b"acme"[..].into();
        assert_eq!(presented, Presented::tenant(0, id, None));
        let view = View::default().with("x-api-key", "acme").claiming("sub", "7");
        let by_key = identifier.present(&view).unwrap();
        assert_eq!(by_key, Presented::ApiKey { source: 1, key: b"acme" });
        assert_ne!(identifier.probe(&presented), identifier.probe(&by_key));
    }

    #[test]
    fn refuses_a_broken_key_of_ours_before_any_look_up() {
        let ours = ApiKey::draw().unwrap();
        let identifier = by_key();
        assert_eq!(identifier.hashes(ours.expose().as_bytes()).unwrap().len(), 2);
        assert_eq!(identifier.hashes(b"tg_guessed").unwrap_err(), Malformed::Checksum);
        assert_eq!(identifier.hashes(b"foreign").unwrap().len(), 2);
    }

    #[test]
    fn debug_shows_no_credential() {
        let view = View::default().with("x-api-key", "s3cret");
        assert_eq!(format!("{:?}", by_key().present(&view)), "Ok(ApiKey(0, ..))");
    }

    #[test]
    fn says_at_once_what_can_never_work() {
        let new = |source| Identifier::new(vec![source], Peppers::default(), Proxies::default());
        let error = new(api_key(&["x-api-key"])).unwrap_err().to_string();
        assert!(error.contains("needs a pepper"), "{error}");
        let header = CredentialSource::Header { tenant: "x-tenant".into(), user: None };
        assert!(new(header).unwrap_err().to_string().contains("[proxy] trust"));
        assert!(new(api_key(&[])).unwrap_err().to_string().contains("names no header"));
    }
}
