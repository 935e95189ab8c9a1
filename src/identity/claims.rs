//! Claims about a caller, verified by the host or a gateway. No framework's types: an adapter finds
//! them where its framework keeps request data.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Claims that the host or a gateway in front has verified about the caller, left by an adapter or
/// a host's layer in the extensions of a request: the source for `[[identify]] claim = ".."`. All
/// of them are trusted, so no client may be able to set them.
///
/// ```
/// use tallygate::identity::Claims;
///
/// let claims: Claims = [("org", "acme"), ("sub", "7")].into_iter().collect();
/// assert_eq!(claims.get("org"), Some("acme"));
/// // axum, Lambda: request.extensions_mut().insert(claims)
/// // actix-web:    request.extensions_mut().insert(claims), with `HttpMessage` in scope
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Claims(Arc<BTreeMap<String, String>>);

impl Claims {
    /// The value of a claim.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether there are no claims.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Claims {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(claims: I) -> Self {
        Self(Arc::new(claims.into_iter().map(|(k, v)| (k.into(), v.into())).collect()))
    }
}

/// Names only: a value may be personal data.
impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
