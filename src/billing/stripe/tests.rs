//! Tests of the sink: its rules by hand, its calls against `stripe-sim`, and acceptance of the
//! calls by Stripe's own stripe-mock.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use stripe_sim::{Answered, Settings, Sim};
use test_support::http::free_port;
use tokio::time::Instant;

use super::*;
use crate::billing::reducer::{Base, Facts, PlanState};
use crate::billing::webhook;
use crate::catalog::{PlanId, Sold};
use crate::config::DEFAULT_STRIPE_API_BASE;
use crate::directory::PaymentState;

/// 17 March 2026, 12:00 UTC.
const NOW: i64 = 1_773_748_800;

const EVENTS: &str = "POST /v1/billing/meter_events";

fn settings(key: &str, mode: StripeMode, base: &str) -> StripeSettings {
    StripeSettings {
        key: Secret::new(key),
        mode,
        account: "main".to_owned(),
        base: base.to_owned(),
        calls_per_s: None,
    }
}

#[test]
fn a_key_of_the_other_mode_is_refused_and_never_shown() {
    use StripeMode::{Live, Test};
    for (key, mode, taken) in [
        ("sk_test_abcdef", Test, true),
        ("rk_live_abcdef", Live, true),
        ("sk_live_abcdef", Test, false),
        ("rk_live_abcdef", Test, false),
        ("sk_test_abcdef", Live, false),
        ("pk_live_abcdef", Live, false),
        ("abcdef", Test, false),
    ] {
        let made = Stripe::new(settings(key, mode, DEFAULT_STRIPE_API_BASE));
        assert_eq!(made.is_ok(), taken, "{key}");
        let shown = match made {
            Ok(stripe) => format!("{stripe:?} {}", stripe.account()),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("abcdef"), "{shown}");
    }
    let shown = format!("{:?}", settings("sk_test_abcdef", Test, DEFAULT_STRIPE_API_BASE));
    assert!(!shown.contains("abcdef"), "{shown}");
}

#[test]
fn a_key_never_crosses_a_network_in_the_clear() {
    let made = |base: &str| Stripe::new(settings("sk_test_x", StripeMode::Test, base)).is_ok();
    assert!(made(DEFAULT_STRIPE_API_BASE) && made("http://127.0.0.1:4242"));
    for base in ["http://api.stripe.com", "http://127.0.0.1.example.com", "", "/v1", "ftp://x"] {
        assert!(!made(base), "{base}");
    }
}

#[test]
fn sums_are_whole_numbers_however_they_are_written() {
    assert_eq!(whole(&json!(5)), Some(5));
    assert_eq!(whole(&serde_json::from_str("25.0").unwrap()), Some(25));
    assert_eq!(whole(&json!(-3)), Some(-3));
    for odd in [json!(2.5), json!("5"), json!(null), serde_json::from_str("1e30").unwrap()] {
        assert_eq!(whole(&odd), None, "{odd}");
    }
}

#[test]
fn a_send_ends_before_its_mark_is_outlived() {
    let effect_s = u64::try_from(crate::billing::outbox::EFFECT_S).unwrap();
    assert!(SEND_WITHIN.as_secs() * 2 <= effect_s);
}

/// A call that only tests make.
fn form(path: &str, form: &str) -> ApiCall {
    ApiCall { method: ::http::Method::POST, path: path.to_owned(), form: form.to_owned() }
}

async fn sim() -> (Sim, Stripe) {
    let sim = Sim::start(Settings::default()).await.unwrap();
    assert!(sim.stand_at(NOW));
    let by_hand = Http::new(&Secret::new("sk_test_x"), &sim.url(), Paces::shared(1_000)).unwrap();
    let meter = "display_name=x&event_name=api&default_aggregation[formula]=sum";
    let meter = form("/v1/billing/meters", meter);
    assert!(matches!(by_hand.post(&meter, "m").await, Called::Answer(_)));
    let customer = by_hand.post(&form("/v1/customers", ""), "c").await;
    let Called::Answer(customer) = customer else { panic!("{customer:?}") };
    assert_eq!(customer.body["id"], CUSTOMER);
    let mut settings = settings("sk_test_abcdef", StripeMode::Test, &sim.url());
    settings.calls_per_s = Some(10_000);
    (sim, Stripe::new(settings).unwrap())
}

const CUSTOMER: &str = "cus_sim0000000002";

fn usage(identifier: &str) -> MeterEvent {
    MeterEvent {
        identifier: identifier.to_owned(),
        customer: CUSTOMER.to_owned(),
        event: "api".to_owned(),
        value: 5,
        timestamp_s: NOW,
    }
}

fn fault(sim: &Sim, what: serde_json::Value) {
    sim.fault(serde_json::from_value(json!({ "on": EVENTS, "do": what })).unwrap());
}

fn fault_on(sim: &Sim, on: &str, what: serde_json::Value, times: u32) {
    let fault = json!({ "on": on, "times": times, "do": what });
    sim.fault(serde_json::from_value(fault).unwrap());
}

fn sends(sim: &Sim) -> Vec<Answered> {
    sim.calls().into_iter().filter(|call| call.call == EVENTS).collect()
}

fn billed(sim: &Sim) -> i64 {
    sim.totals().iter().map(|total| total.total).sum()
}

#[tokio::test]
async fn a_repeat_of_an_identifier_is_delivered_and_counts_once() {
    let (sim, stripe) = sim().await;
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    assert_eq!(billed(&sim), 5);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_another_key() {
    let (sim, stripe) = sim().await;
    fault(&sim, json!("lose"));
    fault(&sim, json!("truncate"));
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    let sends = sends(&sim);
    let keys: std::collections::HashSet<_> =
        sends.iter().map(|call| call.idempotency_key.clone().unwrap()).collect();
    assert_eq!((sends.len(), keys.len(), billed(&sim)), (3, 3, 5));
    assert!(sends.iter().all(|call| call.params["identifier"] == "a"));
}

#[tokio::test]
async fn a_500_that_took_effect_is_not_replayed_for_ever() {
    let (sim, stripe) = sim().await;
    fault(&sim, json!({ "status": { "code": 500, "applied": true } }));
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    assert_eq!((sends(&sim).len(), billed(&sim)), (2, 5));
}

#[tokio::test]
async fn stripes_word_on_repeating_counts_before_the_status() {
    let (sim, stripe) = sim().await;
    fault(&sim, json!({ "status": { "code": 503, "should_retry": false } }));
    assert!(matches!(stripe.send(usage("a")).await, Delivery::Unknown(_)));
    assert_eq!(sends(&sim).len(), 1);
    fault(&sim, json!({ "status": { "code": 400, "should_retry": true } }));
    assert_eq!(stripe.send(usage("b")).await, Delivery::Delivered);
    assert_eq!(sends(&sim).len(), 3);
}

#[tokio::test]
async fn retry_after_is_waited_out_unless_it_is_long() {
    let (sim, stripe) = sim().await;
    fault(&sim, json!({ "status": { "code": 429, "retry_after": 1 } }));
    let begun = Instant::now();
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    fault(&sim, json!({ "status": { "code": 503, "retry_after": 3_600 } }));
    assert!(matches!(stripe.send(usage("b")).await, Delivery::Unknown(_)));
    assert_eq!(sends(&sim).len(), 3);
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_says_why() {
    let (sim, stripe) = sim().await;
    let late = MeterEvent { timestamp_s: NOW - 36 * 86_400, ..usage("a") };
    let Delivery::Refused(words) = stripe.send(late).await else { panic!("not refused") };
    assert!(words.contains("timestamp_too_far_in_past"), "{words}");
    assert_eq!(sends(&sim).len(), 1);
}

#[tokio::test]
async fn a_key_that_is_not_taken_is_nothing_the_entry_can_do_about_and_is_not_shown() {
    let (sim, stripe) = sim().await;
    sim.set(|settings| settings.key = Some("sk_test_other".to_owned()));
    let said = format!("{:?} {:?}", stripe.send(usage("a")).await, stripe.time().await);
    assert!(said.starts_with("Unknown") && !said.contains("abcdef"), "{said}");
    let stopped = sim.url();
    sim.stop().await;
    let said = format!("{:?}", stripe.sum(minute()).await);
    assert!(!said.contains("abcdef"), "{said} {stopped}");
}

fn minute() -> Sum {
    let (customer, event) = (CUSTOMER.to_owned(), "api".to_owned());
    Sum { customer, event, from_s: NOW, until_s: NOW + 60 }
}

#[tokio::test]
async fn time_and_sums_are_stripes() {
    let (sim, stripe) = sim().await;
    assert_eq!(stripe.time().await, Ok(NOW));
    assert_eq!(stripe.sum(minute()).await, Ok(0));
    stripe.send(usage("a")).await;
    stripe.send(usage("b")).await;
    assert_eq!(stripe.sum(minute()).await, Ok(10));
    assert_eq!(stripe.sum(Sum { from_s: NOW - 60, until_s: NOW, ..minute() }).await, Ok(0));
    let unknown = Sum { event: "nope".to_owned(), ..minute() };
    assert!(stripe.sum(unknown).await.is_err());
    assert!(sim.calls().iter().all(|call| call.status == Some(200)));
}

#[tokio::test]
async fn a_meter_is_found_behind_a_hundred_others() {
    let (sim, stripe) = sim().await;
    let by_hand = Http::new(&Secret::new("sk_test_x"), &sim.url(), Paces::shared(10_000)).unwrap();
    for n in 0..120 {
        let meter = format!("display_name=x&event_name=m{n}&default_aggregation[formula]=sum");
        by_hand.post(&form("/v1/billing/meters", &meter), &format!("m{n}")).await;
    }
    // The first one created is on the second page.
    assert_eq!(stripe.sum(minute()).await, Ok(0));
}

#[tokio::test]
async fn what_counted_in_a_meter_that_was_replaced_is_still_seen() {
    let (sim, stripe) = sim().await;
    let by_hand = Http::new(&Secret::new("sk_test_x"), &sim.url(), Paces::shared(10_000)).unwrap();
    let replace = async |n: u32| {
        let Called::Answer(all) = by_hand.ask(&ApiCall::meters(None)).await else { panic!() };
        let meters = all.body["data"].as_array().unwrap().iter();
        for meter in meters.filter(|meter| meter["status"] == "active") {
            let path = format!("/v1/billing/meters/{}/deactivate", meter["id"].as_str().unwrap());
            by_hand.post(&form(&path, ""), &format!("off{n}")).await;
        }
        let meter = "display_name=x&event_name=api&default_aggregation[formula]=sum";
        by_hand.post(&form("/v1/billing/meters", meter), &format!("on{n}")).await;
        assert!(stripe.time().await.is_ok(), "the next round");
    };
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    assert_eq!(stripe.sum(minute()).await, Ok(5));
    replace(1).await;
    assert_eq!(stripe.sum(minute()).await, Ok(5), "a 0 here would bill it twice");
    assert_eq!(stripe.send(usage("b")).await, Delivery::Delivered);
    replace(2).await;
    assert_eq!(stripe.sum(minute()).await, Ok(10));
}

#[tokio::test]
async fn a_call_that_is_never_answered_ends_as_unknown_and_counts_once() {
    for applied in [false, true] {
        let (sim, stripe) = sim().await;
        fault_on(&sim, EVENTS, json!({ "hang": { "applied": applied } }), 0);
        // From here on waits take no time.
        tokio::time::pause();
        let begun = Instant::now();
        assert!(matches!(stripe.send(usage("a")).await, Delivery::Unknown(_)));
        assert!(begun.elapsed() <= SEND_WITHIN + Duration::from_secs(1), "{:?}", begun.elapsed());
        tokio::time::resume();
        sim.heal();
        assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
        assert_eq!(billed(&sim), 5, "applied: {applied}");
    }
}

#[tokio::test]
async fn an_answer_that_drips_is_not_waited_for() {
    let (sim, stripe) = sim().await;
    // Some 300 bytes of answer would take an hour.
    fault_on(&sim, EVENTS, json!({ "drip": { "ms": 12_000 } }), 0);
    tokio::time::pause();
    let begun = Instant::now();
    assert!(matches!(stripe.send(usage("a")).await, Delivery::Unknown(_)));
    assert!(begun.elapsed() <= SEND_WITHIN + Duration::from_secs(1), "{:?}", begun.elapsed());
    tokio::time::resume();
    sim.heal();
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    assert_eq!(billed(&sim), 5);
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read() {
    let (sim, stripe) = sim().await;
    // A gigabyte; four attempts read four megabytes each.
    fault_on(&sim, "", json!({ "flood": { "bytes": 1_u64 << 30 } }), 8);
    assert!(matches!(stripe.send(usage("a")).await, Delivery::Unknown(_)));
    assert!(stripe.time().await.is_err());
    sim.heal();
    assert_eq!(stripe.send(usage("a")).await, Delivery::Delivered);
    assert_eq!(billed(&sim), 5);
    // One that is merely long is read.
    fault_on(&sim, "", json!({ "flood": { "bytes": 1_u64 << 20 } }), 1);
    assert_eq!(stripe.sum(minute()).await, Ok(5));
}

#[test]
fn as_many_calls_are_under_way_as_the_rate_needs() {
    let of = |mode, calls| {
        let key = if mode == StripeMode::Live { "sk_live_x" } else { "sk_test_x" };
        let mut settings = settings(key, mode, DEFAULT_STRIPE_API_BASE);
        settings.calls_per_s = calls;
        Stripe::new(settings).unwrap().at_once()
    };
    assert_eq!((of(StripeMode::Test, None), of(StripeMode::Live, None)), (16, 256));
    assert_eq!((of(StripeMode::Test, Some(200)), of(StripeMode::Live, Some(u32::MAX))), (60, 256));
}

#[tokio::test(start_paused = true)]
async fn in_live_mode_questions_do_not_wait_for_events_nor_events_for_questions() {
    let took = async |paces: Paces| {
        let (begun, mut asked) = (Instant::now(), Duration::ZERO);
        for n in 0..900 {
            paces.events.turn().await;
            if n % 50 == 0 {
                paces.others.turn().await;
                asked = begun.elapsed();
            }
        }
        (begun.elapsed(), asked)
    };
    let apart = took(Paces::apart(LIVE_EVENTS, CALLS)).await;
    assert!(apart.0 < Duration::from_millis(1_050), "{apart:?}");
    let shared = took(Paces::shared(CALLS)).await;
    assert!(shared.0 > Duration::from_secs(44), "{shared:?}");
}

#[tokio::test]
async fn calls_keep_their_pace() {
    let (sim, _) = sim().await;
    let mut settings = settings("sk_test_x", StripeMode::Test, &sim.url());
    settings.calls_per_s = Some(100);
    let stripe = Stripe::new(settings).unwrap();
    let begun = Instant::now();
    for n in 0..41 {
        assert_eq!(stripe.send(usage(&format!("{n}"))).await, Delivery::Delivered);
    }
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_an_error_is_what_no_call_asked_for() {
    let (sim, stripe) = sim().await;
    fault_on(&sim, "", json!({ "status": { "code": 403, "should_retry": false } }), 0);
    let words = [
        stripe.time().await.unwrap_err(),
        stripe.sum(minute()).await.unwrap_err(),
        stripe.customer_for("0123", "acme").await.unwrap_err(),
        stripe.subscription("sub_1").await.unwrap_err(),
        stripe.subscriptions(CUSTOMER).await.unwrap_err(),
        stripe.cancel("sub_1").await.unwrap_err(),
        stripe.lookup_key("price_1").await.unwrap_err(),
        stripe.invoice("in_1").await.unwrap_err(),
        stripe.paid_since(CUSTOMER, 0).await.unwrap_err(),
        stripe.lines("in_1").await.unwrap_err(),
        stripe.rejected("evt_1").await.unwrap_err(),
    ];
    for SinkError(words) in words {
        assert!(words.starts_with("403"), "{words}");
    }
}

#[test]
fn an_account_is_named_for_good_by_its_name_and_mode() {
    let named =
        |key, mode| Stripe::new(settings(key, mode, DEFAULT_STRIPE_API_BASE)).unwrap().account();
    assert_eq!(named("sk_test_x", StripeMode::Test), "stripe/main/test");
    assert_eq!(named("sk_live_x", StripeMode::Live), "stripe/main/live");
}

#[test]
fn of_an_event_it_is_stripe_alone_that_says_what_became_of_it() {
    let answer = |status, body| HttpResponse {
        status: ::http::StatusCode::from_u16(status).unwrap(),
        body,
        date_s: None,
        should_retry: None,
        retry_after: None,
        repeats: false,
    };
    let judged = |status| judge(&answer(status, json!({ "error": { "message": "no" } })));
    assert_eq!(judged(200), Delivery::Delivered);
    // From a proxy, without Stripe's error format.
    assert!(matches!(judge(&answer(200, serde_json::Value::Null)), Delivery::Unknown(_)));
    for status in [401, 403, 409, 429, 500, 503] {
        assert!(matches!(judged(status), Delivery::Unknown(_)), "{status}");
    }
    for status in [400, 402, 404] {
        assert!(matches!(judged(status), Delivery::Refused(_)), "{status}");
        let again = HttpResponse { repeats: true, ..answer(status, json!({})) };
        assert!(matches!(judge(&again), Delivery::Unknown(_)), "{status}, after a lost answer");
    }
}

#[tokio::test]
async fn what_stripe_does_not_have_is_nothing_and_no_error() {
    let (_sim, stripe) = sim().await;
    assert_eq!(stripe.subscription("sub_gone").await, Ok(None));
    assert_eq!(stripe.invoice("in_gone").await, Ok(None));
    assert_eq!(stripe.cancel("sub_gone").await, Ok(None));
}

/// Every call in use; one that is missing here, in the test below or in `wire_tests.rs` fails.
const CALLS_MADE: [&str; 17] = [
    "cancel",
    "customers_of",
    "invoice",
    "invoices",
    "lines",
    "make_customer",
    "make_meter",
    "meter_event",
    "meters",
    "one_meter",
    "paid_invoices",
    "price",
    "prices",
    "subscribe",
    "subscription",
    "subscriptions",
    "sums",
];

#[test]
fn every_call_is_one_that_stripes_own_mock_was_asked() {
    let names = regex::Regex::new(r"pub\(super\) fn (\w+)").unwrap();
    let of = names.captures_iter(include_str!("calls.rs"));
    let mut made: std::collections::BTreeSet<&str> =
        of.map(|found| found.get(1).unwrap().as_str()).collect();
    // The mock does not cover /v2: stripe-sim has its published shape.
    assert!(made.remove("thin_event") && made.remove("get"));
    assert_eq!(made.into_iter().collect::<Vec<_>>(), CALLS_MADE);
    // And none is spelled elsewhere; the path of meter events is only compared.
    let elsewhere = [include_str!("mod.rs"), include_str!("customers.rs"), include_str!("http.rs")];
    let spelled: usize = elsewhere.iter().map(|source| source.matches("\"/v").count()).sum();
    assert_eq!(spelled, 1);
}

#[tokio::test]
async fn stripes_own_mock_takes_every_call() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = root.join("target/servers/bin/stripe-mock");
    if !binary.exists() {
        println!("skipped: stripe-mock (run tests/servers/get-stripe-mock)");
        return;
    }
    let (http, https) = (free_port(), free_port());
    let mut mock = Command::new(binary)
        .args(["-http-port", &http.to_string(), "-https-port", &https.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let base = format!("http://127.0.0.1:{http}");
    let stripe = Stripe::new(settings("sk_test_x", StripeMode::Test, &base)).unwrap();
    let mut time = stripe.time().await;
    for _ in 0..10 {
        if time.is_ok() {
            break;
        }
        time = stripe.time().await;
    }
    let sent = stripe.send(usage("a")).await;
    // The one meter that the mock has.
    let event = "test-meter-event-name".to_owned();
    let sum = stripe.sum(Sum { event, ..minute() }).await;
    // Its data is fixed; what matters is that it accepts the calls.
    let customer = stripe.customer_for("0123", "acme").await;
    let list = stripe.subscriptions("cus_1").await;
    let made = stripe.subscribe("cus_1", "payg_monthly", "pm_1").await;
    let read = stripe.subscription("sub_1").await;
    let canceled = stripe.cancel("sub_1").await;
    let key = stripe.lookup_key("price_1").await;
    let invoice = stripe.invoice("in_1").await;
    let paid = stripe.paid_since("cus_1", 0).await;
    let lines = stripe.lines("in_1").await;
    let invoices = stripe.invoices("cus_1").await;
    let meter = stripe.make_meter("api_requests").await;
    mock.kill().unwrap();
    mock.wait().unwrap();
    assert!(customer.is_ok_and(|id| id.starts_with("cus_")));
    assert!(list.is_ok(), "{list:?}");
    assert!(made.is_ok(), "{made:?}");
    assert!(matches!(read, Ok(Some(_))), "{read:?}");
    assert!(matches!(canceled, Ok(Some(_))), "{canceled:?}");
    assert!(key.is_ok(), "{key:?}");
    assert!(matches!(invoice, Ok(Some(_))), "{invoice:?}");
    assert!(paid.is_ok(), "{paid:?}");
    assert!(lines.is_ok(), "{lines:?}");
    assert!(invoices.is_ok(), "{invoices:?}");
    assert!(meter.is_ok(), "{meter:?}");
    assert!(time.is_ok(), "{time:?}");
    assert_eq!((sent, sum), (Delivery::Delivered, Ok(25)));
}

/// Every event so far, newest first, each through the full path: signed, verified, read, reduced.
async fn reduced(sim: &Sim, by_hand: &Http) -> (Facts, PlanState) {
    let call = ApiCall::get("/v1/events?limit=100".to_owned());
    let Called::Answer(list) = by_hand.ask(&call).await else { panic!("silence") };
    let secret = "whsec_sim".to_owned();
    let mut facts = Facts::default();
    for event in list.body["data"].as_array().unwrap() {
        let body = event.to_string();
        let header =
            stripe_sim::signature(std::slice::from_ref(&secret), sim.now(), body.as_bytes());
        let secrets = [Secret::new(secret.clone())];
        let event =
            webhook::receive(header.as_bytes(), body.as_bytes(), &secrets, sim.now()).unwrap();
        facts.take(&event);
    }
    let sold = |price: &str| (price == "pro_monthly").then_some(Sold::Plan(PlanId(1)));
    let state = facts.state(sold);
    (facts, state)
}

#[tokio::test]
async fn what_stripe_tells_of_a_subscriptions_life_reduces_to_its_states() {
    const DAY: i64 = 86_400;
    let (sim, _) = sim().await;
    let by_hand = Http::new(&Secret::new("sk_test_x"), &sim.url(), Paces::shared(10_000)).unwrap();
    let post = async |path: &str, text: &str| {
        let answer = by_hand.post(&form(path, text), path).await;
        let Called::Answer(answer) = answer else { panic!("{answer:?}") };
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["id"].as_str().unwrap().to_owned()
    };
    let price = "currency=usd&unit_amount=2000&product_data[name]=x&recurring[interval]=month\
                 &lookup_key=pro_monthly";
    let price = post("/v1/prices", price).await;
    let customer = format!("/v1/customers/{CUSTOMER}");
    post(&customer, "invoice_settings[default_payment_method]=pm_card_visa").await;
    let trial = format!("customer={CUSTOMER}&items[0][price]={price}&trial_period_days=14");
    let id = post("/v1/subscriptions", &trial).await;
    let stands = async |payment: PaymentState, since_s: i64, anchor_s: i64| {
        let base = Base {
            subscription: id.clone(),
            price: "pro_monthly".to_owned(),
            keys: vec!["pro_monthly".to_owned()],
            payment,
            since_s,
            anchor_s,
            given_up: false,
        };
        let (facts, state) = reduced(&sim, &by_hand).await;
        assert_eq!(state, PlanState { base: Some(base), ..PlanState::default() }, "{facts:#?}");
    };
    let paid_s = NOW + 14 * DAY;
    stands(PaymentState::Trialing, NOW, paid_s).await;
    sim.advance(14 * 86_400);
    stands(PaymentState::Good, NOW, paid_s).await;
    post(&customer, "invoice_settings[default_payment_method]=pm_card_chargeCustomerFail").await;
    // The trial ended on 31 March: the next period begins on 30 April.
    sim.advance(30 * 86_400);
    let due_s = paid_s + 30 * DAY;
    stands(PaymentState::PastDue, due_s, paid_s).await;
    sim.advance(9 * 86_400);
    stands(PaymentState::Canceled, due_s + 9 * DAY, paid_s).await;
}
