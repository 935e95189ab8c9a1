//! The turn of an hour, when every tenant's leases are of a window that is over.

use std::time::Duration;

use tokio::time::Instant;
use tollgate::{Ask, Gate, TenantHandle, testing};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/hour"
"#;

/// How many tenants; `TOLLGATE_TENANTS` says otherwise.
fn tenants() -> usize {
    std::env::var("TOLLGATE_TENANTS").map_or(20_000, |n| n.parse().unwrap())
}

/// What one call of each tenant took.
struct Took {
    /// Of the processor, in all: other work on the machine is not in it.
    cpu: Duration,
    /// By the clock, the slowest in a hundred.
    p99: Duration,
}

async fn first_calls(gate: &Gate, tenants: &[TenantHandle]) -> Took {
    let (mut took, begun) = (Vec::with_capacity(tenants.len()), cpu());
    for tenant in tenants {
        let begun = Instant::now();
        gate.admit(Ask::op("call").tenant(tenant)).await.unwrap().settle();
        took.push(begun.elapsed());
    }
    let cpu = cpu() - begun;
    took.sort_unstable();
    Took { cpu, p99: took[took.len() * 99 / 100] }
}

/// What this thread has had of a processor: the first number of its `schedstat`, see proc(5).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// What is looked for is work that grows with the number of tenants. All of it is done by this
/// thread; the clock's figures are printed, and hold on a machine that does nothing else.
#[tokio::test]
async fn the_first_calls_of_an_hour_take_no_longer_with_many_tenants() {
    let (gate, clock) = testing::gate(PLANS);
    let mut known = Vec::new();
    for n in 0..tenants() {
        known.push(gate.tenant(&format!("t{n}")).await.unwrap());
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // What is known of them is as old in both, and read again.
        clock.advance(Duration::from_secs(60));
        before.push(first_calls(&gate, &known).await);
        clock.advance(Duration::from_secs(3_600));
        after.push(first_calls(&gate, &known).await);
    }
    let least = |hours: &[Took], of: fn(&Took) -> Duration| hours.iter().map(of).min().unwrap();
    let (tenants, words) = (known.len(), "after an hour's end");
    let p99 = |hours: &[Took]| least(hours, |took| took.p99);
    println!("{tenants} tenants, p99: {:?}, and {:?} {words}", p99(&before), p99(&after));
    let cpu = |hours: &[Took]| least(hours, |took| took.cpu);
    let (before, after) = (cpu(&before), cpu(&after));
    println!("{tenants} tenants, in all: {before:?}, and {after:?} {words}");
    assert!(after <= 3 * before, "{after:?}, before {before:?}");
    gate.close().await.unwrap();
}
