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

/// One call of each tenant. Returns how long each took, shortest first.
async fn first_calls(gate: &Gate, tenants: &[TenantHandle]) -> Vec<Duration> {
    let mut took = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        let begun = Instant::now();
        gate.admit(Ask::op("call").tenant(tenant)).await.unwrap().settle();
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took
}

/// In real time: what is looked for is work that grows with the number of tenants. Such work is
/// there at every end of an hour, what else the machine does is not: one quiet end will do.
#[tokio::test]
async fn the_first_calls_of_an_hour_take_no_longer_with_many_tenants() {
    let (gate, clock) = testing::gate(PLANS);
    let mut known = Vec::new();
    for n in 0..tenants() {
        known.push(gate.tenant(&format!("t{n}")).await.unwrap());
    }
    let mut seen = String::new();
    for _ in 0..3 {
        // What is known of them is as old in both, and read again.
        clock.advance(Duration::from_secs(60));
        let before = first_calls(&gate, &known).await;
        clock.advance(Duration::from_secs(3_600));
        let after = first_calls(&gate, &known).await;
        let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
        let all = |took: &[Duration]| took.iter().sum::<Duration>();
        seen += &format!(
            "{} tenants: p99 {:?}, in all {:?} before; p99 {:?}, in all {:?} after\n",
            known.len(),
            p99(&before),
            all(&before),
            p99(&after),
            all(&after),
        );
        if p99(&after) <= 3 * p99(&before) && all(&after) <= 3 * all(&before) {
            println!("{seen}");
            return gate.close().await.unwrap();
        }
    }
    panic!("{seen}");
}
