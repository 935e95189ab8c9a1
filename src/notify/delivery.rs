//! Sends the alerts of one queue: the oldest first, each until the destination has it.
//!
//! The task holds the queue's lock, so that one process sends. While deliveries fail it pauses for
//! [`PAUSES`], and then tries the oldest again; an alert that the destination refuses is
//! [set aside](super::set_aside). Stopped, it ends the delivery under way and gives the lock back,
//! so that an orderly end sends nothing twice and keeps no other process waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::queue::{self, AlertQueue, Destination, Entry, Judge, QueueState, Verdict};
use super::set_aside::SetAside;
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

/// Alerts read at once: between pages it is looked at how many wait.
const PAGE: usize = 16;

/// How often the alerts that wait are counted while many are being sent.
const COUNT: Duration = Duration::from_secs(60);

/// Longest pause that a destination may ask for: some ask for days by mistake.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);

/// Kept of a close's time for the note of the last delivery, and for the lock.
const FOR_THE_END: Duration = Duration::from_millis(500);

/// Pause between tries of that note.
const NOTE_AGAIN: Duration = Duration::from_millis(100);

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct AlertDelivery {
    task: OwnedTask,
    /// The deadline of the close.
    ends: watch::Sender<Option<Instant>>,
}

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
        let (ends, ending) = watch::channel(None);
        let mut sender = AlertSender {
            queue,
            to,
            judge,
            ending,
            lock,
            held_ns: 0,
            failing: None,
            unnoted: None,
            aside: SetAside::default(),
            refusal: None,
        };
        Ok(Self { task: OwnedTask::start(|_| async move { sender.run().await }), ends })
    }

    /// Signals the task to end: after the delivery under way, and before the deadline.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.ends.send_replace(Some(deadline));
    }

    /// Waits for the end of a task that was stopped.
    pub(crate) async fn ended_by(&self, deadline: Instant) {
        if self.task.ended_by(deadline).await.is_err() {
            tracing::debug!("an alert was under way at the end: it is sent again");
        }
    }
}

/// See the [module](self).
struct AlertSender {
    queue: Arc<AlertQueue>,
    to: Arc<Destination>,
    judge: Arc<dyn Judge>,
    ending: watch::Receiver<Option<Instant>>,
    lock: Lock,
    /// The lock is ours until then, on the monotonic clock.
    held_ns: u64,
    /// The next pause, while deliveries fail.
    failing: Option<Delays>,
    /// The place and id of the alert that was delivered, until that is noted: the store may fail in
    /// between.
    unnoted: Option<(String, String)>,
    aside: SetAside,
    /// Why the last refused alert was.
    refusal: Option<String>,
}

/// How a walk along the queue ended.
enum Walked {
    /// All that can be sent was sent; the oldest that was refused is so old.
    ToTheEnd(Duration),
    /// Another process sends.
    StandBy,
    /// The gate closes.
    Ending,
    Failed(Failure),
}

/// A delivery failed, for this reason; the destination asks for this pause.
struct Failure {
    why: String,
    pause: Duration,
}

/// What became of one alert.
enum Fate {
    /// It is in the queue no more, or waits for its effect.
    Settled,
    /// It stays behind, as refused, since this age.
    Refused(Duration),
    Failed(Failure),
}

impl AlertSender {
    async fn run(&mut self) {
        let mut ending = self.ending.clone();
        while !self.is_ending() {
            let walked = self.walk().await;
            if self.is_ending() {
                break;
            }
            let pause = self.pause(walked).await;
            tokio::select! {
                biased;
                _ = ending.wait_for(Option::is_some) => break,
                () = self.to.woken.notified(), if self.failing.is_none() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.end().await;
    }

    fn is_ending(&self) -> bool {
        self.ending.borrow().is_some()
    }

    /// Says how a walk ended, and for how long to pause after it.
    async fn pause(&mut self, walked: Result<Walked, StoreError>) -> Duration {
        let now_ms = self.queue.clock.now().wall_ms;
        match walked {
            Ok(Walked::ToTheEnd(oldest)) => {
                self.failing = None;
                let waiting = self.aside.refused();
                let why = || format!("refused: {}", self.refusal.as_deref().unwrap_or_default());
                let error = (waiting > 0).then(why);
                self.say(QueueState { waiting, oldest, error });
                LOOK
            }
            Ok(Walked::StandBy | Walked::Ending) => {
                self.failing = None;
                self.aside = SetAside::default();
                self.say(QueueState::default());
                STAND_BY
            }
            Ok(Walked::Failed(Failure { why, pause })) => {
                let to = self.to.name();
                repeated!(warn, now_ms, "an alert could not be delivered"; to, %why);
                self.look_at_the_rest(Some(why)).await;
                let ours = jittered(self.failing.get_or_insert(PAUSES).step());
                ours.max(pause.min(MAX_PAUSE))
            }
            Err(error) => {
                repeated!(warn, now_ms, "alerts that wait cannot be read"; %error);
                let cause = format!("the store does not serve its queue: {}", error.kind.word());
                self.say(QueueState { error: Some(cause), ..self.to.state() });
                LOOK
            }
        }
    }

    /// Notes what was delivered and could not be noted then.
    async fn note(&mut self) -> Result<(), StoreError> {
        if let Some((sk, id)) = &self.unnoted {
            self.queue.sent(self.to.name(), sk, id).await?;
            self.unnoted = None;
        }
        Ok(())
    }

    /// Notes what was delivered, and gives the lock back.
    async fn end(&mut self) {
        while let Err(error) = self.note().await {
            tracing::debug!(%error, "a delivered alert could not be noted: once more");
            tokio::time::sleep(NOTE_AGAIN).await;
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
    async fn walk(&mut self) -> Result<Walked, StoreError> {
        // Before all else: another delivery would take its place.
        self.note().await?;
        let mut from = String::new();
        let mut counted_ns = self.queue.clock.now().mono_ns;
        // Whether one that was refused is offered before its time.
        let mut probes = self.aside.refuses_all();
        let mut oldest = Duration::ZERO;
        loop {
            if !self.holds().await? {
                return Ok(Walked::StandBy);
            }
            let now_ns = self.queue.clock.now().mono_ns;
            if now_ns.saturating_sub(counted_ns) >= nanos(COUNT) {
                counted_ns = now_ns;
                self.look_at_the_rest(None).await;
            }
            let Page { items, next } = self.queue.page(self.to.name(), from, PAGE).await?;
            for (sk, item) in items {
                if self.is_ending() {
                    return Ok(Walked::Ending);
                }
                if !self.holds().await? {
                    return Ok(Walked::StandBy);
                }
                match self.one(&sk, &item, &mut probes).await? {
                    Fate::Settled => {}
                    Fate::Refused(age) => oldest = oldest.max(age),
                    Fate::Failed(failure) => return Ok(Walked::Failed(failure)),
                }
            }
            match next {
                Some(next) => from = next,
                None if self.aside.refuses_all() => {
                    let last = self.refusal.clone().unwrap_or_default();
                    return Ok(Walked::Failed(self.refusal(last)));
                }
                None => return Ok(Walked::ToTheEnd(oldest)),
            }
        }
    }

    /// Sends one alert, if it is to be sent.
    async fn one(&mut self, sk: &str, item: &Item, probes: &mut bool) -> Result<Fate, StoreError> {
        let (queue, destination) = (self.queue.clone(), self.to.clone());
        let (to, now) = (destination.name(), queue.clock.now());
        let entry = match queue::read(item) {
            Ok(entry) => entry,
            // It waits for a binary that knows its format, or expires; the others go on.
            Err(error) => {
                repeated!(warn, now.wall_ms, "an alert cannot be read"; %error, to);
                return Ok(Fate::Settled);
            }
        };
        let id = &entry.notification.id;
        if let Some(why) = &entry.refused {
            self.aside.learn(id, now.mono_ns);
            self.refusal.get_or_insert_with(|| why.clone());
        }
        let is_refused = self.aside.is_refused(id);
        // Of a receiver that seems to refuse everything, one is offered again, and no other.
        let is_probe = is_refused && std::mem::take(probes);
        let rests = self.aside.rests(id, now.mono_ns) || (is_refused && self.aside.refuses_all());
        if rests && !is_probe {
            return Ok(match is_refused {
                true => Fate::Refused(self.age(&entry)),
                false => Fate::Settled,
            });
        }
        if queue.was_sent(to, id).await? {
            return self.drop_it(sk, id).await;
        }
        if let Some(fate) = self.judged(sk, &entry).await? {
            return Ok(fate);
        }
        if self.age_ms(&entry) > KEEP_MS {
            let why = entry.refused.as_deref().unwrap_or("it has waited for a week");
            return self.give_up(sk, &entry, why).await;
        }
        self.send(sk, entry).await
    }

    /// What becomes of an alert by what it depends on; `None`: that has happened.
    async fn judged(&mut self, sk: &str, entry: &Entry) -> Result<Option<Fate>, StoreError> {
        let (id, now_ns) = (&entry.notification.id, self.queue.clock.now().mono_ns);
        let is_old = self.age_ms(entry) > KEEP_MS;
        match self.judge.judge(&entry.about).await {
            Ok(Verdict::Happened) => return Ok(None),
            // What has not happened in a week was cut off.
            Ok(Verdict::Pending) if is_old => return self.drop_it(sk, id).await.map(Some),
            Ok(Verdict::Never) => return self.drop_it(sk, id).await.map(Some),
            Ok(Verdict::Pending) => {}
            // A tenant's damaged record keeps no other's alert waiting.
            Err(error) if !error.is_temporary() && is_old => {
                let why = "what it is about cannot be read";
                return self.give_up(sk, entry, why).await.map(Some);
            }
            Err(error) if !error.is_temporary() => {}
            Err(error) => return Err(error),
        }
        self.aside.pends(id, now_ns);
        Ok(Some(Fate::Settled))
    }

    /// Takes out of the queue what is not to be sent.
    async fn drop_it(&mut self, sk: &str, id: &str) -> Result<Fate, StoreError> {
        self.queue.dequeue(self.to.name(), sk).await?;
        self.aside.leave(id);
        Ok(Fate::Settled)
    }

    async fn send(&mut self, sk: &str, entry: Entry) -> Result<Fate, StoreError> {
        let id = &entry.notification.id;
        match self.deliver(&entry).await {
            Ok(()) => {
                telemetry::alert("delivered");
                self.failing = None; // it takes some: the next failure pauses briefly
                self.aside.take(id);
                // Where that cannot be noted the walk ends here, and the next begins with it.
                self.unnoted = Some((sk.to_owned(), id.clone()));
                self.note().await?;
                Ok(Fate::Settled)
            }
            Err(NotDelivered::Refused(why)) => self.refused(sk, &entry, why).await,
            Err(NotDelivered::Later(why)) => Ok(failed(why, Duration::ZERO)),
            Err(NotDelivered::NotBefore(pause, why)) => Ok(failed(why, pause)),
        }
    }

    /// Sets an alert aside that the destination has refused, if there is room.
    async fn refused(&mut self, sk: &str, entry: &Entry, why: String) -> Result<Fate, StoreError> {
        let id = &entry.notification.id;
        let was_there = self.aside.is_refused(id);
        self.refusal = Some(why.clone());
        if !self.aside.refuse(id, self.queue.clock.now().mono_ns) {
            telemetry::alert("failed");
            return Ok(Fate::Failed(self.refusal(why)));
        }
        telemetry::alert("refused");
        if entry.refused.is_none() {
            self.queue.mark_refused(self.to.name(), sk, &why).await?;
        }
        if was_there || !self.aside.refuses_all() {
            return Ok(Fate::Refused(self.age(entry)));
        }
        Ok(Fate::Failed(self.refusal(why)))
    }

    /// A refusal after which the others wait.
    fn refusal(&self, why: String) -> Failure {
        let why = match self.aside.refuses_all() {
            true => format!("it refuses every alert: {why}"),
            false => why,
        };
        Failure { why, pause: Duration::ZERO }
    }

    /// The delivery itself, on a task of its own: the host's code may hang, or panic.
    async fn deliver(&self, entry: &Entry) -> Result<(), NotDelivered> {
        let mut task = JoinSet::new();
        task.spawn(self.to.notifier.deliver(entry.notification.clone()));
        let ended = tokio::select! {
            biased;
            ended = tokio::time::timeout(SEND_WITHIN, task.join_next()) => ended,
            () = cut_off(self.ending.clone()) => {
                return Err(NotDelivered::Later("this process has ended".to_owned()));
            }
        };
        match ended {
            Ok(Some(Ok(delivered))) => delivered,
            Ok(Some(Err(_)) | None) => Err(NotDelivered::Later("the notifier panicked".into())),
            Err(_) => Err(NotDelivered::Later(format!("no answer within {SEND_WITHIN:?}"))),
        }
    }

    async fn give_up(&mut self, sk: &str, entry: &Entry, why: &str) -> Result<Fate, StoreError> {
        let (to, notification) = (self.to.name(), &entry.notification);
        self.queue.bury(to, sk, entry).await?;
        telemetry::alert("given-up");
        let (id, kind) = (&notification.id, &notification.kind);
        tracing::error!(to, id, kind, why, "an alert was given up: it is kept, and sent no more");
        self.aside.leave(id);
        Ok(Fate::Settled)
    }

    /// Counts what waits, behind one that failed or in a long walk, and gives up what is too much.
    async fn look_at_the_rest(&mut self, error: Option<String>) {
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
        let oldest = kept.first().map_or(Duration::ZERO, |(_, entry)| self.age(entry));
        self.say(QueueState { waiting: kept.len(), oldest, error });
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

    fn age(&self, entry: &Entry) -> Duration {
        Duration::from_millis(u64::try_from(self.age_ms(entry)).unwrap_or(0))
    }
}

fn failed(why: String, pause: Duration) -> Fate {
    telemetry::alert("failed");
    Fate::Failed(Failure { why, pause })
}

/// Returns when a delivery is to end for the close.
async fn cut_off(mut ending: watch::Receiver<Option<Instant>>) {
    let deadline = ending.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline - FOR_THE_END).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
