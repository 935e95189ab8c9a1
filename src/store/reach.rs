//! Reachability of the store, so that requests do not wait for a store that is known to be down.
//!
//! A request that waits in vain, or whose call did not get through, reports it
//! ([`Reach::suspect`]). Then one task reads one small item that belongs to no tenant, repeatedly
//! until it is answered. The results of tenants' own calls decide nothing: an item that is
//! throttled or hot does not make the store unreachable for others.
//!
//! A slow store is not down: an answer that comes late shows that it is reachable, and how long its
//! answers take by now. The next probes are given that much time.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Item, Key, Store, StoreError, StoreErrorKind};
use crate::delays::Delays;
use crate::patience::{self, Progress};

/// The wait after which the store is suspected: early enough that its state is known before a
/// request reaches its own time limit.
const SUSPECT_AFTER: Duration = Duration::from_millis(30);

/// A probe not answered within this time has failed, unless the answer before it took longer. A
/// healthy store answers in a tenth of it.
const PROBE_WITHIN: Duration = Duration::from_millis(200);

/// A failed probe goes on for so long in all. What takes longer helps no request, and a read that
/// is lost must not delay the next one.
const SLOW_WITHIN: Duration = Duration::from_secs(1);

/// Between the begins of failing probes. A recovered store is noticed within the longest.
const PAUSES: Delays = Delays::doubling(Duration::from_millis(25), Duration::from_secs(1));

/// Consecutive probes failing with an error before the store counts as down: a single one may be a
/// cut connection. One unanswered probe is enough.
const FAILURES: u32 = 2;

/// After a false suspicion, the time without another probe.
const REST: Duration = Duration::from_millis(500);

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Reach {
    is_away: AtomicBool,
    suspected: Notify,
}

impl Reach {
    /// Whether the store is known to be down.
    pub(crate) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    /// Reports a request that waits in vain or a call that did not get through: the store gets
    /// probed.
    pub(crate) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Waits for the store, no longer than so; `None`: in vain. Long before that it is looked
    /// whether it is to be reached at all.
    pub(crate) async fn within<T>(
        &self,
        time: Duration,
        wait: impl Future<Output = T>,
    ) -> Option<T> {
        self.while_it_moves(time, 1, Progress::default, wait).await.0
    }

    /// The same for a wait in line, which goes on while the line moves: see [`patience`]. Also: how
    /// often `time` began.
    pub(crate) async fn while_it_moves<T>(
        &self,
        time: Duration,
        most: u32,
        progress: impl Fn() -> Progress,
        wait: impl Future<Output = T>,
    ) -> (Option<T>, u32) {
        let mut wait = pin!(wait);
        let early = SUSPECT_AFTER.min(time);
        if let Ok(done) = tokio::time::timeout(early, &mut wait).await {
            return (Some(done), 1);
        }
        self.suspect();
        patience::while_it_moves(time - early, most, progress, wait).await
    }

    /// Ends the watch: from now on each call finds out by itself.
    pub(crate) fn is_watched_no_more(&self) {
        self.is_away.store(false, Ordering::Release);
    }

    /// Probes the store, by reading this item, whenever it is suspected to be down. Never ends.
    pub(crate) async fn watch(&self, store: &dyn Store, item: &Key) {
        let mut within = PROBE_WITHIN;
        loop {
            self.suspected.notified().await;
            let (mut pauses, mut failures) = (PAUSES, 0);
            loop {
                let begun = Instant::now();
                if self.probe(store, item, &mut within, &mut failures).await {
                    break;
                }
                tokio::time::sleep_until(begun + pauses.step()).await;
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Whether the store is reachable, judging by one read. `within`: the time that it has.
    async fn probe(
        &self,
        store: &dyn Store,
        item: &Key,
        within: &mut Duration,
        failures: &mut u32,
    ) -> bool {
        let (begun, mut read) = (Instant::now(), store.read(item.clone()));
        let mut answer = patience::within(*within, &mut read).await;
        if answer.is_none() {
            self.judge(None, failures);
            answer = patience::within(SLOW_WITHIN.saturating_sub(*within), read).await;
        }
        *within = match answer {
            Some(Ok(_)) => (begun.elapsed() * 2).clamp(PROBE_WITHIN, SLOW_WITHIN),
            _ => PROBE_WITHIN,
        };
        self.judge(answer, failures)
    }

    /// Takes note of the outcome of a read, and returns whether that ends the probes.
    fn judge(&self, answer: Option<Result<Option<Item>, StoreError>>, failures: &mut u32) -> bool {
        let was_away = self.is_away();
        let (has_failed, is_away) = match answer {
            Some(Ok(_)) => (false, false),
            Some(Err(error)) => match error.kind {
                StoreErrorKind::Unavailable | StoreErrorKind::Unknown => {
                    *failures += 1;
                    (true, was_away || *failures >= FAILURES)
                }
                // Our own client may have too many calls in flight: that proves nothing.
                StoreErrorKind::Throttled => (was_away, was_away),
                StoreErrorKind::Invalid | StoreErrorKind::Corrupt => (false, false),
            },
            None => (true, true),
        };
        self.is_away.store(is_away, Ordering::Release);
        match (was_away, is_away) {
            (false, true) => tracing::warn!("store unreachable: requests no longer wait for it"),
            (true, false) => tracing::info!("store reachable again"),
            _ => {}
        }
        !has_failed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Memory;
    use crate::testing::Faulty;

    #[tokio::test(start_paused = true)]
    async fn is_away_from_the_second_failure_on_until_it_answers_and_asks_at_its_own_pace() {
        let store = Faulty::scripted(Memory::new(), []);
        let reach = Arc::new(Reach::default());
        let item = Key { pk: "p".into(), sk: "s".into() };
        let task = tokio::spawn({
            let (reach, store) = (reach.clone(), store.clone());
            async move { reach.watch(&store, &item).await }
        });
        // False suspicions cost two reads a second.
        for _ in 0..1_000 {
            reach.suspect();
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(!reach.is_away());
        }
        assert!(store.calls() <= 21, "{} in 10 s", store.calls());

        store.outage(true);
        reach.suspect();
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(reach.is_away());
        let before = store.calls();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(store.calls() - before <= 62, "{} in a minute", store.calls() - before);
        store.outage(false);
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        assert!(!reach.is_away());
        task.abort();
    }
}
