//! The example with a Stripe beside it, over HTTP on both sides: usage turns into meter events,
//! and a webhook changes a tenant's plan on its next request.

use serde_json::{Value, json};
use stripe_sim::{Settings, Sim};
use test_support::http;

use crate::support::{Answer, Api, Home};

const KEY: &str = "sk_test_thekeyofthedemo";
const SECRET: &str = "whsec_thesecretofthedemo";
const ACME: &str = "tg_demo_acme";
const SOLO: &str = "tg_demo_solo";

/// A Stripe with the demo's meters, on a runtime of its own.
struct Stripe {
    address: String,
    _sim: Sim,
    _runtime: tokio::runtime::Runtime,
}

impl Stripe {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let settings = Settings {
            key: Some(KEY.to_owned()),
            webhook_secrets: vec![SECRET.to_owned()],
            ..Settings::default()
        };
        let sim = runtime.block_on(Sim::start(settings)).unwrap();
        let address = sim.url().trim_start_matches("http://").to_owned();
        let stripe = Self { address, _sim: sim, _runtime: runtime };
        for event in ["api_requests", "api_egress"] {
            let meter =
                format!("display_name=x&event_name={event}&default_aggregation[formula]=sum");
            stripe.call("POST", "/v1/billing/meters", &meter);
        }
        stripe
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let key = format!("Bearer {KEY}");
        let answer = http::send(&self.address, method, path, &[("authorization", &key)], body);
        let answer = answer.expect("it answers");
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    fn api(&self, home: &Home) -> Api {
        let base = format!("http://{}", self.address);
        let api = home.start_with(&[
            ("STRIPE_SECRET_KEY", KEY),
            ("STRIPE_WEBHOOK_SECRET", SECRET),
            ("STRIPE_API_BASE", &base),
            ("RUST_LOG", "trace"),
        ]);
        api.until("its customers are there", |_| self.find_customer("solo").is_some());
        let url = format!("http://{}/webhooks/stripe", api.address());
        self.call("POST", "/_sim/settings", &json!({ "webhook_url": url }).to_string());
        api
    }

    fn find_customer(&self, tenant: &str) -> Option<String> {
        let query = format!("/v1/customers/search?query=name:%27{tenant}%27");
        let found = self.call("GET", &query, "");
        found["data"][0]["id"].as_str().map(str::to_owned)
    }

    fn customer(&self, tenant: &str) -> String {
        self.find_customer(tenant).unwrap()
    }

    fn total(&self, event: &str, tenant: &str) -> u64 {
        let customer = self.customer(tenant);
        let totals = self.call("GET", "/_sim/totals", "");
        let ours = totals.as_array().unwrap().iter();
        let ours = ours.filter(|t| t["event_name"] == event && t["customer"] == *customer);
        ours.map(|total| total["total"].as_u64().unwrap()).sum()
    }

    /// Sends a webhook, and waits until the API has answered it.
    fn emit(&self, api: &Api, kind: &str, object: &Value) {
        let event = json!({ "type": kind, "object": object }).to_string();
        let id = self.call("POST", "/_sim/events", &event)["id"].clone();
        api.until("the webhook is taken", |_| {
            let deliveries = self.call("GET", "/_sim/deliveries", "");
            let taken = |d: &Value| d["event"] == id && d["status"] == 200;
            deliveries.as_array().unwrap().iter().any(taken)
        });
    }

    fn subscription(&self, tenant: &str, status: &str, price: &str) -> Value {
        json!({
            "id": "sub_demo", "object": "subscription", "customer": self.customer(tenant),
            "status": status, "start_date": 1_700_000_000, "billing_cycle_anchor": 1_700_000_000,
            "items": { "object": "list", "data": [{
                "id": "si_demo", "quantity": 1, "current_period_start": 1_700_000_000,
                "price": { "id": "price_demo", "lookup_key": price },
            }] },
        })
    }
}

fn report(api: &Api) -> Value {
    let answer = api.raw("POST", "/demo/report", &[], "");
    assert_eq!(answer.status, 200, "{answer:?}\n{}", api.stderr());
    serde_json::from_str(&answer.body).unwrap()
}

fn search(api: &Api, key: &str) -> Answer {
    api.send("GET", "/v1/search?q=tide", key)
}

fn plan(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["plan"].as_str().unwrap().to_owned()
}

#[test]
fn usage_turns_into_meter_events_once() {
    let stripe = Stripe::start();
    let home = Home::new();
    let api = stripe.api(&home);
    for _ in 0..3 {
        assert_eq!(search(&api, ACME).status, 200);
        assert_eq!(api.send("POST", "/v1/accounts/7/exports", ACME).status, 202);
    }
    assert_eq!(search(&api, SOLO).status, 200);
    let sent = report(&api);
    assert_eq!((&sent["units"], &sent["failed"]), (&json!(79), &json!(0)), "{}", api.stderr());
    assert_eq!(stripe.total("api_requests", "acme"), api.used("requests", ACME));
    assert_eq!(stripe.total("api_requests", "solo"), 1);
    assert_eq!(report(&api)["events"], 0, "nothing is sent twice");

    // What was used since is sent when it drains, and the next start sends none of it again.
    assert_eq!(search(&api, ACME).status, 200);
    api.terminate();
    assert!(api.ends_well());
    assert_eq!(stripe.total("api_requests", "acme"), 79);
    let api = stripe.api(&home);
    assert_eq!(report(&api)["events"], 0);
    assert_eq!(stripe.total("api_requests", "acme"), api.used("requests", ACME));
}

#[test]
fn killed_while_stripe_answers_it_bills_once() {
    for applied in [false, true] {
        let stripe = Stripe::start();
        let home = Home::new();
        let api = stripe.api(&home);
        for _ in 0..5 {
            assert_eq!(search(&api, ACME).status, 200);
        }
        let hang = json!({ "hang": { "applied": applied } });
        let hang = json!({ "on": "POST /v1/billing/meter_events", "times": 0, "do": hang });
        stripe.call("POST", "/_sim/faults", &hang.to_string());
        let _asked = http::open(api.address(), "POST", "/demo/report", &[], "");
        api.until("Stripe is asked", |_| {
            let calls = stripe.call("GET", "/_sim/calls", "");
            let is_event = |call: &Value| call["call"] == "POST /v1/billing/meter_events";
            calls.as_array().unwrap().iter().any(is_event)
        });
        drop(api); // SIGKILL
        stripe.call("DELETE", "/_sim/faults", "");
        let api = stripe.api(&home);
        assert_eq!(report(&api)["open"], 0);
        assert_eq!(stripe.total("api_requests", "acme"), 5, "applied: {applied}");
        assert_eq!(api.used("requests", ACME), 5);
    }
}

#[test]
fn a_webhook_changes_the_plan_of_the_next_request() {
    let stripe = Stripe::start();
    let home = Home::new();
    let api = stripe.api(&home);
    assert_eq!(plan(&search(&api, SOLO)), "free");
    let created = "customer.subscription.created";
    stripe.emit(&api, created, &stripe.subscription("solo", "active", "team_yearly"));
    assert_eq!(plan(&search(&api, SOLO)), "team");
    assert_eq!(api.send("POST", "/v1/accounts/7/exports", SOLO).status, 202);

    let updated = "customer.subscription.updated";
    // Events have full seconds: the next shall be later.
    stripe.call("POST", "/_sim/clock", &json!({ "advance": 2 }).to_string());
    stripe.emit(&api, updated, &stripe.subscription("solo", "unpaid", "team_yearly"));
    assert_eq!(search(&api, SOLO).status, 402);
    stripe.emit(
        &api,
        "customer.subscription.deleted",
        &stripe.subscription("solo", "canceled", "team_yearly"),
    );
    assert_eq!(plan(&search(&api, SOLO)), "free");

    // It outlives the process, and nobody else was touched.
    api.terminate();
    assert!(api.ends_well());
    let api = stripe.api(&home);
    assert_eq!(plan(&search(&api, SOLO)), "free");
    assert_eq!(plan(&search(&api, ACME)), "team");
}

#[test]
fn what_is_not_genuine_changes_nothing() {
    let stripe = Stripe::start();
    let home = Home::new();
    let api = stripe.api(&home);
    let object = stripe.subscription("solo", "active", "team_yearly");
    let mut raws = vec![
        (json!({ "secret": "whsec_another" }), 400),
        (json!({ "at": 1_700_000_000 }), 400),
        (json!({ "signature": "t=1,v1=00" }), 400),
        (json!({ "body": "{" }), 400),
        (json!({ "body": "x".repeat(5 << 20) }), 413),
    ];
    for (raw, status) in raws.drain(..) {
        let event = json!({
            "type": "customer.subscription.created", "object": object, "raw": raw,
        });
        let sent = stripe.call("POST", "/_sim/events", &event.to_string());
        // Of a body that is cut off the client may see no answer at all.
        let answered = sent["status"].as_u64();
        assert!(answered == Some(status) || (status == 413 && answered.is_none()), "{sent}");
    }
    assert_eq!(plan(&search(&api, SOLO)), "free");
    for path in ["/webhooks/stripe", "/webhooks/stripe/"] {
        let unsigned = api.raw("POST", path, &[], &json!({ "id": "evt_1" }).to_string());
        // actix-web asks who calls before it looks where the path leads.
        assert!(matches!(unsigned.status, 400 | 401 | 404), "{unsigned:?}");
    }
}

#[test]
fn no_secret_shows_in_what_it_logs() {
    let stripe = Stripe::start();
    let home = Home::new();
    let api = stripe.api(&home);
    stripe.emit(&api, "something.unknown", &json!({ "id": "x_1" }));
    let broken =
        json!({ "on": "POST /v1/billing/meter_events", "do": { "status": { "code": 401 } } });
    stripe.call("POST", "/_sim/faults", &broken.to_string());
    search(&api, ACME);
    report(&api);
    api.raw("POST", "/webhooks/stripe", &[("stripe-signature", "t=1,v1=00")], "{}");
    api.until("it has said something of both", |api| api.stderr().contains("refused"));
    let stderr = api.stderr();
    assert!(stderr.contains("TRACE") || stderr.contains("DEBUG"), "it logs in full");
    for secret in [KEY, SECRET] {
        assert!(!stderr.contains(secret), "a secret is in what it logs");
    }
}
