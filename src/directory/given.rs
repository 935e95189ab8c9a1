//! Grants that have left their tenant's record: kept for good as they were given, so that none is
//! given twice, even if a plan file later changes its expiry.
//!
//! A grant is in the record until long after its end, and here from before it leaves that: a look
//! in both always finds it.
//!
//! Beside them, of each paid line of an invoice: the grants that it gives, fixed before the first
//! is given, so that a plan file that later changes what a top-up adds gives nothing more for it.

#[cfg(feature = "stripe")]
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::record::{Grant, TenantRecord};
use super::write::{Made, make};
use super::{Directory, DirectoryError, Surrogate};
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, Key, StoreError, StoreErrorKind, Value, When, Write};

const FORMAT: i64 = 1;
/// The grant as it was given, in JSON.
const GRANT: &str = "grant";

/// The grants of a paid line, in JSON.
const GRANTS: &str = "grants";

/// The start of the names of paid lines: with a character that no grant's id has.
#[cfg(feature = "stripe")]
const LINE: &str = "line:";

/// A tenant's grants that are stored outside its record.
#[cfg(feature = "stripe")]
#[derive(Debug, Default)]
pub(crate) struct GivenGrants {
    /// The ids of those that have left the tenant's record.
    pub(crate) past: BTreeSet<String>,
    /// The grants of paid lines, by the line's name.
    pub(crate) lines: BTreeMap<String, Vec<Grant>>,
}

impl Directory {
    /// A tenant's grants that have left its record, and those of its paid lines.
    #[cfg(feature = "stripe")]
    pub(crate) async fn given_grants(&self, tenant: Surrogate) -> Result<GivenGrants, StoreError> {
        let pk = self.inner.space.past_grant(tenant, "").pk;
        let mut given = GivenGrants::default();
        for (id, item) in self.query_all(pk).await? {
            match id.strip_prefix(LINE) {
                Some(line) => drop(given.lines.insert(line.to_owned(), read_line(&item)?)),
                None => drop(given.past.insert(id)),
            }
        }
        Ok(given)
    }

    /// Whether a grant with this id has left the tenant's record.
    pub(super) async fn has_past_grant(
        &self,
        tenant: Surrogate,
        id: &str,
    ) -> Result<bool, StoreError> {
        let key = self.inner.space.past_grant(tenant, id);
        Ok(self.inner.store.read(key).await?.is_some())
    }

    /// Fixes the grants of a paid line, and returns them: those of an existing entry, if any.
    #[cfg(feature = "stripe")]
    pub(crate) async fn fix_line(
        &self,
        tenant: Surrogate,
        line: &str,
        grants: &[Grant],
    ) -> Result<Vec<Grant>, StoreError> {
        let json = serde_json::to_vec(grants)
            .map_err(|e| StoreError::new(StoreErrorKind::Invalid, format!("grants: {e}")))?;
        let (format_name, format_value) = format(FORMAT);
        let write = Write {
            key: self.inner.space.past_grant(tenant, &format!("{LINE}{line}")),
            when: vec![When::Absent],
            change: vec![
                Change::Set(format_name, format_value),
                Change::Set(GRANTS.into(), Value::Bytes(json)),
            ],
        };
        match make(&*self.inner.store, write).await? {
            Made::Yes(item) | Made::No(Some(item)) | Made::Perhaps(Some(item)) => read_line(&item),
            Made::No(None) | Made::Perhaps(None) => {
                Err(StoreError::new(StoreErrorKind::Corrupt, "a paid line cannot be recorded"))
            }
        }
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

    /// Takes the notes out of a tenant's past grants, and of those of its paid lines.
    pub(super) async fn forget_notes_of_grants(
        &self,
        tenant: Surrogate,
    ) -> Result<(), DirectoryError> {
        let pk = self.inner.space.past_grant(tenant, "").pk;
        for (sk, item) in self.query_all(pk.clone()).await? {
            let mut change = Vec::new();
            for name in [GRANT, GRANTS] {
                if let Some(json) = item.bytes(name)
                    && let Some(bare) = without_notes(json)?
                {
                    change.push(Change::Set(name.into(), Value::Bytes(bare)));
                }
            }
            if !change.is_empty() {
                let key = Key { pk: pk.clone(), sk };
                make(&*self.inner.store, Write { key, when: vec![When::Exists], change }).await?;
            }
        }
        Ok(())
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

/// The JSON of a grant, or of several, without notes; `None`: it has none.
fn without_notes(json: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let damaged = |_| StoreError::new(StoreErrorKind::Corrupt, "a grant cannot be read");
    let mut document: Json = serde_json::from_slice(json).map_err(damaged)?;
    let grants = match &mut document {
        Json::Array(grants) => grants.as_mut_slice(),
        grant => std::slice::from_mut(grant),
    };
    let mut is_changed = false;
    for note in grants.iter_mut().filter_map(|grant| grant.get_mut("note")) {
        is_changed |= !std::mem::take(note).is_null();
    }
    match is_changed {
        true => serde_json::to_vec(&document).map(Some).map_err(damaged),
        false => Ok(None),
    }
}

#[cfg(feature = "stripe")]
fn read_line(item: &Item) -> Result<Vec<Grant>, StoreError> {
    check_format(item, FORMAT, "a paid line")?;
    let json = item.bytes(GRANTS).and_then(|json| serde_json::from_slice(json).ok());
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a paid line cannot be read");
    json.ok_or_else(damaged)
}
