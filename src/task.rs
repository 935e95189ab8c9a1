//! A background task and its owner: the only place where a task is spawned, so none is detached.
//!
//! # Laws
//!
//! 1. A task has one owner, which can signal it to stop and wait for its end. What the task does
//!    between the two (drain, or drop its work) is the task's own decision.
//! 2. A wait is bounded by a deadline, after which the task is aborted; or the task ends at the
//!    signal, whatever it waits for.
//! 3. A dropped owner aborts its task: nothing outlives the gate that started it.
//! 4. A wait that is cut off leaves the task with its owner: the next one goes on.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// The owner's side of a task.
#[derive(Debug)]
pub(crate) struct OwnedTask<T: 'static = ()> {
    stop: Arc<Notify>,
    /// Of one; empty once its end was waited for. Dropped, it aborts the task.
    task: Mutex<JoinSet<T>>,
}

/// The task's side of the stop signal.
#[derive(Debug)]
pub(crate) struct Stop(Arc<Notify>);

impl Stop {
    /// Returns once the owner has stopped the task: once, and never again.
    pub(crate) async fn signalled(&self) {
        self.0.notified().await;
    }
}

impl<T: Send + 'static> OwnedTask<T> {
    /// Starts a task that listens for its stop signal, or is stopped by its owner's other means.
    pub(crate) fn start<F>(task: impl FnOnce(Stop) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (stop, mut tasks) = (Arc::new(Notify::new()), JoinSet::new());
        tasks.spawn(task(Stop(stop.clone())));
        Self { stop, task: Mutex::new(tasks) }
    }

    /// Signals the task to stop.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Waits for the task's end, and returns its result: `None` if it panicked, which the runtime
    /// has reported, or was waited for before.
    pub(crate) async fn ended(&self) -> Option<T> {
        poll_fn(|cx| self.locked().poll_join_next(cx)).await?.ok()
    }

    /// The same until the deadline: then the task is aborted.
    pub(crate) async fn ended_by(&self, deadline: Instant) -> Result<Option<T>, Elapsed> {
        let ended = tokio::time::timeout_at(deadline, self.ended()).await;
        if ended.is_err() {
            self.locked().abort_all();
        }
        ended
    }

    fn locked(&self) -> MutexGuard<'_, JoinSet<T>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnedTask {
    /// Starts work that may be cut off anywhere: the stop signal ends it, whatever it waits for.
    pub(crate) fn until_stopped(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::start(|stop| async move {
            tokio::select! {
                biased;
                () = stop.signalled() => {}
                () = work => {}
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::time::Duration;

    use super::*;

    /// A task that takes two seconds to drain, and what it holds until its end.
    fn draining() -> (OwnedTask<u32>, Weak<()>) {
        let held = Arc::new(());
        let alive = Arc::downgrade(&held);
        let task = OwnedTask::start(|stop| async move {
            stop.signalled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(held);
            7
        });
        (task, alive)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_task_drains_and_is_aborted_at_the_deadline() {
        for (seconds, drains) in [(3, true), (1, false)] {
            let (task, alive) = draining();
            task.stop();
            let ended = task.ended_by(Instant::now() + Duration::from_secs(seconds)).await;
            assert_eq!(ended.is_ok_and(|result| result == Some(7)), drains, "{seconds} s");
            tokio::task::yield_now().await;
            assert!(alive.upgrade().is_none(), "it goes on after {seconds} s");
            assert_eq!(task.ended().await, None, "it has been waited for");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_was_cut_off_goes_on() {
        let (task, alive) = draining();
        task.stop();
        assert!(tokio::time::timeout(Duration::from_secs(1), task.ended()).await.is_err());
        assert!(alive.upgrade().is_some(), "it was cut off with the wait");
        assert_eq!(task.ended().await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_its_owner_ends() {
        let (task, alive) = draining();
        tokio::task::yield_now().await;
        drop(task);
        tokio::task::yield_now().await;
        assert!(alive.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_may_be_cut_off_ends_at_the_signal() {
        let task = OwnedTask::until_stopped(std::future::pending());
        tokio::task::yield_now().await;
        task.stop();
        assert_eq!(task.ended().await, Some(()));
    }
}
