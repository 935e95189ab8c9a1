//! What `explain` says a request would get, beside what the gate decides.

use tallygate::directory::Grant;
use tallygate::{Ask, testing};

/// What a request of four jobs asks, of plans with these quotas of jobs.
const QUOTAS: &[&str] = &[
    "\"6/day\"",
    "{ limit = \"6/day\", over = \"allow\" }",
    "{ limit = \"6/day\", over = \"allow\", stop = \"14\" }",
    "{ limit = \"0/month\", over = \"allow\", stop = \"9\" }",
    "[{ limit = \"6/day\", over = \"allow\", stop = \"9\" }, \"11/month\"]",
    "[{ limit = \"3/day\", over = \"allow\", stop = \"12\" }, { limit = \"8/month\", over = \"allow\", \
      stop = \"10\" }]",
    "[{ limit = \"3/day per user\", over = \"allow\", stop = \"7\" }, \"40/day\"]",
];

#[tokio::test]
async fn the_verdict_is_the_gates_also_where_a_stop_is_used_up() {
    for quota in QUOTAS {
        for granted in [0, 3] {
            let plans = format!(
                "default-plan = \"free\"\n[meter.jobs]\nparts = 10\n[plan.free]\nquota.jobs = {quota}\n\
                 [route.big]\nmatch = \"GET /big\"\ncost = {{ jobs = 4 }}\n"
            );
            let (gate, _clock) = testing::gate(&plans);
            let acme = gate.directory().tenant("acme");
            let acme =
                if granted > 0 { acme.grant(Grant::new("g", "jobs", granted)) } else { acme };
            acme.save().await.unwrap();
            let acme = gate.tenant("acme").await.unwrap();
            let who =
                testing::identified_by(&gate, &[("x-tenant", "acme"), ("x-user", "ann")]).await;
            let ask = |n: u64| Ask::new(&acme, "big").user("ann").cost("jobs", n);
            let mut refused = 0;
            for used in 0..25 {
                let said = gate.explain(&who, "GET", "/big", None).await.unwrap();
                let of = format!("{quota}, {granted} granted, {used} used: {said}");
                match gate.admit(ask(4)).await {
                    Ok(permit) => {
                        permit.cancel();
                        assert_eq!(said["verdict"], "admitted", "{of}");
                    }
                    Err(refusal) => {
                        refused += 1;
                        assert_eq!(said["verdict"], "refused", "{of}");
                        let limit = refusal.limit.unwrap().name;
                        assert_eq!(said["limit"], *limit, "{of}");
                    }
                }
                if let Ok(permit) = gate.admit(ask(1)).await {
                    permit.settle();
                }
            }
            let is_bounded = *quota != QUOTAS[1];
            assert_eq!(refused > 0, is_bounded, "{quota}");
        }
    }
}
