//! A key that a request makes once, however often the request is repeated.
//!
//! Its id is made from the tenant and the request's idempotency key, so that the listing of the key
//! is the only record of the request, and lasts as long. The secret is shown to one request: a
//! repeated one learns the id.

use sha2::{Digest, Sha256};

use super::{Directory, DirectoryError, KeyOptions, KeyState, NewKey, Surrogate};
use crate::identity::hex;

/// Most attempts of a request: one is lost only to a repetition of it.
const ATTEMPTS: usize = 8;

/// Hex digits of an id, as in those of other keys.
const ID_DIGITS: usize = 16;

/// Most characters of an idempotency key.
const MAX_ONCE: usize = 255;

/// An idempotency key, and whose requests it tells apart: a tenant and its operator each choose
/// their own, and what one of them has chosen is no word about the other's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Once {
    by: &'static str,
    key: String,
}

impl Once {
    /// Of the operator, or of a program of its own.
    pub(super) fn of_operator(key: impl Into<String>) -> Self {
        Self { by: "once", key: key.into() }
    }

    /// Of the operator, for a quota that begins anew.
    pub(super) fn of_reset(key: impl Into<String>) -> Self {
        Self { by: "reset once", key: key.into() }
    }

    /// Of the tenant itself.
    pub(super) fn of_tenant(key: impl Into<String>) -> Self {
        Self { by: "own once", key: key.into() }
    }

    /// Accepts visible characters, as a header can carry them.
    pub(super) fn check(&self) -> Result<(), DirectoryError> {
        let is_legal = self.key.bytes().all(|byte| byte.is_ascii_graphic());
        if is_legal && (1..=MAX_ONCE).contains(&self.key.len()) {
            return Ok(());
        }
        Err(DirectoryError::Once { most: MAX_ONCE })
    }

    /// The id of the key that the request with this idempotency key makes.
    pub(super) fn id(&self, tenant: Surrogate) -> String {
        let digest = Sha256::digest(format!("{tenant} {} {}", self.by, self.key));
        format!("k{}", &hex(&digest)[..ID_DIGITS])
    }
}

impl Directory {
    /// Makes the key of the request with this idempotency key. A repetition gets
    /// [`DirectoryError::MadeAlready`].
    pub(super) async fn make_key_once(
        &self,
        tenant: Surrogate,
        options: &KeyOptions,
        once: &Once,
    ) -> Result<NewKey, DirectoryError> {
        // Within a process requests take turns, so that none takes another for dead.
        let _turn = self.inner.ensuring.lock().await;
        let id = once.id(tenant);
        for _ in 0..ATTEMPTS {
            if let Some(listed) = self.find_key(tenant, &id).await? {
                match self.key_state(tenant, &id, &listed).await? {
                    KeyState::Incomplete => self.forget_incomplete(tenant, &id).await?,
                    _ => return Err(DirectoryError::MadeAlready(id)),
                }
            }
            let (key, hash) = self.draw_key()?;
            self.check_room(tenant).await?;
            match self.list_and_make(tenant, &id, options, &hash).await {
                Ok(id) => return Ok(NewKey { id, name: options.name.clone(), key }),
                // Another process was listed first, or has revoked ours before it worked.
                Err(DirectoryError::Busy | DirectoryError::CredentialTaken) => {}
                Err(error) => return Err(error),
            }
        }
        Err(DirectoryError::Busy)
    }

    /// The process that listed a key has died, or is slow: the key must not begin to work.
    async fn forget_incomplete(&self, tenant: Surrogate, id: &str) -> Result<(), DirectoryError> {
        match self.revoke_incomplete(tenant, id).await {
            // It has begun to work: the next attempt finds it.
            Err(DirectoryError::Busy) => Ok(()),
            Ok(()) => Ok(self.unlist(tenant, id).await?),
            Err(error) => Err(error),
        }
    }
}
