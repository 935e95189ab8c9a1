//! What a host asks of the flush, and what it is told: written, or how much is left and why.

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::record::Rows;
use super::{FlushError, Order, Part, Task};
use crate::store::{StoreError, StoreErrorKind};

/// Returns when the time of a close is over: whatever the store is asked meanwhile may
/// never be answered.
pub(super) async fn out_of_time(waiting: &[Order]) -> StoreError {
    let deadlines = waiting.iter().filter_map(|order| match order {
        Order::Flush(_) => None,
        Order::Close(deadline, _) => Some(*deadline),
    });
    match deadlines.min() {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
    StoreError::new(StoreErrorKind::Unknown, "no answer before the gate had to be closed")
}

impl Task {
    /// Serves the orders that wait. True: the task is to end.
    pub(super) async fn serve(&mut self, waiting: &mut Vec<Order>) -> bool {
        while let Some(order) = waiting.pop() {
            match order {
                Order::Flush(reply) => {
                    let result = self.drain(None).await;
                    let _ = reply.send(result); // nobody waits any more: nothing to tell
                }
                Order::Close(deadline, reply) => {
                    let result = self.drain(Some(deadline)).await;
                    if result.is_ok() {
                        self.end_journal();
                    }
                    let _ = reply.send(result);
                    return true;
                }
            }
        }
        false
    }

    /// Flushes until nothing is left, or a failure is met after the deadline. Without one the first
    /// failure ends it, and no answer is cut off.
    pub(super) async fn drain(&mut self, deadline: Option<Instant>) -> Result<(), FlushError> {
        let (_hold, mut no_orders) = mpsc::channel(1);
        loop {
            let reply = oneshot::channel().0;
            let mut waiting = vec![match deadline {
                Some(deadline) => Order::Close(deadline, reply),
                None => Order::Flush(reply),
            }];
            self.flush_in(Part::All, &mut no_orders, &mut waiting).await;
            let rows = self.pending.values().map(Rows::len).sum::<usize>() + self.batch.len();
            match self.last_error.clone() {
                None if rows == 0 => return Ok(()),
                None => {}
                Some(error) => {
                    return Err(FlushError { rows, cause: error.to_string() });
                }
            }
        }
    }

    /// Whether somebody waits who must be told of a failure instead of waiting through it.
    pub(super) fn wants_out(&self, waiting: &[Order]) -> bool {
        waiting.iter().any(|order| match order {
            Order::Flush(_) => true,
            Order::Close(deadline, _) => Instant::now() >= *deadline,
        })
    }
}
