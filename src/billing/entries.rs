//! The outbox as an operator sees it: entries on their way, and those that wait for a decision.

use std::sync::Arc;
use std::time::SystemTime;

use super::decisions::OutboxDecision;
use super::due::DueUse;
use super::item::{self, ItemId};
use super::outbox::{Outbox, OutboxEntry, PendingEntry, SentEntry, Stopped};
use super::report::Reporter;
use super::result::StoppedEntry;
use crate::amount::{Amount, Atoms};
use crate::clock::time_at;
use crate::store::StoreError;

/// Where an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// It was never sent, or is certain not to count: the next report sends it.
    Waits,
    /// It was sent, and there was no answer.
    Uncertain,
    /// It waits for an operator, for this reason.
    Stopped(Stopped),
    /// It was accepted, and is verified a day later.
    Sent,
    /// It was accepted, and the sum of its minute is this.
    Doubtful(i64),
}

impl EntryState {
    /// Its word, as the operator's command and routes have it.
    #[doc(hidden)]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Uncertain => "uncertain",
            Self::Stopped(_) => "stopped",
            Self::Sent => "sent",
            Self::Doubtful(_) => "doubtful",
        }
    }

    /// Why it is in this state, where the word does not say it.
    #[doc(hidden)]
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Waits | Self::Sent => None,
            Self::Uncertain => Some("there was no answer".to_owned()),
            Self::Stopped(Stopped::Refused(words)) => Some(format!("refused: {words}")),
            Self::Stopped(Stopped::Sum(sum)) | Self::Doubtful(sum) => {
                Some(format!("the sum of its minute is {sum}"))
            }
        }
    }
}

/// An entry whose outcome is not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its identifier at the service.
    pub identifier: String,
    /// Its item, and its number in that.
    pub entry: StoppedEntry,
    /// The tenant's id, if the directory still has it.
    pub tenant: Option<Arc<str>>,
    /// The event name of the meter at the service.
    pub event: String,
    /// Whole units of the service.
    pub units: u64,
    /// The minute that it is dated.
    pub minute: SystemTime,
    /// Where it stands.
    pub state: EntryState,
}

/// An operator's decision about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedEntry {
    /// The entry's item.
    pub item: ItemId,
    /// The tenant's id, if the directory still has it.
    pub tenant: Option<Arc<str>>,
    /// What was decided.
    pub decision: OutboxDecision,
}

/// A tenant's usage of a meter in a billing period, and what was sent of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BilledPeriod {
    /// The item.
    pub item: ItemId,
    /// The event name of the meter at the service.
    pub event: String,
    /// On record.
    pub recorded: Amount,
    /// Owed of that.
    pub owed: Amount,
    /// Whole units of the service that it has accepted.
    pub sent: u64,
}

impl OutboxRow {
    /// Whether the service has refused it: then it is certain not to count, and may be sent anew.
    #[doc(hidden)]
    pub fn was_refused(&self) -> bool {
        matches!(self.state, EntryState::Stopped(Stopped::Refused(_)))
    }
}

impl Reporter {
    /// This use, with what was sent of it.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "Stripe alone has an outbox"))]
    pub(crate) async fn billed(&self, due: Vec<DueUse>) -> Result<Vec<BilledPeriod>, StoreError> {
        let mut periods = Vec::new();
        for due in due {
            let sent = self.outbox(&due.id).await?.value_sent();
            let amount = |atoms: Atoms| Amount::new(atoms.0, due.id.scale);
            let (recorded, owed) = (amount(due.used), amount(due.owed()));
            let (item, event) = (due.id, due.terms.event);
            periods.push(BilledPeriod { item, event, recorded, owed, sent });
        }
        Ok(periods)
    }

    /// The entries of these items whose outcome is not final, item by item.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "Stripe alone has an outbox"))]
    pub(crate) async fn rows(
        &self,
        items: impl Iterator<Item = &ItemId>,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let mut rows = Vec::new();
        for id in items {
            let Outbox { pending, sent, .. } = self.outbox(id).await?;
            let sent = sent.iter().map(|sent| (&sent.entry, accepted(sent)));
            let open = pending.iter().map(|pending| (&pending.entry, open(pending)));
            rows.extend(sent.chain(open).map(|(entry, state)| self.row(id, entry, state)));
        }
        Ok(rows)
    }

    /// What operators have decided about entries of these items, the latest of each last.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "Stripe alone has an outbox"))]
    pub(crate) async fn decided(
        &self,
        items: impl Iterator<Item = &ItemId>,
    ) -> Result<Vec<DecidedEntry>, StoreError> {
        let (store, space) = (&*self.inner.store, &self.inner.space);
        let mut all = Vec::new();
        for item in items {
            let made = item::read(store, item.key(space)).await?.decided;
            let entry = |decision| DecidedEntry { item: item.clone(), tenant: None, decision };
            all.extend(made.into_iter().map(entry));
        }
        Ok(all)
    }

    fn row(&self, id: &ItemId, entry: &OutboxEntry, state: EntryState) -> OutboxRow {
        OutboxRow {
            identifier: self.inner.origin.identifier(id, entry),
            entry: StoppedEntry { item: id.clone(), k: entry.k },
            tenant: None,
            event: entry.event.clone(),
            units: entry.value,
            minute: time_at(entry.minute_s.saturating_mul(1_000)),
            state,
        }
    }
}

fn open(pending: &PendingEntry) -> EntryState {
    match (&pending.stopped, pending.first_s) {
        (Some(why), _) => EntryState::Stopped(why.clone()),
        (None, Some(_)) => EntryState::Uncertain,
        (None, None) => EntryState::Waits,
    }
}

fn accepted(sent: &SentEntry) -> EntryState {
    sent.doubt.map_or(EntryState::Sent, EntryState::Doubtful)
}
