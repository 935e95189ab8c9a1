//! The loop: looks for jobs, works on some at once, and leaves refused ones alone until they may
//! come again. Ends at SIGTERM or ctrl-c, once the jobs in work are done.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tallygate::Gate;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::job::{DELIVER, Next, Work};
use crate::queue::Queue;

/// Most jobs in work. A tenant has fewer: `concurrency` of its plan.
const AT_ONCE: usize = 8;
/// Between two looks for new jobs.
const LOOK: Duration = Duration::from_millis(100);
/// Time for jobs in work after a signal: less than the 30 s that platforms grant.
const DRAIN_WITHIN: Duration = Duration::from_secs(15);

/// A job that this process knows.
enum Known {
    InWork,
    /// Refused until then.
    NotBefore(Instant),
}

/// Works until a signal.
pub(crate) async fn run(gate: &Gate, queue: Queue) -> Result<(), Box<dyn Error>> {
    let messages = gate.meter("messages")?; // a mistyped name ends it here
    gate.check_operations([DELIVER])?;
    let work = Work { gate: gate.clone(), queue, messages };
    let mut stop = pin!(stop_signal()?);
    let mut look = interval(LOOK);
    let mut known = HashMap::new();
    let mut in_work = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = look.tick() => {}
            Some(ended) = in_work.join_next() => {
                let (id, next): (String, io::Result<Next>) = ended?;
                match next? {
                    Next::Out => known.remove(&id),
                    Next::After(wait) => known.insert(id, Known::NotBefore(Instant::now() + wait)),
                };
            }
        }
        for id in work.queue.ids().await? {
            let may_begin = match known.get(&id) {
                None => true,
                Some(Known::InWork) => false,
                Some(Known::NotBefore(at)) => *at <= Instant::now(),
            };
            if may_begin && in_work.len() < AT_ONCE {
                known.insert(id.clone(), Known::InWork);
                let work = work.clone();
                in_work.spawn(async move {
                    let next = work.on(&id).await;
                    (id, next)
                });
            }
        }
    }
    tracing::info!(jobs = in_work.len(), "draining");
    let drained = async { while in_work.join_next().await.is_some() {} };
    if timeout(DRAIN_WITHIN, drained).await.is_err() {
        tracing::warn!("some jobs took longer than {DRAIN_WITHIN:?}: they are delivered again");
        in_work.shutdown().await; // their permits are dropped: nothing is charged
    }
    Ok(())
}

/// Ends at ctrl-c or SIGTERM.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
