//! Sends the alerts of one queue: the oldest first, each until the destination has it.
//!
//! The task holds the queue's lock, so that one process sends. While deliveries fail it pauses for
//! [`PAUSES`], and then tries the oldest again. Stopped, it ends the delivery under way, so that
//! an orderly end sends nothing twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::queue::{self, AlertQueue, Destination, Entry, Judge, QueueState, Verdict};
use super::{KEEP_MS, MAX_WAITING, NotDelivered, SEND_WITHIN};
use crate::clock::{nanos, unix_ms};
use crate::delays::{Delays, jittered};
use crate::repeated::repeated;
use crate::store::{Item, Lock, Page, StoreError};
use crate::task::OwnedTask;
use crate::telemetry;

/// How often a queue is looked at for what other processes have written; what this one writes is
/// sent at once.
const LOOK: Duration = Duration::from_secs(5);

/// How often a process that does not send looks whether it is to.
const STAND_BY: Duration = Duration::from_secs(20);

/// Pauses after deliveries that failed: a receiver that is back is noticed within five minutes.
const PAUSES: Delays = Delays::doubling(Duration::from_secs(5), Duration::from_secs(300));

/// For so long a lock is taken: a process that died is followed by another within it.
const HOLD: Duration = Duration::from_secs(60);

/// With less than this left the lock is taken anew, before a delivery that may take
/// [`SEND_WITHIN`].
const LEFT: Duration = Duration::from_secs(25);

/// Alerts read at once.
const PAGE: usize = 64;

/// What a destination refuses is tried for so long, in case that was its mistake.
const REFUSED_MS: i64 = 86_400_000;

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct AlertDelivery(OwnedTask);

impl AlertDelivery {
    /// Starts to send to a destination.
    ///
    /// # Errors
    ///
    /// There are no random bytes.
    pub(crate) fn start(
        queue: Arc<AlertQueue>,
        to: Arc<Destination>,
        judge: Arc<dyn Judge>,
    ) -> Result<Self, StoreError> {
        let lock = Lock::new(queue.store.clone(), queue.space.notifier(to.name()))?;
        let mut sender =
            AlertSender { queue, to, judge, lock, held_ns: 0, failing: None, unnoted: None };
        Ok(Self(OwnedTask::start(|stop| async move {
            let (ends, ending) = watch::channel(false);
            let mut work = std::pin::pin!(sender.run(ending));
            tokio::select! {
                biased;
                () = stop.signalled() => {}
                () = &mut work => return,
            }
            let _ = ends.send(true);
            work.await;
        })))
    }

    /// Ends the task, after the delivery under way or at the deadline.
    pub(crate) async fn close(&self, deadline: Instant) {
        self.0.stop();
        if self.0.ended_by(deadline).await.is_err() {
            tracing::debug!("an alert was under way at the end: it is sent again");
        }
    }
}

/// See the [module](self).
struct AlertSender {
    queue: Arc<AlertQueue>,
    to: Arc<Destination>,
    judge: Arc<dyn Judge>,
    lock: Lock,
    /// The lock is ours until then, on the monotonic clock.
    held_ns: u64,
    /// The next pause, while deliveries fail.
    failing: Option<Delays>,
    /// The alert that was delivered, until that is noted: the store may fail in between.
    unnoted: Option<String>,
}

/// How a walk along the queue ended.
enum Walked {
    /// All that can be sent was sent.
    ToTheEnd,
    /// Another process sends.
    StandBy,
    /// The gate closes.
    Ending,
    /// A delivery failed, for this reason.
    Failed(String),
}

/// What became of one alert.
enum Fate {
    /// It is in the queue no more, or waits for its effect.
    Settled,
    Failed(String),
}

impl AlertSender {
    async fn run(&mut self, mut ending: watch::Receiver<bool>) {
        loop {
            let walked = self.walk(&ending).await;
            let now_ms = self.queue.clock.now().wall_ms;
            let pause = match walked {
                Ok(Walked::Ending) => break,
                Ok(Walked::ToTheEnd) => {
                    self.failing = None;
                    self.say(QueueState::default());
                    LOOK
                }
                Ok(Walked::StandBy) => {
                    self.failing = None;
                    self.say(QueueState::default());
                    STAND_BY
                }
                Ok(Walked::Failed(why)) => {
                    let to = self.to.name();
                    repeated!(warn, now_ms, "an alert could not be delivered"; to, %why);
                    self.look_at_the_rest(why).await;
                    jittered(self.failing.get_or_insert(PAUSES).step())
                }
                Err(error) => {
                    repeated!(warn, now_ms, "alerts that wait cannot be read"; %error);
                    LOOK
                }
            };
            tokio::select! {
                biased;
                _ = ending.wait_for(|ends| *ends) => break,
                () = self.to.woken.notified(), if self.failing.is_none() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        if self.held_ns > 0
            && let Err(error) = self.lock.release().await
        {
            tracing::debug!(%error, "a lock of alerts was not released: it will expire");
        }
    }

    /// Whether this process is the one that sends.
    async fn holds(&mut self) -> Result<bool, StoreError> {
        let now = self.queue.clock.now();
        if now.mono_ns.saturating_add(nanos(LEFT)) < self.held_ns {
            return Ok(true);
        }
        let taken = self.lock.take(now.wall_ms, HOLD).await?;
        self.held_ns = if taken { now.mono_ns.saturating_add(nanos(HOLD)) } else { 0 };
        Ok(taken)
    }

    /// Sends what waits, the oldest first.
    async fn walk(&mut self, ending: &watch::Receiver<bool>) -> Result<Walked, StoreError> {
        let mut from = String::new();
        loop {
            if !self.holds().await? {
                return Ok(Walked::StandBy);
            }
            let Page { items, next } = self.queue.page(self.to.name(), from, PAGE).await?;
            for (sk, item) in items {
                if *ending.borrow() {
                    return Ok(Walked::Ending);
                }
                if !self.holds().await? {
                    return Ok(Walked::StandBy);
                }
                if let Fate::Failed(why) = self.one(&sk, &item).await? {
                    return Ok(Walked::Failed(why));
                }
            }
            match next {
                Some(next) => from = next,
                None => return Ok(Walked::ToTheEnd),
            }
        }
    }

    /// Sends one alert, if it is to be sent.
    async fn one(&mut self, sk: &str, item: &Item) -> Result<Fate, StoreError> {
        let (queue, destination) = (self.queue.clone(), self.to.clone());
        let to = destination.name();
        let entry = match queue::read(item) {
            Ok(entry) => entry,
            // It waits for a binary that knows its format, or expires; the others go on.
            Err(error) => {
                let now_ms = queue.clock.now().wall_ms;
                repeated!(warn, now_ms, "an alert cannot be read"; %error, to);
                return Ok(Fate::Settled);
            }
        };
        let id = &entry.notification.id;
        if queue.was_sent(to, id).await? {
            queue.dequeue(to, sk).await?;
            return Ok(Fate::Settled);
        }
        if self.unnoted.as_ref() == Some(id) {
            queue.sent(to, sk, id).await?;
            self.unnoted = None;
            return Ok(Fate::Settled);
        }
        let age_ms = self.age_ms(&entry);
        if age_ms > KEEP_MS {
            return self.give_up(sk, &entry, "it has waited for a week").await;
        }
        match self.judge.judge(&entry.about).await {
            Ok(Verdict::Happened) => {}
            Ok(Verdict::Pending) => return Ok(Fate::Settled),
            Ok(Verdict::Never) => {
                queue.dequeue(to, sk).await?;
                return Ok(Fate::Settled);
            }
            // A tenant's damaged record keeps no other's alert waiting.
            Err(error) if !error.is_temporary() => return Ok(Fate::Settled),
            Err(error) => return Err(error),
        }
        match self.deliver(&entry).await {
            Ok(()) => {
                telemetry::alert("delivered");
                self.failing = None; // it takes some: the next failure pauses briefly
                // Where that cannot be noted the walk ends here, and begins here again.
                self.unnoted = Some(id.clone());
                queue.sent(to, sk, id).await?;
                self.unnoted = None;
                Ok(Fate::Settled)
            }
            Err(NotDelivered::Refused(why)) if age_ms > REFUSED_MS => {
                self.give_up(sk, &entry, &why).await
            }
            Err(NotDelivered::Later(why) | NotDelivered::Refused(why)) => {
                telemetry::alert("failed");
                Ok(Fate::Failed(why))
            }
        }
    }

    /// The delivery itself, on a task of its own: the host's code may hang, or panic.
    async fn deliver(&self, entry: &Entry) -> Result<(), NotDelivered> {
        let mut task = JoinSet::new();
        task.spawn(self.to.notifier.deliver(entry.notification.clone()));
        let ended = tokio::time::timeout(SEND_WITHIN, task.join_next()).await;
        match ended {
            Ok(Some(Ok(delivered))) => delivered,
            Ok(Some(Err(_)) | None) => Err(NotDelivered::Later("the notifier panicked".into())),
            Err(_) => Err(NotDelivered::Later(format!("no answer within {SEND_WITHIN:?}"))),
        }
    }

    async fn give_up(&self, sk: &str, entry: &Entry, why: &str) -> Result<Fate, StoreError> {
        let (to, notification) = (self.to.name(), &entry.notification);
        self.queue.bury(to, sk, entry).await?;
        telemetry::alert("given-up");
        let (id, kind) = (&notification.id, &notification.kind);
        tracing::error!(to, id, kind, why, "an alert was given up: it is kept, and sent no more");
        Ok(Fate::Settled)
    }

    /// Counts what waits behind the one that failed, and gives up what is too much.
    async fn look_at_the_rest(&self, why: String) {
        let rest = match self.queue.waiting(self.to.name(), MAX_WAITING + Page::MAX_ITEMS).await {
            Ok(rest) => rest,
            Err(error) => return tracing::debug!(%error, "alerts that wait cannot be counted"),
        };
        let (too_many, kept) = rest.split_at(rest.len().saturating_sub(MAX_WAITING));
        for (sk, entry) in too_many {
            let why = "too many alerts wait for this destination";
            if let Err(error) = self.give_up(sk, entry, why).await {
                tracing::debug!(%error, "an alert too many was not given up");
            }
        }
        let oldest = kept.first().map_or(0, |(_, entry)| self.age_ms(entry));
        self.say(QueueState {
            waiting: kept.len(),
            oldest: Duration::from_millis(u64::try_from(oldest).unwrap_or(0)),
            error: Some(why),
        });
    }

    fn say(&self, state: QueueState) {
        self.to.set_state(state);
        let states = self.queue.destinations.iter().map(|to| to.state());
        let (waiting, oldest) = states.fold((0, Duration::ZERO), |(waiting, oldest), of| {
            (waiting + of.waiting, oldest.max(of.oldest))
        });
        telemetry::alerts_waiting(waiting, oldest.as_secs_f64());
    }

    fn age_ms(&self, entry: &Entry) -> i64 {
        self.queue.clock.now().wall_ms.saturating_sub(unix_ms(entry.notification.at))
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
