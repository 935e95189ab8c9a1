//! Closing a gate, and flushing it on demand.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::guests::SETTLE_WITHIN;
use super::{Gate, Inner};
use crate::error::Error;
use crate::ledger::flush::FlushError;
use crate::payers::late;
use crate::quota::lease::Lease;
use crate::renewal;
use crate::sheets::sheet::Sheet;
use crate::store::{StoreError, StoreErrorKind};
use crate::task::OwnedTask;

/// Longest time that closing waits for open work; then it reports what is left.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// A year: the most that a close waits. An instant further off is none on some platforms.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// This part of the time is kept for the seal of the log: whatever of the leases is in doubt then,
/// others may take what is left of it once the log has ended, and not before.
const FOR_THE_SEAL: u32 = 10;

/// One part in this of the time is for work that is still open to end: permits, and whatever else
/// holds units. The rest is enough to record what it has used.
const FOR_OPEN_WORK: u32 = 4;

/// Between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long late use may wait for its leases: at the end it is owed then. Longer than any answer of
/// a store that works.
const PAY_WITHIN: Duration = Duration::from_secs(2);

/// Claims that are settled so soon are in the same flush. What was counted waits no longer for
/// slower ones: a function may be frozen, or ended, before they are settled.
const CLAIMS_SOON: Duration = Duration::from_millis(100);

/// A flush waits this long for claims to be settled: as long as an admission waits to make one.
const CLAIMS_WITHIN: Duration = Duration::from_secs(6);

/// A close answers this long after its deadline at the latest: another that is being made may have
/// a later one.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// Work that has not ended when the gate closes.
#[derive(Debug, Default)]
struct OpenWork {
    leases: Vec<Arc<Lease>>,
    permits: u64,
}

impl OpenWork {
    fn is_none(&self) -> bool {
        self.leases.is_empty() && self.permits == 0
    }
}

impl Inner {
    /// Waits until permits have ended and no other work holds units, and logs what has not ended.
    async fn wait_for_open_work(&self, until: Instant) {
        let mut open = OpenWork { leases: self.tenants.all_leases(), permits: 0 };
        loop {
            // A slot of a rate is over in seconds, and nothing of it is recorded.
            open.leases.retain(|lease| !lease.is_of_slot() && lease.open_holds() > 0);
            open.permits = self.hub.open_permits.load(Ordering::Acquire);
            let now = Instant::now();
            if open.is_none() || now >= until {
                break;
            }
            tokio::time::sleep_until(until.min(now + LOOK_EVERY)).await;
        }
        let active = self.tenants.active.iter();
        // Counted where their number is limited; upgraded connections are among them.
        let in_flight: u64 =
            active.map(|it| u64::from(it.core.in_flight.load(Ordering::Acquire))).sum();
        let requests = in_flight.max(open.permits);
        if requests == 0 && open.is_none() {
            return;
        }
        let (units, pools) = (self.units_open(&open.leases), open.leases.len());
        tracing::warn!(
            requests,
            units,
            pools,
            "work is still open while the gate closes: the units it holds stay spent until their \
             windows end, and what it uses from now on may not be recorded. End it before closing \
             the gate"
        );
    }

    /// Whole units that work which has not ended holds of these leases.
    fn units_open(&self, leases: &[Arc<Lease>]) -> u64 {
        let catalog = &self.catalogs.live.load().catalog;
        let of = |lease: &Arc<Lease>| {
            // A limit is called by its meter; a grant is not.
            let meter = lease.pool().limit.split('/').next().and_then(|it| catalog.meter(it));
            let scale = meter.map_or(1, |id| catalog.meters[usize::from(id.0)].scale);
            lease.open_holds().div_ceil(scale.max(1))
        };
        leases.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Waits until all late use has been paid; what is not by then is owed by its quotas.
    async fn settle_late(&self, deadline: Instant) {
        let until = deadline.min(Instant::now() + PAY_WITHIN);
        if tokio::time::timeout_at(until, self.hub.answers.all_paid(|_| true)).await.is_err() {
            let now = self.clock.now();
            for sheet in self.hub.answers.take_all() {
                late::settle(&sheet, now, true);
            }
        }
    }

    /// The same for this sheet's tenant, before its numbers are reported.
    pub(super) async fn wait_for_late(&self, of: &Sheet) {
        let paid = self.hub.answers.all_paid(|it| of.shares_tenant(it));
        let _ = tokio::time::timeout(super::LEASE_WAIT, paid).await;
    }

    /// Waits until it is known what these tenants' late use owes, and that is on record, within
    /// [`PAY_WITHIN`].
    pub(crate) async fn record_owed(&self, tenants: impl Iterator<Item = Arc<Sheet>>) {
        let recorded = async {
            for sheet in tenants {
                self.hub.answers.all_paid(|it| sheet.shares_tenant(it)).await;
            }
            self.recording.flusher.flush_now().await
        };
        if !matches!(tokio::time::timeout(PAY_WITHIN, recorded).await, Ok(Ok(()))) {
            tracing::debug!("ingested usage is recorded; what it owes is recorded later");
        }
    }
}

/// All that was to be written may be, and a disk that stalls keeps the file.
fn still_open() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        "the store was not closed in time: it closes in the background, or when the process ends",
    )
}

impl Gate {
    /// Closes the gate within 10 seconds: settles requests that are still being handled or answered
    /// as aborted, waits up to a quarter of the time for permits and other work that holds units,
    /// flushes what was counted, gives leases back, and closes the store.
    ///
    /// Call it after the server has stopped and other work has ended. Work that is still open after
    /// that quarter is logged with its number and units. These units stay spent until their windows
    /// end, because the work may still use them. Units that are settled, or reported through a kept
    /// [`Usage`](super::Usage), after the gate is closed are on no record; that is logged as well.
    ///
    /// It may be called repeatedly: a call while the gate closes waits for that, and a later one
    /// has nothing left to do. After an error, or if the future was dropped, the next call
    /// continues.
    ///
    /// # Errors
    ///
    /// Usage could not be written in time; it is in the journal if there is one. Or the store has
    /// not closed in time.
    pub async fn close(&self) -> Result<(), Error> {
        self.close_within(CLOSE_WITHIN).await
    }

    /// [`close`](Self::close) within the time that the platform leaves; at most a year.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close).
    pub async fn close_within(&self, time: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + time.min(FAR);
        let closed = self.inner.teardown.closed.get_or_try_init(|| self.end(deadline));
        let closed = tokio::time::timeout_at(deadline + SAY_WITHIN, closed).await;
        closed.unwrap_or_else(|_| Err(still_open().into())).copied()
    }

    async fn end(&self, deadline: Instant) -> Result<(), Error> {
        let inner = &self.inner;
        inner.teardown.closing.store(true, Ordering::Release);
        let time = deadline.saturating_duration_since(Instant::now());
        // Cut off where they are: the store may be away.
        let maintenance = inner.teardown.maintenance.get().into_iter().flatten();
        maintenance.clone().for_each(OwnedTask::stop);
        for task in maintenance {
            task.ended().await;
        }
        inner.hub.reach.is_watched_no_more();
        // Whatever one tenant's trouble keeps waiting here, the flush has the rest of the time.
        let before_flush = deadline - time / 2;
        if let Some(sharing) = inner.leasing.sharing.get() {
            sharing.close(before_flush).await;
        }
        let cut = inner.teardown.in_hand.close();
        if cut > 0 {
            tracing::warn!(
                requests = cut,
                "requests were still being handled or answered: settled as aborted, and what they \
                 use from now on is not recorded"
            );
        }
        inner.wait_for_open_work(Instant::now() + time / FOR_OPEN_WORK).await;
        // What it draws from leases is flushed below.
        inner.recording.events.close(before_flush).await;
        if !inner.recording.settler.close(before_flush).await {
            tracing::warn!(
                "requests with idempotency keys were not answered: their claims are not settled"
            );
        }
        // What guests used the flush below has.
        inner.tenants.close_guests(before_flush.min(Instant::now() + SETTLE_WITHIN)).await;
        inner.settle_late(before_flush).await;
        inner.leasing.renewer.close().await;
        let flushed = inner.recording.flusher.close(deadline).await;
        let unrecorded = inner.hub.unrecorded.end();
        let (log, flushed) = match flushed {
            Ok(log) => (log, Ok(())),
            Err(error) => (None, Err(error)),
        };
        if unrecorded > 0 && flushed.is_ok() {
            tracing::warn!(
                tenants = unrecorded,
                "not recorded: usage that came while the gate was closing, after its last flush"
            );
        }
        let for_leases = deadline - time / FOR_THE_SEAL;
        let kept = inner.tenants.close_idle(&inner.leasing.ctx, for_leases).await
            + renewal::give_back(&inner.leasing.ctx, inner.tenants.all_leases(), for_leases).await;
        if kept > 0 {
            tracing::warn!(leases = kept, "leases were not given back: their units stay spent");
        }
        if let Some(log) = log {
            // Only now: from here on others may take what could not be given back.
            let ended = tokio::time::timeout_at(deadline, log.end(&*inner.leasing.ctx.store)).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::warn!(
                    "the usage log could not be ended: other processes will examine it needlessly"
                );
            }
        }
        inner.stop_alerts(deadline);
        inner.recording.decisions.close(deadline, Instant::now()).await;
        // Last: a Stripe that does not answer must not keep units from being given back.
        #[cfg(feature = "stripe")]
        inner.close_reports(deadline).await;
        inner.close_alerts(deadline).await;
        if let Some(units) = inner.leasing.ctx.store.units() {
            tracing::info!(read = units.read, write = units.write, "units charged by the store");
        }
        let closed = tokio::time::timeout_at(deadline, inner.leasing.ctx.store.close()).await;
        flushed?;
        Ok(closed.unwrap_or_else(|_| Err(still_open()))?)
    }

    /// Writes all usage that was counted so far to the store, instead of at the next flush. It
    /// waits as well, up to 6 seconds, until the ids of work that was settled so far
    /// ([`Ask::once`](crate::Ask::once)) are charged.
    ///
    /// # Errors
    ///
    /// Usage could not be written; it stays in memory and is tried again.
    pub async fn flush_now(&self) -> Result<(), Error> {
        let recording = &self.inner.recording;
        let claims = recording.settler.queue();
        let mut settled = std::pin::pin!(claims.all_settled());
        let are_settled = tokio::time::timeout(CLAIMS_SOON, settled.as_mut()).await.is_ok();
        recording.flusher.flush_now().await?;
        if are_settled {
            return Ok(());
        }
        let settled = tokio::time::timeout(CLAIMS_WITHIN, settled).await;
        recording.flusher.flush_now().await?; // what they have charged meanwhile
        if settled.is_err() {
            let cause = "claims on the ids of work are not settled yet".to_owned();
            return Err(FlushError { rows: claims.unsettled(), cause }.into());
        }
        Ok(())
    }

    /// Returns when everything counted before this call is in the store.
    pub(crate) fn recorded(&self) -> super::Pending {
        let inner = self.inner.clone();
        Box::pin(async move {
            inner.recording.flusher.barrier().await;
            super::Waited::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::testing;

    #[tokio::test]
    async fn a_close_may_be_given_all_the_time_there_is() {
        for time in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::ZERO] {
            let (gate, _clock) = testing::gate("default-plan = \"free\"\n[plan.free]\n");
            let _ = gate.close_within(time).await;
        }
    }
}
