//! Continues under a new writer id after another process has sealed our log.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::log::LogWriter;
use super::super::record::merge;
use super::orders::out_of_time;
use super::{Order, RETRY, Task, ticker};
use crate::delays::jittered;
use crate::repeated::repeated;

impl Task {
    /// Continues under another incarnation, which is registered before it leases or records. What
    /// the old log lacks is carried into the new one's. Returns false if it has to wait. Orders
    /// that arrive meanwhile wait, and the journal is still fed.
    pub(super) async fn restart_as_new_writer(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
        waiting: &mut Vec<Order>,
    ) -> bool {
        self.ceilings.dropped();
        self.batch.clear();
        let mut lacking = std::mem::take(&mut self.batch_rows);
        // Its ceilings are not on record, and never will be.
        let rows = lacking.values_mut().flat_map(|rows| rows.pools.values_mut());
        rows.for_each(|row| row.ceiling = 0);
        merge(&mut self.pending, lacking);
        self.pending_since_ns = self.batch_since_ns.take().or(self.pending_since_ns);
        let mut delays = RETRY;
        let mut collect = ticker(self.collect_every());
        let store = self.store.clone();
        loop {
            let (space, at_ms) = (self.log.space(), self.hub.clock.now().wall_ms);
            let mut begin = std::pin::pin!(LogWriter::begin(&*store, space, at_ms));
            let begun = loop {
                tokio::select! {
                    biased;
                    begun = &mut begin => break begun,
                    _ = collect.tick() => self.collect(),
                    Some(order) = inbox.recv() => waiting.push(order),
                    late = out_of_time(waiting) => break Err(late),
                }
            };
            let error = match begun {
                Ok(log) => {
                    tracing::warn!(
                        "another process presumed this one dead: it continues as a new writer"
                    );
                    self.log = log;
                    self.succeeded(); // there may be nothing to write that would show it
                    self.hub.incarnation.begin(self.log.incarnation());
                    return true;
                }
                Err(error) => error,
            };
            const TEXT: &str = "a new usage log could not be created: it will be retried";
            repeated!(warn, self.now_ms(), TEXT; %error);
            self.failed(error);
            if self.wants_out(waiting) {
                return false;
            }
            let until = Instant::now() + jittered(delays.step());
            self.wait_until(until, &mut collect, inbox, waiting).await;
        }
    }
}
