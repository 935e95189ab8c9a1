//! Ingest of usage events: usage reported by other services, over HTTP or from a queue. Events are
//! facts, so no limit refuses them. Begin with [`Gate::ingest`]; `docs/ingest.md` lists the JSON
//! shapes.
//!
//! # Laws
//!
//! 1. **Once.** An event counts once for each (tenant, id), however often and from wherever it is
//!    sent, over any number of processes, crashes and lost replies. Its claim is kept as long as
//!    the usage.
//! 2. **Acknowledged is durable.** `Ok` means that the event is on record in the store.
//! 3. **In its own window.** It counts on the day and in the billing period of its own timestamp,
//!    while that period is open: the current one, and the one before for 72 hours after its end.
//!    Later it is refused with the period named. An event dated up to 5 minutes ahead counts as of
//!    now.
//! 4. **Paid like all use, late.** Once on record, its units are drawn from the windows that it
//!    lies in, even those that are over, as with any cost that is known late. Where a quota bills,
//!    the debt is on record before the answer. A process that dies in between has counted them, but
//!    neither drawn them nor recorded their debt.
//!
//! The mechanism: a claim item names the log slot that will carry the event's units, and the event
//! counts if that slot is on record (`events/claim.rs`, `events/writer.rs`).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Known;

use crate::error::Error;
use crate::events::EventEntry;
use crate::gate::{Gate, TenantHandle};
use crate::repeated::repeated;

mod dead;
mod post;

#[doc(hidden)]
pub use crate::events::{AHEAD, LATE};
pub use crate::events::{Counted, NotCounted, UnreadableEvent, UsageEvent};
pub use dead::DeadLetter;
#[doc(hidden)]
pub use dead::MAX_LETTER;
#[doc(hidden)]
pub use post::MAX_BODY;

/// Most events of one step.
#[doc(hidden)]
pub const MAX_EVENTS: usize = 1_000;

/// Counts usage events that other services report. [`Gate::ingest`] returns it.
#[derive(Clone, Debug)]
pub struct Ingest(Gate);

impl Gate {
    /// The ingest of usage events, for usage that other services report.
    ///
    /// ```
    /// # let mut builder = tokio::runtime::Builder::new_current_thread();
    /// # builder.enable_all().build().unwrap().block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// use tallygate::ingest::{Counted, UsageEvent};
    ///
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [meter.minutes]
    ///     [plan.free]
    ///     quota.minutes = "100/month"
    /// "#);
    /// let call = UsageEvent::new("call-4711", "acme", "minutes", 12);
    /// let twice = gate.ingest().events(vec![call.clone(), call]).await;
    /// assert_eq!(twice, [Ok(Counted::Now), Ok(Counted::Before)]);
    /// # }
    /// # });
    /// ```
    pub fn ingest(&self) -> Ingest {
        Ingest(self.clone())
    }
}

impl Ingest {
    /// Counts events independently, with the answers in their order. More than 1,000 are counted in
    /// several steps.
    ///
    /// If dropped before it answers, it may have counted them: send them again.
    pub async fn events(&self, events: Vec<UsageEvent>) -> Vec<Result<Counted, NotCounted>> {
        let mut answers = Vec::with_capacity(events.len());
        for some in events.chunks(MAX_EVENTS) {
            answers.extend(self.some(some).await);
        }
        answers
    }

    async fn some(&self, events: &[UsageEvent]) -> Vec<Result<Counted, NotCounted>> {
        let (mut answers, mut entries) = (Vec::with_capacity(events.len()), Vec::new());
        let (mut tenants, mut owing) = (HashMap::new(), HashMap::new());
        for event in events {
            let tenant = match tenants.entry(&*event.tenant) {
                Known::Occupied(known) => known.into_mut(),
                Known::Vacant(new) => new.insert((self.tenant(&event.tenant).await, None)),
            };
            let (tenant, past) = (tenant.0.as_ref().map_err(NotCounted::clone), &mut tenant.1);
            let live = self.0.inner.catalogs.live.load();
            let now = self.0.inner.clock.now();
            match tenant.and_then(|tenant| EventEntry::new(&live, now, &tenant.0, past, event)) {
                Ok(entry) => {
                    owing.extend(entry.may_owe().map(|sheet| (entry.tenant(), sheet)));
                    answers.push(Err(NotCounted::Unavailable));
                    entries.push((answers.len() - 1, entry));
                }
                Err(why) => answers.push(Err(why)),
            }
        }
        let (places, entries): (Vec<usize>, Vec<EventEntry>) = entries.into_iter().unzip();
        if entries.is_empty() {
            return answers;
        }
        let counted = self.0.inner.recording.events.count(entries).await;
        for (at, answer) in places.into_iter().zip(counted) {
            answers[at] = answer;
        }
        if !owing.is_empty() {
            self.0.inner.record_owed(owing.into_values()).await;
        }
        answers
    }

    /// The tenant of this outer id, looked up once for all of its events.
    async fn tenant(&self, id: &str) -> Result<TenantHandle, NotCounted> {
        let unknown = || NotCounted::UnknownTenant(id.to_owned());
        if !crate::identity::is_tenant_id(id) {
            return Err(unknown());
        }
        self.0.tenant(id).await.map_err(|error| match error {
            // Where tenants are created on first sight, this creation has just failed.
            Error::NoTenant(_) if self.0.inner.settings.creates() => NotCounted::Unavailable,
            Error::NoTenant(_) => unknown(),
            error => {
                let now_ms = self.0.inner.clock.now().wall_ms;
                repeated!(warn, now_ms, "ingest: a tenant could not be looked up"; %error);
                NotCounted::Unavailable
            }
        })
    }
}

#[cfg(test)]
mod tests;
