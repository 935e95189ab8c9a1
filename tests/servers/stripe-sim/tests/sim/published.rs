//! Whether its shapes are Stripe's: every call that tallygate makes is made to the official
//! stripe-mock too, which refuses what the published API would not take, and the answers are
//! compared field by field.
//!
//! The rule: an object has each field that Stripe's fixture has and none that it has not, and each
//! value is of the same kind, or null on either side (the fixture fills in nullable fields at
//! random). Free-form objects (metadata, payloads) and parts that Stripe's fixtures only make up
//! are not looked into. stripe-mock serves `/v1` only, so thin events are not compared.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use test_support::http;
use test_support::processes::Process;

use crate::client::{Client, NOW, id, start};

/// Parts that are not looked into, and why.
const CLOSED: [&str; 4] = [
    "metadata",           // free
    "payload",            // free
    "payment_settings",   // one part per payment method, all optional
    "status_transitions", // all fields nullable, and the fixture leaves some out
];

/// Fields that are there only where they apply.
const OPTIONAL: [&str; 3] = ["flexible", "price_details", "total_count"];

/// stripe-mock, stopped with the test.
struct Mock {
    client: Client,
    _process: Process,
}

impl Mock {
    /// `None`, with a line that says why, where it cannot be had.
    async fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let binary = root.join("target/servers/bin/stripe-mock");
        if !binary.exists() {
            println!("skipped: stripe-mock (run tests/servers/get-stripe-mock)");
            return None;
        }
        let (http, https) = (http::free_port(), http::free_port());
        let mut program = Command::new(binary);
        program.args(["-http-port", &http.to_string(), "-https-port", &https.to_string()]);
        let process = Process::start(&mut program);
        let client = Client::new(format!("http://127.0.0.1:{http}"));
        let mock = Self { client, _process: process };
        for _ in 0..200 {
            if mock.client.call("GET", "/v1/customers", "", None).await.is_some() {
                return Some(mock);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("stripe-mock does not answer");
    }
}

/// Every call that tallygate makes, and those by which tests bring about what it is told of:
/// method, path, form.
pub(crate) async fn calls(sim: &Client) -> Vec<(&'static str, String, String)> {
    let customer = sim.customer("invoice_settings[default_payment_method]=pm_card_visa").await;
    let meter = sim.meter("api").await;
    let price = "currency=usd&unit_amount=2000&product_data[name]=x&recurring[interval]=month";
    let price = id(&sim.post("/v1/prices", price).await.ok());
    let form = format!("customer={customer}&items[0][price]={price}");
    let subscription = id(&sim.post("/v1/subscriptions", &form).await.ok());
    let invoices = sim.get("/v1/invoices", "limit=1").await.ok();
    let invoice = id(&invoices["data"][0]);
    let event = id(&sim.get("/v1/events", "limit=1").await.ok()["data"][0]);
    let one_time = "currency=usd&unit_amount=500&product_data[name]=x";
    let pack = id(&sim.post("/v1/prices", one_time).await.ok());
    let of = format!("customer={customer}");
    let mut drafts = Vec::new();
    for _ in 0..5 {
        let draft = id(&sim.post("/v1/invoices", &of).await.ok());
        let item = format!("{of}&invoice={draft}&pricing[price]={pack}&quantity=2");
        let item = id(&sim.post("/v1/invoiceitems", &item).await.ok());
        drafts.push((draft, item));
    }
    let [edited, voided, given_up, paid, deleted] = [0, 1, 2, 3, 4].map(|n| drafts[n].clone());
    for (open, _) in [&voided, &given_up] {
        sim.post(&format!("/v1/invoices/{open}/finalize"), "").await.ok();
    }
    let minute = NOW - NOW.rem_euclid(60);
    let call = |method, path: &str, form: &str| (method, path.to_owned(), form.to_owned());
    let search = "query=metadata[%27tallygate%27]:%27t1%27";
    let metered = format!(
        "currency=usd&unit_amount=2&product_data[name]=x&recurring[interval]=month\
         &recurring[usage_type]=metered&recurring[meter]={meter}&lookup_key=metered"
    );
    vec![
        call(
            "POST",
            "/v1/billing/meters",
            "display_name=x&event_name=other&default_aggregation[formula]=sum\
             &customer_mapping[type]=by_id&customer_mapping[event_payload_key]=stripe_customer_id\
             &value_settings[event_payload_key]=value",
        ),
        call("GET", "/v1/billing/meters", "status=active&limit=100"),
        call("GET", &format!("/v1/billing/meters/{meter}"), ""),
        call(
            "POST",
            "/v1/billing/meter_events",
            &format!(
                "event_name=api&identifier=one&timestamp={minute}\
                 &payload[stripe_customer_id]={customer}&payload[value]=5"
            ),
        ),
        call(
            "GET",
            &format!("/v1/billing/meters/{meter}/event_summaries"),
            &format!("customer={customer}&start_time={minute}&end_time={}&limit=100", minute + 60),
        ),
        call(
            "POST",
            "/v1/billing/meter_event_adjustments",
            "event_name=api&type=cancel&cancel[identifier]=one",
        ),
        call("POST", "/v1/customers", "name=x&email=a@example.com&metadata[tallygate]=t1"),
        call("GET", "/v1/customers/search", search),
        call("GET", &format!("/v1/customers/{customer}"), ""),
        call("POST", &format!("/v1/customers/{customer}"), "metadata[tallygate]=t1"),
        call("POST", "/v1/products", "name=x"),
        call("POST", "/v1/prices", &metered),
        call("GET", "/v1/prices", "lookup_keys[0]=metered&active=true&limit=100"),
        call("GET", &format!("/v1/prices/{price}"), ""),
        call("POST", "/v1/subscriptions", &format!("{form}&metadata[tallygate]=t1")),
        call("GET", "/v1/subscriptions", &format!("customer={customer}&status=all&limit=100")),
        call("GET", &format!("/v1/subscriptions/{subscription}"), ""),
        call("POST", &format!("/v1/subscriptions/{subscription}"), "cancel_at_period_end=false"),
        call("GET", "/v1/invoices", &format!("customer={customer}&limit=100")),
        call("GET", &format!("/v1/invoices/{invoice}"), ""),
        call("GET", &format!("/v1/invoices/{invoice}/lines"), "limit=100"),
        call("POST", "/v1/invoices", &format!("{of}&auto_advance=false")),
        call(
            "POST",
            "/v1/invoiceitems",
            &format!("{of}&invoice={}&pricing[price]={pack}&quantity=2", edited.0),
        ),
        call("POST", &format!("/v1/invoiceitems/{}", edited.1), "quantity=1"),
        call("GET", &format!("/v1/invoiceitems/{}", edited.1), ""),
        call("DELETE", &format!("/v1/invoiceitems/{}", edited.1), ""),
        call("DELETE", &format!("/v1/invoices/{}", deleted.0), ""),
        call("POST", &format!("/v1/invoices/{}/finalize", edited.0), "auto_advance=false"),
        call("POST", &format!("/v1/invoices/{}/void", voided.0), ""),
        call("POST", &format!("/v1/invoices/{}/mark_uncollectible", given_up.0), ""),
        call("POST", &format!("/v1/invoices/{}/pay", paid.0), "paid_out_of_band=true"),
        call("POST", &format!("/v1/prices/{price}"), "lookup_key=x&transfer_lookup_key=true"),
        call("GET", "/v1/events", "types[0]=invoice.paid&created[gte]=1&limit=100"),
        call("GET", &format!("/v1/events/{event}"), ""),
        call("DELETE", &format!("/v1/subscriptions/{subscription}"), ""),
        call("DELETE", &format!("/v1/customers/{customer}"), ""),
    ]
}

#[tokio::test]
async fn calls_and_shapes_are_those_of_stripes_published_api() {
    let Some(mock) = Mock::start().await else { return };
    let (_sim, client) = start().await;
    let mut faults = Vec::new();
    for (method, path, form) in calls(&client).await {
        let name = format!("{method} {path}");
        let published = mock.client.call(method, &path, &form, None).await.unwrap();
        assert_eq!(published.status, 200, "{name}: Stripe refuses it: {}", published.body);
        let ours = client.call(method, &path, &form, None).await.unwrap();
        assert_eq!(ours.status, 200, "{name}: {}", ours.body);
        compare(&name, &ours.body, &published.body, &mut faults);
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[tokio::test]
async fn refusals_have_the_shape_of_stripes() {
    let Some(mock) = Mock::start().await else { return };
    let (_sim, client) = start().await;
    for (method, path, form) in
        [("GET", "/v1/nothing", ""), ("POST", "/v1/billing/meter_events", "bad=1")]
    {
        let published = mock.client.call(method, path, form, None).await.unwrap();
        let ours = client.call(method, path, form, None).await.unwrap();
        assert_eq!(ours.status, published.status, "{method} {path}");
        for field in ["message", "type"] {
            assert!(ours.body["error"][field].is_string(), "{}", ours.body);
        }
        assert_eq!(ours.body["error"]["type"], published.body["error"]["type"]);
    }
}

#[test]
fn the_comparison_finds_what_it_is_for() {
    let fixture = serde_json::json!({ "a": 1, "b": { "c": "x" }, "d": [{ "e": true }] });
    let differences = |ours: Value| {
        let mut faults = Vec::new();
        compare("x", &ours, &fixture, &mut faults);
        faults.len()
    };
    let same = serde_json::json!({ "a": 2, "b": { "c": null }, "d": [] });
    assert_eq!(differences(same), 0);
    for wrong in [
        serde_json::json!({ "a": "1", "b": { "c": "x" }, "d": [] }),
        serde_json::json!({ "a": 1, "b": { "c": "x" } , "d": [], "z": 1 }),
        serde_json::json!({ "a": 1, "b": {}, "d": [] }),
        serde_json::json!({ "a": 1, "b": { "c": "x" }, "d": [{ "e": 1 }] }),
    ] {
        assert_eq!(differences(wrong.clone()), 1, "{wrong}");
    }
}

fn compare(at: &str, ours: &Value, published: &Value, faults: &mut Vec<String>) {
    match (ours, published) {
        (Value::Null, _) | (_, Value::Null) => {}
        // The object of an event: each kind is compared where it is asked for by itself.
        (ours, published) if ours.get("object") != published.get("object") => {}
        (Value::Object(ours), Value::Object(published)) => {
            for (name, value) in ours {
                match published.get(name) {
                    _ if CLOSED.contains(&name.as_str()) => {}
                    Some(other) => compare(&format!("{at}.{name}"), value, other, faults),
                    None if OPTIONAL.contains(&name.as_str()) => {}
                    None => faults.push(format!("{at}.{name}: Stripe has no such field")),
                }
            }
            for name in published.keys().filter(|name| !ours.contains_key(*name)) {
                if !OPTIONAL.contains(&name.as_str()) {
                    faults.push(format!("{at}.{name}: missing"));
                }
            }
        }
        (Value::Array(ours), Value::Array(published)) => {
            if let (Some(one), Some(other)) = (ours.first(), published.first()) {
                compare(&format!("{at}[0]"), one, other, faults);
            }
        }
        (ours, published) if kind(ours) == kind(published) => {}
        _ => faults.push(format!("{at}: {ours} is of another kind than {published}")),
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}
