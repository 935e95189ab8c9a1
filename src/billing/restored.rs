//! Restored tables: units sent after the backup was made are in no item of it, and would be sent
//! again, under identifiers of another generation.
//!
//! So nothing is sent before an operator has stated what happened since ([`SentSinceCopy`]). The
//! amount each item owed in the copy is written into it while the table is prepared for use
//! ([`mark`]): later use was never sent, and is distinguished by that.

use super::item::{self, ItemId};
use super::outbox::RestoredItem;
use crate::ledger::totals::PeriodUse;
use crate::sheets::use_row::RowAtoms;
use crate::store::layout::Space;
use crate::store::{Change, Store, StoreError, StoreErrorKind, Value, until_known};
#[cfg(feature = "stripe")]
use crate::store::{When, Write};

/// In the ledger's item: time of the restore, Unix milliseconds.
const RESTORED: &str = "restored_ms";
/// And the operator's statement since; 0 for none.
const SAID: &str = "sent_since";

/// Attempts to mark an item despite concurrent changes: no process should be writing.
const TRIES: usize = 8;

/// Operator's statement of what was sent to the billing service between the copy and the restore.
/// The argument of `Gate::resume_reports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SentSinceCopy {
    /// The earlier processes may have continued reporting. Units that the service counts for a
    /// customer, meter and period beyond those known to the copy are attributed to what the copy
    /// owed, and not sent again. Right only if no other system sends to these meters; asked 6 h
    /// after the restore at the earliest, because the service's sums lag.
    AskStripe,
    /// Nothing: every process had been stopped when the copy was made. What the copy had not sent
    /// is sent at once. Entries that were open in it are asked about regardless, 6 h after the
    /// restore at the earliest.
    Nothing,
}

/// The table's state since its last restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It was never restored.
    Never,
    /// Restored at this Unix millisecond, with no statement yet.
    Waits(i64),
    /// The same with the statement.
    Said(SentSinceCopy, i64),
}

/// The changes that accompany the ledger's new generation: reports wait from then on.
pub(crate) fn wait(now_ms: i64) -> [Change; 2] {
    [Change::Set(RESTORED.into(), Value::Int(now_ms)), Change::Set(SAID.into(), Value::Int(0))]
}

/// Makes a ledger whose reports wait, for a copy from before the first one: use of its customers
/// may have been sent since.
pub(crate) async fn begin(store: &dyn Store, space: &Space, now_ms: i64) -> Result<(), StoreError> {
    until_known(store, item::new_ledger(space, wait(now_ms))?).await.map(drop)
}

pub(crate) async fn word(store: &dyn Store, space: &Space) -> Result<Word, StoreError> {
    let item = store.read(space.ledger()).await?;
    let Some((at_ms, item)) = item.as_ref().and_then(|item| Some((item.int(RESTORED)?, item)))
    else {
        return Ok(Word::Never);
    };
    Ok(match item.int(SAID) {
        Some(1) => Word::Said(SentSinceCopy::AskStripe, at_ms),
        Some(2) => Word::Said(SentSinceCopy::Nothing, at_ms),
        _ => Word::Waits(at_ms),
    })
}

/// Records the operator's statement. False if the table was never restored.
#[cfg(feature = "stripe")]
pub(crate) async fn say(
    store: &dyn Store,
    space: &Space,
    sent: SentSinceCopy,
) -> Result<bool, StoreError> {
    let item = store.read(space.ledger()).await?;
    let Some(at_ms) = item.as_ref().and_then(|item| item.int(RESTORED)) else { return Ok(false) };
    let said = match sent {
        SentSinceCopy::AskStripe => 1,
        SentSinceCopy::Nothing => 2,
    };
    let write = Write {
        key: space.ledger(),
        when: vec![When::Equals(RESTORED.into(), Value::Int(at_ms))],
        change: vec![Change::Set(SAID.into(), Value::Int(said))],
    };
    until_known(store, write).await?;
    Ok(true)
}

/// Records in every item what was used by the time of the copy. Can be repeated.
pub(crate) async fn mark(
    store: &dyn Store,
    space: &Space,
    uses: Vec<PeriodUse>,
    now_ms: i64,
) -> Result<(), StoreError> {
    let at_s = now_ms.div_euclid(1_000);
    for used in uses {
        let PeriodUse { account, tenant, meter, scale, period_ms, atoms } = used;
        let Some(account) = account else { continue };
        let id = ItemId { account, tenant, meter, scale, period_ms };
        let mut tries = 0;
        loop {
            let before = item::read(store, id.key(space)).await?;
            let mut outbox = before.outbox.clone();
            // All of it was sent, and no entry is open: nothing can be sent twice.
            let RowAtoms { used, over } = atoms;
            if outbox.pending.is_none() && outbox.frozen == used {
                break;
            }
            outbox.restored = Some(RestoredItem { used, over, at_s, decided: false });
            if item::write(store, id.key(space), &before, outbox).await?.is_some() {
                break;
            }
            tries += 1;
            if tries == TRIES {
                let message = "a process writes to the table: stop every process before restoring";
                return Err(StoreError::new(StoreErrorKind::Unavailable, message));
            }
        }
    }
    Ok(())
}
