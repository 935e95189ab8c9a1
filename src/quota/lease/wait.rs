//! Waiting for units of a lease.

use super::Lease;
use crate::clock::Clock;

impl Lease {
    /// Waits until `n` atoms are here or known to be unavailable; the caller bounds the wait.
    /// `false`: the pool is no longer being asked for them, because it could not cover another ask
    /// or other requests were faster. Ask again.
    pub(crate) async fn answer_for(&self, n: u64, clock: &dyn Clock) -> bool {
        let _asked = self.balance.wait_for(n);
        loop {
            let mut changed = std::pin::pin!(self.balance.changed().notified());
            changed.as_mut().enable();
            let is_seen = !self.balance.is_looked_for();
            if is_seen && (self.here() >= n || self.is_refused(n, clock.now())) {
                return true;
            }
            if self.balance.wanted() < n {
                return false;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::ids::{Surrogate, WriterId};
    use crate::quota::lease::{LeaseCall, Take, Writer};
    use crate::quota::pool::{PoolId, Terms};
    use crate::store::layout::Space;
    use crate::store::{Memory, Store, Written};

    /// Makes every call the lease has to make now; how many there were.
    async fn drive(store: &Memory, lease: &Lease, clock: &ManualClock) -> usize {
        let writer = Writer { space: Space::new("test"), incarnation: WriterId::test(7) };
        let mut calls = 0;
        while let Some(call) = lease.next(&writer, clock.now()) {
            calls += 1;
            let answer = match call {
                LeaseCall::Look(key) => store.read(key).await,
                LeaseCall::Write(write) => store.write(write).await.map(|written| match written {
                    Written::Applied(item) | Written::Refused(item) => item,
                }),
                LeaseCall::Seek(_) => unreachable!("one writer"),
            };
            lease.answered(&writer, clock.now(), answer).unwrap();
        }
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn units_released_before_the_pool_is_asked_end_the_wait_for_them() {
        let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(0));
        let (tenant, limit) = (Surrogate::test(1), "jobs/day".into());
        let pool = PoolId { tenant, limit, scope: 0, start_ms: 0 };
        let terms = Terms { limit: 100, rev: 1 };
        let lease = Arc::new(Lease::new(pool, i64::MAX, terms, 1).under(WriterId::test(7)));
        assert_eq!(lease.take(1, clock.now()), Take::Need);
        drive(&store, &lease, &clock).await;
        let all = lease.here();
        assert!(matches!(lease.take(all, clock.now()), Take::Taken { .. }));

        assert_eq!(lease.take(1, clock.now()), Take::Need);
        let waiting = tokio::spawn({
            let (lease, clock) = (lease.clone(), clock.clone());
            async move { lease.answer_for(1, &clock).await }
        });
        tokio::task::yield_now().await;
        lease.release(all);
        assert_eq!(drive(&store, &lease, &clock).await, 0, "they are here again");
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        waited.expect("it waits for nothing").unwrap();
    }
}
