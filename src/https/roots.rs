//! Whose certificates are trusted.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::HttpsError;
use super::environment::ROOTS;
use crate::text_file;

/// Largest file of roots, in bytes: the bundles of distributions have 250 kB.
const MAX_ROOTS: usize = 4 << 20;

/// The roots in this PEM file, else Mozilla's. Certificates in it that cannot be read are passed
/// over, as by other readers of such bundles; none at all is an error.
pub(super) fn roots(file: Option<&Path>) -> Result<RootCertStore, HttpsError> {
    let Some(file) = file else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let wrong = |problem: String| HttpsError(format!("{ROOTS} ({}): {problem}", file.display()));
    let pem = text_file::bytes(file, MAX_ROOTS).map_err(|error| wrong(error.to_string()))?;
    let listed = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(listed);
    match added {
        0 => Err(wrong("it has no certificate in PEM".to_owned())),
        _ => Ok(roots),
    }
}
