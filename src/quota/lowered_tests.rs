//! Limits lowered and raised while requests hold units and late use is owed, in any order and with
//! lost replies: nothing is taken beyond the limit in force, and all of it can be taken.

use std::time::Duration;

use proptest::prelude::*;

use crate::clock::Now;
use crate::ids::{Surrogate, WriterId};
use crate::quota::lease::{Lease, LeaseCall, Take, Writer};
use crate::quota::pool::{PoolId, Terms};
use crate::store::layout::Space;
use crate::store::{Memory, Store, StoreError, StoreErrorKind, Written};

const LEASES: usize = 2;

/// No lease makes more calls than this at once.
const CALLS: usize = 50;

/// Longer than a refusal stands, in nanoseconds.
const LATER_NS: u64 = 4_000_000_000;

#[derive(Clone, Debug)]
enum Op {
    Take {
        lease: usize,
        n: u64,
    },
    Settle(usize),
    Release(usize),
    /// Use learned late: available units pay, the rest is owed.
    Late {
        lease: usize,
        n: u64,
    },
    /// All processes learn of it and ask the pool; a lone one may wait until it needs units.
    Limit {
        limit: i64,
        asks: bool,
    },
    /// Makes the calls of a lease. A write whose reply is lost is applied.
    Drive {
        lease: usize,
        loses: bool,
    },
    /// A record of its use is in the store, and with it a higher ceiling.
    Record(usize),
    Rest(usize),
}

/// A number of leases, and the operations on them.
fn ops() -> impl Strategy<Value = (usize, Vec<Op>)> {
    (1..=LEASES).prop_flat_map(|leases| {
        let lease = move || 0..leases;
        let op = prop_oneof![
            6 => (lease(), 1..9u64).prop_map(|(lease, n)| Op::Take { lease, n }),
            3 => lease().prop_map(Op::Settle),
            3 => lease().prop_map(Op::Release),
            1 => (lease(), 1..40u64).prop_map(|(lease, n)| Op::Late { lease, n }),
            2 => (1..80i64, any::<bool>()).prop_map(|(limit, asks)| Op::Limit { limit, asks }),
            2 => (lease(), any::<bool>()).prop_map(|(lease, loses)| Op::Drive { lease, loses }),
            2 => lease().prop_map(Op::Record),
            1 => lease().prop_map(Op::Rest),
        ];
        (Just(leases), prop::collection::vec(op, 1..80))
    })
}

/// Processes that lease from one pool.
struct World {
    store: Memory,
    leases: Vec<Lease>,
    /// What requests hold of each lease.
    open: [Vec<u64>; LEASES],
    terms: Terms,
    now: Now,
    /// Another process may not know yet what is owed.
    is_sure: bool,
}

impl World {
    fn new(leases: usize) -> Self {
        let terms = Terms { limit: 60, rev: 1 };
        let lease = |writer: usize| {
            let (tenant, limit) = (Surrogate::test(1), "jobs/day".into());
            let pool = PoolId { tenant, limit, scope: 0, start_ms: 0 };
            Lease::new(pool, i64::MAX, terms, 1).under(WriterId::test(writer as u128 + 7))
        };
        let now = Now { mono_ns: 1, wall_ms: 0 };
        let leases = (0..leases).map(lease).collect();
        Self { store: Memory::new(), leases, open: Default::default(), terms, now, is_sure: true }
    }

    /// Makes the calls a lease has to make now; a write whose reply is lost is applied.
    async fn drive(&self, at: usize, mut loses: bool) {
        let writer =
            Writer { space: Space::new("test"), incarnation: WriterId::test(at as u128 + 7) };
        let lease = &self.leases[at];
        for _ in 0..CALLS {
            let Some(call) = lease.next(&writer, self.now) else { return };
            let answer = match call {
                LeaseCall::Look(key) => self.store.read(key).await,
                LeaseCall::Write(write) => match self.store.write(write).await {
                    Ok(Written::Applied(item) | Written::Refused(item)) => Ok(item),
                    Err(error) => Err(error),
                },
                LeaseCall::Seek(_) => unreachable!("two writers share no sub-pools"),
            };
            let lost = || StoreError::new(StoreErrorKind::Unknown, "the reply is lost");
            let answer = if std::mem::take(&mut loses) { Err(lost()) } else { answer };
            let _ = lease.answered(&writer, self.now, answer);
        }
        panic!("a lease asks without end");
    }

    fn record(&self, at: usize) {
        let lease = &self.leases[at];
        if let Some(ceiling) = lease.propose_ceiling(self.now, Duration::from_secs(2)) {
            lease.ceiling_logged(ceiling);
        }
    }

    /// Everything used or held.
    fn used(&self) -> u64 {
        self.leases.iter().map(|lease| lease.total() + lease.open_holds()).sum()
    }

    /// What a lone process shows is what is left, once it knows the pool and owes nothing.
    fn shows_what_is_left(&self) {
        let [lease] = &self.leases[..] else { return };
        if lease.debt() > 0 {
            return;
        }
        let left = self.terms.limit.unsigned_abs().saturating_sub(self.used());
        assert_eq!(lease.remaining(), left, "{lease:?}");
    }

    async fn take(&mut self, at: usize, n: u64) -> bool {
        if self.leases[at].debt() > 0 {
            self.drive(at, false).await;
        }
        for _ in 0..3 {
            if self.leases[at].debt() > 0 {
                return false;
            }
            if matches!(self.leases[at].take(n, self.now), Take::Taken { .. }) {
                self.open[at].push(n);
                return true;
            }
            self.drive(at, false).await;
            if self.leases[at].is_capped() {
                self.record(at);
            }
        }
        false
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Take { lease, n } => {
                if self.take(lease, n).await {
                    let limit = self.terms.limit.unsigned_abs();
                    let is_within = self.used() <= limit || !self.is_sure;
                    assert!(is_within, "{} used of {limit}", self.used());
                }
            }
            Op::Settle(at) => {
                if let Some(n) = self.open[at].pop() {
                    self.leases[at].settle(n);
                }
            }
            Op::Release(at) => {
                if let Some(n) = self.open[at].pop() {
                    self.leases[at].release(n);
                }
            }
            Op::Late { lease, n } => {
                let mut left = n;
                while left > 0 && self.take(lease, 1).await {
                    self.open[lease].pop();
                    self.leases[lease].settle(1);
                    left -= 1;
                }
                if left > 0 {
                    self.leases[lease].owe(left);
                    self.is_sure &= self.leases.len() == 1;
                }
            }
            Op::Limit { limit, asks } => {
                self.terms = Terms { limit, rev: self.terms.rev + 1 };
                self.leases.iter().for_each(|lease| lease.retarget(self.terms));
                // One of several that has not asked does not know what the others have used.
                let asks = asks || self.leases.len() > 1;
                for at in (0..self.leases.len()).filter(|_| asks) {
                    self.leases[at].want(1); // a resting lease would not look
                    self.drive(at, false).await;
                }
            }
            Op::Drive { lease, loses } => {
                self.now.mono_ns += LATER_NS;
                self.drive(lease, loses).await;
            }
            Op::Record(at) => self.record(at),
            Op::Rest(at) => {
                self.leases[at].rest();
                self.drive(at, false).await;
            }
        }
    }

    /// Releases everything: what the limit has can be used, to the unit.
    async fn end(mut self) {
        let leases = self.leases.len();
        for at in 0..leases {
            for n in std::mem::take(&mut self.open[at]) {
                self.leases[at].release(n);
            }
        }
        for at in (0..leases).cycle().take(4 * leases) {
            self.now.mono_ns += LATER_NS;
            while self.take(at, 1).await {
                self.leases[at].settle(1);
            }
        }
        let settled: u64 = self.leases.iter().map(Lease::total).sum();
        assert!(settled >= self.terms.limit.unsigned_abs(), "{settled} of {}", self.terms.limit);
    }
}

proptest! {
    #[test]
    fn a_limit_that_moves_is_never_passed_and_never_lost((leases, ops) in ops()) {
        let run = async {
            let mut world = World::new(leases);
            for op in ops {
                world.apply(op).await;
                world.shows_what_is_left();
            }
            world.end().await;
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run);
    }
}
