//! The flush between answer and freeze, done by an extension in the function's own process.
//!
//! Lambda freezes the sandbox once the runtime *and* every extension have asked for the next event.
//! The runtime asks after posting its answer; this extension asks after the flush that follows. So
//! the freeze waits for the store, and the caller does not.
//!
//! A Managed Instance is never frozen, serves several invocations at once, and does not send
//! invocations to extensions: Lambda refuses to register one for `INVOKE` there. The gate's own
//! flusher writes every `flush.every`, as in a server, and the extension exists only for the
//! SIGTERM.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_http::Error;
use tallygate::Gate;
use tokio::sync::{Notify, watch};
use tower_layer::Layer;
use tower_service::Service;

use crate::extension::Extension;

/// A flush gives up this long before the invocation's deadline: past it Lambda kills the process,
/// and with it the usage that the next flush could have written.
const SPARE: Duration = Duration::from_millis(200);

/// The name under which the extension registers.
const NAME: &str = "tallygate-flush";

/// Signals each answered invocation and counts those in flight. Clones share state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    answered: Notify,
    in_flight: watch::Sender<usize>,
}

/// Wraps a runtime's service to signal the end of each invocation: answered, failed or dropped.
#[derive(Clone, Debug)]
pub(crate) struct Tell<S> {
    inner: S,
    answered: Answered,
}

/// The future of [`Tell`].
#[derive(Debug)]
pub(crate) struct Telling<F> {
    inner: Pin<Box<F>>,
    _tell: TellOnDrop,
}

#[derive(Debug)]
struct TellOnDrop(Answered);

/// Registers the extension, which must happen before the runtime asks for its first event. Returns
/// the loop that runs until the process ends.
pub(crate) async fn register(
    gate: &Gate,
    answered: &Answered,
) -> Result<impl Future<Output = Result<(), Error>> + use<>, Error> {
    let (gate, answered) = (gate.clone(), answered.clone());
    let extension = Extension::register(NAME, &["INVOKE"]).await?;
    Ok(async move {
        loop {
            if let Some(deadline_ms) = extension.next().await? {
                answered.0.answered.notified().await;
                flush_until(&gate, deadline_ms).await;
            }
        }
    })
}

/// Registers an extension for no events: Lambda sends SIGTERM only to functions with an extension.
/// If it fails, the function still serves.
pub(crate) async fn register_for_the_end() -> impl Future<Output = Result<(), Error>> + use<> {
    let extension = Extension::register(NAME, &[]).await;
    async move {
        let asked = match extension {
            Ok(extension) => extension.next().await,
            Err(error) => Err(error),
        };
        if let Err(error) = asked {
            tracing::warn!(%error, "no extension: this instance may end without SIGTERM");
        }
        std::future::pending().await
    }
}

/// Flushes; usage that does not make the deadline is left to the next flush.
async fn flush_until(gate: &Gate, deadline_ms: u64) {
    match tokio::time::timeout(left_until(deadline_ms), gate.flush_now()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "flush: left to the next invocation"),
        Err(_) => tracing::warn!("flush: out of time, left to the next invocation"),
    }
}

/// Time left for work that must finish before this deadline.
pub(crate) fn left_until(deadline_ms: u64) -> Duration {
    Duration::from_millis(deadline_ms).saturating_sub(since_1970()).saturating_sub(SPARE)
}

/// Unix time, as in deadlines.
#[expect(clippy::disallowed_methods, reason = "Lambda's deadline is the wall clock's")]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Answered {
    /// Waits until every invocation has been answered, but no longer than `most`.
    pub(crate) async fn idle(&self, most: Duration) {
        let mut in_flight = self.0.in_flight.subscribe();
        if tokio::time::timeout(most, in_flight.wait_for(|n| *n == 0)).await.is_err() {
            tracing::warn!(in_flight = *in_flight.borrow(), "the end comes before their answers");
        }
    }
}

impl<S> Layer<S> for Answered {
    type Service = Tell<S>;

    fn layer(&self, inner: S) -> Tell<S> {
        Tell { inner, answered: self.clone() }
    }
}

impl<S: Service<R>, R> Service<R> for Tell<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Telling<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, invocation: R) -> Self::Future {
        self.answered.0.in_flight.send_modify(|n| *n = n.saturating_add(1));
        let tell = TellOnDrop(self.answered.clone());
        Telling { inner: Box::pin(self.inner.call(invocation)), _tell: tell }
    }
}

impl<F: Future> Future for Telling<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.0.in_flight.send_modify(|n| *n = n.saturating_sub(1));
        self.0.0.answered.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_when_the_last_of_several_is_answered_or_dropped() {
        let answered = Answered::default();
        let (go, gone) = watch::channel(false);
        let handler = lambda_http::service_fn(move |(): ()| {
            let mut go = gone.clone();
            async move { go.wait_for(|go| *go).await.map(|_| ()) }
        });
        let mut called = answered.layer(handler);
        let (first, second, dropped) = (called.call(()), called.call(()), called.call(()));
        drop(dropped);
        let begun = tokio::time::Instant::now();
        answered.idle(Duration::from_secs(3)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(3), "two are at work");
        go.send_replace(true);
        first.await.unwrap();
        let last = tokio::spawn(second);
        answered.idle(Duration::from_secs(3)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(3), "at once");
        last.await.unwrap().unwrap();
    }
}
