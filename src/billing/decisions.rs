//! What operators have decided about entries of the outbox: who, when and why. It is kept in the
//! outbox's item and written with the decision, so that neither is without the other.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::clock::time_at;
use crate::store::{Change, Item, StoreError, StoreErrorKind, Value};

/// Decisions that an item keeps, the latest: it stays far below what a table takes as one item.
const MOST: usize = 32;

/// Longest name of an actor, and longest reason, in characters, as in a tenant's history.
const MAX_ACTOR: usize = 128;
const MAX_REASON: usize = 512;

const DECIDED: &str = "decided";

/// A decision about an entry that had stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxDecision {
    /// The entry's identifier at the service.
    pub identifier: String,
    /// Its units, whole ones of the service.
    pub units: u64,
    /// Whether they count; otherwise they are owed anew.
    pub counts: bool,
    at_ms: i64,
    /// Who has decided, if that was said.
    pub actor: Option<String>,
    /// Why, if that was said.
    pub reason: Option<String>,
}

/// Who decides, and why.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DecidedBy<'a> {
    pub(crate) actor: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
}

impl DecidedBy<'_> {
    /// The decision that it makes, unless a text is too long or of several lines.
    pub(super) fn about(
        self,
        (identifier, units): (String, u64),
        counts: bool,
        at_ms: i64,
    ) -> Result<OutboxDecision, StoreError> {
        let checked = |text: Option<&str>, most: usize, what: &str| match text {
            Some(text) if text.chars().count() > most || text.chars().any(char::is_control) => {
                let text = format!("{what} is one line of at most {most} characters");
                Err(StoreError::new(StoreErrorKind::Invalid, text))
            }
            text => Ok(text.map(str::to_owned)),
        };
        let actor = checked(self.actor, MAX_ACTOR, "an actor")?;
        let reason = checked(self.reason, MAX_REASON, "a reason")?;
        Ok(OutboxDecision { identifier, units, counts, at_ms, actor, reason })
    }
}

impl OutboxDecision {
    /// When it was made.
    pub fn at(&self) -> SystemTime {
        time_at(self.at_ms)
    }
}

/// The decisions in an outbox's item, the latest last.
pub(super) fn in_item(item: &Item) -> Result<Vec<OutboxDecision>, StoreError> {
    let Some(bytes) = item.bytes(DECIDED) else { return Ok(Vec::new()) };
    let damaged = |_| StoreError::new(StoreErrorKind::Corrupt, "decisions cannot be read");
    postcard::from_bytes(bytes).map_err(damaged)
}

/// The decisions with one more, and the change of the item that keeps them.
pub(super) fn with(
    known: &[OutboxDecision],
    made: OutboxDecision,
) -> Result<(Vec<OutboxDecision>, Change), StoreError> {
    let mut all = known.to_vec();
    all.push(made);
    all.drain(..all.len().saturating_sub(MOST));
    let bytes = postcard::to_stdvec(&all)
        .map_err(|_| StoreError::new(StoreErrorKind::Invalid, "decisions do not encode"))?;
    Ok((all, Change::Set(DECIDED.into(), Value::Bytes(bytes))))
}
