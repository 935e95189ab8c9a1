//! Step 6, bill: the one task that reports usage, and what it reports on which terms.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::billing::Billing;
use super::{Gate, Inner};
use crate::billing::report::{Due, Report, ReportError, Used};
use crate::billing::terms::{settle, terms};

/// The owner's side of the task.
#[derive(Debug)]
pub(super) struct ReportTask {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Sends to Stripe what is owed by now, instead of at the next report: what was used is written
    /// down first. Several at once, in any process, are harmless.
    ///
    /// # Errors
    ///
    /// If there is no `[stripe]` in the service file, what was used cannot be written or read, or
    /// Stripe cannot be reached: then nothing was sent. What fails later is in the [`Report`].
    pub async fn report_now(&self) -> Result<Report, ReportError> {
        let inner = &self.inner;
        let billing = inner.billing.as_ref().ok_or(ReportError::NoService)?;
        inner.flusher.flush_now().await?;
        inner.report(billing).await
    }
}

/// Starts the task, if anything is billed.
pub(super) fn start(inner: &Arc<Inner>) {
    let Some(billing) = &inner.billing else { return };
    let (stop, stopped) = watch::channel(false);
    // A weak reference: the task must not keep alive a gate that nobody holds.
    let task = tokio::spawn(run(Arc::downgrade(inner), billing.every, stopped));
    *billing.task.lock().unwrap_or_else(|e| e.into_inner()) = Some(ReportTask { stop, task });
}

async fn run(inner: Weak<Inner>, every: std::time::Duration, mut stopped: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval_at(Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            _ = tick.tick() => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let Some(billing) = &inner.billing else { return };
        // Cut off at any line, a report leaves what the next one understands.
        let report = tokio::select! {
            _ = stopped.changed() => return,
            report = inner.report(billing) => report,
        };
        log(report);
    }
}

impl Inner {
    /// Stops the task, and reports what is owed one last time, until the deadline: what is left is
    /// written down, and sent by whoever reports next.
    pub(super) async fn close_reports(&self, deadline: Instant) {
        let Some(billing) = &self.billing else { return };
        let task = billing.task.lock().unwrap_or_else(|e| e.into_inner()).take();
        let Some(ReportTask { stop, task }) = task else { return };
        stop.send_replace(true);
        // It ends by itself; a panic in it has been reported by the runtime.
        let _ = task.await;
        match tokio::time::timeout_at(deadline, self.report(billing)).await {
            Ok(report) => log(report),
            Err(_) => tracing::warn!("the last report was cut off: the next start goes on with it"),
        }
    }

    async fn report(&self, billing: &Billing) -> Result<Report, ReportError> {
        let mut due = Vec::new();
        for used in billing.reporter.used().await? {
            due.extend(self.due(used).await?);
        }
        billing.reporter.run(due).await
    }

    /// What is due of this use; `None` if nothing of it is ever sent.
    async fn due(&self, used: Used) -> Result<Option<Due>, ReportError> {
        let Used { id: Some(id), tenant, atoms, .. } = used else { return Ok(None) };
        let live = self.live.load_full();
        let sent = |name: &str| {
            let meter = live.catalog.meter(name)?;
            live.catalog.meters[usize::from(meter.0)].stripe.as_ref()
        };
        if sent(&id.meter).is_none() {
            return Ok(None);
        }
        let Some(record) = self.directory.lookup_tenant(tenant).await? else { return Ok(None) };
        let now_ms = self.clock.now().wall_ms;
        let holds = live.resolve(&record, now_ms);
        let found = terms(&id, &live.catalog, &holds.policy.plan, &holds.anchors);
        let Some((mut terms, offer)) = found else { return Ok(None) };
        if let Some(offer) = offer {
            let (store, space) = (&*self.store, &self.writer.space);
            settle(store, space, (&id, atoms), offer, &mut terms, now_ms).await?;
        }
        Ok(Some(Due { id, used: atoms, terms }))
    }
}

fn log(report: Result<Report, ReportError>) {
    match report {
        Ok(report) => {
            let Report { sent, units, verified, open, stopped, doubtful, failed } = report;
            let (stopped, doubtful) = (stopped.len(), doubtful.len());
            let failed = failed.len();
            if stopped + doubtful + failed > 0 {
                tracing::error!(sent, open, stopped, doubtful, failed, "usage was reported in part");
            } else if sent + verified + open > 0 {
                tracing::info!(sent, units, verified, open, "usage was reported");
            }
        }
        Err(error) => tracing::warn!(%error, "usage could not be reported"),
    }
}
