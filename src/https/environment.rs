//! What the environment says about HTTPS, by the names that other programs go by. Each is also
//! read in lower case; an empty one is not set.

use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::HttpsError;

/// The file of trusted roots.
pub(super) const ROOTS: &str = "SSL_CERT_FILE";
/// The proxy: the first that is set.
const PROXIES: [&str; 2] = ["HTTPS_PROXY", "ALL_PROXY"];
/// Hosts that are reached without it.
const NO_PROXY: &str = "NO_PROXY";

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// The file of trusted roots.
    pub roots: Option<PathBuf>,
    /// Which hosts are reached through which proxy. Its `Debug` shows no password.
    pub proxy: Option<Arc<Matcher>>,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Result<Self, HttpsError> {
        Self::read(&|name| std::env::var(name).ok())
    }

    /// `get` looks up a variable.
    pub(super) fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, HttpsError> {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let either = |name: &str| set(name).or_else(|| set(&name.to_lowercase()));
        let proxy = PROXIES.iter().find_map(|name| Some((*name, either(name)?)));
        let proxy = match proxy {
            None => None,
            Some((name, address)) => {
                check(name, &address)?;
                let no = either(NO_PROXY).unwrap_or_default();
                Some(Arc::new(Matcher::builder().https(address).no(no).build()))
            }
        };
        Ok(Self { roots: set(ROOTS).map(PathBuf::from), proxy })
    }
}

/// A proxy's address that could not be used must not mean that there is none. The error does not
/// show it: it may hold a password.
fn check(name: &str, address: &str) -> Result<(), HttpsError> {
    let read = Matcher::builder().https(address).build();
    let via = read.intercept(&Uri::from_static("https://example.com/"));
    match via.as_ref().and_then(|via| via.uri().scheme_str()) {
        Some("http") => Ok(()),
        Some(scheme) => Err(HttpsError(format!(
            "{name} names a proxy of the scheme {scheme}: only http:// is supported, which \
             tunnels TLS by CONNECT"
        ))),
        None => Err(HttpsError(format!("{name} is not the address of a proxy: http://host:port"))),
    }
}
