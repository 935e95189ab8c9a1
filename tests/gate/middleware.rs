//! The layer in front of plain tower services: admission, and the cost of each way of ending. Time
//! is manual; nothing sleeps.

use std::convert::Infallible;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tallygate::middleware::{GateBody, GateLayer, StreamCut};
use tallygate::wire::WireOptions;
use tallygate::{Admitted, Gate, GateBuilder, ManualClock, testing};
use test_support::bodies::Frames;
use test_support::gates::{meter, service};
use tower::{Layer, Service, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.egress]
    count = "response-bytes"
    hold  = "1KB"
    cut   = true
    [meter.input-tokens]
    count = "reported"
    hold  = "100"
    [meter.credits]
    parts = 10
    sum = { input-tokens = "1/10" }
    [route.open]
    match = "GET /healthz"
    auth  = "none"
    [route.shown]
    match = "GET /usage"
    free  = true
    [route.export]
    match = "POST /exports"
    needs = "exports"
    cost  = { requests = 25 }
    [route.chat]
    match = "POST /chat"
    [plan.free]
    rate.default   = "1000/s"
    quota.requests = "100/day"
    quota.egress   = "10KB/day"
    quota.credits  = "50/day"
    feature.exports = true
"#;

fn request(method: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("x-tenant", "acme")
        .body(Empty::new())
        .unwrap()
}

async fn call<R, F>(
    gate: &Gate,
    request: Request<Empty<Bytes>>,
    handler: F,
) -> Response<GateBody<R>>
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Fn(Request<Empty<Bytes>>) -> Response<R> + Clone + Send + 'static,
{
    let inner = tower::service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response) }
    });
    GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap()
}

fn ok(_: Request<Empty<Bytes>>) -> Response<Full<Bytes>> {
    Response::new(Full::from("ok"))
}

async fn left(gate: &Gate, limit: &str) -> u64 {
    let who = testing::identified(gate, "acme").await;
    let report = gate.usage_report(&who).await.unwrap();
    let limits = report.meters.iter().flat_map(|m| &m.limits);
    let found = limits.into_iter().find(|l| &*l.id == limit).unwrap();
    found.limit.unwrap().whole() - found.used.whole()
}

#[tokio::test]
async fn an_admitted_response_has_limits_and_is_counted_when_it_ends() {
    let (gate, _clock) = testing::gate(PLANS);
    let response = call(&gate, request("GET", "/search"), ok).await;
    assert_eq!(response.status(), 200);
    let policy = response.headers()["ratelimit-policy"].to_str().unwrap();
    assert!(policy.contains("\"requests/day\";q=100;w=86400"), "{policy}");
    let limits = response.headers()["ratelimit"].to_str().unwrap();
    assert!(limits.contains("\"requests/day\";r=99;t=43200"), "{limits}");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(meter(&gate, "requests").await, (1, 0));
    assert_eq!(meter(&gate, "egress").await, (2, 0));
    assert_eq!(left(&gate, "requests/day").await, 99);
}

#[tokio::test]
async fn a_refusal_is_a_response_and_the_service_is_not_called() {
    let (gate, _clock) = testing::gate(PLANS);
    for _ in 0..4 {
        drop(call(&gate, request("POST", "/exports"), ok).await);
    }
    let never = |_| -> Response<Full<Bytes>> { panic!("called") };
    let response = call(&gate, request("POST", "/exports"), never).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "43200");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.extensions().get::<tallygate::Refusal>().is_some());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["violated-policies"][0], "requests/day");
}

#[tokio::test]
async fn routes_without_callers_and_free_ones_are_not_counted() {
    let (gate, _clock) = testing::gate(PLANS);
    let anonymous = Request::get("/healthz").body(Empty::new()).unwrap();
    assert_eq!(call(&gate, anonymous, ok).await.status(), 200);
    let anonymous = Request::get("/search").body(Empty::new()).unwrap();
    assert_eq!(call(&gate, anonymous, ok).await.status(), 401);
    let shown = call(&gate, request("GET", "/usage"), ok).await;
    assert!(!shown.headers().contains_key("ratelimit"));
    drop(shown);
    assert_eq!(meter(&gate, "requests").await, (0, 0));
}

#[tokio::test]
async fn what_a_status_costs_is_up_to_charge_on() {
    let (gate, _clock) = testing::gate(PLANS);
    let with = |status: u16| {
        move |_| {
            let mut response = Response::new(Full::from("answer"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
    };
    for (status, costs) in [(200, 1), (302, 1), (404, 1), (500, 0), (503, 0)] {
        let before = meter(&gate, "requests").await.0;
        let response = call(&gate, request("GET", "/search"), with(status)).await;
        response.into_body().collect().await.unwrap();
        assert_eq!(meter(&gate, "requests").await, (before + costs, 0), "{status}");
    }
}

#[tokio::test]
async fn bodies_that_hyper_never_polls_to_their_end_are_complete() {
    let (gate, _clock) = testing::gate(PLANS);
    // With a length, hyper drops the body once all of it has passed.
    let known = |_| Response::new(Frames::of(3, 10).stating(30));
    let mut body = call(&gate, request("GET", "/a"), known).await.into_body();
    for _ in 0..3 {
        body.frame().await.unwrap().unwrap();
    }
    assert_eq!(meter(&gate, "egress").await, (30, 0), "settled before it was dropped");
    // For HEAD it is not polled at all.
    drop(call(&gate, request("HEAD", "/a"), known).await);
    assert_eq!(meter(&gate, "egress").await, (30, 0));
    assert_eq!(meter(&gate, "requests").await, (2, 0));
    assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn a_body_is_left_alone_where_the_head_has_settled_all() {
    let plan = |of: &str| format!("default-plan = \"free\"\n{of}\nquota.requests = \"9/day\"");
    let tokens = "[meter.tokens]\ncount = \"reported\"\n[plan.free]\nquota.tokens = \"9/day\"";
    let bytes =
        "[meter.egress]\ncount = \"response-bytes\"\n[plan.free]\nquota.egress = \"1GB/day\"";
    let forgives = "[plan.free]\ncharge-on = [\"2xx\"]";
    let in_flight = "[plan.free]\nconcurrency = 3";
    let cases = [
        ("[plan.free]", true),
        (tokens, false),
        (bytes, false),
        (forgives, false),
        (in_flight, false),
    ];
    for (of, alone) in cases {
        let (gate, _clock) = testing::gate(&plan(of));
        let body = call(&gate, request("GET", "/search"), ok).await.into_body();
        assert_eq!(left(&gate, "requests/day").await, 8, "{of}");
        let settled = meter(&gate, "requests").await;
        assert_eq!(settled == (1, 0), of != forgives, "{of}: {settled:?}");
        match body.untouched() {
            Ok(_) => assert!(alone, "{of}"),
            Err(counted) => {
                assert!(!alone, "{of}");
                counted.collect().await.unwrap();
            }
        }
        assert_eq!(meter(&gate, "requests").await, (1, 0), "{of}");
    }
    // A status free of charge is settled all the same.
    let (gate, _clock) = testing::gate(&plan("[plan.free]"));
    let fails = |_| Response::builder().status(500).body(Full::from("no")).unwrap();
    let body = call(&gate, request("GET", "/search"), fails).await.into_body();
    assert!(body.untouched().is_ok());
    assert_eq!(meter(&gate, "requests").await, (0, 0));
    assert_eq!(left(&gate, "requests/day").await, 9);
}

#[tokio::test]
async fn a_client_that_goes_away_pays_for_what_has_passed() {
    let (gate, _clock) = testing::gate(PLANS);
    for polled in 0..=5usize {
        let before = meter(&gate, "egress").await.0;
        let stream = |_| Response::new(Frames::of(5, 100));
        let mut body = call(&gate, request("GET", "/stream"), stream).await.into_body();
        for _ in 0..polled {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(meter(&gate, "egress").await, (before + 100 * polled as u64, 0));
    }
    assert_eq!(meter(&gate, "requests").await, (6, 0), "an aborted request is charged");
}

#[tokio::test]
async fn a_stream_is_cut_exactly_where_its_units_end() {
    // In frames as large as a chunk, and in small ones, with less than a chunk at the end.
    cut_at("10KB", 1_000, 10_000).await;
    cut_at("10500B", 100, 10_500).await;
}

async fn cut_at(quota: &str, frame: usize, expected: usize) {
    let (gate, _clock) = testing::gate(&PLANS.replace("10KB/day", &format!("{quota}/day")));
    let stream = move |_| Response::new(Frames::of(15_000 / frame, frame));
    let mut body = call(&gate, request("GET", "/stream"), stream).await.into_body();
    let mut passed = 0;
    let error = loop {
        match body.frame().await.expect("it is cut before its end") {
            Ok(frame) => passed += frame.into_data().unwrap().len(),
            Err(error) => break error,
        }
    };
    assert!(error.is::<StreamCut>());
    assert!(body.frame().await.is_none());
    assert_eq!(passed, expected);
    assert_eq!(meter(&gate, "egress").await, (expected as u64, 0));
    let next = call(&gate, request("GET", "/stream"), stream).await;
    assert_eq!(next.status(), 429);
}

#[tokio::test]
async fn a_stream_that_lasts_over_midnight_gets_all_of_the_new_day() {
    let (gate, clock) = testing::gate(PLANS);
    let stream = |_| Response::new(Frames::of(150, 100));
    let mut body = call(&gate, request("GET", "/stream"), stream).await.into_body();
    body.frame().await.unwrap().unwrap();
    clock.advance(Duration::from_secs(86_400));
    let mut passed = 100;
    let error = loop {
        match body.frame().await.expect("it is cut before its end") {
            Ok(frame) => passed += frame.into_data().unwrap().len(),
            Err(error) => break error,
        }
    };
    assert!(error.is::<StreamCut>());
    assert_eq!(passed, 1_000 + 10_000, "what it held of the day before, and 10 KB a day");
}

#[tokio::test]
async fn what_is_held_for_reports_stays_held_while_an_answer_that_is_not_charged_lasts() {
    let credits = "quota.credits  = \"50/day\"";
    let (gate, _clock) = testing::gate(&PLANS.replace(credits, "quota.input-tokens = \"150/day\""));
    let fails = |_| Response::builder().status(500).body(Frames::of(1, 1)).unwrap();
    let body = call(&gate, request("POST", "/chat"), fails).await;
    assert_eq!(body.status(), 500);
    assert_eq!(meter(&gate, "input-tokens").await, (0, 100));
    assert_eq!(call(&gate, request("POST", "/chat"), ok).await.status(), 429, "50 are left");
    drop(body);
    assert_eq!(meter(&gate, "input-tokens").await, (0, 0));
    assert_eq!(call(&gate, request("POST", "/chat"), ok).await.status(), 200);
}

#[tokio::test]
async fn a_connection_of_another_protocol_is_in_flight_until_its_last_handle_is_dropped() {
    let (gate, _clock) =
        testing::gate(&PLANS.replace("[plan.free]", "[plan.free]\nconcurrency = 1"));
    let (send, receive) = std::sync::mpsc::channel();
    let upgrades = move |request: Request<Empty<Bytes>>| {
        send.send(request.extensions().get::<Admitted>().unwrap().usage()).unwrap();
        Response::builder().status(101).body(Full::<Bytes>::default()).unwrap()
    };
    let response = call(&gate, request("POST", "/chat"), upgrades).await;
    assert_eq!(response.status(), 101);
    let (acme, usage) = (gate.tenant("acme").await.unwrap(), receive.recv().unwrap());
    assert_eq!(acme.in_flight(), Some(1));
    drop(response);
    assert_eq!(acme.in_flight(), Some(1));
    assert_eq!(call(&gate, request("POST", "/chat"), ok).await.status(), 429);
    drop(usage);
    assert_eq!(acme.in_flight(), Some(0));
    assert_eq!(call(&gate, request("POST", "/chat"), ok).await.status(), 200);
}

#[tokio::test]
async fn a_stream_of_a_tenant_that_is_suspended_meanwhile_gets_nothing_more() {
    for cut in ["cut   = true", "cut   = false"] {
        let (gate, _clock) = testing::gate(&PLANS.replace("cut   = true", cut));
        let stream = |_| Response::new(Frames::of(9, 1_000));
        let mut body = call(&gate, request("GET", "/stream"), stream).await.into_body();
        for _ in 0..3 {
            body.frame().await.unwrap().unwrap();
        }
        let acme = gate.directory().find("acme").await.unwrap().unwrap();
        acme.suspend("abuse").await.unwrap();
        let error = body.frame().await.expect("it does not look whole").expect_err(cut);
        assert!(error.is::<StreamCut>(), "{error}");
        assert!(body.frame().await.is_none());
        assert_eq!(meter(&gate, "egress").await, (3_000, 0), "{cut}");
    }
}

#[tokio::test]
async fn without_cut_the_rest_is_served_and_owed() {
    let (gate, _clock) = testing::gate(&PLANS.replace("cut   = true", "cut   = false"));
    let stream = |_| Response::new(Frames::of(15, 1_000));
    let body = call(&gate, request("GET", "/stream"), stream).await.into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 15_000);
    assert_eq!(meter(&gate, "egress").await, (15_000, 0));
    assert_eq!(call(&gate, request("GET", "/stream"), stream).await.status(), 429);
}

#[tokio::test]
async fn a_handler_reports_what_it_used_and_the_rest_of_the_hold_goes_back() {
    let (gate, _clock) = testing::gate(PLANS);
    let reports = |n: u64| {
        move |request: Request<Empty<Bytes>>| {
            let admitted = request.extensions().get::<Admitted>().unwrap();
            admitted.usage().add("input-tokens", n);
            Response::new(Full::from("answer"))
        }
    };
    // 100 tokens are held, which is 10 credits of 50: more is drawn late, less is given back.
    for (tokens, sum) in [(30, 30), (250, 280), (0, 280)] {
        let response = call(&gate, request("POST", "/chat"), reports(tokens)).await;
        response.into_body().collect().await.unwrap();
        assert_eq!(meter(&gate, "input-tokens").await, (sum, 0));
        assert_eq!(meter(&gate, "credits").await, (sum / 10, 0));
    }
    assert_eq!(left(&gate, "credits/day").await, 50 - 28);
    // Past the quota the excess is a debt; no request is admitted on credit.
    let response = call(&gate, request("POST", "/chat"), reports(300)).await;
    response.into_body().collect().await.unwrap();
    assert_eq!(meter(&gate, "credits").await.0, 58);
    assert_eq!(call(&gate, request("POST", "/chat"), reports(0)).await.status(), 429);
}

#[tokio::test]
async fn units_can_be_taken_before_they_are_spent() {
    let (gate, _clock) = testing::gate(PLANS);
    let inner = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
        let usage = request.extensions().get::<Admitted>().unwrap().usage();
        let asked: u64 = request.headers()["x-tokens"].to_str().unwrap().parse().unwrap();
        let taken = usage.take("input-tokens", asked).await;
        let status = if taken.is_ok() { 200 } else { 429 };
        usage.add("input-tokens", if taken.is_ok() { asked / 2 } else { 0 });
        let response = Response::builder().status(status).body(Full::<Bytes>::from("x")).unwrap();
        Ok::<_, Infallible>(response)
    });
    let service = GateLayer::new(&gate).layer(inner);
    for (tokens, status, used) in [("200", 200, 100), ("401", 429, 100), ("400", 200, 300)] {
        let mut request = request("POST", "/chat");
        request.headers_mut().insert("x-tokens", tokens.parse().unwrap());
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{tokens}");
        response.into_body().collect().await.unwrap();
        assert_eq!(meter(&gate, "credits").await, (used / 10, 0), "{tokens}");
    }
}

#[tokio::test]
async fn use_reported_after_the_response_is_recorded_all_the_same() {
    let (gate, _clock) = testing::gate(PLANS);
    let (send, receive) = std::sync::mpsc::channel();
    let keeps = move |request: Request<Empty<Bytes>>| {
        send.send(request.extensions().get::<Admitted>().unwrap().usage()).unwrap();
        Response::new(Full::from("accepted"))
    };
    call(&gate, request("POST", "/chat"), keeps).await.into_body().collect().await.unwrap();
    let usage = receive.recv().unwrap();
    assert_eq!(meter(&gate, "input-tokens").await, (0, 0), "the hold has gone back");
    usage.add("input-tokens", 70);
    usage.take("input-tokens", 100).await.unwrap();
    assert_eq!(meter(&gate, "input-tokens").await.0, 70);
    drop(usage);
    assert_eq!(meter(&gate, "credits").await, (7, 0));
    assert_eq!(left(&gate, "credits/day").await, 43);
}

#[tokio::test]
async fn a_panic_and_an_error_of_the_handler_are_not_charged() {
    let (gate, _clock) = testing::gate(PLANS);
    let panics = tower::service_fn(|_: Request<Empty<Bytes>>| async move {
        if true {
            panic!("as handlers do");
        }
        Ok::<Response<Full<Bytes>>, Infallible>(Response::default())
    });
    let service = GateLayer::new(&gate).layer(panics);
    let task = tokio::spawn(service.oneshot(request("GET", "/search")));
    assert!(task.await.unwrap_err().is_panic());
    let fails = tower::service_fn(|_: Request<Empty<Bytes>>| async move {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("broken"))
    });
    let service = GateLayer::new(&gate).layer(fails);
    let error = service.oneshot(request("GET", "/search")).await.unwrap_err();
    assert_eq!(error.to_string(), "broken", "the error passes through untouched");
    assert_eq!(meter(&gate, "requests").await, (0, 0));
    assert_eq!(testing::held(&gate.tenant("acme").await.unwrap()), 0);
}

#[tokio::test]
async fn a_future_dropped_before_its_response_is_an_aborted_request() {
    let (gate, _clock) = testing::gate(PLANS);
    let hangs = tower::service_fn(|_: Request<Empty<Bytes>>| async move {
        std::future::pending::<()>().await;
        Ok::<Response<Full<Bytes>>, Infallible>(Response::default())
    });
    let mut service = GateLayer::new(&gate).layer(hangs);
    call(&gate, request("GET", "/search"), ok).await.into_body().collect().await.unwrap();
    let mut future = Box::pin(service.ready().await.unwrap().call(request("GET", "/search")));
    let tenant = gate.tenant("acme").await.unwrap();
    // A lease may have to come first; the handler itself never ends.
    while testing::held(&tenant) == 0 {
        let once = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending()));
        assert!(once.await);
        tokio::task::yield_now().await;
    }
    drop(future);
    assert_eq!(testing::held(&tenant), 0);
    assert_eq!(meter(&gate, "requests").await, (2, 0), "charged: the client went away");
}

#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let (gate, _clock) = testing::gate(PLANS);
    // Both panic when called without having been polled ready.
    let inner =
        tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::from("x"))) });
    let buffered = tower::buffer::Buffer::new(tower::limit::ConcurrencyLimit::new(inner, 1), 4);
    let mut service = GateLayer::new(&gate).layer(buffered);
    for _ in 0..5 {
        let response = service.ready().await.unwrap().call(request("GET", "/a")).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn a_refused_request_lets_go_of_what_was_reserved_for_it() {
    let (gate, _clock) = testing::gate(PLANS);
    let inner =
        tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::from("x"))) });
    let one_at_a_time = tower::limit::ConcurrencyLimit::new(inner, 1);
    let mut service = GateLayer::new(&gate).layer(one_at_a_time);
    let nobody = Request::get("/a").body(Empty::<Bytes>::new()).unwrap();
    let refused = service.ready().await.unwrap().call(nobody).await.unwrap();
    assert_eq!(refused.status(), 401);
    let mut another = service.clone();
    let is_ready = std::future::poll_fn(|cx| Poll::Ready(another.poll_ready(cx).is_ready()));
    assert!(is_ready.await, "the first service is alive, and holds nothing");
    drop(service);
}

#[tokio::test]
async fn encoded_paths_are_the_same_route() {
    let (gate, _clock) = testing::gate(PLANS);
    drop(call(&gate, request("POST", "/%65xports"), ok).await);
    assert_eq!(meter(&gate, "requests").await, (25, 0));
}

#[tokio::test]
async fn past_a_soft_limit_a_header_of_the_hosts_choice_warns() {
    let plans = r#"
        default-plan = "free"
        [plan.free]
        rate.default   = "1000/s"
        quota.requests = { limit = "2/day", over = "allow" }
    "#;
    let wire = WireOptions { warnings: Some("x-usage-warning"), ..WireOptions::default() };
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = GateBuilder::from_text(&service("fast")).plans(plans).wire(wire).clock(clock).open();
    let gate = gate.await.unwrap();
    for n in 0..4 {
        let inner = tower::service_fn(async |request| Ok::<_, Infallible>(ok(request)));
        let layer = GateLayer::new(&gate).peer_from(|_| Some([127, 0, 0, 1].into()));
        let response = layer.layer(inner).oneshot(request("GET", "/search")).await.unwrap();
        assert_eq!(response.status(), 200);
        let has = |name: &str| response.headers().get(name).map(|it| it.to_str().unwrap());
        // The second takes the last unit: its own response reports a limit with nothing left.
        let warned = (n >= 1).then_some("\"requests/day\";t=43200");
        assert_eq!(has("x-usage-warning"), warned, "{n}");
        let tells = has("ratelimit").unwrap().contains("requests/day");
        assert_eq!(tells, n < 1, "{n}");
        response.into_body().collect().await.unwrap();
    }
}

/// A server drops a body once its trailers are sent; the messages may state their length.
#[tokio::test]
async fn a_grpc_call_ends_with_its_trailers() {
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"100/day\"\n";
    for (kind, status, charged) in [
        ("application/grpc+proto", Some("0"), 1),
        ("application/grpc", Some("13"), 0),
        ("application/grpc", None, 0), // a client takes it as failed
        ("application/grpc-web", Some("13"), 1),
    ] {
        let (gate, _clock) = testing::gate(plans);
        let mut request = request("POST", "/a.B/C");
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        let answer = move |_| {
            let trailers = status.map(|status| {
                Ok(http::HeaderMap::from_iter([(
                    "grpc-status".parse().unwrap(),
                    status.parse().unwrap(),
                )]))
            });
            let body = Full::<Bytes>::from("message").with_trailers(std::future::ready(trailers));
            Response::builder().header("content-type", kind).body(body).unwrap()
        };
        let mut body = call(&gate, request, answer).await.into_body();
        while let Some(frame) = body.frame().await {
            if frame.unwrap().is_trailers() {
                break;
            }
        }
        drop(body);
        assert_eq!(meter(&gate, "requests").await, (charged, 0), "{kind}, {status:?}");
    }
}
