//! Sources of an issuer's public keys: a JWKS in a file or behind a URL.
//!
//! Nothing here runs by itself. The owner calls [`Jwks::refresh`] on an interval and whenever
//! [`Jwks::wanted`] reports a token with an unknown key; at most once per [`Jwks::PAUSE`] takes
//! effect. A failed refresh leaves the keys as they are.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::sync::Notify;

use super::JwtError;
use super::keys::KeySet;
use crate::clock::Now;
use crate::https::HttpsClient;
use crate::text_file::{self, OffRuntime};

/// Largest JWKS read.
const MAX_BODY: usize = 1024 * 1024;
/// Longest fetch from a URL, connection and body together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An issuer's public keys, as last read.
pub(crate) struct Jwks {
    place: JwksLocation,
    keys: ArcSwap<KeySet>,
    wanted: Notify,
    /// Monotonic nanoseconds of the last try; 0: never.
    tried_ns: AtomicU64,
    /// Reads the file, if the keys are in one.
    files: OffRuntime,
}

enum JwksLocation {
    File(PathBuf),
    Url(Uri, Box<HttpsClient>),
}

/// Keys could not be read. Known ones stay in use.
#[derive(Clone, Debug, thiserror::Error)]
#[error("JWKS {place}: {message}")]
pub(crate) struct JwksError {
    place: String,
    message: String,
}

impl Jwks {
    /// Shortest time between two tries: invented keys cannot make us flood the issuer.
    pub(crate) const PAUSE: Duration = Duration::from_secs(60);

    /// Keys from a URL (`https://..`, or `http://..` where the network is trusted) or a file path.
    /// There are none before the first refresh.
    pub(crate) fn new(place: &str) -> Result<Self, JwksError> {
        let url = place.starts_with("https://") || place.starts_with("http://");
        let place = match (url, place.parse::<Uri>()) {
            // A new connection each time: it is fetched a few times an hour.
            (true, Ok(uri)) => match HttpsClient::new(&uri, 0) {
                Ok(client) => JwksLocation::Url(uri, Box::new(client)),
                Err(error) => {
                    let place = without_query(&uri);
                    return Err(JwksError { place, message: error.to_string() });
                }
            },
            (false, _) if !place.contains("://") => JwksLocation::File(place.into()),
            _ => {
                let message = "it is neither an http(s) URL nor a path".to_owned();
                return Err(JwksError { place: place.to_owned(), message });
            }
        };
        Ok(Self {
            place,
            keys: ArcSwap::from_pointee(KeySet::empty()),
            wanted: Notify::new(),
            tried_ns: AtomicU64::new(0),
            files: OffRuntime::default(),
        })
    }

    /// Reads the keys again. `Ok(false)`: nothing was done, because the last try is less than
    /// [`Self::PAUSE`] ago.
    pub(crate) async fn refresh(&self, now: Now) -> Result<bool, JwksError> {
        let last = self.tried_ns.load(Ordering::Relaxed);
        let pause = Self::PAUSE.as_nanos() as u64;
        let due = last == 0 || now.mono_ns.saturating_sub(last) >= pause;
        let (relaxed, next) = (Ordering::Relaxed, now.mono_ns.max(1));
        if !due || self.tried_ns.compare_exchange(last, next, relaxed, relaxed).is_err() {
            return Ok(false);
        }
        let read = async { KeySet::parse(&self.read().await?) };
        match read.await {
            Ok(keys) => {
                self.keys.store(keys.into());
                Ok(true)
            }
            Err(message) => Err(JwksError { place: self.place.to_string(), message }),
        }
    }

    /// Waits until a token with an unknown key arrives.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        alg: &str,
        signed: &str,
        signature: &[u8],
    ) -> Result<(), JwtError> {
        let checked = self.keys.load().verify(kid, alg, signed, signature);
        if checked == Err(JwtError::UnknownKey) {
            self.wanted.notify_one();
        }
        checked
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match &self.place {
            JwksLocation::Url(uri, client) => fetch(uri, client).await,
            JwksLocation::File(path) => {
                let path = path.clone();
                let read = self.files.run(move || text_file::bytes(&path, MAX_BODY)).await;
                read.and_then(|bytes| bytes).map_err(|e| e.to_string())
            }
        }
    }
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jwks({}, ..)", self.place)
    }
}

impl std::fmt::Display for JwksLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JwksLocation::File(path) => path.display().fmt(f),
            JwksLocation::Url(uri, _) => f.write_str(&without_query(uri)),
        }
    }
}

/// A URL to show. A query may hold a secret.
fn without_query(uri: &Uri) -> String {
    format!("{}{}", uri.authority().map_or("", |a| a.host()), uri.path())
}

/// One GET, no redirects.
async fn fetch(uri: &Uri, client: &HttpsClient) -> Result<Vec<u8>, String> {
    let request = Request::get(uri).body(Full::new(Bytes::new())).map_err(|e| e.to_string())?;
    let answer = client.send(request, TIMEOUT, MAX_BODY).await?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body().to_vec()),
        status => Err(format!("it was answered with {status}")),
    }
}
