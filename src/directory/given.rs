//! Grants that have left their tenant's record: on record for good as they were given, so that none
//! is given twice, whatever a plan file makes of its expiry later.
//!
//! A grant is in the record until long after its end, and here from before it leaves that: nobody
//! who looks in both finds it in neither.

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

    /// Puts on record that this was given, and has ended. What was on record stays as it is.
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
    /// If another was, under the same id.
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

    /// Puts on record what leaves the record with this change, or does not come into it.
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
