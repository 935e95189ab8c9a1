//! The gate's tasks for alerts: those that send, and the one that looks for what is due and for
//! trouble of the service as a whole. And a test of it all.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::health::Trouble;
use super::{Gate, Inner};
use crate::error::Error;
use crate::notify::kinds;
use crate::notify::queue::Entry;
use crate::notify::{AlertDelivery, AlertQueue, NotDelivered, Notification, SEND_WITHIN};
use crate::repeated::repeated;
use crate::store::StoreError;
use crate::task::OwnedTask;

/// How often alerts that are due are looked for, and trouble of the service.
const LOOK: Duration = Duration::from_secs(60);

/// How long after the start that is done first.
const FIRST: Duration = Duration::from_secs(5);

/// Trouble of the service that goes on is an alert once in so long.
const PERIOD_MS: i64 = 3_600_000;

/// Usage that waits for so long is an alert: a write that fails is repeated sooner.
const LATE: Duration = Duration::from_secs(30);

/// What an operator has to decide, or to look into, is one once in so long.
#[cfg(feature = "stripe")]
const DAY_MS: i64 = 86_400_000;

/// Kept of a close's time for the end of the store.
const FOR_THE_STORE: Duration = Duration::from_millis(500);

/// Starts to send, and to look.
pub(super) fn start(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let queue = &inner.outbound.alerts.queue;
    let judge = Arc::new(inner.tenants.directory.clone());
    let mut senders = Vec::new();
    for to in queue.destinations.iter().filter(|to| to.sends) {
        senders.push(AlertDelivery::start(queue.clone(), to.clone(), judge.clone())?);
    }
    inner.outbound.alerts.senders.get_or_init(|| senders);
    Ok(())
}

/// The task that looks, if there is anything to look for. It may be cut off anywhere.
pub(super) fn watching(inner: &Arc<Inner>) -> Option<OwnedTask> {
    let sends = inner.outbound.alerts.queue.destinations.iter().any(|to| to.sends);
    // A weak reference: a task must not keep alive a gate that its host has dropped.
    sends.then(|| OwnedTask::until_stopped(watch(Arc::downgrade(inner))))
}

async fn watch(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval_at(Instant::now() + FIRST, LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut found = Found::default();
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let now_ms = inner.clock.now().wall_ms;
        let queue = &inner.outbound.alerts.queue;
        if let Err(error) = queue.move_due(&inner.tenants.directory).await {
            repeated!(warn, now_ms, "alerts that are due cannot be read"; %error);
        }
        found.look(&inner, now_ms);
        if let Err(error) = found.raise(queue).await {
            tracing::debug!(%error, "an alert of the service is written later");
        }
    }
}

/// Trouble of the service that was found, until its alert is written: the store itself may be what
/// is wrong. At most one of each kind.
#[derive(Default)]
struct Found {
    waiting: BTreeMap<&'static str, Entry>,
    /// The period in which each kind was raised last.
    raised: BTreeMap<&'static str, i64>,
    /// Since when usage has not been reported, on the wall clock.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "nothing is reported"))]
    unreported_ms: Option<i64>,
}

impl Found {
    fn look(&mut self, inner: &Inner, now_ms: i64) {
        let mut troubles = Vec::new();
        inner.troubles(&mut troubles);
        for trouble in &troubles {
            // In words of ours: an error of the store or of Stripe is for the log of this process,
            // and not for a channel.
            match trouble {
                Trouble::NotWritten { oldest, .. } if *oldest >= LATE => {
                    let seconds = oldest.as_secs();
                    let text = format!("usage has not been written for {seconds} s: see the log");
                    let data = json!({"oldest_seconds": oldest.as_secs()});
                    self.note(kinds::USAGE_LATE, now_ms, PERIOD_MS, text, data);
                }
                #[cfg(feature = "stripe")]
                Trouble::NotReported { succeeded, .. } if self.is_late(inner, now_ms) => {
                    let since = succeeded.map(|at| crate::clock::unix_ms(at).div_euclid(1_000));
                    let data = json!({"reported_until": since});
                    let text = "reports to Stripe fail: see the log".to_owned();
                    self.note(kinds::BILLING_LATE, now_ms, PERIOD_MS, text, data);
                }
                #[cfg(feature = "stripe")]
                trouble => self.note_of_billing(trouble, now_ms),
                #[cfg(not(feature = "stripe"))]
                _ => {}
            }
        }
        if !troubles.iter().any(|it| matches!(it, Trouble::NotReported { .. })) {
            self.unreported_ms = None;
        }
    }

    /// What an operator has to look into, once a day.
    #[cfg(feature = "stripe")]
    fn note_of_billing(&mut self, trouble: &Trouble, now_ms: i64) {
        let (kind, data) = match trouble {
            Trouble::BillingWaits { items } => (kinds::BILLING_WAITS, json!({"items": items})),
            Trouble::OutboxOld { oldest, entries } => {
                let data = json!({"entries": entries, "oldest_seconds": oldest.as_secs()});
                (kinds::BILLING_OLD, data)
            }
            _ => return,
        };
        self.note(kind, now_ms, DAY_MS, trouble.to_string(), data);
    }

    /// Whether reports have failed for two intervals: one that fails is repeated by the next.
    #[cfg(feature = "stripe")]
    fn is_late(&mut self, inner: &Inner, now_ms: i64) -> bool {
        let every = inner.outbound.billing.as_ref().map_or(Duration::ZERO, |billing| billing.every);
        let since_ms = *self.unreported_ms.get_or_insert(now_ms);
        let late_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).saturating_mul(2);
        now_ms.saturating_sub(since_ms) >= late_ms
    }

    fn note(
        &mut self,
        kind: &'static str,
        now_ms: i64,
        period_ms: i64,
        text: String,
        data: serde_json::Value,
    ) {
        let period = now_ms.div_euclid(period_ms).saturating_mul(period_ms);
        if self.raised.insert(kind, period) != Some(period) {
            let entry = kinds::service_trouble(kind, now_ms, period, text, data);
            self.waiting.insert(kind, entry);
        }
    }

    async fn raise(&mut self, queue: &AlertQueue) -> Result<(), StoreError> {
        while let Some((kind, entry)) = self.waiting.first_key_value() {
            queue.raise_of_service(entry).await?;
            let kind = *kind;
            self.waiting.remove(kind);
        }
        Ok(())
    }
}

impl Inner {
    /// Signals the tasks that send to end, all of them before the first is waited for: each has the
    /// whole time for its delivery under way.
    pub(super) fn stop_alerts(&self, deadline: Instant) {
        for sender in self.outbound.alerts.senders.get().into_iter().flatten() {
            sender.stop(deadline - FOR_THE_STORE);
        }
    }

    /// Waits for their end.
    pub(super) async fn close_alerts(&self, deadline: Instant) {
        for sender in self.outbound.alerts.senders.get().into_iter().flatten() {
            sender.ended_by(deadline - FOR_THE_STORE).await;
        }
    }

    /// Raises that an audit has found gaps, once a day.
    #[cfg(feature = "stripe")]
    pub(super) async fn raise_drift(&self, gaps: usize) {
        let queue = &self.outbound.alerts.queue;
        let at_ms = queue.stamp();
        let day = at_ms.div_euclid(DAY_MS).saturating_mul(DAY_MS);
        let text = format!("the audit has found {gaps} differences");
        let data = json!({"gaps": gaps});
        let entry = kinds::service_trouble(kinds::BILLING_DRIFT, at_ms, day, text, data);
        if let Err(error) = queue.raise_of_service(&entry).await {
            tracing::warn!(%error, "the alert of an audit's differences was not written");
        }
    }
}

impl Gate {
    /// Sends a test to every destination of alerts at once, past their queues, and returns what
    /// became of each, by its name.
    pub async fn test_alerts(&self) -> Vec<(String, Result<(), NotDelivered>)> {
        let queue = &self.inner.outbound.alerts.queue;
        let nonce = crate::random::u64().unwrap_or_default();
        let test = kinds::test(queue.stamp(), nonce).notification;
        let mut under_way = JoinSet::new();
        for (at, to) in queue.destinations.iter().enumerate() {
            let delivery = to.notifier.deliver(test.clone());
            under_way.spawn(async move {
                let done = tokio::time::timeout(SEND_WITHIN, delivery).await;
                let late = || NotDelivered::Later(format!("no answer within {SEND_WITHIN:?}"));
                (at, done.unwrap_or_else(|_| Err(late())))
            });
        }
        let panicked = || Err(NotDelivered::Later("the notifier panicked".to_owned()));
        let names = queue.destinations.iter().map(|to| to.name().to_owned());
        let mut all: Vec<_> = names.map(|name| (name, panicked())).collect();
        while let Some(ended) = under_way.join_next().await {
            if let Ok((at, done)) = ended {
                all[at].1 = done;
            }
        }
        all
    }

    /// Alerts that wait to be delivered, each with the name of its destination and, where that has
    /// refused it, why; the oldest of each destination first. It reads the store.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn waiting_alerts(
        &self,
    ) -> Result<Vec<(String, Notification, Option<String>)>, Error> {
        let queue = &self.inner.outbound.alerts.queue;
        let mut all = Vec::new();
        for to in &queue.destinations {
            for (_, entry) in queue.waiting(to.name(), usize::MAX).await? {
                all.push((to.name().to_owned(), entry.notification, entry.refused));
            }
        }
        Ok(all)
    }
}

#[cfg(feature = "stripe")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_that_stays_old_is_one_alert_a_day() {
        let day = |n: i64| 1_800_000_000_000_i64.div_euclid(DAY_MS) * DAY_MS + n * DAY_MS;
        let old = Trouble::OutboxOld { oldest: Duration::from_secs(30 * 3_600), entries: 3 };
        let mut found = Found::default();
        let mut raised = Vec::new();
        for now_ms in [day(0), day(0) + 60_000, day(1) - 1, day(1), day(1) + 1] {
            found.note_of_billing(&old, now_ms);
            raised.extend(std::mem::take(&mut found.waiting).into_values());
        }
        let [first, second] = &*raised else { panic!("{} alerts", raised.len()) };
        assert_ne!(first.notification.id, second.notification.id);
        let payload: serde_json::Value = serde_json::from_str(&first.notification.payload).unwrap();
        assert_eq!(payload["type"], "tallygate.billing.old");
        assert_eq!(payload["data"], json!({"entries": 3, "oldest_seconds": 108_000}));
        assert!(first.notification.text.contains("the oldest for 30 h"));
    }
}
