//! A key that a request makes once, however often the request is repeated.
//!
//! Its id is made from the tenant and the request's idempotency key, so that the listing of the key
//! is the only record of the request, and lasts as long. The secret is shown to one request: a
//! repeated one learns the id.

use super::keys::KeyState;
use super::new_key::{KeyOptions, NewKey};
use super::once::Once;
use super::{Directory, DirectoryError, Surrogate};

/// Most attempts of a request: one is lost only to a repetition of it.
const ATTEMPTS: usize = 8;

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
