//! Payers, and the part covered by holds: units taken by a handler, costs stated by work, byte
//! streams that only a sum limits, units that are bought and never included.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tallygate::directory::{DirectoryError, Grant};
use tallygate::middleware::{CountReads, GateLayer, ReadBody};
use tallygate::{Admitted, Ask, Clock, Gate, ManualClock, Permit, Reason, Usage, testing};
use test_support::bodies::Frames;
use tower::{Layer, ServiceExt};

/// A meter's usage, and the usage of each of its limits.
async fn used(gate: &Gate, meter: &str) -> (u64, Vec<u64>) {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.into_iter().find(|it| &*it.name == meter).unwrap();
    (meter.used.whole(), meter.limits.iter().map(|it| it.used.whole()).collect())
}

/// A request of acme with this handler: its status, and the bytes of its body that came before its
/// end or before it was cut.
async fn handled<F>(
    gate: &Gate,
    path: &str,
    body: Frames,
    handler: impl Fn(Usage) -> F,
) -> (u16, usize)
where
    F: Future<Output = ()>,
{
    let body = std::sync::Mutex::new(Some(body));
    let inner = tower::service_fn(|request: Request<Empty<Bytes>>| {
        let handled = handler(request.extensions().get::<Admitted>().unwrap().usage());
        let body = body.lock().unwrap().take().unwrap();
        async move {
            handled.await;
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    let request = Request::get(path).header("x-tenant", "acme").body(Empty::new()).unwrap();
    let response = GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap();
    let (status, mut passed) = (response.status().as_u16(), 0);
    let mut body = response.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        passed += frame.into_data().unwrap().len();
    }
    (status, passed)
}

const HELD: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold  = "50"
    [meter.credits]
    parts = 1
    sum = { tokens = "2" }
    [plan.free]
    quota.credits = "1000/day"
"#;

#[tokio::test]
async fn a_handler_takes_out_of_what_is_held_for_its_request() {
    for plans in [HELD.to_owned(), HELD.replace("credits = \"1000/day\"", "tokens = \"500/day\"")] {
        let (gate, _clock) = testing::gate(&plans);
        let (status, _) = handled(&gate, "/", Frames::of(0, 0), |usage| async move {
            usage.add("tokens", 450); // all but what is held
        })
        .await;
        assert_eq!(status, 200);
        let (status, _) = handled(&gate, "/", Frames::of(0, 0), |usage| async move {
            for _ in 0..5 {
                usage.take("tokens", 10).await.unwrap();
            }
            assert!(usage.take("tokens", 1).await.is_err(), "all of it is taken");
            usage.add("tokens", 30);
            assert!(usage.take("tokens", 1).await.is_err(), "20 of it are still to be spent");
            usage.add("tokens", 20);
        })
        .await;
        assert_eq!(status, 200);
        assert_eq!(used(&gate, "tokens").await.0, 500);
        assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
    }
}

#[tokio::test]
async fn what_is_taken_beyond_the_hold_is_drawn_and_the_rest_goes_back() {
    let (gate, _clock) = testing::gate(HELD);
    let (status, _) = handled(&gate, "/", Frames::of(0, 0), |usage| async move {
        usage.take("tokens", 30).await.unwrap();
        usage.take("tokens", 470).await.unwrap(); // 20 of it are held
        assert!(usage.take("tokens", 1).await.is_err());
        usage.add("tokens", 7);
        usage.take("credits", 1).await.unwrap_err();
    })
    .await;
    assert_eq!(status, 200);
    assert_eq!(used(&gate, "credits").await, (14, vec![14]));
    assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn a_sum_that_is_taken_comes_out_of_what_its_parts_hold() {
    let (gate, _clock) = testing::gate(&HELD.replace("1000/day", "100/day"));
    let (status, _) = handled(&gate, "/", Frames::of(0, 0), |usage| async move {
        usage.take("credits", 60).await.unwrap();
        usage.take("tokens", 20).await.unwrap();
        assert!(usage.take("credits", 1).await.is_err());
        usage.add("tokens", 50);
    })
    .await;
    assert_eq!(status, 200);
    assert_eq!(used(&gate, "credits").await, (100, vec![100]));
}

#[tokio::test]
async fn a_stream_is_cut_where_the_credits_end_that_its_bytes_cost() {
    let (gate, _clock) = testing::gate(
        r#"
        default-plan = "free"
        [meter.egress]
        count = "response-bytes"
        cut   = true
        [meter.credits]
        sum = { egress = "1/1000" }
        [plan.free]
        quota.credits = "1000/day"
        "#,
    );
    let quiet = |_| async {};
    for frame in [10_000, 1_000] {
        let passed = handled(&gate, "/", Frames::of(500_000 / frame, frame), quiet).await;
        assert_eq!(passed, (200, 500_000));
    }
    assert_eq!(used(&gate, "credits").await, (1_000, vec![1_000]));
    assert_eq!(handled(&gate, "/", Frames::of(1, 1), quiet).await.0, 429);
}

const WORK: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [meter.gpu-seconds]
    count = "reported"
    hold  = "5"
    [meter.credits]
    parts = 1
    sum = { gpu-seconds = "2" }
    [route.render]
    match = "POST /render"
    [plan.free]
    quota.jobs        = "10/day"
    quota.gpu-seconds = "100/day"
"#;

#[tokio::test]
async fn the_costs_of_one_meter_add_up() {
    let (gate, _clock) = testing::gate(WORK);
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |n| Ask::new(&acme, "work").cost("jobs", 1).cost("jobs", n);
    gate.admit(ask(8)).await.unwrap().settle();
    assert_eq!(used(&gate, "jobs").await, (9, vec![9]));
    assert!(gate.admit(ask(1)).await.is_err(), "one is left");
}

#[tokio::test]
async fn work_that_says_what_it_reports_is_charged_that() {
    let (gate, _clock) = testing::gate(WORK);
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |op: &'static str| Ask::new(&acme, op);
    gate.admit(ask("work").cost("gpu-seconds", 40)).await.unwrap().settle();
    assert_eq!(used(&gate, "gpu-seconds").await, (40, vec![40]));
    assert_eq!(used(&gate, "credits").await.0, 80);
    gate.admit(ask("work").cost("gpu-seconds", 40)).await.unwrap().cancel();
    drop(gate.admit(ask("work").cost("gpu-seconds", 40)).await.unwrap());
    assert_eq!(used(&gate, "gpu-seconds").await.0, 40, "it failed");
    assert_eq!(testing::held(&acme), 0);
    assert!(gate.admit(ask("work").cost("gpu-seconds", 61)).await.is_err());
    // Without a stated cost, the hold alone charges nothing.
    for ask in [ask("work").cost("jobs", 1), ask("render").cost("jobs", 1), ask("render")] {
        gate.admit(ask).await.unwrap().settle();
        assert_eq!(used(&gate, "gpu-seconds").await.0, 40);
    }
    // A sum consists of its parts.
    let refused = gate.admit(ask("work").cost("credits", 1)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotMetered("credits".into()));
}

const PREPAID: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = ["prepaid", "9/day per user"]
    [plan.none]
    quota.jobs = "9/day per user"
"#;

async fn give(gate: &Gate, clock: &ManualClock, units: u64) -> Result<(), DirectoryError> {
    let grant = Grant::new(format!("pack-{units}"), "jobs", units);
    gate.directory().tenant("acme").grant(grant).save().await?;
    clock.advance(Duration::from_secs(31));
    Ok(())
}

#[tokio::test]
async fn prepaid_includes_nothing_and_spends_grants_alone() {
    let (gate, clock) = testing::gate(PREPAID);
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |n| gate.admit(Ask::new(&acme, "work").cost("jobs", n));
    let refused = ask(1).await.unwrap_err();
    assert!(matches!(refused.reason, Reason::PaymentRequired(_)));
    give(&gate, &clock, 6).await.unwrap();
    ask(4).await.unwrap().settle();
    assert!(ask(3).await.is_err());
    // Usage reported late is owed, and the next grant pays it first.
    let (status, _) = handled(&gate, "/", Frames::of(0, 0), |usage| async move {
        usage.add("jobs", 5);
    })
    .await;
    assert_eq!(status, 200);
    let refused = ask(1).await.unwrap_err();
    assert!(matches!(refused.reason, Reason::PaymentRequired(_)));
    give(&gate, &clock, 10).await.unwrap();
    ask(7).await.unwrap().settle();
    assert!(ask(1).await.is_err());
    assert_eq!(used(&gate, "jobs").await.0, 16);
}

#[tokio::test]
async fn a_debt_of_prepaid_units_is_refused_as_a_lack_of_them() {
    let (gate, clock) = testing::gate(PREPAID);
    let acme = gate.tenant("acme").await.unwrap();
    give(&gate, &clock, 2).await.unwrap();
    let (status, _) = handled(&gate, "/", Frames::of(0, 0), |usage| async move {
        usage.add("jobs", 3);
    })
    .await;
    assert_eq!(status, 200);
    let refused = gate.admit(Ask::new(&acme, "work").cost("jobs", 1)).await.unwrap_err();
    let body = String::from_utf8(gate.refusal_reply(&refused).body.to_vec()).unwrap();
    assert!(body.contains("The prepaid jobs are used up."), "{body}");
    assert!(body.contains(r#""violated-policies":["jobs/once"]"#), "{body}");
}

#[tokio::test]
async fn what_ended_while_the_clock_ran_ahead_is_in_force_again_once_it_is_right() {
    let plans = format!("{PREPAID}\n[plan.trial]\nexpires = \"30min\"\nquota.jobs = \"9/day\"");
    let (gate, clock) = testing::gate(&plans);
    let soon = clock.now().wall() + Duration::from_secs(60);
    let tenant = |id: &str| gate.directory().tenant(id);
    tenant("buyer").grant(Grant::new("pack", "jobs", 6).expires(soon)).save().await.unwrap();
    let promotion = tenant("promoted").plan("none");
    promotion
        .override_(r#"quota.jobs = "2/day""#, Some(soon), "2 are enough")
        .save()
        .await
        .unwrap();
    tenant("trying").plan("trial").save().await.unwrap();
    let admitted = async || {
        let mut admitted = Vec::new();
        for id in ["buyer", "trying", "promoted"] {
            let tenant = gate.tenant(id).await.unwrap();
            let asked = gate.admit(Ask::new(&tenant, "work").cost("jobs", 1)).await;
            admitted.push(asked.map(Permit::settle).is_ok());
        }
        admitted
    };
    assert_eq!(admitted().await, [true, true, true]);
    assert_eq!(admitted().await, [true, true, true]);
    let ahead_ms = 50 * 60_000;
    clock.step_wall(ahead_ms);
    assert_eq!(admitted().await, [false, false, true], "all three have ended");
    clock.step_wall(-ahead_ms);
    assert_eq!(admitted().await, [true, true, false], "none has ended yet");
}

#[tokio::test]
async fn a_grant_that_the_plan_would_never_spend_is_an_error() {
    let (gate, clock) = testing::gate(&PREPAID.replace("\"free\"\n", "\"none\"\n"));
    let refused = give(&gate, &clock, 5).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::NotLimited { .. }), "{refused}");
}

const TWO: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = ["3/day", "5/month"]
"#;

#[tokio::test]
async fn a_unit_that_two_quotas_owe_is_paid_by_one_unit_of_a_grant() {
    let (gate, clock) = testing::gate(TWO);
    let acme = gate.tenant("acme").await.unwrap();
    let ask = |n| gate.admit(Ask::new(&acme, "work").cost("jobs", n));
    // 9 reported late: the day owes 6 of them, the month 4.
    let (status, _) = handled(&gate, "/", Frames::of(0, 0), |usage| async move {
        usage.add("jobs", 9);
    })
    .await;
    assert_eq!(status, 200);
    give(&gate, &clock, 4).await.unwrap();
    assert!(ask(1).await.is_err(), "the day owes 2 more");
    give(&gate, &clock, 7).await.unwrap();
    ask(5).await.unwrap().settle();
    assert!(ask(1).await.is_err(), "11 were granted, 6 of them paid what was owed");
    gate.close().await.unwrap();
}

const UPLOADS: &str = r#"
    default-plan = "free"
    [meter.ingress]
    count = "request-bytes"
    hold  = "1KB"
    [meter.credits]
    parts = 10
    sum = { ingress = "1/10" }
    [route.ping]
    match = "POST /ping"
    cost  = { ingress = 0 }
    [plan.free]
    quota.ingress = "4KB/day"
    quota.credits = "1000/day"
"#;

/// Uploads a body of frames, of which the handler reads some. Returns the status.
async fn upload(gate: &Gate, path: &str, body: Frames, reads: usize, stated: u64) -> u16 {
    let inner = tower::service_fn(|request: Request<ReadBody<Frames>>| async move {
        let mut body = request.into_body();
        for _ in 0..reads {
            body.frame().await.unwrap().unwrap();
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("read")))
    });
    let request = Request::post(path).header("x-tenant", "acme").header("content-length", stated);
    let service = GateLayer::new(gate).counting_reads().layer(CountReads(inner));
    let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn bytes_that_are_read_after_the_response_has_ended_are_charged() {
    let (gate, _clock) = testing::gate(UPLOADS);
    let (bodies, mut left) = tokio::sync::mpsc::unbounded_channel();
    let inner = tower::service_fn(move |request: Request<ReadBody<Frames>>| {
        let bodies = bodies.clone();
        async move {
            let path = request.uri().path().to_owned();
            let mut body = request.into_body();
            body.frame().await.unwrap().unwrap();
            bodies.send(body).unwrap();
            let status = if path == "/down" { 500 } else { 202 };
            Ok::<_, Infallible>(
                Response::builder().status(status).body(Full::new("".into())).unwrap(),
            )
        }
    });
    let service = GateLayer::new(&gate).counting_reads().layer(CountReads(inner));
    let send = async |path: &str, body: Frames| {
        let request =
            Request::post(path).header("x-tenant", "acme").header("content-length", 2_000);
        let request = request.body(body).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    };
    send("/up", Frames::of(4, 500)).await;
    assert_eq!(used(&gate, "ingress").await, (500, vec![500]));
    let mut body = left.recv().await.unwrap();
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    assert_eq!(used(&gate, "ingress").await, (1_500, vec![1_500]));
    assert_eq!(used(&gate, "credits").await, (150, vec![150]));
    // What is not charged at first is not charged later either.
    send("/down", Frames::of(4, 500)).await;
    let mut body = left.recv().await.unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(used(&gate, "ingress").await, (1_500, vec![1_500]));
}

#[tokio::test]
async fn what_is_told_to_remain_is_less_what_the_handler_has_read() {
    let (gate, _clock) = testing::gate(&UPLOADS.replace("1000/day", "300/day"));
    let inner = tower::service_fn(|request: Request<ReadBody<Frames>>| async move {
        let mut body = request.into_body();
        for _ in 0..5 {
            body.frame().await.unwrap().unwrap();
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("read")))
    });
    let service = GateLayer::new(&gate).counting_reads().layer(CountReads(inner));
    let request = Request::post("/up").header("x-tenant", "acme").header("content-length", 2_500);
    let response = service.oneshot(request.body(Frames::of(5, 500)).unwrap()).await.unwrap();
    let told: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
    let told = format!("{told:?}");
    for limit in ["ingress/day\\\";r=1500", "credits/day\\\";r=50"] {
        assert!(told.contains(limit), "{limit} is not in {told}");
    }
}

/// The header `ratelimit` of a response whose handler reads this many of the frames.
async fn told(gate: &Gate, body: Frames, reads: usize) -> String {
    let stated = body.bytes();
    let inner = tower::service_fn(|request: Request<ReadBody<Frames>>| async move {
        let mut body = request.into_body();
        for _ in 0..reads {
            body.frame().await.unwrap().unwrap();
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("read")))
    });
    let service = GateLayer::new(gate).counting_reads().layer(CountReads(inner));
    let request = Request::post("/up").header("x-tenant", "acme").header("x-user", "ann");
    let request = request.header("content-length", stated).body(body).unwrap();
    let response = service.oneshot(request).await.unwrap();
    let told: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
    format!("{told:?}").replace('\\', "")
}

#[tokio::test]
async fn what_is_told_to_remain_is_less_what_was_read_whoever_pays_for_what_is_held() {
    // Holds are 1,000 at a time.
    let plans = |day: &str| {
        format!(
            "default-plan = \"free\"\n[meter.ingress]\ncount = \"request-bytes\"\nhold = \"1KB\"\n\
             [meter.credits]\nparts = 10\nsum = {{ ingress = \"1/5\" }}\n[plan.free]\n\
             rate.default = \"50KB ingress/s\"\nquota.credits = \"100k/day\"\n\
             quota.ingress = [{day}, \"90KB/month\"]"
        )
    };
    let soft = "over = \"allow\"";
    for (day, of_day) in [
        ("\"50KB/day\"".to_owned(), Some("ingress/day\";r=45500")),
        ("\"50KB/day per user\"".to_owned(), Some("ingress/day/user\";r=45500")),
        // The payer changes within the hold, and before it.
        (format!("{{ limit = \"3500B/day\", {soft} }}"), None),
        (format!("{{ limit = \"3500B/day per user\", {soft} }}"), None),
        (format!("{{ limit = \"2KB/day\", {soft} }}"), None),
        (format!("{{ limit = \"2KB/day per user\", {soft} }}"), None),
    ] {
        let (gate, _clock) = testing::gate(&plans(&day));
        told(&gate, Frames::of(6, 500), 6).await;
        let told = told(&gate, Frames::of(5, 500), 3).await;
        let others = ["ingress/month\";r=85500", "credits/day\";r=99100"];
        for says in others.into_iter().chain(of_day) {
            assert!(told.contains(says), "{day}: {says} is not in {told}");
        }
    }
}

#[tokio::test]
async fn what_is_told_to_remain_is_not_less_what_is_only_held() {
    for (quotas, left) in [
        ("\"100/day\", \"1000/month\"", ["tokens/day\";r=90", "tokens/month\";r=990"]),
        ("\"100/day\", \"50/day per user\"", ["tokens/day\";r=90", "tokens/day/user\";r=40"]),
        (
            "{ limit = \"15/day\", over = \"allow\" }, \"1000/month\"",
            ["tokens/day\";r=5", "tokens/month\";r=990"],
        ),
    ] {
        let (gate, _clock) = testing::gate(&format!(
            "default-plan = \"free\"\n[meter.tokens]\ncount = \"reported\"\nhold = \"20\"\n\
             [plan.free]\nquota.tokens = [{quotas}]"
        ));
        let used = std::sync::Mutex::new(10);
        let inner = tower::service_fn(|request: Request<Empty<Bytes>>| {
            let usage = request.extensions().get::<Admitted>().unwrap().usage();
            usage.add("tokens", std::mem::take(&mut *used.lock().unwrap()));
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("answer"))) }
        });
        let service = GateLayer::new(&gate).layer(inner);
        for _ in 0..2 {
            let request = Request::get("/").header("x-tenant", "acme").header("x-user", "ann");
            let request = request.body(Empty::new()).unwrap();
            let response = service.clone().oneshot(request).await.unwrap();
            let told: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
            let told = format!("{told:?}").replace('\\', "");
            for limit in left {
                assert!(told.contains(limit), "{quotas}: {limit} is not in {told}");
            }
            response.into_body().collect().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_upload_needs_no_more_credits_than_its_length_comes_to() {
    let only_credits = UPLOADS.replace("quota.ingress = \"4KB/day\"", "");
    let (gate, _clock) = testing::gate(&only_credits.replace("1000/day", "160/day"));
    assert_eq!(upload(&gate, "/up", Frames::of(2, 500), 2, 1_000).await, 200);
    // 60 are left, and a full hold would need 100.
    assert_eq!(upload(&gate, "/up", Frames::of(1, 500), 1, 500).await, 200);
    assert_eq!(upload(&gate, "/up", Frames::of(1, 110), 1, 110).await, 429);
    assert_eq!(upload(&gate, "/up", Frames::of(1, 100), 1, 100).await, 200);
    assert_eq!(used(&gate, "credits").await, (160, vec![160]));
}

#[tokio::test]
async fn bytes_of_a_request_are_charged_as_they_are_read_and_not_as_it_states() {
    let (gate, _clock) = testing::gate(UPLOADS);
    assert_eq!(upload(&gate, "/up", Frames::of(0, 0), 0, 1 << 59).await, 200);
    assert_eq!(used(&gate, "ingress").await, (0, vec![0]));
    // Half of 3 KB is read: more than the hold, so the rest is a late cost.
    assert_eq!(upload(&gate, "/up", Frames::of(6, 500), 3, 3_000).await, 200);
    assert_eq!(used(&gate, "ingress").await, (1_500, vec![1_500]));
    assert_eq!(used(&gate, "credits").await, (150, vec![150]));
    assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
    // No more is reserved than is stated.
    assert_eq!(upload(&gate, "/up", Frames::of(4, 500), 4, 2_000).await, 200);
    assert_eq!(upload(&gate, "/up", Frames::of(1, 500), 1, 500).await, 200);
    assert_eq!(used(&gate, "ingress").await.0, 4_000);
    assert_eq!(upload(&gate, "/up", Frames::of(1, 1), 1, 1).await, 429);
    assert_eq!(upload(&gate, "/ping", Frames::of(1, 9), 1, 9).await, 200, "it plays no part there");
    assert_eq!(used(&gate, "ingress").await.0, 4_000);
    // Work states its own cost.
    let acme = gate.tenant("acme").await.unwrap();
    assert!(gate.admit(Ask::new(&acme, "sync").cost("ingress", 9)).await.is_err());
}
