//! The turn of an hour, when every tenant's leases are of a past window.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tallygate::{Ask, Gate, TenantHandle, testing};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/hour"
"#;

/// The number of tenants; `TALLYGATE_TENANTS` overrides it.
fn tenants() -> usize {
    std::env::var("TALLYGATE_TENANTS").map_or(20_000, |n| n.parse().unwrap())
}

/// Processor time of one call of each tenant, in ascending order: other work on the machine does
/// not count.
async fn first_calls(gate: &Gate, tenants: &[TenantHandle]) -> Vec<Duration> {
    let mut took = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        let begun = cpu();
        gate.admit(Ask::new(tenant, "call")).await.unwrap().settle();
        took.push(cpu() - begun);
    }
    took.sort_unstable();
    took
}

/// This thread's processor time.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// Detects work that grows with the number of tenants; all of it is done by this thread. The
/// quietest of three hours is compared on both sides.
#[tokio::test]
async fn the_first_calls_of_an_hour_take_no_longer_with_many_tenants() {
    let (gate, clock) = testing::gate(PLANS);
    let mut known = Vec::new();
    for n in 0..tenants() {
        known.push(gate.tenant(&format!("t{n}")).await.unwrap());
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // Cached entries are of the same age in both, and read again.
        clock.advance(Duration::from_secs(60));
        before.push(first_calls(&gate, &known).await);
        clock.advance(Duration::from_secs(3_600));
        after.push(first_calls(&gate, &known).await);
    }
    let p99 = |took: &Vec<Duration>| took[took.len() * 99 / 100];
    let all = |took: &Vec<Duration>| took.iter().sum::<Duration>();
    let least = |hours: &[Vec<Duration>], of: &dyn Fn(&Vec<Duration>) -> Duration| {
        hours.iter().map(of).min().unwrap()
    };
    for (word, of) in [("p99", &p99 as &dyn Fn(&Vec<Duration>) -> Duration), ("in all", &all)] {
        let (before, after) = (least(&before, of), least(&after, of));
        println!("{} tenants, {word}: {before:?}, and {after:?} after an hour's end", known.len());
        assert!(after <= 3 * before, "{word}: {after:?}, before {before:?}");
    }
    gate.close().await.unwrap();
}
