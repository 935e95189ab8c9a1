//! Grants that have left their tenant's record: kept for good as they were given, so that none is
//! given twice, even if a plan file later changes its expiry.
//!
//! A grant is in the record until long after its end, and here from before it leaves that: a look
//! in both always finds it.

#[cfg(feature = "stripe")]
use std::collections::BTreeSet;

use super::record::{Grant, TenantRecord};
use super::write::{Made, make};
use super::{Directory, DirectoryError, Surrogate};
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, StoreError, StoreErrorKind, Value, When, Write};

const FORMAT: i64 = 1;
/// The grant as it was given, in JSON.
const GRANT: &str = "grant";

impl Directory {
    /// The ids of all grants of a tenant that have left its record.
    #[cfg(feature = "stripe")]
    pub(crate) async fn past_grants(
        &self,
        tenant: Surrogate,
    ) -> Result<BTreeSet<String>, StoreError> {
        let pk = self.inner.space.past_grant(tenant, "").pk;
        Ok(self.query_all(pk).await?.into_iter().map(|(id, _)| id).collect())
    }

    /// Records that this grant was given, and has ended. An existing entry stays as it is.
    pub(crate) async fn note_past_grant(
        &self,
        tenant: Surrogate,
        grant: &Grant,
    ) -> Result<(), DirectoryError> {
        let json = serde_json::to_vec(grant)
            .map_err(|e| StoreError::new(StoreErrorKind::Invalid, format!("a grant: {e}")))?;
        let (format_name, format_value) = format(FORMAT);
        let write = Write {
            key: self.inner.space.past_grant(tenant, &grant.id),
            when: vec![When::Absent],
            change: vec![
                Change::Set(format_name, format_value),
                Change::Set(GRANT.into(), Value::Bytes(json)),
            ],
        };
        match make(&*self.inner.store, write).await? {
            Made::Yes(_) | Made::No(_) | Made::Perhaps(_) => Ok(()),
        }
    }

    /// Whether this very grant was given and has left the record.
    ///
    /// # Errors
    ///
    /// If a different one was, under the same id.
    pub(super) async fn was_given(
        &self,
        tenant: Surrogate,
        grant: &Grant,
    ) -> Result<bool, DirectoryError> {
        let key = self.inner.space.past_grant(tenant, &grant.id);
        let Some(item) = self.inner.store.read(key).await? else { return Ok(false) };
        match read(&item)? == *grant {
            true => Ok(true),
            false => Err(DirectoryError::GrantDiffers(grant.id.clone())),
        }
    }

    /// Records grants that leave the record with this change, or do not enter it.
    pub(super) async fn note_leaving(
        &self,
        after: &TenantRecord,
        grants: impl Iterator<Item = &Grant>,
    ) -> Result<(), DirectoryError> {
        for grant in grants {
            if !after.grants.iter().any(|held| held.id == grant.id) {
                self.note_past_grant(after.surrogate, grant).await?;
            }
        }
        Ok(())
    }
}

fn read(item: &Item) -> Result<Grant, StoreError> {
    check_format(item, FORMAT, "a grant")?;
    let json = item.bytes(GRANT).and_then(|json| serde_json::from_slice(json).ok());
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a grant cannot be read");
    json.ok_or_else(damaged)
}
