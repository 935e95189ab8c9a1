//! Balances keep their value: grants and usage stay the same whatever plans and files change later,
//! and alerts refer to the limit in force.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tallygate::directory::{DirectoryError, Grant};
use tallygate::ingest::UsageEvent;
use tallygate::store::Memory;
use tallygate::testing::time_at;
use tallygate::{Ask, Clock, Gate, ManualClock, Permit, Reason, Refusal, testing};

/// No alert.
const NONE: [u16; 0] = [];

/// A service whose processes come and go over one store.
struct Service {
    store: Memory,
    clock: ManualClock,
    alerts: Arc<Mutex<Vec<u16>>>,
}

impl Service {
    fn new() -> Self {
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        Self { store: Memory::new(), clock, alerts: Arc::default() }
    }

    /// A process with this plan file.
    async fn gate(&self, plans: &str) -> Gate {
        self.open(plans).await.unwrap()
    }

    async fn open(&self, plans: &str) -> Result<Gate, tallygate::Error> {
        let builder = testing::builder(plans).store(self.store.clone()).clock(self.clock.clone());
        let heard = self.alerts.clone();
        builder.on_alert(move |alert| heard.lock().unwrap().push(alert.percent)).open().await
    }

    /// The alert percentages sent since the last call.
    async fn alerts(&self, gate: &Gate) -> Vec<u16> {
        gate.flush_now().await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut self.alerts.lock().unwrap())
    }
}

async fn ask(gate: &Gate, meter: &str, units: u64) -> Result<(), Refusal> {
    let acme = gate.tenant("acme").await.unwrap();
    gate.admit(Ask::new(&acme, "work").cost(meter, units)).await.map(|it| it.settle())
}

/// The number of available units, taken one by one.
async fn exhaust(gate: &Gate, meter: &str) -> u64 {
    let mut admitted = 0;
    while ask(gate, meter, 1).await.is_ok() {
        admitted += 1;
        assert!(admitted < 100_000, "nothing refuses");
    }
    admitted
}

fn grant(id: &str, meter: &str, units: u64) -> Grant {
    Grant::new(id, meter, units).source("gift")
}

async fn give(gate: &Gate, grant: Grant) -> Result<(), DirectoryError> {
    gate.directory().tenant("acme").grant(grant).save().await.map(|_| ())
}

/// A meter's report in units: usage, and for each limit and each grant its size and usage.
async fn told(gate: &Gate, meter: &str) -> (f64, Vec<[f64; 2]>, Vec<[f64; 2]>) {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.into_iter().find(|m| &*m.name == meter).unwrap();
    let units = |amount: tallygate::Amount| amount.to_string().parse::<f64>().unwrap();
    let limits = meter.limits.iter().map(|it| [units(it.limit.unwrap()), units(it.used)]);
    let grants = meter.grants.iter().map(|it| [units(it.limit), units(it.used)]);
    (units(meter.used), limits.collect(), grants.collect())
}

fn credits(sum: &str) -> String {
    format!(
        "default-plan = \"free\"
        [meter.a]
        [meter.b]
        [meter.credits]
        sum = {{ {sum} }}
        [plan.free]
        quota.credits = \"100/month\"
        rate.all = \"1k credits/min\""
    )
}

#[tokio::test]
async fn credits_keep_their_worth_when_weights_change() {
    let service = Service::new();
    let before = service.gate(&credits("a = \"4/1000\", b = \"1\"")).await;
    give(&before, grant("gift", "credits", 500)).await.unwrap();
    ask(&before, "b", 60).await.unwrap();
    assert_eq!(told(&before, "credits").await, (60.0, vec![[100.0, 60.0]], vec![[500.0, 0.0]]));
    before.close().await.unwrap();
    let after = service.gate(&credits("a = \"1/1000\", b = \"1\"")).await;
    assert_eq!(told(&after, "credits").await, (60.0, vec![[100.0, 60.0]], vec![[500.0, 0.0]]));
    // 40 of the plan, 500 of the grant.
    let n = exhaust(&after, "b").await;
    assert_eq!(n, 540);
}

#[tokio::test]
async fn credits_keep_their_worth_in_a_process_that_reloads_its_file() {
    let service = Service::new();
    let plans = testing::Plans::new(&credits("a = \"4/1000\", b = \"1\""));
    let builder = plans.read_by(testing::builder(""));
    let gate = builder.store(service.store.clone()).clock(service.clock.clone()).open().await;
    let gate = gate.unwrap();
    give(&gate, grant("gift", "credits", 500)).await.unwrap();
    let acme = gate.tenant("acme").await.unwrap();
    ask(&gate, "b", 60).await.unwrap();
    let open = gate.admit(Ask::new(&acme, "work").cost("b", 10)).await.unwrap();
    plans.set(&credits("a = \"1/1000\", b = \"1\""));
    assert!(gate.reload().await.unwrap());
    open.settle();
    assert_eq!(told(&gate, "credits").await.1, [[100.0, 70.0]]);
    assert_eq!(exhaust(&gate, "b").await, 530);
}

#[tokio::test]
async fn two_processes_with_different_files_draw_from_one_balance() {
    let service = Service::new();
    let old = service.gate(&credits("a = \"4/1000\", b = \"1\"")).await;
    give(&old, grant("gift", "credits", 500)).await.unwrap();
    ask(&old, "b", 30).await.unwrap();
    let new = service.gate(&credits("a = \"1/8\", b = \"1/2\"")).await;
    ask(&new, "b", 60).await.unwrap();
    old.close().await.unwrap();
    // 600 in all, of which 30 and 30 are used: 540 are left, at half a credit each.
    assert_eq!(exhaust(&new, "b").await, 1_080);
}

#[tokio::test]
async fn a_file_that_would_change_what_is_stored_is_refused_and_says_what_to_write() {
    let service = Service::new();
    let plans = |meter: &str| {
        format!("default-plan = \"free\"\n[meter.a]\n{meter}\n[plan.free]\nquota.jobs = \"9/day\"")
    };
    let first = service.gate(&plans("[meter.jobs]")).await;
    give(&first, grant("gift", "jobs", 500)).await.unwrap();
    let error = service.open(&plans("[meter.jobs]\nsum = { a = \"1\" }")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("jobs") && text.contains("write `parts = 1`"), "{text}");
    // With the advice of the error.
    let summed = "[meter.jobs]\nparts = 1\nsum = { a = \"1\" }";
    let second = service.gate(&plans(summed)).await;
    assert_eq!(told(&second, "jobs").await.2, [[500.0, 0.0]]);
    // Also after the meter was gone for a while.
    let gone = "default-plan = \"free\"\n[meter.a]\n[plan.free]";
    service.gate(gone).await;
    let error = service.open(&plans("[meter.jobs]\nsum = { a = \"1/2\" }")).await.unwrap_err();
    assert!(error.to_string().contains("jobs"), "{error}");
}

const ONCE: &str = r#"
    default-plan = "trial"
    [meter.jobs]
    [plan.trial]
    quota.jobs = "20"
    [plan.other]
    extends = "trial"
    [plan.big]
    quota.jobs = "50"
    [plan.none]
"#;

async fn change_plan(service: &Service, gate: &Gate, plan: &str) {
    gate.directory().tenant("acme").plan(plan).save().await.unwrap();
    service.clock.advance(Duration::from_secs(31));
}

#[tokio::test]
async fn units_granted_once_are_not_granted_again_by_another_plan() {
    let service = Service::new();
    let gate = service.gate(ONCE).await;
    assert_eq!(exhaust(&gate, "jobs").await, 20);
    change_plan(&service, &gate, "other").await;
    assert_eq!(exhaust(&gate, "jobs").await, 0);
    // A plan that grants more gives the difference, and switching back and forth gives nothing.
    change_plan(&service, &gate, "big").await;
    assert_eq!(exhaust(&gate, "jobs").await, 30);
    for plan in ["trial", "big", "other", "big"] {
        change_plan(&service, &gate, plan).await;
        assert_eq!(exhaust(&gate, "jobs").await, 0, "{plan}");
    }
}

#[tokio::test]
async fn units_granted_once_that_are_left_go_along_to_another_plan() {
    let service = Service::new();
    let gate = service.gate(ONCE).await;
    for _ in 0..5 {
        ask(&gate, "jobs", 1).await.unwrap();
    }
    gate.close().await.unwrap();
    let gate = service.gate(ONCE).await;
    change_plan(&service, &gate, "other").await;
    assert_eq!(exhaust(&gate, "jobs").await, 15);
}

#[tokio::test]
async fn a_stop_holds_however_the_limit_below_it_is_edited() {
    for (over, restarts) in [("bill", false), ("allow", false), ("bill", true)] {
        let service = Service::new();
        let file = |limit: u64| {
            let terms = format!("limit = \"{limit}/month\", over = \"{over}\", stop = \"120\"");
            let meter = "stripe = { event = \"jobs\", send = \"overage\" }";
            let head = format!("default-plan = \"free\"\n[meter.jobs]\n{meter}\n[plan.free]");
            format!("{head}\nquota.jobs = {{ {terms} }}\n")
        };
        let plans = testing::Plans::new(&file(100));
        let open = async || {
            let builder = plans.read_by(testing::builder(""));
            let builder = builder.store(service.store.clone()).clock(service.clock.clone());
            builder.open().await.unwrap()
        };
        let mut gate = open().await;
        let mut served = exhaust(&gate, "jobs").await;
        for limit in [110, 118, 120, 60, 120] {
            plans.set(&file(limit));
            if restarts {
                gate.close().await.unwrap();
                gate = open().await;
            } else {
                gate.reload().await.unwrap();
            }
            service.clock.advance(Duration::from_secs(5));
            served += exhaust(&gate, "jobs").await;
        }
        assert_eq!(served, 120, "over {over}, restarts {restarts}");
    }
}

fn limit(limit: &str) -> String {
    format!(
        "default-plan = \"free\"
        [meter.jobs]
        [plan.free]
        quota.jobs = {{ limit = \"{limit}/month\", alert = [80, 100] }}"
    )
}

#[tokio::test]
async fn alerts_tell_of_the_limit_in_force() {
    let service = Service::new();
    let plans = testing::Plans::new(&limit("100"));
    let builder = plans.read_by(testing::builder(""));
    let heard = service.alerts.clone();
    let builder = builder.on_alert(move |alert| heard.lock().unwrap().push(alert.percent));
    let gate = builder.store(service.store.clone()).clock(service.clock.clone()).open().await;
    let gate = gate.unwrap();
    ask(&gate, "jobs", 70).await.unwrap();
    plans.set(&limit("1000"));
    assert!(gate.reload().await.unwrap());
    for _ in 0..72 {
        ask(&gate, "jobs", 10).await.unwrap();
        assert_eq!(service.alerts(&gate).await, NONE);
    }
    ask(&gate, "jobs", 10).await.unwrap();
    assert_eq!(service.alerts(&gate).await, [80], "at 800 of 1,000");
    ask(&gate, "jobs", 199).await.unwrap();
    assert_eq!(service.alerts(&gate).await, NONE);
    ask(&gate, "jobs", 1).await.unwrap();
    assert_eq!(service.alerts(&gate).await, [100]);
    // Thresholds no longer passed are armed again; those still passed have been alerted.
    plans.set(&limit("1200"));
    assert!(gate.reload().await.unwrap());
    ask(&gate, "jobs", 1).await.unwrap();
    assert_eq!(service.alerts(&gate).await, NONE);
    ask(&gate, "jobs", 199).await.unwrap();
    assert_eq!(service.alerts(&gate).await, [100]);
}

#[tokio::test]
async fn each_percentage_that_is_passed_at_once_is_told_and_a_restart_tells_none_again() {
    let service = Service::new();
    let gate = service.gate(&limit("100")).await;
    ask(&gate, "jobs", 100).await.unwrap();
    assert_eq!(service.alerts(&gate).await, [80, 100]);
    gate.close().await.unwrap();
    let gate = service.gate(&limit("100")).await;
    assert_eq!(ask(&gate, "jobs", 1).await.unwrap_err().reason, Reason::Exhausted);
    assert_eq!(service.alerts(&gate).await, NONE);
}

#[tokio::test]
async fn an_end_in_good_order_raises_no_alert_and_keeps_none_from_being_told() {
    let service = Service::new();
    let gate = service.gate(&limit("100")).await;
    ask(&gate, "jobs", 52).await.unwrap();
    gate.close().await.unwrap();
    assert_eq!(std::mem::take(&mut *service.alerts.lock().unwrap()), NONE, "52 of 100 were used");
    let gate = service.gate(&limit("100")).await;
    ask(&gate, "jobs", 28).await.unwrap();
    assert_eq!(service.alerts(&gate).await, [80]);
}

#[tokio::test]
async fn work_under_way_raises_no_alert_before_it_has_used_its_units() {
    let service = Service::new();
    let gate = service.gate(&limit("100")).await;
    let acme = gate.tenant("acme").await.unwrap();
    let open = gate.admit(Ask::new(&acme, "work").cost("jobs", 90)).await.unwrap();
    ask(&gate, "jobs", 5).await.unwrap();
    assert_eq!(service.alerts(&gate).await, NONE);
    open.cancel();
    ask(&gate, "jobs", 10).await.unwrap();
    assert_eq!(service.alerts(&gate).await, NONE);
    ask(&gate, "jobs", 65).await.unwrap();
    assert_eq!(service.alerts(&gate).await, [80]);
}

#[tokio::test]
async fn a_grant_that_gives_nothing_is_an_error() {
    let service = Service::new();
    let plans = "default-plan = \"free\"\n[meter.jobs]\n[meter.mails]\n[plan.free]\n\
                 quota.jobs = \"9/day\"\n[plan.big]\nquota.mails = \"9/day\"";
    let gate = service.gate(plans).await;
    let error = give(&gate, grant("none", "jobs", 0)).await.unwrap_err();
    assert!(error.to_string().contains("0 units"), "{error}");
    let error = give(&gate, grant("idle", "mails", 10)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("mails") && text.contains("free"), "{text}");
    // With the plan that limits it.
    let edit = gate.directory().tenant("acme").plan("big").grant(grant("idle", "mails", 10));
    edit.save().await.unwrap();
    let error = give(&gate, grant("huge", "mails", u64::MAX)).await.unwrap_err();
    assert!(error.to_string().contains("mails"), "{error}");
}

#[tokio::test]
async fn a_grant_that_has_ended_is_not_given_again() {
    let service = Service::new();
    let gate = service.gate(&limit("10")).await;
    let day = 86_400_000;
    let until = service.clock.now().wall_ms + day;
    let once = |until| grant("pack", "jobs", 50).expires(time_at(until));
    give(&gate, once(until)).await.unwrap();
    service.clock.advance(Duration::from_secs(60 * 86_400));
    // Any change drops what ended long ago from the record.
    gate.directory().tenant("acme").plan("free").save().await.unwrap();
    let error = give(&gate, once(until + 365 * day)).await.unwrap_err();
    assert!(matches!(error, DirectoryError::GrantDiffers(_)), "{error}");
    give(&gate, once(until)).await.unwrap();
    assert_eq!(exhaust(&gate, "jobs").await, 10);
}

/// Processes of a service that read one plan file, which can change.
struct Fleet {
    service: Service,
    file: testing::Plans,
    gates: Vec<Gate>,
}

impl Fleet {
    /// This many, with 100 jobs a day.
    async fn new(processes: usize) -> Self {
        let (service, file) = (Service::new(), testing::Plans::new(&Self::plans("\"100/day\"")));
        let mut fleet = Self { service, file, gates: Vec::new() };
        for _ in 0..processes {
            fleet.gates.push(fleet.open().await);
        }
        fleet
    }

    fn plans(jobs: &str) -> String {
        format!(
            "default-plan = \"free\"
            [meter.jobs]
            [plan.free]
            quota.jobs = {jobs}"
        )
    }

    async fn open(&self) -> Gate {
        let builder = self.file.read_by(testing::builder("")).store(self.service.store.clone());
        builder.clock(self.service.clock.clone()).open().await.unwrap()
    }

    async fn quota(&self, jobs: &str) {
        self.file.set(&Self::plans(jobs));
        for gate in &self.gates {
            gate.reload().await.unwrap();
        }
    }

    /// One process reads the changed file.
    async fn quota_at(&self, at: usize, jobs: &str) {
        self.file.set(&Self::plans(jobs));
        self.gates[at].reload().await.unwrap();
    }

    async fn limit(&self, jobs: u64) {
        self.quota(&format!("\"{jobs}/day\"")).await;
    }

    async fn hold(&self, at: usize, jobs: u64) -> Result<Permit, Box<Refusal>> {
        let acme = self.gates[at].tenant("acme").await.unwrap();
        let ask = Ask::new(&acme, "work").cost("jobs", jobs);
        self.gates[at].admit(ask).await.map_err(Box::new)
    }

    async fn ingest(&self, jobs: u64) {
        let event = UsageEvent::new("1", "acme", "jobs", jobs);
        self.gates[0].ingest().events(vec![event]).await.remove(0).unwrap();
    }

    /// The number of available jobs, over all processes in turn.
    async fn exhaust(&self) -> u64 {
        let mut admitted = 0;
        for gate in self.gates.iter().cycle().take(3 * self.gates.len()) {
            admitted += exhaust(gate, "jobs").await;
            self.service.clock.advance(Duration::from_secs(4)); // a refusal is cached for three
        }
        admitted
    }
}

#[tokio::test]
async fn what_work_gives_back_under_a_lowered_limit_is_not_served_again() {
    for processes in [1, 2] {
        let fleet = Fleet::new(processes).await;
        fleet.limit(200).await;
        let mut held = Vec::new();
        for at in 0..processes {
            fleet.hold(at, 60 / processes as u64).await.unwrap().settle();
            for _ in 0..40 {
                held.push(fleet.hold(at, 1).await.unwrap());
            }
        }
        fleet.limit(70).await;
        assert_eq!(fleet.exhaust().await, 0, "processes: {processes}");
        held.into_iter().for_each(Permit::cancel);
        assert_eq!(fleet.exhaust().await, 10, "60 of 70 are used, processes: {processes}");
    }
}

#[tokio::test]
async fn what_is_owed_is_paid_by_what_work_gives_back_under_a_limit_that_fell_and_rose() {
    let fleet = Fleet::new(1).await;
    let held = fleet.hold(0, 40).await.unwrap();
    fleet.hold(0, 60).await.unwrap().settle();
    fleet.limit(70).await;
    fleet.ingest(30).await;
    fleet.limit(100).await;
    held.cancel();
    assert_eq!(fleet.exhaust().await, 10, "90 of 100 are used");
}

#[tokio::test]
async fn a_process_that_hears_of_a_debt_serves_what_it_has_beyond_it() {
    for (limit, owed) in [(101, 20), (95, 10), (99, 10)] {
        let fleet = Fleet::new(2).await;
        let held = fleet.hold(1, 40).await.unwrap();
        fleet.hold(0, 50).await.unwrap().settle();
        fleet.limit(limit).await;
        fleet.ingest(owed).await;
        assert!(fleet.hold(1, 27).await.is_err());
        held.cancel();
        assert_eq!(fleet.exhaust().await, limit - 50 - owed, "{limit}");
    }
}

#[tokio::test]
async fn a_debt_that_a_raised_limit_has_paid_is_not_owed_again_after_a_restart() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Then {
        GoesOn,
        Restarts,
        RestartsAsleep,
    }
    for then in [Then::GoesOn, Then::Restarts, Then::RestartsAsleep] {
        let mut fleet = Fleet::new(1).await;
        fleet.quota("[\"20/week\", \"20/day\"]").await;
        fleet.ingest(30).await;
        for day in [30, 20] {
            fleet.quota(&format!("[\"20/week\", \"{day}/day\"]")).await;
            assert_eq!(fleet.exhaust().await, 0);
        }
        if then == Then::RestartsAsleep {
            fleet.service.clock.advance(Duration::from_mins(2));
            testing::doze(&fleet.gates[0]).await;
        }
        if then != Then::GoesOn {
            fleet.gates[0].close().await.unwrap();
            fleet.gates = vec![fleet.open().await];
        }
        fleet.quota("[\"100/week\", \"20/day\"]").await;
        give(&fleet.gates[0], grant("pack", "jobs", 15)).await.unwrap();
        assert_eq!(fleet.exhaust().await, 15, "{then:?}");
    }
}

#[tokio::test]
async fn a_limit_that_was_another_meanwhile_is_served_by_a_process_that_was_not_asked_then() {
    for between in [10, 200] {
        let fleet = Fleet::new(2).await;
        for at in [0, 1] {
            fleet.hold(at, 1).await.unwrap().settle();
        }
        fleet.limit(between).await;
        let mut used = 2;
        for _ in 0..9 {
            used += u64::from(fleet.hold(1, 1).await.map(Permit::settle).is_ok());
        }
        fleet.limit(100).await;
        fleet.service.clock.advance(Duration::from_secs(4));
        used += exhaust(&fleet.gates[0], "jobs").await;
        assert!(used > 80, "{used} of 100, besides what the other has in hand: {between}");
        assert_eq!(used + fleet.exhaust().await, 100, "{between}");
    }
}

#[tokio::test]
async fn a_stop_holds_for_all_processes_when_the_limit_below_it_is_raised() {
    for (before, after) in [(10, 120), (50, 130), (100, 130)] {
        let fleet = Fleet::new(2).await;
        let stop =
            |limit| format!("{{ limit = \"{limit}/day\", over = \"allow\", stop = \"130\" }}");
        fleet.quota(&stop(before)).await;
        let mut used = 0;
        for (at, most) in [(0, before - 1), (1, 3), (0, 130)] {
            for _ in 0..most {
                used += u64::from(fleet.hold(at, 1).await.map(Permit::settle).is_ok());
            }
        }
        fleet.service.clock.advance(Duration::from_secs(4));
        fleet.quota(&stop(after)).await;
        used += exhaust(&fleet.gates[1], "jobs").await;
        assert_eq!(used + fleet.exhaust().await, 130, "{before}, then {after}");
    }
}

fn below_stop(limit: u64) -> String {
    format!("{{ limit = \"{limit}/day\", over = \"allow\", stop = \"130\" }}")
}

#[tokio::test]
async fn a_stop_holds_in_a_process_that_slept_after_it_had_heard_of_the_raised_limit() {
    let fleet = Fleet::new(2).await;
    fleet.quota(&below_stop(10)).await;
    let mut used = 0;
    for (at, most) in [(0, 9), (1, 3), (0, 130)] {
        for _ in 0..most {
            used += u64::from(fleet.hold(at, 1).await.map(Permit::settle).is_ok());
        }
    }
    fleet.service.clock.advance(Duration::from_secs(4));
    fleet.quota(&below_stop(120)).await;
    // It needs no units, but learns of the limit.
    let acme = fleet.gates[1].tenant("acme").await.unwrap();
    fleet.gates[1].admit(Ask::new(&acme, "rest")).await.unwrap().settle();
    drop(acme);
    testing::leases_at_rest(&fleet.gates[1]).await;
    fleet.gates[1].flush_now().await.unwrap();
    assert_eq!(testing::doze(&fleet.gates[1]).await.0, 1, "it sleeps");
    used += exhaust(&fleet.gates[1], "jobs").await;
    assert_eq!(used + fleet.exhaust().await, 130);
}

#[tokio::test]
async fn a_stop_holds_in_a_process_that_has_not_heard_yet_that_the_limit_below_it_changed() {
    for (before, after, most) in [(100, 50, 100), (100, 10, 105), (10, 120, 60), (10, 100, 100)] {
        let fleet = Fleet::new(2).await;
        fleet.quota(&below_stop(before)).await;
        let mut used = 0;
        for (at, most) in [(1, 1), (0, most)] {
            for _ in 0..most {
                used += u64::from(fleet.hold(at, 1).await.map(Permit::settle).is_ok());
            }
        }
        fleet.quota_at(1, &below_stop(after)).await;
        used += u64::from(fleet.hold(1, 1).await.map(Permit::settle).is_ok());
        fleet.service.clock.advance(Duration::from_secs(2));
        used += exhaust(&fleet.gates[0], "jobs").await;
        used += exhaust(&fleet.gates[1], "jobs").await;
        fleet.quota(&below_stop(after)).await;
        let all = used + fleet.exhaust().await;
        assert_eq!(all, 130, "{before}, then {after}");
    }
}

#[tokio::test]
async fn a_unit_that_two_quotas_owe_is_paid_once_by_a_process_that_has_seen_one_of_them_owe() {
    let fleet = Fleet::new(2).await;
    fleet.quota("[\"60/day\", \"100/month\"]").await;
    for at in [0, 1] {
        fleet.hold(at, 1).await.unwrap().settle();
    }
    fleet.ingest(125).await;
    fleet.gates[0].flush_now().await.unwrap();
    let other = || async {
        fleet.service.clock.advance(Duration::from_secs(4));
        exhaust(&fleet.gates[1], "jobs").await
    };
    let used = 127 + other().await;
    give(&fleet.gates[1], grant("first", "jobs", used - 60)).await.unwrap();
    assert_eq!(other().await + other().await, 0, "all of it pays");
    let (_, limits, _) = told(&fleet.open().await, "jobs").await;
    assert_eq!(limits, [[60.0, 60.0], [100.0, 100.0]], "both quotas are paid");
    give(&fleet.gates[1], grant("then", "jobs", 10)).await.unwrap();
    assert_eq!(other().await + other().await, 10, "after {used} of 60 and a grant of the rest");
}

/// Late usage that waits for a record makes no store calls until that is written.
#[test]
fn late_use_that_waits_behind_a_refusal_for_its_record_does_not_spin() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fleet = Fleet::new(2).await;
            fleet.limit(200).await;
            fleet.hold(0, 1).await.unwrap().settle();
            for _ in 0..2 {
                fleet.hold(1, 1).await.unwrap().cancel();
            }
            let held = fleet.hold(1, 1).await.unwrap();
            assert!(fleet.hold(1, 250).await.is_err());
            let event = UsageEvent::new("1", "acme", "jobs", 4);
            fleet.gates[1].ingest().events(vec![event]).await.remove(0).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.cancel();
        });
        let _ = sender.send(());
    });
    receiver
        .recv_timeout(Duration::from_secs(20))
        .expect("it goes on without waiting for anything");
}
