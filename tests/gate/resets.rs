//! Quotas that an operator begins anew within their window.

use std::time::Duration;

use tallygate::directory::{DirectoryError, Edit, Tenant};
use tallygate::store::Memory;
use tallygate::testing::{self, gate};
use tallygate::{Ask, Error, Gate, Identified, ManualClock};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.credits]
    [meter.jobs]
    [meter.words]
    parts = 10
    [plan.free]
    quota.credits = "10/day"
    quota.jobs    = { limit = "5/day", over = "allow" }
    quota.words   = [{ limit = "9/day" }, "4/hour per key"]
"#;
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn bed() -> (Gate, ManualClock, Tenant) {
    let (gate, clock) = gate(PLANS);
    let acme = gate.directory().by("kim").tenant("acme").save().await.unwrap();
    (gate, clock, acme)
}

/// Uses up to `most` units, one by one; how many were admitted.
async fn used(gate: &Gate, meter: &str, most: usize) -> usize {
    let acme = gate.tenant("acme").await.unwrap();
    for n in 0..most {
        match gate.admit(Ask::new(&acme, "work").cost(meter, 1)).await {
            Ok(permit) => permit.settle(),
            Err(_) => return n,
        }
    }
    most
}

async fn reset(gate: &Gate, acme: &Tenant, limit: &str) -> Option<u64> {
    gate.reset_quota(acme, limit, "our outage").await.unwrap().map(|grant| grant.units)
}

#[tokio::test]
async fn a_quota_that_is_reset_is_whole_again_until_its_window_ends() {
    let (gate, clock, acme) = bed().await;
    assert_eq!(reset(&gate, &acme, "credits/day").await, None, "nothing was used");
    for _ in 0..3 {
        assert_eq!(used(&gate, "credits", 99).await, 10);
        assert_eq!(reset(&gate, &acme, "credits/day").await, Some(10));
        assert_eq!(reset(&gate, &acme, "credits/day").await, None, "it is whole");
    }
    assert_eq!(used(&gate, "credits", 4).await, 4);
    assert_eq!(reset(&gate, &acme, "credits/day").await, Some(4), "what is missing");
    assert_eq!(used(&gate, "credits", 99).await, 10);
    clock.advance(DAY);
    assert_eq!(used(&gate, "credits", 99).await, 10, "the next window is as ever");
    let who = Identified::from(&gate.tenant("acme").await.unwrap());
    let report = gate.usage_report(&who).await.unwrap();
    let credits = report.meters.iter().find(|meter| &*meter.name == "credits").unwrap();
    assert_eq!(credits.used, 54, "what was used stays recorded");
}

#[tokio::test]
async fn what_open_requests_have_set_aside_is_not_given() {
    let (gate, _clock, acme) = bed().await;
    let handle = gate.tenant("acme").await.unwrap();
    assert_eq!(used(&gate, "credits", 3).await, 3);
    let open = gate.admit(Ask::new(&handle, "work").cost("credits", 5)).await.unwrap();
    assert_eq!(reset(&gate, &acme, "credits/day").await, Some(3));
    drop(open); // it comes back by itself
    assert_eq!(used(&gate, "credits", 99).await, 10);

    assert_eq!(reset(&gate, &acme, "credits/day").await, Some(10));
    let open = gate.admit(Ask::new(&handle, "work").cost("credits", 4)).await.unwrap();
    assert_eq!(reset(&gate, &acme, "credits/day").await, None, "held of what a reset has given");
    open.settle();
    assert_eq!(reset(&gate, &acme, "credits/day").await, Some(4), "now it is used");
    assert_eq!(used(&gate, "credits", 99).await, 10);
}

#[tokio::test]
async fn a_reset_is_in_the_history_with_its_actor_and_reason() {
    let (gate, _clock, acme) = bed().await;
    used(&gate, "credits", 7).await;
    let grant = gate.reset_quota(&acme, "credits/day", "our outage").await.unwrap().unwrap();
    assert_eq!((grant.units, &*grant.source), (7, "reset"));
    let history = acme.history().await.unwrap();
    let last = history.last().unwrap();
    assert_eq!((last.actor.as_deref(), last.note.as_deref()), (Some("kim"), Some("our outage")));
    assert_eq!(last.edits, [Edit::Grant(grant)]);
}

#[tokio::test]
async fn what_was_used_beyond_a_quota_stays_so_and_no_more_is_until_it_is_used_up_again() {
    let (gate, _clock, acme) = bed().await;
    assert_eq!(used(&gate, "jobs", 8).await, 8);
    assert_eq!(reset(&gate, &acme, "jobs/day").await, Some(5));
    assert_eq!(used(&gate, "jobs", 5).await, 5);
    let who = Identified::from(&gate.tenant("acme").await.unwrap());
    let over = async || {
        let report = gate.usage_report(&who).await.unwrap();
        report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap().over.whole()
    };
    assert_eq!(over().await, 3, "the five came from the reset");
    assert_eq!(used(&gate, "jobs", 2).await, 2);
    assert_eq!(over().await, 5);
}

#[tokio::test]
async fn a_debt_is_given_back_beside_the_quota() {
    let (gate, _clock, acme) = bed().await;
    let work = Ask::new(&gate.tenant("acme").await.unwrap(), "work").cost("credits", 1);
    let permit = gate.admit(work).await.unwrap();
    permit.settle_with("credits", 14);
    assert_eq!(used(&gate, "credits", 99).await, 0);
    assert_eq!(reset(&gate, &acme, "credits/day").await, Some(14));
    assert_eq!(used(&gate, "credits", 99).await, 10);
}

#[tokio::test]
async fn resets_made_at_once_give_once() {
    let (gate, _clock, acme) = bed().await;
    used(&gate, "credits", 10).await;
    let one = || gate.reset_quota(&acme, "credits/day", "our outage");
    let (a, b, c) = tokio::join!(one(), one(), one());
    let given: Vec<_> = [a, b, c].into_iter().filter_map(Result::unwrap).collect();
    assert!(!given.is_empty());
    assert_eq!(used(&gate, "credits", 99).await, 10);
}

#[tokio::test]
async fn resets_by_two_processes_at_once_give_once() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let process = || testing::builder(PLANS).store(store.clone()).clock(clock.clone()).open();
    let (one, other) = (process().await.unwrap(), process().await.unwrap());
    let acme = one.directory().by("kim").tenant("acme").save().await.unwrap();
    for gate in [&one, &other] {
        used(gate, "credits", 5).await;
        gate.flush_now().await.unwrap();
    }
    let of_other = other.directory().by("ann").find("acme").await.unwrap().unwrap();
    let given = reset(&one, &acme, "credits/day").await;
    let again = reset(&other, &of_other, "credits/day").await;
    assert_eq!(given.unwrap_or(0) + again.unwrap_or(0), 10, "{given:?} and {again:?}");
    assert!(again.is_none() || given < Some(10));
}

#[tokio::test]
async fn what_was_used_in_another_process_is_seen_and_given_back_here() {
    let (store, clock) = (Memory::new(), ManualClock::at_unix_ms(testing::START_MS));
    let plans = PLANS.replace("10/day", "1000/day");
    let process = || testing::builder(&plans).store(store.clone()).clock(clock.clone()).open();
    let (one, other) = (process().await.unwrap(), process().await.unwrap());
    let acme = one.directory().by("kim").tenant("acme").save().await.unwrap();
    assert_eq!(used(&one, "credits", 1).await, 1);
    assert_eq!(used(&other, "credits", 1).await, 1);
    // From now on it calls the other one only, until that has all.
    while used(&other, "credits", 100).await == 100 {
        other.flush_now().await.unwrap();
    }
    clock.advance(Duration::from_secs(60));
    let who = Identified::from(&one.tenant("acme").await.unwrap());
    let report = one.usage_report(&who).await.unwrap();
    let credits = report.meters.iter().find(|meter| &*meter.name == "credits").unwrap();
    let (quota, used) = (&credits.limits[0], credits.used);
    assert!(quota.used >= 900 && used >= 900, "{used} used, {quota:?}");
    let given = reset(&one, &acme, "credits/day").await.unwrap();
    assert!(given >= 900, "{given} of {used}");
}

#[tokio::test]
async fn what_cannot_be_reset_is_an_error_that_says_what_can() {
    let (gate, _clock, acme) = bed().await;
    let error = gate.reset_quota(&acme, "credit/day", "why").await.unwrap_err();
    let Error::Directory(DirectoryError::UnknownLimit { known, .. }) = &error else {
        panic!("{error}");
    };
    assert!(known.iter().any(|id| id == "credits/day"), "{known:?}");
    let error = gate.reset_quota(&acme, "words/hour/key", "why").await.unwrap_err();
    assert!(matches!(error, Error::Directory(DirectoryError::NotTenantWide(_))), "{error}");
    used(&gate, "credits", 1).await;
    let error = gate.reset_quota(&acme, "credits/day", "").await.unwrap_err();
    assert!(error.to_string().contains("a note must have 1 to 512 characters"), "{error}");
}
