//! Usage records while the store fails: nothing is lost or counted twice, and unused lease units go
//! back. Tokio's time is paused; nothing sleeps.

use tallygate::store::Memory;
use tallygate::testing::{self, Fault, Faulty};
use tallygate::{Ask, Gate, TenantHandle};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = "1000/day"
"#;

/// Settles asks of one until one is refused or `most` were admitted. Returns the number admitted.
async fn serve(gate: &Gate, tenant: &TenantHandle, most: u64) -> u64 {
    let mut served = 0;
    while served < most {
        let ask = Ask::new(tenant, "job").cost("jobs", 1);
        let Ok(permit) = gate.admit(ask).await else {
            break;
        };
        permit.settle();
        served += 1;
    }
    served
}

/// The tenant's recorded usage, as a new process sees it.
async fn recorded(store: &Memory) -> u64 {
    let (gate, _clock) = testing::gate_with(PLANS, store.clone());
    let who = testing::identified(&gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let used = report.meters.iter().find(|m| &*m.name == "jobs").unwrap().used;
    gate.close().await.unwrap();
    used.whole()
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_served_from_leases_and_recorded_exactly_after_it() {
    let store = Memory::new();
    let faulty = Faulty::scripted(store.clone(), []);
    let (gate, _clock) = testing::gate_with(PLANS, faulty.clone());
    let acme = gate.tenant("acme").await.unwrap();
    let before = serve(&gate, &acme, 20).await;
    gate.flush_now().await.unwrap();
    assert_eq!(recorded(&store).await, before);

    faulty.outage(true);
    let during = serve(&gate, &acme, 1_000).await;
    assert!(during > 0, "a lease lasts beyond the store");
    assert!(during < 900, "a lease is a part of the pool");
    let error = gate.flush_now().await.unwrap_err();
    assert!(error.to_string().contains("could not be written"), "{error}");
    assert_eq!(recorded(&store).await, before);

    faulty.outage(false);
    gate.flush_now().await.unwrap();
    assert_eq!(recorded(&store).await, before + during);
    let after = serve(&gate, &acme, 5).await;
    assert_eq!(after, 5);
    gate.close().await.unwrap();
    assert_eq!(recorded(&store).await, before + during + after);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_copies_of_a_record_change_nothing() {
    let faults = [
        vec![Fault::LoseReply],
        vec![Fault::LoseRequest, Fault::LoseReply, Fault::Unavailable],
        vec![Fault::LoseReply, Fault::Throttled, Fault::LoseReply],
        vec![Fault::RepeatAfter(1), Fault::RepeatAfter(2)],
    ];
    for script in faults {
        let store = Memory::new();
        let faulty = Faulty::scripted(store.clone(), []);
        let (gate, _clock) = testing::gate_with(PLANS, faulty.clone());
        let acme = gate.tenant("acme").await.unwrap();
        let mut served = 0;
        for _ in 0..4 {
            // Few enough to come from the current lease, so that the script hits the log.
            served += serve(&gate, &acme, 2).await;
            faulty.then(script.clone());
            while gate.flush_now().await.is_err() {}
        }
        assert_eq!(served, 8);
        assert_eq!(recorded(&store).await, served, "{script:?}");
        gate.close().await.unwrap();
        assert_eq!(recorded(&store).await, served, "{script:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_gives_back_what_was_not_used() {
    let store = Memory::new();
    let (gate, _clock) = testing::gate_with(PLANS, store.clone());
    let acme = gate.tenant("acme").await.unwrap();
    assert_eq!(serve(&gate, &acme, 137).await, 137);
    gate.close().await.unwrap();

    let (second, _clock) = testing::gate_with(PLANS, store.clone());
    let again = second.tenant("acme").await.unwrap();
    assert_eq!(serve(&second, &again, 2_000).await, 1_000 - 137);
    second.close().await.unwrap();
    assert_eq!(recorded(&store).await, 1_000);
}
