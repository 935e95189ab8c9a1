//! Metrics of decisions and flushes, as a host's recorder receives them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use tallygate::ingest::UsageEvent;
use tallygate::middleware::GateLayer;
use tallygate::store::{Memory, Redb, Store};
use tallygate::telemetry::Metric;
use tallygate::testing::{self, Faulty};
use tallygate::{Ask, Gate};
use test_support::bodies::Frames;
use test_support::processes;
use tower::{Layer, ServiceExt};

/// Keeps every series by its name and labels.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Seen {
    fn series(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        let name = key.name().to_owned() + &labels.collect::<String>();
        self.0.lock().unwrap().entry(name).or_default().clone()
    }

    fn get(&self, metric: Metric, labels: &str) -> Option<u64> {
        let name = [metric.name, labels].join(if labels.is_empty() { "" } else { " " });
        self.0.lock().unwrap().get(&name).map(|series| series.load(Relaxed))
    }

    fn gauge(&self, metric: Metric, labels: &str) -> Option<f64> {
        self.get(metric, labels).map(f64::from_bits)
    }
}

/// A histogram as the sum of its samples.
struct Sum(Arc<AtomicU64>);

impl metrics::HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.0.fetch_add(value as u64, Relaxed);
    }
}

impl metrics::Recorder for Seen {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Sum(self.series(key))))
    }
}

/// Runs a test on one thread, with this recorder.
fn recorded(test: impl AsyncFnOnce(&Seen)) {
    let seen = Seen::default();
    metrics::with_local_recorder(&seen, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&seen));
    });
}

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"3/day\"";

/// Whether a job is admitted.
async fn ask(gate: &Gate) -> bool {
    let acme = gate.tenant("acme").await.unwrap();
    let admitted = gate.admit(Ask::new(&acme, "job").cost("requests", 1)).await;
    admitted.is_ok_and(|permit| {
        permit.settle();
        true
    })
}

#[test]
fn a_decision_is_counted_by_its_outcome() {
    recorded(async |seen| {
        let (gate, _clock) = testing::gate_with(PLANS, Memory::new());
        for admitted in [true, true, true, false] {
            assert_eq!(ask(&gate).await, admitted);
        }
        let of = |outcome, why| {
            let labels = format!("plan=free route=default outcome={outcome} {why}");
            seen.get(Metric::Decisions, &labels)
        };
        assert_eq!(of("allowed", "reason= policy="), Some(3), "{:?}", seen.0);
        let by_quota = "reason=quota-exceeded policy=requests/day";
        assert_eq!(of("refused", by_quota), Some(1), "{:?}", seen.0);
    });
}

#[test]
fn a_call_with_a_meter_that_cannot_be_counted_is_counted() {
    recorded(async |seen| {
        let plans = r#"
            default-plan = "free"
            [meter.tokens]
            count = "reported"
            [meter.credits]
            sum = { tokens = "1/1000" }
            [plan.free]
        "#;
        let (gate, _clock) = testing::gate(plans);
        let inner = tower::service_fn(async |request: Request<Frames>| {
            let usage = request.extensions().get::<tallygate::Admitted>().unwrap().usage();
            usage.add("tokens", 7);
            usage.add("token", 7);
            usage.add("credits", 7);
            assert!(usage.take("token", 7).await.is_err());
            Ok::<_, Infallible>(Response::new(Frames::of(0, 0)))
        });
        let request = Request::get("/").header("x-tenant", "acme").body(Frames::of(0, 0)).unwrap();
        let response = GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let acme = gate.tenant("acme").await.unwrap();
        assert!(gate.admit(Ask::new(&acme, "job").cost("token", 1)).await.is_err());
        for (call, times) in [("add", 2), ("take", 1), ("admit", 1)] {
            let labels = format!("call={call}");
            assert_eq!(seen.get(Metric::UnknownMeter, &labels), Some(times), "{:?}", seen.0);
        }
    });
}

#[test]
fn the_catalog_in_force_is_told_from_the_start() {
    recorded(async |seen| {
        let plans = testing::Plans::new(PLANS);
        let gate = plans.read_by(testing::builder("")).open().await.unwrap();
        let of = |revision| seen.gauge(Metric::CatalogInfo, &format!("revision={revision}"));
        assert_eq!((of(1), of(2)), (Some(1.0), None), "{:?}", seen.0);
        plans.set(&PLANS.replace("3/day", "4/day"));
        assert!(gate.reload().await.unwrap());
        assert_eq!((of(1), of(2)), (Some(0.0), Some(1.0)), "{:?}", seen.0);
        gate.close().await.unwrap();
    });
}

#[test]
fn what_is_refused_without_a_limit_is_counted_too() {
    recorded(async |seen| {
        let store = Faulty::scripted(Memory::new(), []);
        let (gate, _clock) = testing::gate_with(PLANS, store.clone());
        let handler = tower::service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let service = GateLayer::new(&gate).layer(handler);
        let response = service.oneshot(Request::new(Empty::new())).await.unwrap();
        assert_eq!(response.status(), 401);
        let acme = gate.tenant("acme").await.unwrap();
        store.outage(true);
        assert!(gate.admit(Ask::new(&acme, "job").cost("requests", 1)).await.is_err());
        let of = |labels| seen.get(Metric::Decisions, labels);
        let unknown = "plan= route= outcome=unidentified reason=unidentified policy=";
        let away =
            "plan=free route=default outcome=unavailable reason=temporary-reduced-capacity policy=";
        assert_eq!((of(unknown), of(away)), (Some(1), Some(1)), "{:?}", seen.0);
        assert!(seen.get(Metric::LeaseWait, "outcome=away").is_some(), "{:?}", seen.0);
    });
}

/// Each by the word of its problem's type: no text of a caller is a label.
#[test]
fn a_refusal_is_counted_by_its_reason() {
    const PLANS: &str = "default-plan = \"free\"\n\
        [meter.jobs]\n\
        [route.export]\nmatch = \"GET /export\"\nneeds = \"export\"\n\
        [plan.free]\nquota.requests = \"10/day\"\nquota.jobs = \"prepaid\"\n\
        [plan.trial]\nextends = \"free\"\nexpires = \"1d\"\n\
        [plan.pro]\nextends = \"free\"\nfeature.export = true";
    recorded(async |seen| {
        let (gate, clock) = testing::gate_with(PLANS, Memory::new());
        let handler = tower::service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let call = Request::get("/export").header("x-tenant", "acme").body(Empty::new()).unwrap();
        let answer = GateLayer::new(&gate).layer(handler).oneshot(call).await.unwrap();
        assert_eq!(answer.status(), 403);
        let job = async |tenant: &str, meter: &str| {
            let tenant = gate.tenant(tenant).await.unwrap();
            let refused = gate.admit(Ask::new(&tenant, "job").cost(meter, 1)).await;
            refused.map(tallygate::Permit::settle).unwrap_err();
        };
        job("acme", "jobs").await;
        gate.directory().tenant("late").plan("trial").save().await.unwrap();
        gate.admit(Ask::new(&gate.tenant("late").await.unwrap(), "job")).await.unwrap().settle();
        clock.advance(std::time::Duration::from_secs(2 * 86_400));
        job("late", "requests").await;
        gate.directory().tenant("bad").save().await.unwrap().suspend("abuse").await.unwrap();
        job("bad", "requests").await;
        let of = |plan: &str, route: &str, why: &str| {
            let labels = format!("plan={plan} route={route} outcome=refused {why}");
            let counted = seen.get(Metric::Decisions, &labels);
            assert_eq!(counted, Some(1), "{labels}: {:?}", seen.0);
        };
        of("free", "export", "reason=feature-not-in-plan policy=");
        of("free", "default", "reason=payment-required policy=jobs/once");
        of("trial", "default", "reason=payment-required policy=");
        of("free", "default", "reason=suspended policy=");
    });
}

#[test]
fn a_stream_that_is_cut_is_refused_once() {
    const PLANS: &str = "default-plan = \"free\"\n\
        [meter.egress]\ncount = \"response-bytes\"\nhold = \"1KB\"\ncut = true\n\
        [plan.free]\nquota.egress = \"10500B/day\"";
    recorded(async |seen| {
        let (gate, _clock) = testing::gate_with(PLANS, Memory::new());
        let stream = tower::service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, Infallible>(Response::new(Frames::of(150, 100)))
        });
        let request = Request::builder().header("x-tenant", "acme").body(Empty::new()).unwrap();
        let layered = GateLayer::new(&gate).layer(stream);
        let body = layered.oneshot(request).await.unwrap().into_body();
        body.collect().await.unwrap_err();
        let cut = "plan=free route=default outcome=refused reason=quota-exceeded policy=egress/day";
        assert_eq!(seen.get(Metric::Decisions, cut), Some(1), "{:?}", seen.0);
    });
}

#[test]
fn a_flush_tells_its_rows_and_how_old_the_oldest_of_them_is() {
    recorded(async |seen| {
        let store = Faulty::scripted(Memory::new(), []);
        let (gate, clock) = testing::gate_with(PLANS, store.clone());
        let lag = || seen.gauge(Metric::FlushLag, "");
        let degraded = || seen.gauge(Metric::Degraded, "mode=flush");
        assert!(ask(&gate).await);
        store.outage(true);
        gate.flush_now().await.unwrap_err();
        assert_eq!((lag(), degraded()), (Some(0.0), Some(1.0)));
        // The age counts from the first attempt, with every one that fails.
        clock.advance(Duration::from_secs(3));
        gate.flush_now().await.unwrap_err();
        assert_eq!((lag(), degraded()), (Some(3.0), Some(1.0)));
        store.outage(false);
        gate.flush_now().await.unwrap();
        assert_eq!((lag(), degraded()), (Some(0.0), Some(0.0)));
        // A row of the tenant's usage, and one of its lease.
        assert_eq!(seen.get(Metric::FlushBatch, ""), Some(2));
        assert!(seen.get(Metric::StoreSeconds, "op=lease").is_some());
        assert!(seen.get(Metric::LeaseWait, "outcome=answered").is_some());
    });
}

/// The store has threads of its own: their metrics go to the process's recorder, where the stores
/// of other tests would be as well.
#[tokio::test]
async fn a_store_file_that_is_gone_shows_until_it_is_back() {
    let test = "metrics::a_store_file_that_is_gone_shows_until_it_is_back";
    if processes::printed_alone(test).is_some() {
        return;
    }
    let seen: &'static Seen = Box::leak(Box::default());
    metrics::set_global_recorder(seen).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, kept) = (folder.path().join("store.redb"), folder.path().join("kept"));
    let store = Redb::open(&path).unwrap();
    for (from, to, shown) in [(&path, &kept, 1.0), (&kept, &path, 0.0)] {
        std::fs::rename(from, to).unwrap();
        let shows = async {
            while seen.gauge(Metric::Degraded, "mode=store") != Some(shown) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), shows).await;
        assert!(in_time.is_ok(), "it is never {shown}: {:?}", seen.0);
    }
    store.close().await.unwrap();
}

/// What each kind of use adds: work, work with an id and its repeat, and an event. The sums are
/// those of the ledger.
#[test]
fn units_are_counted_by_meter_and_plan_as_the_ledger_has_them() {
    const PLANS: &str = r#"
        default-plan = "free"
        [meter.jobs]
        [meter.credits]
        sum = { jobs = "2/5" }
        [plan.free]
        quota.jobs = { limit = "2/month", over = "allow" }
    "#;
    recorded(async |seen| {
        let (gate, _clock) = testing::gate_with(PLANS, Memory::new());
        let counted = |meter| {
            ["used", "reported", "over"].map(|outcome| {
                let labels = format!("meter={meter} plan=free outcome={outcome}");
                seen.get(Metric::Units, &labels).unwrap_or(0)
            })
        };
        let acme = gate.tenant("acme").await.unwrap();
        for _ in 0..3 {
            gate.admit(Ask::new(&acme, "job").cost("jobs", 1)).await.unwrap().settle();
        }
        assert_eq!(counted("jobs"), [0, 0, 0], "requests do not pay for the metric");
        for _ in 0..2 {
            gate.flush_now().await.unwrap();
            assert_eq!(counted("jobs"), [3, 0, 0], "each unit once: {:?}", seen.0);
        }
        assert_eq!(counted("credits"), [1, 0, 0], "of 1.2");

        for id in ["k1", "k1", "k2"] {
            let ask = Ask::new(&acme, "job").cost("jobs", 2).once(id);
            gate.admit(ask).await.unwrap().settle();
        }
        gate.flush_now().await.unwrap();
        assert_eq!(counted("jobs"), [7, 0, 0], "a repeat is free: {:?}", seen.0);
        assert_eq!(counted("credits"), [2, 0, 0], "0.8 and 0.8 are one, with 0.6 in hand");

        let event = || UsageEvent::new("1", "acme", "jobs", 5);
        gate.ingest().events(vec![event()]).await.remove(0).unwrap();
        gate.ingest().events(vec![event()]).await.remove(0).unwrap();
        assert_eq!(counted("jobs"), [7, 5, 0], "an event counts once: {:?}", seen.0);
        assert_eq!(counted("credits"), [2, 2, 0]);
        let who = testing::identified_by(&gate, &[("x-tenant", "acme")]).await;
        let usage = gate.usage_report(&who).await.unwrap();
        let of = |meter: &str| usage.meters.iter().find(|it| *it.name == *meter).unwrap();
        assert_eq!((of("jobs").used.whole(), of("credits").used.whole()), (12, 4));
    });
}

/// What was due or held and went back: however an ask ends, its units are `used` or `refunded`.
#[test]
fn units_that_go_back_are_counted_as_refunded() {
    const PLANS: &str = r#"
        default-plan = "free"
        [meter.jobs]
        [meter.pages]
        [meter.credits]
        sum = { jobs = "2/5" }
        [meter.tokens]
        count = "reported"
        hold  = "10"
        [plan.free]
        quota.jobs     = "12/month"
        quota.requests = "5/month"
        quota.tokens   = "100/month"
    "#;
    recorded(async |seen| {
        let (gate, _clock) = testing::gate_with(PLANS, Memory::new());
        let of = |meter: &str, outcome: &str| {
            seen.get(Metric::Units, &format!("meter={meter} plan=free outcome={outcome}"))
        };
        let acme = gate.tenant("acme").await.unwrap();
        let work = async |n| gate.admit(Ask::new(&acme, "job").cost("jobs", n)).await;
        work(1).await.unwrap().settle();
        assert_eq!(of("jobs", "refunded"), None, "nothing went back: {:?}", seen.0);
        for _ in 0..3 {
            work(1).await.unwrap().cancel();
        }
        assert_eq!(of("jobs", "refunded"), Some(3), "at once: {:?}", seen.0);
        assert_eq!(of("credits", "refunded"), Some(1), "of 1.2, though no limit holds them");
        let once = |id| gate.admit(Ask::new(&acme, "job").cost("jobs", 2).once(id));
        once("k1").await.unwrap().cancel();
        assert_eq!(of("jobs", "refunded"), Some(5));
        for _ in 0..2 {
            once("k1").await.unwrap().settle();
        }
        assert_eq!(of("jobs", "refunded"), Some(7), "the second of them was charged already");
        assert!(work(100).await.is_err());
        let pages = async || gate.admit(Ask::new(&acme, "job").cost("pages", 4)).await.unwrap();
        pages().await.cancel();
        pages().await.settle();
        drop(pages().await);

        // Of a request that fails, all; of one that uses less than it holds, the rest.
        for (status, tokens) in [(500, 0), (200, 3), (200, 10), (200, 14), (500, 4)] {
            let inner = tower::service_fn(async |request: Request<Empty<Bytes>>| {
                let admitted = request.extensions().get::<tallygate::Admitted>().unwrap();
                admitted.usage().add("tokens", tokens);
                let answer = Response::builder().status(status);
                Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap())
            });
            let request = Request::get("/").header("x-tenant", "acme").body(Empty::new()).unwrap();
            let response = GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
            assert_eq!(response.status(), status);
            response.into_body().collect().await.unwrap();
        }
        gate.flush_now().await.unwrap();
        let both = |meter| ["used", "refunded"].map(|it| of(meter, it).unwrap_or(0));
        assert_eq!(both("jobs"), [3, 7], "{:?}", seen.0);
        assert_eq!(both("pages"), [4, 8], "{:?}", seen.0);
        assert_eq!(both("requests"), [3, 2], "{:?}", seen.0);
        assert_eq!(both("tokens"), [31, 10 + 7 + 6], "{:?}", seen.0);
        let report = testing::identified_by(&gate, &[("x-tenant", "acme")]).await;
        let usage = gate.usage_report(&report).await.unwrap();
        let used = usage.meters.iter().map(|it| (&*it.name, it.used.whole()));
        let used = BTreeMap::from_iter(used);
        assert_eq!((used["jobs"], used["tokens"]), (3, 31), "the record has no refund");
    });
}

/// What is drawn beyond a quota that bills is counted where it was used, and once.
#[test]
fn units_beyond_a_quota_that_bills_are_counted_apart() {
    const PLANS: &str = "default-plan = \"free\"\n[meter.jobs]\n\
        stripe = { event = \"jobs\", send = \"overage\" }\n[plan.free]\n\
        quota.jobs = { limit = \"2/month\", over = \"bill\" }";
    recorded(async |seen| {
        let (gate, _clock) = testing::gate_with(PLANS, Memory::new());
        let acme = gate.tenant("acme").await.unwrap();
        for once in [None, None, None, Some("k1"), Some("k2")] {
            let ask = Ask::new(&acme, "job").cost("jobs", 1);
            let ask = once.into_iter().fold(ask, |ask, id| ask.once(id));
            gate.admit(ask).await.unwrap().settle();
            gate.flush_now().await.unwrap();
        }
        let of =
            |outcome| seen.get(Metric::Units, &format!("meter=jobs plan=free outcome={outcome}"));
        assert_eq!((of("used"), of("over")), (Some(5), Some(3)), "{:?}", seen.0);
    });
}

/// Only where the service file asks for it, and for as many as it says.
#[test]
fn the_tenants_nearest_to_a_limit_are_labels_if_that_is_asked_for() {
    for (asked, expected) in [("[metrics]\ntop-tenants = 1", Some(1.0)), ("", None)] {
        recorded(async |seen| {
            tokio::time::pause(); // the next look is at once
            let service = format!("identify = []\n[store]\nkind = \"memory\"\n{asked}");
            let builder = tallygate::GateBuilder::from_text(&service).plans(PLANS);
            let gate = builder.open().await.unwrap();
            for (id, times) in [("acme", 3), ("bolt", 1)] {
                gate.directory().tenant(id).save().await.unwrap();
                let tenant = gate.tenant(id).await.unwrap();
                for _ in 0..times {
                    let ask = Ask::new(&tenant, "job").cost("requests", 1);
                    gate.admit(ask).await.unwrap().settle();
                }
            }
            tokio::time::sleep(Duration::from_secs(61)).await;
            let of = |id| {
                let labels = format!("tenant={id} limit=requests/day");
                seen.gauge(Metric::LimitUsed, &labels)
            };
            assert_eq!((of("acme"), of("bolt")), (expected, None), "{:?}", seen.0);
            gate.close().await.unwrap();
        });
    }
}
