//! What the log says of decisions: all of them, and enough to decide them again.

use std::time::Duration;

use super::*;
use crate::decision::Reason;
use crate::gate::{GateBuilder, Permit};
use crate::testing::START_MS;
use crate::{Ask, ManualClock};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.pages]
    [meter.gifts]
    [meter.bytes]
    [route.scan]
    match = "POST /scan"
    cost  = { requests = 2, pages = 3 }
    [route.chat]
    match = "POST /chat"
    [plan.free]
    concurrency    = 4
    rate.default   = "30/min burst 8"
    rate.scan      = ["10/min burst 4", "20 pages/min burst 12 per user"]
    quota.requests = ["90/hour per user", "300/day"]
    quota.pages    = "70/hour"
    quota.gifts    = "5"
    [plan.pro]
    extends     = "free"
    concurrency = 8
    quota.pages = { limit = "40/hour", over = "allow" }
    [plan.trial]
    extends = "free"
    enforce = "shadow"
"#;

async fn opened(decisions: &str) -> (Gate, ManualClock) {
    let service = "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n".to_owned() + decisions;
    let clock = ManualClock::at_unix_ms(START_MS);
    let builder = GateBuilder::from_text(&service).plans(PLANS).clock(clock.clone());
    let gate = builder.work_only().open().await.unwrap();
    for (tenant, plan) in [("acme", "free"), ("globex", "pro"), ("initech", "free")] {
        gate.directory().tenant(tenant).plan(plan).save().await.unwrap();
    }
    gate.directory().tenant("umbrella").plan("trial").save().await.unwrap();
    (gate, clock)
}

/// Numbers below `n`, the same in each run (a linear congruential generator).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

/// One piece of work of some tenant, and what was decided.
async fn decide(gate: &Gate, dice: &mut Dice) -> Result<Permit, Box<crate::Refusal>> {
    let tenant = ["acme", "globex", "initech", "umbrella"][dice.below(4) as usize];
    let tenant = gate.tenant(tenant).await.unwrap();
    let op = ["scan", "chat", "chat", "else"][dice.below(4) as usize];
    let mut ask = Ask::new(&tenant, op);
    if dice.below(2) == 0 {
        ask = ask.user(["ann", "bob"][dice.below(2) as usize]);
    }
    match dice.below(6) {
        0 => ask = ask.cost("pages", dice.below(5)),
        1 => ask = ask.cost("gifts", 1),
        2 => ask = ask.cost("pages", 1 + dice.below(20)).cost("bytes", dice.below(900)),
        _ => {}
    }
    gate.admit(ask).await.map_err(Box::new)
}

/// Does this many things, and returns `(admitted, limit)` of each.
async fn live(gate: &Gate, clock: &ManualClock, n: usize) -> Vec<(bool, Option<String>)> {
    let (mut dice, mut open, mut came) = (Dice(7), Vec::new(), Vec::new());
    while came.len() < n {
        match decide(gate, &mut dice).await {
            Ok(permit) => {
                came.push((true, None));
                open.push(permit);
            }
            Err(refusal) => {
                assert_ne!(refusal.reason, Reason::Unavailable);
                came.push((false, refusal.limit.map(|limit| limit.name.to_string())));
            }
        }
        while dice.below(9) > 3 && !open.is_empty() {
            let permit = open.swap_remove(dice.below(open.len() as u64) as usize);
            if dice.below(3) > 0 { permit.settle() } else { permit.cancel() }
        }
        match dice.below(40) {
            0 => clock.advance(Duration::from_secs(dice.below(1_200))),
            1..=20 => clock.advance(Duration::from_millis(dice.below(900))),
            _ => {}
        }
    }
    came
}

pub(super) fn logged(file: &std::path::Path) -> Vec<DecisionRecord> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn ten_thousand_records_decide_again_as_was_decided() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.ndjson");
    let decisions = format!("[decisions]\nfile = {file:?}\nadmissions = 1\nmax-bytes = \"1GB\"\n");
    let (gate, clock) = opened(&decisions).await;
    let mut came = Vec::new();
    for _ in 0..5 {
        came.extend(live(&gate, &clock, 2_000).await);
        tokio::time::sleep(Duration::from_millis(120)).await; // the queue is written
    }
    gate.close().await.unwrap();
    let records = logged(&file);
    let found = records.iter().map(|it| {
        (!it.is_refusal(), it.limit.as_deref().filter(|_| it.is_refusal()).map(str::to_owned))
    });
    assert_eq!(found.collect::<Vec<_>>(), came);

    let mut short_by = BTreeMap::<&str, u32>::new();
    for record in &records {
        // While units of one meter are waited for, the next one may refuse.
        let short: Vec<_> = record.short_limits().map(|limit| &*limit.name).collect();
        let line = || serde_json::to_string(record).unwrap();
        match record.limit.as_deref() {
            Some(limit) => assert!(short.contains(&limit), "{}", line()),
            None => assert!(short.is_empty(), "{}", line()),
        }
        assert_eq!(record.verdict == "admitted", short.is_empty());
        *short_by.entry(record.limit.as_deref().unwrap_or("none")).or_default() += 1;
    }
    let all = ["none", "concurrency", "default", "scan", "requests/day", "pages/hour", "gifts"];
    for limit in all {
        assert!(short_by.keys().any(|it| it.starts_with(limit)), "{limit}: {short_by:?}");
    }
    assert!(records.iter().any(|it| it.verdict == "shadowed"));
}

#[tokio::test]
async fn one_in_n_admissions_and_every_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.ndjson");
    for (every, admissions) in [(0_usize, 0), (7, 7)] {
        let text = format!("[decisions]\nfile = {file:?}\nadmissions = {every}\n");
        let _ = std::fs::remove_file(&file);
        let (gate, clock) = opened(&text).await;
        let came = live(&gate, &clock, 2_000).await;
        gate.close().await.unwrap();
        let records = logged(&file);
        let admitted = came.iter().filter(|it| it.0).count();
        let shadowed = records.iter().filter(|it| it.verdict == "shadowed").count();
        let refused = records.iter().filter(|it| it.is_refusal()).count();
        assert_eq!(refused, came.len() - admitted);
        let expected = if every == 0 { 0 } else { (admitted - shadowed).div_ceil(admissions) };
        assert_eq!(records.len() - refused - shadowed, expected);
    }
}

#[tokio::test]
async fn without_a_log_memory_has_the_refusals_with_their_reasons() {
    let (gate, _clock) = opened("").await;
    let acme = gate.tenant("acme").await.unwrap();
    assert!(gate.admit(Ask::new(&acme, "x").cost("gifts", 6)).await.is_err());
    assert!(gate.admit(Ask::new(&acme, "x").cost("gift", 1)).await.is_err());
    gate.directory().find("acme").await.unwrap().unwrap().edit().suspend().save().await.unwrap();
    assert!(gate.admit(Ask::new(&acme, "x")).await.is_err());
    let reasons: Vec<_> = gate.refusals_of(Some("acme"), 9);
    let reasons: Vec<_> = reasons
        .iter()
        .map(|it| (it.reason.as_deref().unwrap(), it.about.as_deref(), it.limit.as_deref()))
        .collect();
    assert_eq!(
        reasons,
        [
            ("suspended", None, None),
            ("not-metered", Some("gift"), None),
            ("payment-required", Some("grant-used-up"), Some("gifts/once")),
        ]
    );
    assert!(gate.refusals_of(Some("globex"), 9).is_empty());
    assert!(gate.refusals_of(None, 9).is_empty());
}

/// A recorder of metrics of the host's, which panics once it is armed.
#[cfg(feature = "metrics")]
mod recorder {
    use std::sync::atomic::{AtomicBool, Ordering};

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

    #[derive(Default)]
    pub(super) struct Panics(pub(super) AtomicBool);

    impl metrics::Recorder for Panics {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            assert!(!self.0.swap(false, Ordering::Relaxed), "the host's own code");
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
}

#[cfg(feature = "metrics")]
#[test]
fn a_recorder_that_panics_leaves_nothing_held() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::Ordering;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gate, _clock) = runtime.block_on(opened(""));
    let acme = runtime.block_on(gate.tenant("acme")).unwrap();
    // Its leases are there, and the handle of the other route is not.
    drop(runtime.block_on(gate.admit(Ask::new(&acme, "scan"))).unwrap());
    let recorder = recorder::Panics::default();
    metrics::with_local_recorder(&recorder, || {
        recorder.0.store(true, Ordering::Relaxed);
        let admit = || drop(runtime.block_on(gate.admit(Ask::new(&acme, "chat"))));
        assert!(catch_unwind(AssertUnwindSafe(admit)).is_err());
        assert!(!recorder.0.load(Ordering::Relaxed));
    });
    let admit = |_| runtime.block_on(gate.admit(Ask::new(&acme, "chat"))).unwrap();
    let all: Vec<_> = (0..4).map(admit).collect(); // as many as may run at once
    drop(all);
    runtime.block_on(gate.close()).unwrap();
}

/// A request of acme with an idempotency key, by way of a gateway.
struct Keyed {
    path: &'static str,
    key: &'static str,
    length: Option<u64>,
}

impl crate::identity::RequestView for Keyed {
    fn method(&self) -> &str {
        "POST"
    }

    fn path(&self) -> &str {
        self.path
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        match name {
            "x-tenant" => Some(b"acme"),
            "idempotency-key" => Some(self.key.as_bytes()),
            _ => None,
        }
    }

    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        self.header(name).into_iter().collect()
    }

    fn body_length(&self) -> Option<u64> {
        self.length
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        Some([127, 0, 0, 1].into())
    }
}

/// What a gate has logged of these requests and this work: the verdict and the reason of each.
async fn verdicts_of(run: impl AsyncFnOnce(&Gate)) -> Vec<String> {
    const ONCE: &str = "default-plan = \"free\"\n[meter.gifts]\n[plan.free]\nquota.gifts = \"5\"\n\
                        [route.pay]\nmatch = \"POST /pay/{id}\"\nonce-by = \"idempotency-key\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.ndjson");
    let service = format!(
        "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n[[identify]]\n\
         header = \"x-tenant\"\n[proxy]\ntrust = [\"127.0.0.0/8\"]\n\
         [decisions]\nfile = {file:?}\nadmissions = 1\n"
    );
    let clock = ManualClock::at_unix_ms(START_MS);
    let gate = GateBuilder::from_text(&service).plans(ONCE).clock(clock).open().await.unwrap();
    gate.directory().tenant("acme").save().await.unwrap();
    run(&gate).await;
    gate.close().await.unwrap();
    let verdict = |it: &DecisionRecord| match &it.reason {
        Some(reason) => format!("{} {reason}", it.verdict),
        None => it.verdict.to_string(),
    };
    logged(&file).iter().map(verdict).collect()
}

/// A request that counts once is decided twice, by its limits and by its key: the log has what came
/// of both.
#[tokio::test]
async fn a_request_with_a_key_is_logged_once_by_what_came_of_it() {
    let verdicts = verdicts_of(async |gate| {
        for path in ["/pay/1", "/pay/1", "/pay/2"] {
            let request = Keyed { path, key: "k", length: Some(0) };
            let admitted = crate::testing::OpenRequest::admit(gate, &request).await;
            assert_eq!(admitted.is_ok(), path == "/pay/1");
            drop(admitted);
        }
    });
    assert_eq!(verdicts.await, ["admitted", "admitted", "refused idempotency-conflict"]);
}

/// So is one whose body is read before that, also where it is too long or never arrives.
#[tokio::test]
async fn a_request_whose_body_is_read_first_is_logged_once() {
    let verdicts = verdicts_of(async |gate| {
        for (path, key) in [("/pay/1", "k"), ("/pay/2", "k"), ("/pay/3", "l"), ("/pay/4", "m")] {
            let request = Keyed { path, key, length: None };
            let mut waited = crate::gate::Waited::default();
            let mut reading = loop {
                match gate.ask_ahead(&request, 4, waited) {
                    crate::serving::AskedAhead::Wait(pending) => waited = pending.await,
                    crate::serving::AskedAhead::Read(reading) => break reading,
                    other => panic!("{other:?}"),
                }
            };
            match path {
                "/pay/3" => {
                    assert!(!reading.push(b"too long"));
                    assert_eq!(reading.too_long(gate).await.status, 413);
                }
                "/pay/4" => drop(reading), // the client has gone
                _ => {
                    assert!(reading.push(b"body"));
                    reading.take_body();
                    drop(reading.claim(gate, &request).await);
                }
            }
        }
    });
    let reused = "refused idempotency-conflict";
    assert_eq!(verdicts.await, ["admitted", reused, "admitted", "admitted"]);
}

/// Work whose units cannot be had may have been paid before: it was not refused then.
#[tokio::test]
async fn work_with_an_id_is_logged_once_by_what_came_of_it() {
    let verdicts = verdicts_of(async |gate| {
        let acme = gate.tenant("acme").await.unwrap();
        let gifts = |id: &str| Ask::new(&acme, "give").cost("gifts", 5).once(id);
        gate.admit(gifts("a")).await.unwrap().settle();
        gate.flush_now().await.unwrap();
        let again = gate.admit(gifts("a")).await.unwrap();
        assert!(again.is_repeat());
        again.settle();
        assert!(gate.refusals_of(Some("acme"), 9).is_empty());
        gate.admit(gifts("b")).await.unwrap_err();
        gate.admit(Ask::new(&acme, "give").cost("gifts", 1)).await.unwrap_err();
    });
    let short = "refused payment-required";
    assert_eq!(verdicts.await, ["admitted", "admitted", short, short]);
}
