//! Stripe's webhook and the report to Stripe as Lambda's events bring them: the bytes that Stripe
//! signed, whatever the front door made of them, and one report however often it is invoked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stripe_sim::{Settings, Sim, signature};
use tallygate::store::Memory;
use tallygate::testing::{START_MS, time_at};
use tallygate::{Ask, Gate, GateBuilder, ManualClock};
use tallygate_lambda::{stripe_report, stripe_webhook};
use test_support::gates;

const NOW: i64 = START_MS / 1_000;
const SECRET: &str = "whsec_x";
const KEY: &str = "sk_test_x";
const PLANS: &str = r#"
    default-plan = "free"
    [meter.requests]
    stripe = { event = "api_requests", send = "all" }
    [plan.free]
    quota.requests = "1k/cycle"
    [plan.team]
    stripe         = { price = "team_monthly" }
    quota.requests = "100k/cycle"
"#;

struct Bench {
    sim: Sim,
    gate: Gate,
    _home: tempfile::TempDir,
}

impl Bench {
    /// A gate whose tenant `acme` has a customer, and a Stripe with its meter.
    async fn new() -> Self {
        let sim = Sim::start(Settings::default()).await.unwrap();
        assert!(sim.stand_at(NOW));
        sim.create_meter("api_requests").unwrap();
        let home = tempfile::tempdir().unwrap();
        let service = gates::billed(home.path(), KEY, SECRET, &sim.url());
        let builder = GateBuilder::from_text(&service).plans(PLANS).store(Memory::new());
        let gate = builder.clock(ManualClock::at_unix_ms(START_MS)).open().await.unwrap();
        let made = gate.directory().tenant("acme").anchor(time_at(START_MS - 86_400_000));
        made.note("signed up").save().await.unwrap();
        gate.ensure_customer("acme").await.unwrap();
        Self { sim, gate, _home: home }
    }

    /// The plan that is on record.
    async fn plan(&self) -> Option<String> {
        let acme = self.gate.directory().find("acme").await.unwrap().unwrap();
        acme.record().plan.clone()
    }

    /// What Stripe says of a subscription of `acme` to the plan `team`.
    async fn subscribed(&self) -> String {
        let acme = self.gate.directory().find("acme").await.unwrap().unwrap();
        json!({
            "id": "evt_1", "object": "event", "type": "customer.subscription.created",
            "created": NOW, "livemode": false, "data": { "object": {
                "id": "sub_1", "object": "subscription", "customer": acme.record().account,
                "status": "active", "start_date": NOW - 100, "created": NOW - 100,
                "billing_cycle_anchor": NOW - 100, "description": "gr\u{fc}n \u{1f7e2}",
                "items": { "object": "list", "data": [{
                    "id": "si_1", "quantity": 1, "current_period_start": NOW - 100,
                    "price": { "id": "price_1", "lookup_key": "team_monthly" },
                }] },
            } },
        })
        .to_string()
    }
}

fn sign(secret: &str, body: &str) -> String {
    signature(&[secret.to_owned()], NOW, body.as_bytes())
}

/// The event of a function URL or an HTTP API.
fn of_url(body: &str, signed: &str, is_base64: bool) -> String {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/", "rawQueryString": "",
        "headers": { "stripe-signature": signed, "content-type": "application/json" },
        "requestContext": { "stage": "$default", "http": {
            "method": "POST", "path": "/", "sourceIp": "203.0.113.9",
        } },
        "body": body, "isBase64Encoded": is_base64,
    })
    .to_string()
}

/// The event of a REST API: names as Stripe writes them.
fn of_rest(body: &str, signed: &str, is_base64: bool) -> String {
    json!({
        "resource": "/webhooks/stripe", "path": "/webhooks/stripe", "httpMethod": "POST",
        "headers": { "Stripe-Signature": signed },
        "multiValueHeaders": { "Stripe-Signature": [signed] },
        "requestContext": {
            "stage": "prod", "httpMethod": "POST", "identity": { "sourceIp": "203.0.113.9" },
        },
        "body": body, "isBase64Encoded": is_base64,
    })
    .to_string()
}

/// The event of a load balancer.
fn of_balancer(body: &str, signed: &str, is_base64: bool) -> String {
    json!({
        "requestContext": { "elb": { "targetGroupArn": "arn:t" } }, "httpMethod": "POST",
        "path": "/webhooks/stripe", "queryStringParameters": {},
        "headers": { "stripe-signature": signed, "x-forwarded-for": "203.0.113.9" },
        "body": body, "isBase64Encoded": is_base64,
    })
    .to_string()
}

async fn invoke(gate: &Gate, event: &str) -> (u16, String) {
    let request = lambda_http::request::from_str(event).unwrap();
    let answer = stripe_webhook(gate, &request).await;
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_a_plan_whatever_door_it_comes_through() {
    for door in [of_url, of_rest, of_balancer] {
        for is_base64 in [false, true] {
            let bench = Bench::new().await;
            let body = bench.subscribed().await;
            let sent = if is_base64 { STANDARD.encode(&body) } else { body.clone() };
            let event = door(&sent, &sign(SECRET, &body), is_base64);
            for _ in 0..2 {
                let (status, said) = invoke(&bench.gate, &event).await;
                assert_eq!((status, said.as_str()), (200, r#"{"received":true}"#), "{event}");
            }
            assert_eq!(bench.plan().await.as_deref(), Some("team"), "{event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_is_refused_and_changes_nothing() {
    let bench = Bench::new().await;
    let body = bench.subscribed().await;
    let encoded = STANDARD.encode(&body);
    let signed = sign(SECRET, &body);
    let other = body.replace("team_monthly", "else_monthly");
    for event in [
        of_url(&body, &sign("whsec_other", &body), false),
        of_url(&body, "", false),
        of_url(&other, &signed, false),
        of_url(&STANDARD.encode(&other), &signed, true),
        // Signed over what the front door made of it, which Stripe has never seen.
        of_url(&encoded, &sign(SECRET, &encoded), true),
        // Stripe's own bytes, and the event says that they are not encoded.
        of_url(&encoded, &signed, false),
    ] {
        let (status, said) = invoke(&bench.gate, &event).await;
        assert_eq!(status, 400, "{event}");
        assert!(said.contains("Webhook refused"), "{said}");
    }
    let long = "x".repeat((1 << 20) + 1);
    let (status, _) = invoke(&bench.gate, &of_url(&long, &sign(SECRET, &long), false)).await;
    assert_eq!(status, 413);
    assert_eq!(bench.plan().await, None);
    // The genuine one is still news.
    assert_eq!(invoke(&bench.gate, &of_url(&encoded, &signed, true)).await.0, 200);
    assert_eq!(bench.plan().await.as_deref(), Some("team"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_sends_what_is_owed_once_and_says_so() {
    let bench = Bench::new().await;
    let acme = bench.gate.tenant("acme").await.unwrap();
    let ask = Ask::new(&acme, "work").cost("requests", 7);
    bench.gate.admit(ask).await.unwrap().settle();
    let billed = || -> i64 { bench.sim.totals().iter().map(|total| total.total).sum() };
    let first = stripe_report(&bench.gate).await.unwrap();
    assert_eq!((&first["sent"], &first["units"]), (&json!(1), &json!(7)), "{first}");
    assert_eq!(billed(), 7);
    // A schedule invokes at least once.
    let again = stripe_report(&bench.gate).await.unwrap();
    assert_eq!(again["sent"], Value::from(0));
    assert_eq!(billed(), 7);
}

#[tokio::test]
async fn without_a_stripe_the_functions_say_what_is_missing() {
    let (gate, _clock) = tallygate::testing::gate(PLANS);
    let refused = stripe_report(&gate).await.unwrap_err().to_string();
    assert!(refused.contains("no [stripe]"), "{refused}");
    assert_eq!(invoke(&gate, &of_url("{}", "", false)).await.0, 404);
}
