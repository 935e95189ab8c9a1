//! What `explain` says a request would get, beside what the gate decides.

use tallygate::directory::Grant;
use tallygate::store::Memory;
use tallygate::{Ask, Gate, ManualClock, testing};

/// Quotas of jobs, of which a request asks four.
const QUOTAS: &[&str] = &[
    "\"6/day\"",
    "{ limit = \"6/day\", over = \"allow\" }",
    "{ limit = \"6/day\", over = \"allow\", stop = \"14\" }",
    "{ limit = \"0/month\", over = \"allow\", stop = \"9\" }",
    "[{ limit = \"6/day\", over = \"allow\", stop = \"9\" }, \"11/month\"]",
    "[{ limit = \"3/day\", over = \"allow\", stop = \"12\" }, \
      { limit = \"8/month\", over = \"allow\", stop = \"10\" }]",
    "[{ limit = \"3/day per user\", over = \"allow\", stop = \"7\" }, \"40/day\"]",
];

fn plans(quota: &str) -> String {
    format!(
        "default-plan = \"free\"\n[meter.jobs]\nparts = 10\n[plan.free]\nquota.jobs = {quota}\n\
         [route.big]\nmatch = \"GET /big\"\ncost = {{ jobs = 4 }}\n"
    )
}

/// Uses so many jobs, if the gate lets it.
async fn used(gate: &Gate, n: u64) -> Result<(), String> {
    let acme = gate.tenant("acme").await.unwrap();
    match gate.admit(Ask::new(&acme, "big").user("ann").cost("jobs", n)).await {
        Ok(permit) if n == 4 => permit.cancel(), // to look
        Ok(permit) => permit.settle(),
        Err(refusal) => return Err(refusal.limit.unwrap().name.to_string()),
    }
    Ok(())
}

/// Whether a request is refused, as both say, each by a limit that has too little left.
async fn is_refused(gate: &Gate, of: &str) -> bool {
    let who = testing::identified_by(gate, &[("x-tenant", "acme"), ("x-user", "ann")]).await;
    let said = gate.explain(&who, "GET", "/big", None).await.unwrap();
    match used(gate, 4).await {
        Ok(()) => assert_eq!(said["verdict"], "admitted", "{of}: {said}"),
        Err(limit) => {
            assert_eq!(said["verdict"], "refused", "{of}: {said}");
            // Of several that are short, which one the gate meets first depends on its leases.
            let limits = said["limits"].as_array().unwrap();
            for name in [said["limit"].as_str().unwrap(), &limit] {
                let short = limits.iter().find(|it| it["name"] == *name).unwrap();
                assert!(short["asked"].as_u64() > short["remaining"].as_u64(), "{of}: {said}");
            }
        }
    }
    said["verdict"] == "refused"
}

#[tokio::test]
async fn the_verdict_is_the_gates_also_where_a_stop_is_used_up() {
    for (quota, granted) in QUOTAS.iter().flat_map(|quota| [(*quota, 0), (*quota, 3)]) {
        let plans = plans(quota);
        let store = Memory::new();
        let (gate, _clock) = testing::gate_with(&plans, store.clone());
        let acme = gate.directory().tenant("acme");
        let grants = (granted > 0).then(|| Grant::new("g", "jobs", granted));
        grants.into_iter().fold(acme, |acme, it| acme.grant(it)).save().await.unwrap();
        let mut refused = 0;
        for n in 0..25 {
            let of = format!("{quota}, {granted} granted, {n} used");
            refused += u64::from(is_refused(&gate, &of).await);
            let _ = used(&gate, 1).await;
        }
        assert_eq!(refused > 0, quota != QUOTAS[1], "{quota}");

        // By what the store has, as a command reads it.
        gate.close().await.unwrap();
        let (gate, _clock) = testing::gate_with(&plans, store);
        assert_eq!(is_refused(&gate, quota).await, refused > 0, "{quota} in the store");
    }
}

#[tokio::test]
async fn use_of_before_a_limit_was_changed_counts_towards_its_stop() {
    for (limit, stop) in [(4, 20), (4, 14), (2, 12), (12, 14), (8, 30)] {
        let of = |limit: u64, stop: u64| {
            plans(&format!("{{ limit = \"{limit}/day\", over = \"allow\", stop = \"{stop}\" }}"))
        };
        let file = testing::Plans::new(&of(8, 12));
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let gate = file.read_by(testing::builder("")).clock(clock).open().await.unwrap();
        for _ in 0..10 {
            used(&gate, 1).await.unwrap();
        }
        file.set(&of(limit, stop));
        gate.reload().await.unwrap();
        let mut refused = 0;
        for n in 10..35 {
            let of = format!("{limit}, stop {stop}: {n} used");
            refused += u64::from(is_refused(&gate, &of).await);
            let _ = used(&gate, 1).await;
        }
        assert!(refused > 0, "{limit}, stop {stop}");
    }
}
