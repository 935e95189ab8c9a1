//! Late use of many callers that waits for their leases: how much of it waits, and what a report
//! does about that of others.

use std::num::NonZeroU128;
use std::sync::Arc;
use std::time::Duration;

use super::late::{LateUse, MAX_WAITING, TRIES};
use crate::clock::Clock;
use crate::policy::scoped::{ScopeValues, ScopesOf};
use crate::sheets::sheet::Sheet;
use crate::table::Index;
use crate::{Gate, ManualClock, testing};

/// A gate whose leases answer only once the test waits, and the sheet of its tenant.
struct Bench {
    gate: Gate,
    clock: ManualClock,
    sheet: Arc<Sheet>,
}

impl Bench {
    async fn new() -> Self {
        let (gate, clock) = testing::gate(
            r#"
            default-plan = "free"
            [meter.tokens]
            count = "reported"
            [plan.free]
            quota.tokens = "100/day per user"
            "#,
        );
        let acme = gate.tenant("acme").await.unwrap();
        let sheet = acme.0.sheet(&gate.inner.catalogs.live.load(), clock.now());
        Self { gate, clock, sheet }
    }

    /// Reports one unit of this user from this address.
    fn report(&self, user: usize, ip: u128) {
        let user = Some(user as u128 + 2);
        let known = ScopeValues { user, ..ScopeValues::default() };
        let scopes = ScopesOf { known: Some(&known), ip: NonZeroU128::new(ip), without: None };
        let meter = self.sheet.policy.pools[Index::test(0)].meter;
        LateUse { sheet: &self.sheet, scopes, now: self.clock.now() }.pay(meter, 1);
    }

    /// How often late use is tried by a report of this user.
    fn tries(&self, user: usize) -> u64 {
        let before = TRIES.get();
        self.report(user, 0);
        TRIES.get() - before
    }

    fn waiting(&self) -> usize {
        self.sheet.unpaid.lock().uses.len()
    }

    /// Waits until nothing waits. Returns how many units all users have used by then.
    async fn paid(&self) -> u64 {
        let hub = &self.gate.inner.hub;
        let all = hub.answers.all_paid(|it| self.sheet.shares_tenant(it));
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("all of it is paid");
        assert!(!self.sheet.unpaid.is_some());
        hub.scoped.all_leases().iter().map(|lease| lease.total()).sum()
    }
}

#[tokio::test]
async fn a_report_tries_only_its_own_late_use_while_that_of_thousands_waits() {
    let bench = Bench::new().await;
    let alone = bench.tries(0);
    (1..3_000).for_each(|user| bench.report(user, 0));
    assert_eq!((alone, bench.waiting()), (1, 3_000));
    assert_eq!(bench.tries(3_000), alone, "of a user that is new");
    assert_eq!(bench.tries(7), alone, "of one whose late use waits");
    assert_eq!(bench.paid().await, 3_002, "of all users");
}

#[tokio::test]
async fn late_use_of_more_callers_than_may_wait_is_owed_at_once() {
    let bench = Bench::new().await;
    let users = MAX_WAITING + 100;
    (0..users).for_each(|user| bench.report(user, 0));
    assert_eq!(bench.waiting(), MAX_WAITING);
    assert_eq!(bench.paid().await, users as u64, "nothing is lost");
}

#[tokio::test]
async fn callers_that_no_quota_tells_apart_wait_as_one() {
    let bench = Bench::new().await;
    (1..=1_000).for_each(|ip| bench.report(0, ip));
    assert_eq!(bench.waiting(), 1);
    assert_eq!(bench.paid().await, 1_000);
}
