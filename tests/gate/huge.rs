//! Numbers that no meter can hold: a mistake in a program costs its tenant, and no more.

use std::time::Duration;

use tallygate::testing::gate;
use tallygate::{Ask, Identified};

#[tokio::test]
async fn a_report_of_more_than_can_be_counted_ends() {
    for quota in ["\"prepaid\"", "\"10/day\"", "\"10\""] {
        for first in [0, 4] {
            let plans = format!(
                "default-plan = \"free\"\n[meter.jobs]\n[plan.free]\nquota.jobs = {quota}\n"
            );
            let (gate, clock) = gate(&plans);
            let acme = gate.tenant("acme").await.unwrap();
            let permit = gate.admit(Ask::new(&acme, "work")).await.unwrap();
            let usage = permit.usage();
            usage.add("jobs", first);
            tokio::time::sleep(Duration::from_millis(50)).await;
            usage.add("jobs", u64::MAX);
            permit.settle();
            let ended = tokio::time::timeout(Duration::from_secs(20), async {
                gate.flush_now().await.unwrap();
                clock.advance(Duration::from_secs(2));
                gate.usage_report(&Identified::from(&acme)).await.unwrap();
                gate.close().await.unwrap();
            });
            ended.await.expect(quota);
        }
    }
}
