//! Orders of the host to the flush, and their answers: written, or how much is left and why.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::record::Rows;
use super::{FlushError, FlushPart, Order, Task};
use crate::store::{StoreError, StoreErrorKind};

/// Returns at the earliest deadline of a close: calls to the store may never be answered.
pub(super) async fn out_of_time(waiting: &[Order]) -> StoreError {
    let deadlines = waiting.iter().filter_map(|order| match order {
        Order::Flush { .. } => None,
        Order::Close(deadline, _) => Some(*deadline),
    });
    match deadlines.min() {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
    StoreError::new(StoreErrorKind::Unknown, "the store did not answer before the gate's deadline")
}

impl Task {
    /// Serves the waiting orders, all with one flush, and those that arrive meanwhile with the
    /// next. Returns true if the task must end.
    pub(super) async fn serve(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
        waiting: &mut Vec<Order>,
    ) -> bool {
        let mut is_over = false;
        while !waiting.is_empty() && !is_over {
            let asked = waiting.len();
            let result = self.drain(inbox, waiting).await;
            let is_cut_short = waiting.iter().any(|order| matches!(order, Order::Flush { .. }));
            let later = waiting.split_off(asked);
            for order in std::mem::replace(waiting, later) {
                match order {
                    Order::Flush { reply, .. } => {
                        // The caller may be gone.
                        let _ = reply.send(result.clone());
                    }
                    Order::Close(deadline, _)
                        if result.is_err() && is_cut_short && Instant::now() < deadline =>
                    {
                        waiting.push(order); // it has time to wait out the failure
                    }
                    Order::Close(deadline, reply) => {
                        self.end_journal(result.is_ok(), deadline).await;
                        let _ = reply.send(result.clone());
                        is_over = true;
                    }
                }
            }
        }
        is_over
    }

    /// Flushes until nothing is left, or until a failure that some order does not wait out.
    async fn drain(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
        waiting: &mut Vec<Order>,
    ) -> Result<(), FlushError> {
        loop {
            self.flush_in(FlushPart::All, inbox, waiting).await;
            let rows = self.pending.values().map(Rows::len).sum::<usize>() + self.batch.len();
            match self.backlog.error() {
                None if rows == 0 => return Ok(()),
                None => {}
                Some(error) => {
                    return Err(FlushError { rows, cause: error.to_string() });
                }
            }
        }
    }

    /// Whether a waiting order must be answered with a failure now, instead of waiting it out.
    pub(super) fn wants_out(&self, waiting: &[Order]) -> bool {
        waiting.iter().any(|order| match order {
            Order::Flush { .. } => true,
            Order::Close(deadline, _) => Instant::now() >= *deadline,
        })
    }
}
