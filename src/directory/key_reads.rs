//! Reads of a tenant's keys that cost little, for routes that the tenant calls itself: a list of
//! keys reads the credential of each.

use super::keys::KeyItem;
use super::once::Once;
use super::{Directory, DirectoryError, KeyInfo, KeyState, Surrogate, Tenant};
use crate::store::StoreError;

/// How many keys a tenant has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyCount {
    /// Those that are neither revoked nor past their end, as far as the list says.
    pub(crate) working: usize,
    /// All in the list.
    pub(crate) listed: usize,
}

impl Directory {
    /// How many keys a tenant has: one query.
    pub(super) async fn count_keys(&self, tenant: Surrogate) -> Result<KeyCount, StoreError> {
        let listed = self.query_all(self.list_key(tenant, "").pk).await?;
        let (now_ms, mut working) = (self.now_ms(), 0);
        for (_, item) in &listed {
            working += usize::from(!KeyItem::read(item)?.has_ended(now_ms));
        }
        Ok(KeyCount { working, listed: listed.len() })
    }

    /// A tenant's key: two reads.
    async fn key(&self, tenant: Surrogate, id: &str) -> Result<Option<KeyInfo>, DirectoryError> {
        let Some(listed) = self.find_key(tenant, id).await? else { return Ok(None) };
        let held = self.held(tenant, id, &listed).await?;
        Ok(Some(self.info(id.to_owned(), listed, held.as_ref())))
    }

    /// The id of the key that the request with this idempotency key has made, if it has.
    pub(super) async fn made_by(
        &self,
        tenant: Surrogate,
        once: &Once,
    ) -> Result<Option<String>, DirectoryError> {
        let made = self.key(tenant, &once.id(tenant)).await?;
        Ok(made.filter(|key| key.state != KeyState::Incomplete).map(|key| key.id))
    }
}

impl Tenant {
    /// How many keys it has: one query.
    pub(crate) async fn count_keys(&self) -> Result<KeyCount, DirectoryError> {
        Ok(self.directory.count_keys(self.record.surrogate).await?)
    }

    /// The key with this id: two reads.
    pub(crate) async fn key(&self, id: &str) -> Result<Option<KeyInfo>, DirectoryError> {
        self.directory.key(self.record.surrogate, id).await
    }

    /// Its keys, for itself: the credential of one that was revoked is not read, so that its last
    /// use is not known.
    pub(crate) async fn own_keys(&self) -> Result<Vec<KeyInfo>, DirectoryError> {
        let tenant = self.record.surrogate;
        let listed = self.directory.query_all(self.directory.list_key(tenant, "").pk).await?;
        let mut keys = Vec::with_capacity(listed.len());
        for (id, item) in listed {
            let listed = KeyItem::read(&item)?;
            let held = match listed.revoked {
                true => None,
                false => self.directory.held(tenant, &id, &listed).await?,
            };
            keys.push(self.directory.info(id, listed, held.as_ref()));
        }
        Ok(keys)
    }

    /// The id of the key that its own request with this idempotency key has made, if it has.
    pub(crate) async fn made_once(&self, once: &str) -> Result<Option<String>, DirectoryError> {
        self.directory.made_by(self.record.surrogate, &Once::of_tenant(once)).await
    }
}
