//! The history of a tenant: append-only, one entry for each change. An erasure takes the texts out
//! of the entries before it, and leaves the entries.
//!
//! # Law
//!
//! An entry is written *before* its change, as an intent: it names the version the record will
//! have, its own random id, and the id of the entry that made the previous version (its parent).
//! The record holds the id of the entry that made it. So the chain of parents from the record back
//! is what happened, and nothing else: an entry whose writer died or was overtaken is not on it.
//!
//! A change of a key is an entry without a version; the key itself says whether it happened.
//!
//! Entries are ordered by their writers' clocks, the chain is not.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::edit::Announced;
use super::error::{MAX_NAME, check_text};
use super::keys::{KeyInfo, KeyState};
use super::record::TenantRecord;
use super::write::{Made, make};
use super::{Directory, DirectoryError, Edit, Surrogate};
use crate::clock::time_at;
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, Key, StoreError, StoreErrorKind, Value, When, Write};

const FORMAT: i64 = 1;
const ENTRY: &str = "entry";
const ID: &str = "id";

/// A change of a tenant, and whether it happened. [`Tenant::history`](super::Tenant::history) lists
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// Time of its announcement, by its writer's clock.
    pub at: SystemTime,
    /// The changes.
    pub edits: Vec<Edit>,
    /// The reason.
    pub note: Option<String>,
    /// Who made it, where the change named one ([`Directory::by`]).
    pub actor: Option<String>,
    /// Whether it happened.
    pub outcome: ChangeOutcome,
}

/// Whether an announced change happened. In [`HistoryEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeOutcome {
    /// The change was made.
    Happened,
    /// The change may still be made: its writer is at work, or has died.
    Pending,
    /// The change was not made and never will be: another one came first.
    Never,
}

impl HistoryEntry {
    /// The entry of a change that is not made.
    pub(super) fn would_be(entry: Announced) -> Self {
        Self {
            at: time_at(entry.at_ms),
            edits: entry.edits,
            note: entry.note,
            actor: entry.actor,
            outcome: ChangeOutcome::Never,
        }
    }
}

impl Directory {
    /// Whether this handle's actor can be in an entry.
    pub(super) fn check_actor(&self) -> Result<(), DirectoryError> {
        self.actor.as_ref().map_or(Ok(()), |actor| check_text(actor, "an actor", MAX_NAME))
    }

    /// Writes an entry and returns its id.
    pub(super) async fn announce(
        &self,
        tenant: Surrogate,
        entry: &Announced,
    ) -> Result<u64, DirectoryError> {
        self.check_actor()?;
        // 0 stands for "none" in a parent.
        let id = crate::random::u64()?.max(1);
        let (format_name, format_value) = format(FORMAT);
        let write = Write {
            key: self.inner.space.history(tenant, entry.at_ms, id),
            when: vec![When::Absent],
            change: vec![
                Change::Set(format_name, format_value),
                Change::Set(ID.into(), Value::Int(id.cast_signed())),
                Change::Set(ENTRY.into(), Value::Bytes(json(entry)?)),
            ],
        };
        match make(&*self.inner.store, write).await? {
            // This id is unique to us, so an item found after a lost reply is ours.
            Made::Yes(_) | Made::Perhaps(Some(_)) => Ok(id),
            Made::No(_) | Made::Perhaps(None) => Err(DirectoryError::Busy),
        }
    }

    /// Whether the current record came from this change, directly or through others.
    pub(super) async fn has_happened(
        &self,
        stands: &TenantRecord,
        change: u64,
    ) -> Result<bool, StoreError> {
        if stands.change == change {
            return Ok(true);
        }
        Ok(chain(&self.entries(stands.surrogate).await?, stands.change).contains(&change))
    }

    /// The history of a tenant, in the order of its writers' clocks.
    pub(super) async fn read_history(
        &self,
        tenant: Surrogate,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let entries = self.entries(tenant).await?;
        let keys = self.list_keys(tenant).await?;
        // The record last: entries announced by then are judged by the record after them.
        let stands = self.read_record(tenant).await?;
        let (version, change) = stands.map_or((0, 0), |record| (record.version, record.change));
        let chain = chain(&entries, change);
        let outcome = |id: u64, entry: &Announced| match entry.version {
            0 => of_key(&entry.edits, &keys),
            _ if chain.contains(&id) => ChangeOutcome::Happened,
            next if next == version.saturating_add(1) && entry.parent == change => {
                ChangeOutcome::Pending
            }
            // Announced and made between our two reads.
            next if next > version => ChangeOutcome::Pending,
            _ => ChangeOutcome::Never,
        };
        let marked = entries.iter().map(|(id, entry)| HistoryEntry {
            at: time_at(entry.at_ms),
            edits: entry.edits.clone(),
            note: entry.note.clone(),
            actor: entry.actor.clone(),
            outcome: outcome(*id, entry),
        });
        Ok(marked.collect())
    }

    /// Takes what people have written out of every entry but those of the erasure itself.
    pub(super) async fn forget_texts_of_history(
        &self,
        tenant: Surrogate,
    ) -> Result<(), DirectoryError> {
        let pk = self.inner.space.history(tenant, 0, 0).pk;
        for (sk, item) in self.query_all(pk.clone()).await? {
            let Some(bare) = read(&item)?.1.without_texts() else { continue };
            let write = Write {
                key: Key { pk: pk.clone(), sk },
                when: vec![When::Exists],
                change: vec![Change::Set(ENTRY.into(), Value::Bytes(json(&bare)?))],
            };
            make(&*self.inner.store, write).await?;
        }
        Ok(())
    }

    pub(super) async fn entries(
        &self,
        tenant: Surrogate,
    ) -> Result<Vec<(u64, Announced)>, StoreError> {
        let items = self.query_all(self.inner.space.history(tenant, 0, 0).pk).await?;
        let mut entries: Vec<_> =
            items.iter().map(|(_, item)| read(item)).collect::<Result<_, _>>()?;
        // Within a millisecond by version, and keys (0) after the record they need, each made
        // before it or the one that it replaces ends.
        entries.sort_by_key(|(_, entry)| {
            (entry.at_ms, entry.version.wrapping_sub(1), stage_of_key(&entry.edits))
        });
        Ok(entries)
    }
}

/// The ids of the entries that made the version made by `last`, and all earlier ones.
pub(super) fn chain(entries: &[(u64, Announced)], last: u64) -> HashSet<u64> {
    let of_record = entries.iter().filter(|(_, entry)| entry.version > 0);
    let parents: HashMap<u64, u64> = of_record.map(|(id, entry)| (*id, entry.parent)).collect();
    let mut chain = HashSet::new();
    let mut next = last;
    // Each id is visited once: damage cannot make this run for ever.
    while next != 0 && chain.insert(next) {
        next = parents.get(&next).copied().unwrap_or(0);
    }
    chain
}

/// The place of a change in the life of a key.
fn stage_of_key(edits: &[Edit]) -> u8 {
    match edits {
        [Edit::KeyEnds { .. }, ..] => 1,
        [Edit::KeyRevoked { .. }, ..] => 2,
        _ => 0,
    }
}

fn json(entry: &Announced) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(entry)
        .map_err(|e| StoreError::new(StoreErrorKind::Invalid, format!("history: {e}")))
}

fn of_key(edits: &[Edit], keys: &[KeyInfo]) -> ChangeOutcome {
    let key = |wanted: &str| keys.iter().find(|key| key.id == wanted);
    let happened = |edit: &Edit| match edit {
        Edit::KeyMade { id, .. } => key(id).is_some_and(|key| key.state != KeyState::Incomplete),
        // An end moves only to an earlier instant.
        Edit::KeyEnds { id, at } => {
            key(id).and_then(|key| key.expires).is_some_and(|it| it <= time_at(*at))
        }
        Edit::KeyRevoked { id } => key(id).is_some_and(|key| key.state == KeyState::Revoked),
        _ => false,
    };
    if edits.iter().all(happened) { ChangeOutcome::Happened } else { ChangeOutcome::Pending }
}

fn read(item: &Item) -> Result<(u64, Announced), StoreError> {
    check_format(item, FORMAT, "a history entry")?;
    let entry = item.bytes(ENTRY).and_then(|json| serde_json::from_slice(json).ok());
    let id = item.int(ID).map(i64::cast_unsigned);
    id.zip(entry)
        .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "a history entry cannot be read"))
}
