//! Which cryptography TLS uses.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::HttpsError;

/// The provider that the host has installed, else that of our features.
pub(super) fn provider() -> Result<Arc<CryptoProvider>, HttpsError> {
    chosen(CryptoProvider::get_default())
}

/// The same, with what the host has installed.
pub(super) fn chosen(
    installed: Option<&Arc<CryptoProvider>>,
) -> Result<Arc<CryptoProvider>, HttpsError> {
    installed.cloned().or_else(by_feature).ok_or_else(|| {
        let message = "no cryptography for TLS: switch on the feature `tls-ring` or \
                       `tls-aws-lc-rs` of tallygate, or install a rustls CryptoProvider before \
                       the gate opens";
        HttpsError(message.to_owned())
    })
}

/// The feature that is off by default goes first: it was asked for.
fn by_feature() -> Option<Arc<CryptoProvider>> {
    #[cfg(feature = "tls-aws-lc-rs")]
    return Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    return Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    None
}
