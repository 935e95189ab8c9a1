//! Decisions through the public API: limits, windows, grants, plan changes. Time is manual; nothing
//! sleeps.

use std::time::Duration;

use tallygate::directory::{Grant, PaymentState};
use tallygate::testing::time_at;
use tallygate::{Ask, Gate, Permit, Reason, Refusal, testing};

const HOUR: Duration = Duration::from_secs(3_600);

async fn ask(gate: &Gate, tenant: &str, meter: &str, n: u64) -> Result<Permit, Refusal> {
    let tenant = gate.tenant(tenant).await.unwrap();
    gate.admit(Ask::new(&tenant, "work").cost(meter, n)).await
}

/// Settles asks of `n` until one is refused. Returns the number admitted, and the refusal.
async fn exhaust(gate: &Gate, tenant: &str, meter: &str, n: u64) -> (u64, Refusal) {
    let mut admitted = 0;
    loop {
        match ask(gate, tenant, meter, n).await {
            Ok(permit) => permit.settle(),
            Err(refusal) => return (admitted, refusal),
        }
        admitted += 1;
        assert!(admitted < 1_000_000, "nothing refuses");
    }
}

#[tokio::test]
async fn a_quota_admits_what_it_says_and_says_when_it_resets() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "1000/day"
        "#,
    );
    let (admitted, refusal) = exhaust(&gate, "acme", "jobs", 1).await;
    assert_eq!(admitted, 1_000);
    assert_eq!(refusal.reason, Reason::Exhausted);
    assert_eq!(refusal.retry_after, Some(12 * HOUR), "the test clock starts at noon");
    let limit = refusal.limit.unwrap();
    assert_eq!(
        (&*limit.name, limit.limit.whole(), limit.remaining.whole()),
        ("jobs/day", 1_000, 0)
    );

    // Another tenant has its own units, and the next day brings new ones.
    assert!(ask(&gate, "other", "jobs", 1).await.is_ok());
    clock.advance(12 * HOUR);
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 1_000);
}

#[tokio::test]
async fn what_is_allowed_while_the_store_is_away_is_not_while_it_answers() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        on-lease-error = { allow = "50%" }
        quota.jobs = "100/day"
        "#,
    );
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 100);
    assert_eq!(exhaust(&gate, "other", "jobs", 30).await.0, 3);
}

#[tokio::test]
async fn an_ask_that_does_not_fit_leaves_smaller_ones_their_units() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "100/day"
        "#,
    );
    ask(&gate, "acme", "jobs", 90).await.unwrap().settle();
    assert!(ask(&gate, "acme", "jobs", 25).await.is_err());
    for _ in 0..10 {
        ask(&gate, "acme", "jobs", 1).await.unwrap().settle();
    }
    assert!(ask(&gate, "acme", "jobs", 1).await.is_err());
}

#[tokio::test]
async fn cancelled_and_failed_work_gives_its_units_back() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "10/day"
        "#,
    );
    for _ in 0..100 {
        ask(&gate, "acme", "jobs", 7).await.unwrap().cancel();
        drop(ask(&gate, "acme", "jobs", 7).await.unwrap()); // failed: `charge-on` has no 5xx
    }
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 10);
    assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn several_limits_hold_at_once_and_a_refusal_takes_nothing() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [meter.mails]
        [plan.free]
        quota.jobs  = ["50/hour", "60/day"]
        quota.mails = "5/day"
        "#,
    );
    let tenant = gate.tenant("acme").await.unwrap();
    let both = || Ask::new(&tenant, "work").cost("jobs", 1).cost("mails", 1);
    for _ in 0..5 {
        gate.admit(both()).await.unwrap().settle();
    }
    // Mails are used up: the units taken of jobs go back each time.
    for _ in 0..100 {
        let refusal = gate.admit(both()).await.unwrap_err();
        assert_eq!(&*refusal.limit.unwrap().name, "mails/day");
    }
    let (admitted, refusal) = exhaust(&gate, "acme", "jobs", 1).await;
    assert_eq!((admitted, &*refusal.limit.unwrap().name), (45, "jobs/hour"));
    clock.advance(HOUR);
    let (admitted, refusal) = exhaust(&gate, "acme", "jobs", 1).await;
    assert_eq!((admitted, &*refusal.limit.unwrap().name), (10, "jobs/day"));
}

#[tokio::test]
async fn units_are_spent_in_order_plan_then_grants_then_over() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = { limit = "10/day", over = "allow", stop = "14" }
        "#,
    );
    let soon = clock_ms(&clock) + 3_600_000;
    gate.directory()
        .tenant("acme")
        .grant(grant("late", 3))
        .grant(grant("soon", 2).expires(time_at(soon)))
        .note("a welcome")
        .save()
        .await
        .unwrap();
    // 10 of the plan, 2 and 3 of the grants, 4 beyond the limit up to its stop.
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 10 + 2 + 3 + 4);
    // A new day has the plan's units again; the grants are gone.
    clock.advance(24 * HOUR);
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 14);
}

#[tokio::test]
async fn a_cost_is_split_among_those_who_pay() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = { limit = "10/day", over = "allow", stop = "14" }
        "#,
    );
    let soon = clock_ms(&clock) + 3_600_000;
    gate.directory()
        .tenant("acme")
        .grant(grant("late", 3))
        .grant(grant("soon", 2).expires(time_at(soon)))
        .note("a welcome")
        .save()
        .await
        .unwrap();
    ask(&gate, "acme", "jobs", 8).await.unwrap().settle();
    // 2 of the quota and 2 of the first grant; all go back, and are available again.
    ask(&gate, "acme", "jobs", 4).await.unwrap().cancel();
    ask(&gate, "acme", "jobs", 4).await.unwrap().settle();
    let refused = ask(&gate, "acme", "jobs", 8).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted, "3 and 4 are left");
    ask(&gate, "acme", "jobs", 7).await.unwrap().settle();
    assert!(ask(&gate, "acme", "jobs", 1).await.is_err());
}

#[tokio::test]
async fn a_cost_that_one_quota_includes_in_part_waits_for_the_rest_of_the_other() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = ["100k/month", { limit = "300/day", over = "allow" }]
        "#,
    );
    // The day is known to have 300, and 320 of the month are leased.
    ask(&gate, "acme", "jobs", 320).await.unwrap().cancel();
    let both = ask(&gate, "acme", "jobs", 580).await.map(Permit::settle);
    assert!(both.is_ok(), "300 of both, and of the month 280 more");
    let who = testing::identified(&gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let jobs = report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap();
    let used: Vec<_> = jobs.limits.iter().map(|limit| limit.used).collect();
    assert_eq!(used, [580, 580]);
}

#[tokio::test]
async fn a_first_cost_that_passes_the_limit_is_admitted_by_what_is_beyond() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = { limit = "100/cycle", over = "allow", stop = "150" }
        "#,
    );
    ask(&gate, "acme", "jobs", 130).await.unwrap().settle();
    let refused = ask(&gate, "acme", "jobs", 21).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted);
    ask(&gate, "acme", "jobs", 20).await.unwrap().settle();
}

#[tokio::test]
async fn two_included_and_two_granted_admit_a_cost_of_four() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = ["2/day", "100/month", "90/month per user"]
        "#,
    );
    let edit = gate.directory().tenant("acme").grant(grant("two", 2));
    edit.note("a gift").save().await.unwrap();
    assert_eq!(ask(&gate, "acme", "jobs", 5).await.unwrap_err().reason, Reason::Exhausted);
    ask(&gate, "acme", "jobs", 4).await.unwrap().settle();
    assert!(ask(&gate, "acme", "jobs", 1).await.is_err());
}

#[tokio::test]
async fn a_grant_that_has_expired_is_not_spent() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "10/day"
        "#,
    );
    let soon = clock_ms(&clock) + 3_600_000;
    let edit = gate.directory().tenant("acme").grant(grant("soon", 5).expires(time_at(soon)));
    edit.note("a gift").save().await.unwrap();
    assert!(ask(&gate, "acme", "jobs", 8).await.map(Permit::settle).is_ok());
    let split = ask(&gate, "acme", "jobs", 4).await.map(Permit::settle);
    assert!(split.is_ok(), "2 of the quota and 2 of the grant");
    clock.advance(HOUR);
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 0, "3 of the grant have expired");
}

#[tokio::test]
async fn what_was_granted_once_and_is_used_up_asks_for_payment() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "trial"
        [meter.jobs]
        [plan.trial]
        quota.jobs = "20"
        "#,
    );
    let (admitted, refusal) = exhaust(&gate, "acme", "jobs", 1).await;
    assert_eq!(admitted, 20);
    let Reason::PaymentRequired(what) = refusal.reason else { panic!("{:?}", refusal.reason) };
    assert_eq!(what, tallygate::decision::Payment::GrantUsedUp);
    assert_eq!(refusal.retry_after, None, "waiting will not help");
    clock.advance(1_000 * HOUR);
    assert!(ask(&gate, "acme", "jobs", 1).await.is_err());
}

#[tokio::test]
async fn a_trial_ends_after_its_life_from_the_first_request() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "trial"
        [meter.jobs]
        [plan.trial]
        expires    = "14d"
        quota.jobs = "1000/day"
        "#,
    );
    gate.directory().tenant("acme").note("signed up").save().await.unwrap();
    clock.advance(100 * 24 * HOUR); // no calls yet: the trial has not begun
    ask(&gate, "acme", "jobs", 1).await.unwrap().settle();
    clock.advance(14 * 24 * HOUR - Duration::from_secs(1));
    ask(&gate, "acme", "jobs", 1).await.unwrap().settle();
    clock.advance(Duration::from_secs(1));
    let refusal = ask(&gate, "acme", "jobs", 1).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::PaymentRequired(tallygate::decision::Payment::TrialOver));
}

#[tokio::test]
async fn payment_states_do_what_the_billing_table_says() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "10/day"
        [plan.pro]
        quota.jobs = "100/day"
        [billing]
        past-due = { grace = "7d", then = "free" }
        unpaid   = "payment-required"
        "#,
    );
    let set = async |state| {
        let edit = gate.directory().tenant("acme").plan("pro").payment(state);
        edit.note("from the test").save().await.unwrap();
        clock.advance(Duration::from_secs(31)); // the maximum age of cached entries
    };
    set(PaymentState::Good).await;
    assert_eq!(exhaust(&gate, "acme", "jobs", 10).await.0, 10);
    clock.advance(24 * HOUR);
    set(PaymentState::PastDue).await;
    assert_eq!(exhaust(&gate, "acme", "jobs", 10).await.0, 10, "in grace");
    clock.advance(7 * 24 * HOUR);
    assert_eq!(exhaust(&gate, "acme", "jobs", 10).await.0, 1, "grace is over: as on free");
    set(PaymentState::Unpaid).await;
    let refusal = ask(&gate, "acme", "jobs", 1).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::PaymentRequired(tallygate::decision::Payment::Unpaid));
}

#[tokio::test]
async fn a_plan_that_an_exception_names_is_paid_for_like_any_other() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "10/day"
        [plan.pro]
        quota.jobs = "100/day"
        [tenant.acme]
        plan = "pro"
        note = "an exception in the file"
        [billing]
        past-due = { grace = "7d", then = "free" }
        "#,
    );
    assert_eq!(exhaust(&gate, "acme", "jobs", 10).await.0, 10);
    let acme = gate.directory().tenant("acme").payment(PaymentState::PastDue);
    acme.note("from the test").save().await.unwrap();
    clock.advance(8 * 24 * HOUR);
    assert_eq!(exhaust(&gate, "acme", "jobs", 10).await.0, 1, "as on free");
}

#[tokio::test]
async fn an_override_wins_until_its_end() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "10/day"
        [tenant.acme]
        quota.jobs = "20/day"
        note = "an exception in the file"
        "#,
    );
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 20);
    let until = clock_ms(&clock) + 48 * 3_600_000;
    let edit = gate.directory().tenant("acme");
    edit.override_("quota.jobs = \"50/day\"", Some(time_at(until)), "a launch")
        .save()
        .await
        .unwrap();
    clock.advance(Duration::from_secs(31));
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 30, "the limit has been raised to 50");
    clock.advance(24 * HOUR);
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 50);
    clock.advance(48 * HOUR);
    assert_eq!(exhaust(&gate, "acme", "jobs", 1).await.0, 20, "it has ended");
}

#[tokio::test]
async fn an_alert_is_raised_once_per_percentage_and_window() {
    let raised = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = raised.clone();
    let store = tallygate::store::Memory::new();
    let clock = tallygate::ManualClock::at_unix_ms(testing::START_MS);
    let gate = |clock: &tallygate::ManualClock| {
        let heard = heard.clone();
        tallygate::GateBuilder::from_text(
            "[store]\nkind = \"memory\"\n[[identify]]\nheader = \"x\"\n\
             [proxy]\ntrust = [\"10.0.0.0/8\"]\n[identity]\nunknown = \"create\"\n\
             [flush]\nmode = \"fast\"\n",
        )
        .plans(
            r#"
            default-plan = "free"
            [meter.jobs]
            [plan.free]
            quota.jobs = { limit = "100/day", over = "allow", stop = "200", alert = [50, 80, 120] }
            "#,
        )
        .store(store.clone())
        .clock(clock.clone())
        .on_alert(move |alert| {
            heard.lock().unwrap().push((alert.tenant.to_string(), alert.percent));
        })
        .open()
    };
    let first = gate(&clock).await.unwrap();
    for _ in 0..90 {
        ask(&first, "acme", "jobs", 1).await.unwrap().settle();
    }
    settled().await;
    assert_eq!(*raised.lock().unwrap(), [("acme".into(), 50), ("acme".into(), 80)]);
    // Another process over the same store knows the raised limit.
    let second = gate(&clock).await.unwrap();
    let (more, _) = exhaust(&second, "acme", "jobs", 1).await;
    assert!(more > 80, "{more}");
    settled().await;
    let all = raised.lock().unwrap().clone();
    assert_eq!(all.last(), Some(&("acme".into(), 120)));
    assert_eq!(all.len(), 3, "{all:?}");
    clock.advance(24 * HOUR);
    for _ in 0..60 {
        ask(&second, "acme", "jobs", 1).await.unwrap().settle();
    }
    settled().await;
    assert_eq!(raised.lock().unwrap().last(), Some(&("acme".into(), 50)), "a new window");
}

/// Lets the gates' tasks become idle.
async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_limit_that_falls_within_its_window_takes_nothing_back_and_grants_no_more() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "100/day"
        "#,
    );
    let until = clock_ms(&clock) + 3_600_000;
    let edit = gate.directory().tenant("acme");
    edit.override_("quota.jobs = \"500/day\"", Some(time_at(until)), "a launch")
        .save()
        .await
        .unwrap();
    for _ in 0..200 {
        ask(&gate, "acme", "jobs", 1).await.unwrap().settle();
    }
    clock.advance(HOUR); // the override ends within the day
    let leased = exhaust(&gate, "acme", "jobs", 1).await.0;
    assert!(leased <= 25, "only what was leased already may still be served: {leased}");
}

#[tokio::test]
async fn concurrency_counts_what_is_in_flight() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        concurrency = 3
        quota.jobs  = "1000/day"
        "#,
    );
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(ask(&gate, "acme", "jobs", 1).await.unwrap());
    }
    assert_eq!(ask(&gate, "acme", "jobs", 1).await.unwrap_err().reason, Reason::Concurrency);
    running.pop().unwrap().settle();
    running.push(ask(&gate, "acme", "jobs", 1).await.unwrap());
    drop(running);
    assert_eq!(gate.tenant("acme").await.unwrap().in_flight(), Some(0));
}

#[tokio::test]
async fn shadow_decides_and_records_and_refuses_nobody() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        enforce     = "shadow"
        concurrency = 1
        quota.jobs  = "10/day"
        "#,
    );
    for _ in 0..50 {
        ask(&gate, "acme", "jobs", 1).await.unwrap().settle();
    }
    assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_and_resumes() {
    let (gate, clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.jobs]
        [plan.free]
        quota.jobs = "10/day"
        "#,
    );
    let tenant = gate.directory().tenant("acme").note("signed up").save().await.unwrap();
    tenant.suspend("abuse").await.unwrap();
    assert_eq!(ask(&gate, "acme", "jobs", 1).await.unwrap_err().reason, Reason::Suspended);
    tenant.resume("cleared").await.unwrap();
    clock.advance(Duration::from_secs(31));
    assert!(ask(&gate, "acme", "jobs", 1).await.is_ok());
}

fn grant(id: &str, units: u64) -> Grant {
    Grant::new(id, "jobs", units).source("gift")
}

fn clock_ms(clock: &tallygate::ManualClock) -> i64 {
    use tallygate::Clock;
    clock.now().wall_ms
}

/// A worker that retries what cannot succeed would do so for ever.
#[tokio::test]
async fn units_of_a_meter_that_is_not_there_are_refused_for_good() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.small]
        [meter.credits]
        sum = { small = "2" }
        [plan.free]
        quota.credits = "100/day"
        "#,
    );
    let acme = gate.tenant("acme").await.unwrap();
    for meter in ["nope", "credits"] {
        let ask = Ask::new(&acme, "job").cost(meter, 1);
        let refusal = gate.admit(ask).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::NotMetered(meter.into()));
        let reply = gate.refusal_reply(&refusal);
        let retry = reply.headers.iter().any(|(name, _)| *name == "retry-after");
        assert_eq!((reply.status, retry), (500, false), "{meter}");
        let said = refusal.to_string();
        assert!(said.contains(meter) && said.contains("Retrying does not help"), "{said}");
    }
}
