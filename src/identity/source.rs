//! Credential sources: the `[[identify]]` tables, as data.

#[cfg(feature = "jwt")]
use super::jwt;
use super::{NamedHeader, Peppers, Proxies};

/// A credential source: one `[[identify]]` table.
#[derive(Clone, Debug)]
pub(crate) enum CredentialSource {
    /// An API key in one of these headers; in `authorization` it is the bearer token.
    ApiKey {
        /// Their names.
        headers: Vec<NamedHeader>,
    },
    /// A JWT, the bearer token in `authorization`.
    #[cfg(feature = "jwt")]
    Jwt(jwt::Verifier),
    /// A tenant id set by a gateway in front.
    Header {
        /// The header with the tenant.
        tenant: NamedHeader,
        /// The header with the user.
        user: Option<NamedHeader>,
    },
    /// The address within these networks.
    Network {
        /// The networks.
        networks: Proxies,
        /// The tenant whose callers they are.
        tenant: String,
    },
    /// A tenant id among the claims verified by the host.
    Claim(ClaimNames),
}

/// The names of the claims that say who is calling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimNames {
    /// The one with the tenant.
    pub(crate) tenant: String,
    /// The one with the user.
    pub(crate) user: Option<String>,
    /// The one with the tenant's plan.
    pub(crate) plan: Option<String>,
    /// The one with what the caller may do.
    pub(crate) permissions: Option<String>,
}

impl CredentialSource {
    /// Fails on settings that cannot work.
    pub(super) fn check(&self, peppers: &Peppers, proxies: &Proxies) -> Result<(), String> {
        match self {
            CredentialSource::ApiKey { headers } if headers.is_empty() => {
                Err("api-key names no header: write api-key = [\"authorization\"]".into())
            }
            CredentialSource::ApiKey { .. } if peppers.newest().is_none() => {
                Err("api-key needs a pepper: \
                write pepper = [{ id = \"1\", env = \"TALLYGATE_PEPPER\" }]"
                    .into())
            }
            CredentialSource::Header { tenant, .. } if proxies.trusts_nobody() => Err(format!(
                "header {tenant:?} would never be believed: [proxy] trust names no gateway"
            )),
            _ => Ok(()),
        }
    }
}
