//! Where callers are looked for: the `[[identify]]` tables, as data.

#[cfg(feature = "jwt")]
use super::jwt;
use super::{Peppers, Proxies};

/// Where a credential is looked for: one `[[identify]]` table.
#[derive(Clone, Debug)]
pub enum Source {
    /// An API key in one of these headers; in `authorization` it is the bearer's token.
    ApiKey {
        /// Lower-case names.
        headers: Vec<String>,
    },
    /// A JWT, the bearer's token in `authorization`.
    #[cfg(feature = "jwt")]
    Jwt(jwt::Verifier),
    /// A tenant id that a gateway in front has set.
    Header {
        /// Lower-case name of the header with the tenant.
        tenant: String,
        /// Lower-case name of the header with the user.
        user: Option<String>,
    },
    /// A tenant id among the claims that the host has verified.
    Claim {
        /// Name of the claim with the tenant.
        tenant: String,
        /// Name of the claim with the user.
        user: Option<String>,
    },
}

impl Source {
    /// Lower-cases names, and says what cannot work.
    pub(super) fn check(&mut self, peppers: &Peppers, proxies: &Proxies) -> Result<(), String> {
        match self {
            Source::ApiKey { headers } if headers.is_empty() => {
                Err("api-key names no header: write api-key = [\"authorization\"]".into())
            }
            Source::ApiKey { .. } if peppers.newest().is_none() => Err(
                "api-key needs a pepper: write pepper = [{ id = \"1\", env = \"TOLLGATE_PEPPER\" }]"
                    .into(),
            ),
            Source::ApiKey { headers } => {
                headers
                    .iter_mut()
                    .for_each(|name| name.make_ascii_lowercase());
                Ok(())
            }
            Source::Header { tenant, .. } if proxies.trusts_nobody() => Err(format!(
                "header {tenant:?} would never be believed: [proxy] trust names no gateway"
            )),
            Source::Header { tenant, user } => {
                tenant.make_ascii_lowercase();
                user.iter_mut().for_each(|name| name.make_ascii_lowercase());
                Ok(())
            }
            #[cfg(feature = "jwt")]
            Source::Jwt(_) => Ok(()),
            Source::Claim { .. } => Ok(()),
        }
    }
}
