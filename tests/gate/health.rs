//! What a gate says is wrong with it, for `/readyz`.

use std::time::Duration;

use tallygate::store::Memory;
use tallygate::testing::{Faulty, Plans};
use tallygate::{Ask, Health, ManualClock, Trouble, testing};

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"1000/day\"\n";

async fn pass(seconds: u32, clock: &ManualClock) {
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_with_what_waits_for_its_end() {
    let store = Faulty::scripted(Memory::new(), []);
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = testing::builder(PLANS).store(store.clone()).clock(clock.clone()).open().await;
    let gate = gate.unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    let work = || gate.admit(Ask::new(&acme, "job").cost("requests", 1));
    work().await.unwrap().settle();
    assert_eq!(gate.health().troubles, []);
    assert_eq!(gate.health().to_string(), "healthy");

    store.outage(true);
    work().await.unwrap().settle();
    let all = gate.admit(Ask::new(&acme, "job").cost("requests", 990));
    assert!(all.await.is_err(), "its lease has not as many");
    pass(30, &clock).await;
    let health = gate.health();
    assert!(health.is_ready(), "it serves from its leases");
    let [Trouble::StoreAway, Trouble::NotWritten { oldest, error: Some(_) }] = &*health.troubles
    else {
        panic!("{health:?}")
    };
    assert!((29..=31).contains(&oldest.as_secs()), "{oldest:?}");
    let text = health.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("the store does not answer"), "{text}");
    assert!(lines[1].contains("has not been written for 30 s: store:"), "{text}");

    store.outage(false);
    pass(30, &clock).await;
    assert_eq!(gate.health().troubles, []);
}

#[tokio::test(start_paused = true)]
async fn a_broken_plan_file_is_told_until_it_is_right() {
    let file = Plans::new(PLANS);
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = file.read_by(testing::builder("")).clock(clock).open().await.unwrap();
    file.set("default-plan = \"none\"\n");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let health = gate.health();
    let [Trouble::PlanFile { error }] = &*health.troubles else { panic!("{health:?}") };
    assert!(error.contains("default-plan"), "{error}");
    assert!(health.is_ready());
    file.set(PLANS);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(gate.health().troubles, []);
}

#[tokio::test]
async fn a_gate_that_closes_is_not_ready() {
    let (gate, _clock) = testing::gate(PLANS);
    assert!(gate.health().is_ready());
    gate.close().await.unwrap();
    let health = gate.health();
    assert!(!health.is_ready());
    assert_eq!(Health::to_string(&health), "the gate is closing");
}

/// The check that `doctor` has: a clock that shows what is past for certain.
#[tokio::test]
async fn a_clock_behind_the_plans_in_force_is_told_until_it_is_set() {
    let store = Faulty::scripted(Memory::new(), []);
    let open = async |at_ms: i64| {
        let clock = ManualClock::at_unix_ms(at_ms);
        let builder = testing::builder(PLANS).store(store.clone()).clock(clock.clone());
        (builder.open().await.unwrap(), clock)
    };
    let (first, _clock) = open(testing::START_MS).await;
    assert_eq!(first.health().troubles, []);
    // Another process, an hour behind; and one that is behind by less than clocks differ.
    let (late, _clock) = open(testing::START_MS - 59_000).await;
    assert_eq!(late.health().troubles, []);
    let (behind, clock) = open(testing::START_MS - 3_600_000).await;
    let health = behind.health();
    let [Trouble::Clock { .. }] = &*health.troubles else { panic!("{health:?}") };
    assert!(health.is_ready());
    assert!(health.to_string().starts_with("the clock is wrong: it says "), "{health}");
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(behind.health().troubles, []);
}
