//! Floods, faults and outages cannot fill the log or stop a gate.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use tallygate::middleware::GateLayer;
use tallygate::store::Memory;
use tallygate::testing::{self, Faulty};
use tallygate::{Gate, GateBuilder, ManualClock};
use test_support::gates::{Acme, stripe_table};
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000000/day"
"#;

/// Records what a log would: every event from INFO up.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn bytes(&self) -> usize {
        self.0.lock().unwrap().iter().map(String::len).sum()
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(part))
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    /// Runs `work` with this log as the process's.
    pub(crate) fn over<T>(&self, work: impl Future<Output = T>) -> T {
        let _turn = crate::turn();
        let writer = self.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let _log = tracing::subscriber::set_default(log.finish());
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(work)
    }
}

/// An event is one write.
impl io::Write for Log {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8_lossy(event).into_owned());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A gate that takes webhooks; its Stripe does not exist.
async fn with_webhooks(folder: &std::path::Path, clock: &ManualClock) -> Gate {
    let service = "[store]\nkind = \"memory\"\n[[identify]]\nclaim = \"tenant\"\n\
                   [flush]\nmode = \"fast\"\n";
    let address = "http://127.0.0.1:9";
    let service =
        service.to_owned() + &stripe_table(folder, "sk_test_flood", "whsec_flood", address);
    let builder = GateBuilder::from_text(&service).plans(PLANS);
    builder.clock(clock.clone()).open().await.unwrap()
}

#[test]
fn refused_webhooks_write_a_line_a_second_however_many_come() {
    let (log, folder) = (Log::default(), tempfile::tempdir().unwrap());
    log.over(async {
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let gate = with_webhooks(folder.path(), &clock).await;
        let before = log.lines();
        for _ in 0..3 {
            for _ in 0..5_000 {
                assert_eq!(gate.stripe_webhook(b"t=1,v1=00", b"{}").await.status, 400);
            }
            clock.advance(Duration::from_secs(1));
        }
        let lines = log.lines() - before;
        println!("15,000 refused webhooks in 3 s: {lines} lines, {} bytes in all", log.bytes());
        assert!(lines <= 8, "{lines} lines");
        assert!(log.has("held_back=4999"), "what was held back is counted");
    });
}

/// A webhook of this kind and API version whose object has no shape that is known: its status.
async fn unreadable(gate: &Gate, id: u32, kind: &str, version: &str) -> u16 {
    let now_s = testing::START_MS / 1_000;
    let object = serde_json::json!({
        "id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active",
        "items": [],
    });
    let event = serde_json::json!({
        "id": format!("evt_{id}"), "object": "event", "type": kind, "api_version": version,
        "created": now_s, "livemode": false, "data": { "object": object },
    });
    let body = event.to_string();
    let signed = stripe_sim::signature(&["whsec_flood".to_owned()], now_s, body.as_bytes());
    gate.stripe_webhook(signed.as_bytes(), body.as_bytes()).await.status
}

#[test]
fn webhooks_of_an_unknown_shape_write_a_line_for_each_kind_and_version() {
    let (log, folder) = (Log::default(), tempfile::tempdir().unwrap());
    log.over(async {
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let gate = with_webhooks(folder.path(), &clock).await;
        let text = "a webhook has an unknown shape";
        let kinds = ["customer.subscription.created", "customer.subscription.updated"];
        for (at, kind) in kinds.into_iter().enumerate() {
            for (nth, version) in ["2022-11-15", "2023-10-16"].into_iter().enumerate() {
                for again in 0..50 {
                    assert_eq!(unreadable(&gate, again % 7, kind, version).await, 422);
                }
                assert_eq!(log.count(text), 2 * at + nth + 1, "{kind}, {version}");
                assert!(log.has(&format!("kind={kind} version=\"{version}\"")));
            }
        }
    });
}

#[test]
fn callers_without_a_value_are_logged_once_for_each_kind_of_scope() {
    let log = Log::default();
    log.over(async {
        let plans = "default-plan = \"free\"\n[plan.free]\n\
                     rate.default = [\"900/s per user\", \"900/s per project\"]\n\
                     rate.all = \"900/s per team\"\nquota.requests = \"900/day per ip\"\n";
        let service = "[store]\nkind = \"memory\"\n[[identify]]\nclaim = \"org\"\n\
                       [flush]\nmode = \"fast\"\n[identity]\nunknown = \"create\"\n";
        let builder = GateBuilder::from_text(service).plans(plans).identify(Acme);
        let gate = builder.open().await.unwrap();
        for _ in 0..100 {
            let inner =
                tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new())));
            let request = Request::get("/").body(String::new()).unwrap();
            let response = GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200);
        }
        for scope in ["user", "project", "team", "ip"] {
            let lines = log.count(&format!("scope=\"{scope}\""));
            assert_eq!(lines, 1, "{scope}");
        }
        assert!(log.has("they hold for all such callers of a tenant together"));
    });
}

#[test]
fn an_outage_writes_a_line_a_second_however_many_call() {
    let log = Log::default();
    log.over(async {
        let store = Faulty::scripted(Memory::new(), []);
        let (gate, clock) = testing::gate_with(PLANS, store.clone());
        let tenants: Vec<String> = (0..200).map(|n| format!("tenant-{n}")).collect();
        let mut handles = Vec::new();
        for tenant in &tenants {
            handles.push(gate.tenant(tenant).await.unwrap());
        }
        let admit = async |tenant| gate.admit(tallygate::Ask::new(tenant, "call")).await;
        for tenant in &handles {
            assert!(admit(tenant).await.is_ok());
        }
        let (before, calls) = (log.lines(), store.calls());
        store.outage(true);
        // Old enough to be read again, and called repeatedly.
        clock.advance(Duration::from_secs(16));
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..150 {
            for tenant in &handles {
                let _ = admit(tenant).await;
            }
            clock.advance(Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let lines = log.lines() - before;
        let calls = store.calls() - calls;
        println!("15 s of an outage: {lines} lines, {} bytes, {calls} calls", log.bytes());
        // Several kinds of line, each once a second.
        assert!(lines <= 100, "{lines} lines");
        // Each tenant is read every five seconds, not at every request.
        assert!(calls <= 200 * 8, "{calls} calls");
    });
}

#[test]
fn a_flush_that_fails_again_and_again_is_told_once_a_second() {
    let log = Log::default();
    log.over(async {
        let store = Faulty::scripted(Memory::new(), []);
        let (gate, _clock) = testing::gate_with(PLANS, store.clone());
        let acme = gate.tenant("acme").await.unwrap();
        let job = tallygate::Ask::new(&acme, "job").cost("requests", 1);
        gate.admit(job).await.unwrap().settle();
        store.outage(true);
        let calls = store.calls();
        let flushed = gate.flush_now().await;
        assert!(flushed.is_err(), "{flushed:?}");
        tokio::time::sleep(Duration::from_secs(3)).await; // the clock of the log stands still
        assert!(store.calls() - calls > 3, "it is tried again");
        assert_eq!(log.count("usage could not be written: it will be retried"), 1, "{:?}", log.0);
    });
}

#[test]
fn use_that_no_total_can_hold_is_named_once_a_second_with_its_meter() {
    let log = Log::default();
    log.over(async {
        let plans = format!("{PLANS}\n[meter.tokens]\nparts = 1000\n");
        let (gate, clock) = testing::gate(&plans);
        // An hour of its own: lines that other tests have held back are settled in it.
        clock.advance(Duration::from_secs(3_600));
        let usage = usage_of(&gate).await;
        usage.add("tokens", 1_000);
        assert!(!log.has("not counted"), "{:?}", log.0);
        for _ in 0..1_000 {
            usage.add("tokens", u64::MAX);
        }
    });
    assert_eq!(log.count("largest total of a meter is not counted"), 1, "{:?}", log.0);
    assert!(log.has("tenant=\"acme\" meter=\"tokens\""), "{:?}", log.0);
    assert!(log.has("most=1152921504606846"), "{:?}", log.0);
}

/// A handle on the usage of a request that has been answered.
async fn usage_of(gate: &Gate) -> tallygate::Usage {
    let kept = Mutex::new(None);
    let inner = tower::service_fn(|request: Request<String>| {
        let admitted = request.extensions().get::<tallygate::Admitted>().unwrap();
        *kept.lock().unwrap() = Some(admitted.usage());
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    });
    let request = Request::get("/").header("x-tenant", "acme").body(String::new()).unwrap();
    GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap();
    kept.into_inner().unwrap().unwrap()
}

#[test]
fn a_mistyped_meter_is_named_once_a_second_with_the_one_that_was_meant() {
    let log = Log::default();
    log.over(async {
        let plans = format!("{PLANS}\n[meter.output-tokens]\ncount = \"reported\"\n");
        let (gate, clock) = testing::gate(&plans);
        // An hour of its own: lines that other tests have held back are settled in it.
        clock.advance(Duration::from_secs(2 * 3_600));
        let usage = usage_of(&gate).await;
        for _ in 0..1_000 {
            usage.add("output-tokns", 3);
            assert!(usage.take("output-tokns", 3).await.is_err());
        }
        let acme = gate.tenant("acme").await.unwrap();
        let ask = tallygate::Ask::new(&acme, "work").cost("output-tokns", 3);
        assert!(gate.admit(ask).await.is_err());
    });
    let meant = "meter=\"output-tokns\" help=\"did you mean `output-tokens`?\"";
    for call in ["usage.add: the plan file has no such", "usage.take: the plan file has no such"] {
        assert_eq!(log.count(call), 1, "{:?}", log.0);
    }
    assert_eq!(log.count(meant), 2, "{:?}", log.0);
    assert_eq!(log.count("admit: the plan file has no such meter"), 1, "{:?}", log.0);
    assert!(log.has("meter=output-tokns help=\"did you mean `output-tokens`?\""), "{:?}", log.0);
}

#[test]
fn a_request_that_two_layers_of_a_gate_charge_is_named() {
    let log = Log::default();
    log.over(async {
        let route = "[route.work]\nmatch = []\ncost = { requests = 2 }\n";
        let (gate, clock) = testing::gate(&format!("{PLANS}\n{route}"));
        let inner = tower::service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let named = GateLayer::new(&gate).route("work").unwrap().layer(inner);
        let request = || Request::get("/").header("x-tenant", "acme").body(String::new()).unwrap();
        named.clone().oneshot(request()).await.unwrap();
        assert!(!log.has("charged twice"), "{:?}", log.0);
        GateLayer::new(&gate).layer(named).oneshot(request()).await.unwrap();
        assert_eq!(log.count("charged twice"), 1, "{:?}", log.0);
        assert!(log.has("route=\"work\""), "{:?}", log.0);
        clock.advance(Duration::from_secs(2)); // a line is written once a second
        let layer = GateLayer::new(&gate);
        let nested = layer.layer(layer.layer(inner));
        nested.oneshot(request()).await.unwrap();
    });
    assert_eq!(log.count("charged twice"), 2, "{:?}", log.0);
}

#[test]
fn the_start_tells_in_units_what_a_soft_limit_stops_at() {
    let log = Log::default();
    log.over(async {
        testing::gate(
            r#"
            default-plan = "free"
            [meter.credits]
            parts = 1000000
            [plan.free]
            quota.credits = { limit = "100/month", over = "allow", stop = "150" }
            [plan.away]
            on-lease-error = { allow = "5%" }
            quota.credits = "50/month"
            "#,
        );
    });
    assert!(log.has("soft limit: stops at 150 credits"), "{:?}", log.0);
    assert!(log.has("may serve 2.5 credits beyond its lease"), "{:?}", log.0);
}

async fn ask(gate: &Gate, tenant: &str) -> bool {
    let Ok(tenant) = gate.tenant(tenant).await else { return false };
    gate.admit(tallygate::Ask::new(&tenant, "call")).await.is_ok()
}

/// The report of broken plan file content, and the log after ten checks of the file.
fn broken(content: &[u8]) -> (String, Log) {
    let (log, folder) = (Log::default(), tempfile::tempdir().unwrap());
    let path = folder.path().join("plans.toml");
    std::fs::write(&path, PLANS).unwrap();
    let said = log.over(async {
        tokio::time::resume();
        let builder = testing::builder("").plans_file(&path);
        let gate = builder.open().await.unwrap();
        std::fs::write(&path, content).unwrap();
        let said = gate.reload().await.unwrap_err().to_string();
        // The file is checked every second, and considered complete at the second check.
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        std::fs::write(&path, PLANS.replace("1000000", "7")).unwrap();
        assert!(gate.reload().await.unwrap(), "a whole one is put into force again");
        gate.close().await.unwrap();
        said
    });
    (said, log)
}

#[test]
fn a_plan_file_that_is_refused_for_its_parts_is_not_called_unreadable() {
    let parts = |parts: u32| {
        let meter = format!("[meter.jobs]\nparts = {parts}\n");
        PLANS.replace("[plan.free]", &format!("{meter}[plan.free]"))
    };
    let (log, folder) = (Log::default(), tempfile::tempdir().unwrap());
    let path = folder.path().join("plans.toml");
    std::fs::write(&path, parts(1)).unwrap();
    log.over(async {
        tokio::time::resume();
        let builder = testing::builder("").plans_file(&path);
        let gate = builder.open().await.unwrap();
        std::fs::write(&path, parts(10)).unwrap();
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        std::fs::write(&path, parts(1)).unwrap();
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        gate.close().await.unwrap();
    });
    assert!(log.has("the plan file is refused: the previous one stays in force"), "{:?}", log.0);
    assert_eq!(log.count("counted in parts of 1/10"), 1);
    assert_eq!(log.count("the plan file is in force again"), 1);
}

#[test]
fn a_torn_plan_file_is_told_in_a_few_lines() {
    let torn = [b"# c".to_vec(), vec![0; 16 * 1024]].concat();
    let (said, log) = broken(&torn);
    println!("a torn plan file: an error of {} bytes, a log of {}", said.len(), log.bytes());
    assert!(said.contains("0x00") && said.contains("rename"), "{said}");
    assert!(said.len() < 2_000 && log.bytes() < 8_000, "{} {}", said.len(), log.bytes());
}

#[test]
fn however_a_plan_file_is_broken_its_mistakes_are_few_and_short() {
    let contents: [Vec<u8>; 7] = [
        b"= ".repeat(100_000),
        b"x = [\n".repeat(100_000),
        b"[plan.free]\nquota.requests = \"1/blue\"\n".repeat(10_000),
        (0..40_000).flat_map(|n| format!("k{n} = 1\n").into_bytes()).collect(),
        [&b"default-plan = \""[..], &b"x".repeat(15_000), b"\"\n[plan.free]\n"].concat(),
        [PLANS.as_bytes(), b"\"", &"\u{e9}".repeat(7_000).into_bytes(), b"\" = 1\n"].concat(),
        vec![0xff; 100_000],
    ];
    for content in contents {
        let said = {
            let text = String::from_utf8_lossy(&content);
            match tallygate::catalog::Catalog::parse("plans.toml", &text, std::time::UNIX_EPOCH) {
                Ok(_) => panic!("it is broken"),
                Err(errors) => errors.to_string(),
            }
        };
        assert!(said.len() <= 24 * 1024, "{} bytes: {}", said.len(), &said[..400]);
        let service = String::from_utf8_lossy(&content);
        let said = tallygate::GateBuilder::from_text(&service).dynamodb_table().unwrap_err();
        assert!(said.to_string().len() <= 24 * 1024, "{} bytes", said.to_string().len());
    }
}

#[cfg(unix)]
#[test]
fn a_plan_file_that_never_answers_stops_neither_requests_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plans.toml");
    std::fs::write(&path, PLANS).unwrap();
    let log = Log::default();
    log.over(async {
        tokio::time::resume();
        let builder = testing::builder("").plans_file(&path);
        let gate = builder.open().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        // Long enough for a check of the file.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(ask(&gate, "acme").await, "requests go on");
        let said = gate.reload().await.unwrap_err().to_string();
        assert!(said.contains("not a regular file"), "{said}");
        gate.close().await.unwrap();
    });
}
