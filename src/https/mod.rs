//! HTTPS out of this process, for all that calls out: Stripe, issuers' keys, a function's table.
//!
//! - **TLS** is rustls. Its cryptography is the provider that the host has installed; else that of
//!   the feature `tls-aws-lc-rs`, else of `tls-ring`. rustls's own choice, which panics where the
//!   features of a program name two, is never asked for.
//! - **Trusted roots** are Mozilla's, compiled in; those in the file `SSL_CERT_FILE` instead, where
//!   that is set, as OpenSSL takes it.
//! - **A proxy** is taken from `HTTPS_PROXY` (else `ALL_PROXY`), past the hosts in `NO_PROXY`: a
//!   tunnel by `CONNECT`, so it sees names and no contents. Plain HTTP, which is for loopback and
//!   trusted networks, goes by none.
//! - Redirects are not followed; sizes and waits are bounded by each caller.

#[cfg(any(feature = "jwt", feature = "notify", feature = "stripe"))]
mod client;
mod connector;
mod environment;
mod provider;
mod roots;

#[cfg(any(feature = "jwt", feature = "notify", feature = "stripe"))]
// a function's table has a client of its own
pub(crate) use client::HttpsClient;
pub use connector::HttpsConnector;

/// HTTPS cannot be set up as the environment or the features of this program say. Holds no part of
/// a proxy's password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HTTPS: {0}")]
pub struct HttpsError(String);

#[cfg(test)]
mod tests;
