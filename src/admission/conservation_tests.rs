//! Conservation in any order of requests, reports, ends and window edges: every hold ends, every
//! unit of a pool is free, held or spent, and the record equals the use.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::admission::context::HoldContext;
use crate::admission::permit::Hold;
use crate::clock::Clock;
use crate::decision::Outcome;
use crate::decision::Source;
use crate::gate::{Admitted, Answer, Gate, Step, Waited};
use crate::identity::RequestView;
use crate::ids::WriterId;
use crate::ledger::totals::Ledger;
use crate::quota::lease::{Lease, Writer};
use crate::quota::pool::{PoolId, View};
use crate::store::{Memory, Store};
use crate::tenants::caller::SheetRef;
use crate::testing::{self, held};

/// One of each: a meter that bills beyond its limit up to a stop, one granted once, one held and
/// reported, a sum, and a quota per user besides the tenant's.
const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    stripe = { event = "jobs", send = "overage" }
    [meter.gifts]
    [meter.tokens]
    count = "reported"
    hold  = "20"
    [meter.credits]
    parts = 10
    sum = { tokens = "1/10" }
    [route.work]
    match = "POST /work"
    cost  = { requests = 0, jobs = 2, gifts = 1 }
    [plan.free]
    rate.default   = "1000/s"
    quota.jobs     = { limit = "20/hour", over = "bill", stop = "30" }
    quota.gifts    = "40"
    quota.tokens   = "900/day"
    quota.credits  = "70/day"
    quota.requests = ["30/day", "8/day per user"]
"#;

/// Requests open at once.
const OPEN: usize = 8;

#[derive(Clone, Debug)]
enum Op {
    Admit { work: bool, user: u8 },
    Report(usize, u64),
    Take(usize, u64),
    Head(usize, u16),
    End(usize, Outcome),
    Drop(usize),
    Late(usize, u64),
    Flush,
    Advance(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let outcome = prop_oneof![
        prop_oneof![Just(200u16), Just(404), Just(503)]
            .prop_map(|status| Outcome::Complete { status }),
        Just(Outcome::Aborted),
        Just(Outcome::Failed),
    ];
    let tokens = prop_oneof![Just(0u64), 1..20u64, 20..200u64];
    let op = prop_oneof![
        8 => (any::<bool>(), 0..3u8).prop_map(|(work, user)| Op::Admit { work, user }),
        3 => (0..OPEN, tokens.clone()).prop_map(|(i, n)| Op::Report(i, n)),
        2 => (0..OPEN, tokens.clone()).prop_map(|(i, n)| Op::Take(i, n)),
        2 => (0..OPEN, prop_oneof![Just(200u16), Just(500)]).prop_map(|(i, s)| Op::Head(i, s)),
        5 => (0..OPEN, outcome).prop_map(|(i, outcome)| Op::End(i, outcome)),
        1 => (0..OPEN).prop_map(Op::Drop),
        1 => (0..OPEN, tokens).prop_map(|(i, n)| Op::Late(i, n)),
        1 => Just(Op::Flush),
        // Minutes: within an hour, over its edge, over a day's.
        1 => prop_oneof![0..5u64, Just(60), Just(721), 1_000..2_000u64].prop_map(Op::Advance),
    ];
    prop::collection::vec(op, 1..120)
}

/// A request of the one tenant.
#[derive(Clone)]
struct Call {
    work: bool,
    user: String,
}

impl RequestView for Call {
    fn method(&self) -> &str {
        if self.work { "POST" } else { "GET" }
    }

    fn path(&self) -> &str {
        if self.work { "/work" } else { "/else" }
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-tenant" => Some(b"acme"),
            "x-user" => Some(self.user.as_bytes()),
            _ => None,
        }
    }

    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        self.header(name).into_iter().collect()
    }

    fn peer(&self) -> Option<IpAddr> {
        None
    }
}

async fn admit(gate: &Gate, call: &Call) -> Option<Admitted> {
    let mut waited = Waited::default();
    loop {
        match gate.admit_request(call, waited) {
            Step::Wait(pending) => waited = pending.await,
            Step::Done(Answer::Admit(running)) => {
                return Some(Admitted::new(gate.clone(), running));
            }
            Step::Done(_) => return None,
        }
    }
}

/// The expected ledger, and everything that was in use.
#[derive(Default)]
struct Model {
    open: Vec<(Admitted, bool, Option<bool>)>,
    over: Vec<Admitted>,
    used: BTreeMap<&'static str, u64>,
    leases: HashMap<PoolId, Arc<Lease>>,
}

impl Model {
    fn count(&mut self, meter: &'static str, n: u64) {
        if n > 0 {
            *self.used.entry(meter).or_default() += n;
        }
    }

    fn count_tokens(&mut self, n: u64) {
        self.count("tokens", n);
        self.count("credits", n); // a tenth of a credit each, in atoms
    }

    /// The first decision on whether it is charged stands.
    fn decide(&mut self, i: usize, charged: bool) {
        let (_, work, decided) = &mut self.open[i];
        let work = *work;
        if decided.replace(decided.unwrap_or(charged)).is_none() && charged {
            if work {
                self.count("jobs", 2);
                self.count("gifts", 1);
            } else {
                self.count("requests", 1);
            }
        }
    }

    /// Collects every lease there is. No two are ever of one pool.
    fn learn(&mut self, gate: &Gate) {
        let mut all = gate.inner.hub.scoped.all_leases();
        for tenant in &gate.inner.tenants.active {
            all.extend(tenant.last_sheet().open_leases().cloned());
        }
        for admitted in self.open.iter().map(|open| &open.0).chain(&self.over) {
            all.extend(admitted.hold().of.sheet.open_leases().cloned());
        }
        for lease in all {
            let known = self.leases.entry(lease.pool().clone());
            assert!(Arc::ptr_eq(known.or_insert(lease.clone()), &lease));
        }
    }

    async fn step(&mut self, gate: &Gate, clock: &crate::ManualClock, op: Op) {
        let open = self.open.len();
        let usage = |i: usize| self.open.get(i).map(|(admitted, ..)| admitted.usage());
        match op {
            Op::Admit { work, user } if open < OPEN => {
                let user = format!("u{user}");
                if let Some(admitted) = admit(gate, &Call { work, user }).await {
                    self.open.push((admitted, work, None));
                }
            }
            Op::Report(i, n) => {
                if let Some(usage) = usage(i) {
                    usage.add("tokens", n);
                    self.count_tokens(n);
                }
            }
            Op::Take(i, n) => {
                if let Some(usage) = usage(i) {
                    let _ = usage.take("tokens", n).await; // refused or not
                }
            }
            Op::Head(i, status) if i < open => {
                let charged = status < 500;
                let now = clock.now();
                self.open[i].0.hold().charge(charged, now);
                self.decide(i, charged);
            }
            Op::End(i, outcome) if i < open => {
                let charged =
                    !matches!(outcome, Outcome::Failed | Outcome::Complete { status: 500.. });
                self.open[i].0.hold().end(outcome, clock.now());
                self.decide(i, charged);
                let (admitted, ..) = self.open.swap_remove(i);
                self.over.push(admitted);
            }
            Op::Drop(i) if i < open => {
                self.decide(i, true); // gone away
                self.open.swap_remove(i);
            }
            Op::Late(i, n) => {
                if let Some(admitted) = self.over.get(i) {
                    let _ = admitted.usage().take("tokens", 3).await;
                    admitted.usage().add("tokens", n);
                    self.count_tokens(n);
                }
            }
            Op::Flush => gate.flush_now().await.unwrap(),
            Op::Advance(minutes) => clock.advance(Duration::from_secs(60 * minutes)),
            _ => {}
        }
    }
}

/// Checks every pool of the store against its lease.
async fn assert_pools(gate: &Gate, store: &Memory, leases: &HashMap<PoolId, Arc<Lease>>) {
    let writer = &gate.inner.leasing.writer;
    let mut pools = store.keys();
    pools.retain(|key| key.pk.split('#').nth(2) == Some("Q"));
    for key in pools {
        let of_key = |lease: &&Arc<Lease>| lease.pool().key(&writer.space) == key;
        let lease = leases.values().find(of_key).expect("a lease of each pool");
        let item = store.read(key.clone()).await.unwrap().unwrap();
        let view = View::read(&item, writer.incarnation).unwrap();
        let held = view.mine.map_or(0, |mine| mine.held) as i64;
        let spent = item.int("spent").unwrap();
        assert_eq!(view.terms.limit - view.free, held + spent, "{key:?}");
        // A negative balance is late use that is owed, and no more.
        let owed = view.owed() as i64;
        assert!(
            view.free >= 0 || view.free == -owed,
            "more is out than there is: {key:?} {view:?}"
        );
        let total = lease.total() as i64;
        let used = if view.mine.is_some() { held - lease.unserved() } else { spent };
        assert_eq!(used, total, "a hold did not end: {lease:?}");
        assert_eq!(lease.open_holds(), 0, "{lease:?}");
    }
}

async fn run(program: Vec<Op>) {
    let store = Memory::new();
    let (gate, clock) = testing::gate_with(PLANS, store.clone());
    let mut model = Model::default();
    for op in program {
        model.step(&gate, &clock, op).await;
        model.learn(&gate);
    }
    for i in 0..model.open.len() {
        model.decide(i, true);
    }
    model.open.clear();
    model.over.clear();
    // Paused time: until the renewer is idle.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(held(&gate.tenant("acme").await.unwrap()), 0);
    assert_pools(&gate, &store, &model.leases).await;

    gate.flush_now().await.unwrap();
    let reader =
        Writer { incarnation: WriterId::test(1), space: gate.inner.leasing.writer.space.clone() };
    let now_ms = clock.now().wall_ms;
    let ledger = Ledger::new(Arc::new(store.clone()), reader);
    let tenant = *gate.inner.tenants.active.iter().next().unwrap().key();
    let mut used = BTreeMap::<String, u64>::new();
    for day in ledger.uses(tenant, |_, _| false, now_ms).await.unwrap() {
        assert_eq!(day.scale, if &*day.meter == "credits" { 10 } else { 1 });
        *used.entry(day.meter.to_string()).or_default() += day.atoms.used.0;
    }
    let counted = model.used.iter().map(|(meter, n)| (meter.to_string(), *n));
    assert_eq!(used, counted.collect());
    gate.close().await.unwrap();
    // What was left has been given back, and nothing more.
    for lease in model.leases.values() {
        assert!(lease.left() <= 0 || lease.window().end_ms <= now_ms, "{lease:?}");
    }
    assert_pools(&gate, &store, &model.leases).await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn nothing_is_lost_or_served_twice_in_any_order(program in ops()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(program));
    }
}

/// Four tasks on four threads at one tenant with four users, until the day's quota is used up. No
/// limit is passed meanwhile, and what refusals and failures gave back is available at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_pass_no_limit_and_leave_every_unit_usable() {
    const RATE: u64 = 2_000;
    const TENANT: u64 = 3_000;
    const USER: u64 = 900;
    let plans = r#"
        default-plan = "free"
        [plan.free]
        rate.default   = "2000/h"
        quota.requests = ["3000/day", "900/day per user"]
    "#;
    let store = Memory::new();
    let (gate, clock) = testing::gate_with(plans, store.clone());
    let call = |user: usize| Call { work: false, user: format!("u{user}") };
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let gate = gate.clone();
        tasks.spawn(async move {
            let (mut admitted, mut used) = (0, [0; 4]);
            for i in 0..2_000 {
                let user = (task + i / 7) % 4;
                let Some(running) = admit(&gate, &call(user)).await else {
                    continue;
                };
                admitted += 1;
                let outcome = [Outcome::Failed, Outcome::Complete { status: 200 }];
                let outcome = outcome[usize::from(i % 3 > 0)];
                used[user] += u64::from(outcome != Outcome::Failed);
                running.hold().end(outcome, gate.inner.clock.now());
            }
            (admitted, used)
        });
    }
    let (mut admitted, mut used) = (0, [0u64; 4]);
    while let Some(ended) = tasks.join_next().await {
        let (more, by_user) = ended.unwrap();
        admitted += more;
        (0..4).for_each(|user| used[user] += by_user[user]);
    }
    assert!(admitted <= RATE, "{admitted}");
    assert_eq!(held(&gate.tenant("acme").await.unwrap()), 0);

    // Alone now, to the end: each refusal is waited out.
    let mut model = Model::default();
    for _ in 0..6 {
        for (user, used) in used.iter_mut().enumerate() {
            while let Some(running) = admit(&gate, &call(user)).await {
                *used += 1;
                running.hold().end(Outcome::Aborted, clock.now());
            }
        }
        model.learn(&gate);
        clock.advance(Duration::from_secs(3_600));
    }
    assert_eq!(used.iter().sum::<u64>(), TENANT, "{used:?}");
    assert!(used.iter().all(|used| *used <= USER), "{used:?}");
    gate.close().await.unwrap();
    assert_pools(&gate, &store, &model.leases).await;
}

/// Two rates, the one drawn last refusing: what the first gave is available again. And every number
/// names its source.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refusal_by_one_of_two_rates_leaves_the_other_whole() {
    let plans = r#"
        default-plan = "free"
        [plan.free]
        rate.all       = "800/h"
        rate.default   = "500/h"
        quota.requests = "1000/day"
    "#;
    let (gate, _clock) = testing::gate(plans);
    let call = Call { work: false, user: "ann".into() };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (gate, call) = (gate.clone(), call.clone());
        tasks.spawn(async move {
            let mut admitted = 0;
            for _ in 0..1_000 {
                admitted += u64::from(admit(&gate, &call).await.is_some());
            }
            admitted
        });
    }
    let admitted: u64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(admitted, 500, "refused wrongly at most for a moment");

    let tenant = gate.tenant("acme").await.unwrap();
    let of = HoldContext {
        sheet: SheetRef::Own(tenant.0.last_sheet()),
        route: None,
        ip: None,
        work: None,
    };
    let now = gate.inner.clock.now();
    let hold = Hold::new(of, now, None);
    let states = gate.inner.limit_states(&hold, now);
    let told: Vec<_> =
        states.iter().map(|s| (s.limit.whole(), s.remaining.whole(), s.source)).collect();
    let (process, lease) = (Source::Process, Source::Lease);
    assert_eq!(told, [(800, 300, process), (500, 0, process), (1_000, 500, lease)]);
}
