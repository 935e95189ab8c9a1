//! Claims: one item per event, naming the log slot that carries its units.
//!
//! An event counts if its claim names a slot that is on record and is not a seal. A writer points
//! all claims of a batch at the next slot of its log, and then writes that slot with all their
//! units; a batch that it cannot finish ends that log for good. So a claim can always be judged by
//! two reads, and a claim whose slot can never be written any more is taken over.
//!
//! The slot of a claim is on record, folded away (then it was a record: the last slot of a log, the
//! only one that may be a seal, is never folded), a seal, or missing. If it is missing the writer
//! may still be about to write it: a process that needs to know waits for [`IN_HAND`] and then ends
//! that log with a seal in this very slot, for which only one of the two writes can succeed.
//!
//! A keyed request has a claim of another kind (`admission/claim.rs`), which holds its units
//! itself: they are known only at its end, when no slot could be named any more. Were events
//! claimed so, every report would read all of a tenant's events, for such claims are not folded;
//! here their units are in a log, which is.

use std::time::Duration;

use crate::delays::Delays;
use crate::ids::{Surrogate, WriterId};
use crate::ledger::{log, slots};
use crate::quota::lease::Writer;
use crate::store::layout::{self, Space, check_format};
use crate::store::{
    Change, Item, Key, Store, StoreError, StoreErrorKind, Value, When, Write, Written, repeat,
};

/// Format of a claim.
const FORMAT: i64 = 1;

const WRITER: &str = "writer";
const SLOT: &str = "slot";
const PRINT: &str = "print";
const AT: &str = "at_ms";

/// How long a writer may take from its first claim of a batch to the slot, before others consider
/// it dead: far longer than its own retries last.
const IN_HAND: Duration = Duration::from_secs(20);

/// Repeats of a call whose outcome is unknown, or that did not get through, and the pauses before
/// them: 3 s in all.
const REPEATS: usize = 5;
const PAUSES: Delays = Delays::doubling(Duration::from_millis(50), Duration::from_secs(1));

/// Rounds lost to faster processes: after more the event is in hand elsewhere.
const ROUNDS: u32 = 4;

/// A slot of a writer's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSlot {
    pub(crate) writer: WriterId,
    pub(crate) slot: u64,
}

/// An event to claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventToClaim<'a> {
    pub(crate) tenant: Surrogate,
    /// Hash of its id.
    pub(crate) id: &'a str,
    /// Hash of its content.
    pub(crate) print: &'a str,
}

/// The outcome of claiming an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventClaimed {
    /// It names our slot.
    Ours,
    /// It counts already.
    Counts,
    /// It counts already, with different content.
    Conflicts,
    InHand,
    /// The store failed to apply it.
    Not,
    /// Unknown whether it names our slot: the batch cannot be finished.
    Unknown,
}

/// Claims an event for a slot.
pub(crate) async fn claim(
    store: &dyn Store,
    space: &Space,
    event: EventToClaim<'_>,
    place: LogSlot,
    now_ms: i64,
) -> EventClaimed {
    let key = space.event_claim(event.tenant, event.id);
    let mut when = vec![When::Absent];
    for _ in 0..ROUNDS {
        let write = write(key.clone(), when, event, place, now_ms);
        let found = match repeated(store, write).await {
            Ok(Written::Applied(_)) => return EventClaimed::Ours,
            Ok(Written::Refused(Some(found))) => found,
            Ok(Written::Refused(None)) => {
                when = vec![When::Absent];
                continue;
            }
            Err(error) if error.kind == StoreErrorKind::Unknown => return EventClaimed::Unknown,
            Err(_) => return EventClaimed::Not,
        };
        let Ok(theirs) = read(&found) else { return EventClaimed::Not };
        if theirs.place == place {
            return EventClaimed::Ours; // after a lost reply
        }
        match stands(store, space, &theirs, now_ms).await {
            Ok(ClaimStanding::Counts) if theirs.print == event.print => {
                return EventClaimed::Counts;
            }
            Ok(ClaimStanding::Counts) => return EventClaimed::Conflicts,
            Ok(ClaimStanding::InHand) => return EventClaimed::InHand,
            Err(_) => return EventClaimed::Not,
            Ok(ClaimStanding::Void) => {
                when = vec![
                    When::Equals(WRITER.into(), Value::Text(theirs.place.writer.to_string())),
                    When::Equals(SLOT.into(), int(theirs.place.slot)),
                ];
            }
        }
    }
    EventClaimed::InHand
}

/// Repeats the write until its outcome is definite, or the tries run out.
pub(crate) async fn repeated(store: &dyn Store, write: Write) -> Result<Written, StoreError> {
    let write = || store.write(write.clone());
    Ok(repeat(PAUSES.take(REPEATS), StoreError::is_temporary, write).await?.0)
}

/// A read, with the same repeats as a write.
async fn item(store: &dyn Store, key: Key) -> Result<Option<Item>, StoreError> {
    let read = || store.read(key.clone());
    Ok(repeat(PAUSES.take(REPEATS), StoreError::is_temporary, read).await?.0)
}

fn write(key: Key, when: Vec<When>, event: EventToClaim<'_>, place: LogSlot, now_ms: i64) -> Write {
    let (name, version) = layout::format(FORMAT);
    let change = vec![
        Change::Set(name, version),
        Change::Set(WRITER.into(), Value::Text(place.writer.to_string())),
        Change::Set(SLOT.into(), int(place.slot)),
        Change::Set(PRINT.into(), Value::Text(event.print.to_owned())),
        Change::Set(AT.into(), Value::Int(now_ms)),
    ];
    Write { key, when, change }
}

struct Theirs<'a> {
    place: LogSlot,
    print: &'a str,
    at_ms: i64,
}

fn read(item: &Item) -> Result<Theirs<'_>, StoreError> {
    check_format(item, FORMAT, "an event's claim")?;
    let parts = || {
        let writer = layout::writer(item.text(WRITER)?)?;
        let slot = u64::try_from(item.int(SLOT)?).ok()?;
        let place = LogSlot { writer, slot };
        Some(Theirs { place, print: item.text(PRINT)?, at_ms: item.int(AT)? })
    };
    parts().ok_or_else(|| {
        StoreError::new(StoreErrorKind::Corrupt, "an event's claim cannot be read: damaged")
    })
}

/// Whether claims on this slot count, once its writer is gone. If the slot is not on record it
/// never will be.
pub(crate) async fn decided(
    store: &dyn Store,
    space: &Space,
    place: LogSlot,
) -> Result<bool, StoreError> {
    let long_ago = Theirs { place, print: "", at_ms: i64::MIN };
    match stands(store, space, &long_ago, 0).await? {
        ClaimStanding::Counts => Ok(true),
        ClaimStanding::Void => Ok(false),
        ClaimStanding::InHand => {
            Err(StoreError::new(StoreErrorKind::Unavailable, "a slot is there, and is not"))
        }
    }
}

enum ClaimStanding {
    Counts,
    InHand,
    /// It never counts: the log ended at its slot, without it.
    Void,
}

async fn stands(
    store: &dyn Store,
    space: &Space,
    theirs: &Theirs<'_>,
    now_ms: i64,
) -> Result<ClaimStanding, StoreError> {
    let LogSlot { writer, slot } = theirs.place;
    let judged = |item: &Item| {
        if slots::is_seal(item) { ClaimStanding::Void } else { ClaimStanding::Counts }
    };
    if let Some(item) = item(store, space.log(writer, slot)).await? {
        return Ok(judged(&item));
    }
    // A fold is written before the slots it replaces are removed.
    let run = slot / crate::ledger::compact::RUN;
    if item(store, space.fold(writer, run, 0)).await?.is_some() {
        return Ok(ClaimStanding::Counts);
    }
    // The age in either direction: its clock may be ahead of ours.
    let age = now_ms.saturating_sub(theirs.at_ms).unsigned_abs();
    if u128::from(age) < IN_HAND.as_millis() {
        return Ok(ClaimStanding::InHand);
    }
    let of = Writer { space: space.clone(), incarnation: writer };
    match repeated(store, log::seal(&of, slot)).await? {
        Written::Applied(_) => Ok(ClaimStanding::Void),
        Written::Refused(Some(item)) => Ok(judged(&item)),
        Written::Refused(None) => Ok(ClaimStanding::InHand),
    }
}

fn int(slot: u64) -> Value {
    Value::Int(i64::try_from(slot).unwrap_or(i64::MAX))
}
