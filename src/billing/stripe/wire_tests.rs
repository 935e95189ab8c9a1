//! Stripe calls as seen on the wire: method, path, query, form and headers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// One call as it arrived: its first line without the version, its headers, its body.
#[derive(Clone, Debug)]
struct Arrived {
    line: String,
    headers: HashMap<String, String>,
    body: String,
}

/// A Stripe that records requests. Each list has one object and a second page; there are no
/// customers.
async fn listener() -> (Stripe, Arc<Mutex<Vec<Arrived>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let arrived = answered(stream).await;
            noted.lock().unwrap().push(arrived);
        }
    });
    let stripe = Stripe::new(StripeSettings {
        key: Secret::new("sk_test_x"),
        mode: StripeMode::Test,
        account: "main".to_owned(),
        base,
        calls_per_s: Some(10_000),
    });
    (stripe.unwrap(), seen)
}

async fn answered(mut stream: TcpStream) -> Arrived {
    let mut bytes = Vec::new();
    let (arrived, length) = loop {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "cut off");
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let pair = |line: &str| line.split_once(": ").map(|(k, v)| (k.to_owned(), v.to_owned()));
        let headers: HashMap<_, _> = lines.filter_map(pair).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            break (Arrived { line, headers, body: body.to_owned() }, length);
        }
    };
    assert_eq!(arrived.body.len(), length);
    let one = json!({
        "id": "x_1", "status": "active", "event_name": "api", "aggregated_value": 5,
        "price": { "id": "price_1", "lookup_key": "k" }, "quantity": 1,
    });
    let list = if arrived.line.contains("/search") { json!([]) } else { json!([one]) };
    let more = arrived.line.contains("limit=100") && !arrived.line.contains("starting_after");
    let body = json!({ "id": "x_1", "data": list, "has_more": more }).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ndate: Tue, 17 Mar 2026 12:00:00 GMT\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    arrived
}

/// Names and values of a query or form. `a[]` and `a[0]` are the same list to Stripe.
fn meaning(text: &str) -> BTreeMap<String, String> {
    let pairs = form_urlencoded::parse(text.as_bytes());
    pairs.map(|(name, value)| (name.replace("[]", "[0]"), value.into_owned())).collect()
}

/// Makes every call, with values that need escaping.
async fn every_call(stripe: &Stripe) {
    let event = MeterEvent {
        identifier: "tg_1-a".to_owned(),
        customer: "cus_1".to_owned(),
        event: "api".to_owned(),
        value: u64::MAX,
        timestamp_s: 1_773_748_800,
    };
    assert_eq!(stripe.send(event).await, Delivery::Delivered);
    stripe.time().await.unwrap();
    let (customer, event) = ("cus_1".to_owned(), "api".to_owned());
    let sum = Sum { customer, event, from_s: 1_773_748_800, until_s: 1_773_748_860 };
    assert_eq!(stripe.sum(sum).await, Ok(5));
    stripe.subscription("sub_1").await.unwrap().unwrap();
    stripe.subscriptions("cus_1").await.unwrap();
    stripe.subscribe("cus_1", "pro & more", "pm_1").await.unwrap();
    stripe.cancel("sub_1").await.unwrap().unwrap();
    stripe.lookup_key("price_1").await.unwrap();
    stripe.invoice("in_1").await.unwrap().unwrap();
    stripe.paid_since("cus_1", 1_773_748_800).await.unwrap();
    assert_eq!(stripe.lines("in_1").await.unwrap().0.len(), 2);
    stripe.rejected("evt_1").await.unwrap();
    stripe.customer_for("0123", "Café & Söhne +1 100% [x]=#\"<'\n").await.unwrap();
}

/// Expected requests of [`every_call`]: first line and form.
const SENT: [(&str, &str); 17] = [
    (
        "POST /v1/billing/meter_events",
        "event_name=api&identifier=tg_1-a&timestamp=1773748800\
         &payload%5Bstripe_customer_id%5D=cus_1&payload%5Bvalue%5D=18446744073709551615",
    ),
    ("GET /v1/billing/meters?limit=1", ""),
    ("GET /v1/billing/meters?limit=100", ""),
    ("GET /v1/billing/meters?limit=100&starting_after=x_1", ""),
    (
        "GET /v1/billing/meters/x_1/event_summaries?customer=cus_1&start_time=1773748800\
         &end_time=1773748860&limit=100",
        "",
    ),
    ("GET /v1/subscriptions/sub_1", ""),
    ("GET /v1/subscriptions?customer=cus_1&status=all&limit=100", ""),
    ("GET /v1/prices?lookup_keys%5B%5D=pro+%26+more&active=true", ""),
    (
        "POST /v1/subscriptions",
        "customer=cus_1&items%5B0%5D%5Bprice%5D=x_1&default_payment_method=pm_1\
         &off_session=true&metadata%5Btallygate%5D=pro+%26+more",
    ),
    ("DELETE /v1/subscriptions/sub_1", ""),
    ("GET /v1/prices/price_1", ""),
    ("GET /v1/invoices/in_1", ""),
    ("GET /v1/invoices?customer=cus_1&status=paid&limit=100", ""),
    ("GET /v1/invoices/in_1/lines?limit=100", ""),
    ("GET /v1/invoices/in_1/lines?limit=100&starting_after=x_1", ""),
    ("GET /v2/core/events/evt_1", ""),
    ("GET /v1/customers/search?query=metadata%5B%27tallygate%27%5D%3A%270123%27", ""),
];

/// And its last request.
const SENT_LAST: (&str, &str) = (
    "POST /v1/customers",
    "metadata%5Btallygate%5D=0123\
     &name=Caf%C3%A9+%26+S%C3%B6hne+%2B1+100%25+%5Bx%5D%3D%23%22%3C%27%0A",
);

#[tokio::test]
async fn every_call_says_what_it_has_always_said() {
    let (stripe, seen) = listener().await;
    every_call(&stripe).await;
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), SENT.len() + 1);
    for (arrived, (line, form)) in seen.iter().zip(SENT.into_iter().chain([SENT_LAST])) {
        let parts = |line: &str| {
            let (path, query) = line.split_once('?').unwrap_or((line, ""));
            (path.to_owned(), meaning(query))
        };
        assert_eq!(parts(&arrived.line), parts(line));
        assert_eq!(meaning(&arrived.body), meaning(form), "{line}");
        // No empty query.
        assert!(!arrived.line.ends_with('?'), "{}", arrived.line);
        let header = |name: &str| arrived.headers.get(name).map(String::as_str);
        assert_eq!(header("stripe-version"), Some("2026-08-26.dahlia"), "{line}");
        assert_eq!(header("authorization"), Some("Bearer sk_test_x"), "{line}");
        let form = line.starts_with("POST").then_some("application/x-www-form-urlencoded");
        assert_eq!(header("content-type"), form, "{line}");
        let key = match line {
            "POST /v1/subscriptions" => Some("tg_subscribe_cus_1_x_1_492708"),
            "POST /v1/customers" => Some("tg_customer_0123_492708"),
            // Its identifier, and a part that is new in every attempt.
            "POST /v1/billing/meter_events" => {
                assert!(header("idempotency-key").unwrap().starts_with("tg_1-a-"));
                header("idempotency-key")
            }
            _ => None,
        };
        assert_eq!(header("idempotency-key"), key, "{line}");
    }
}

#[tokio::test]
async fn an_id_that_is_none_of_stripes_asks_for_nothing_else() {
    let (stripe, seen) = listener().await;
    for id in ["", "..", "sub_1/discount", "sub_1?expand=x", "%2e%2e", "sub 1", "süb_1", "s\0"] {
        assert!(stripe.subscription(id).await.is_err(), "{id}");
        assert!(stripe.cancel(id).await.is_err(), "{id}");
        assert!(stripe.invoice(id).await.is_err(), "{id}");
        assert!(stripe.lines(id).await.is_err(), "{id}");
        assert!(stripe.rejected(id).await.is_err(), "{id}");
    }
    for id in ["", ".", ".."] {
        assert!(stripe.lookup_key(id).await.is_err(), "{id}");
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn the_id_of_an_old_plan_is_the_sellers_own() {
    let (stripe, seen) = listener().await;
    for id in ["gold.v2", "gold plan/50%", "größe+?#"] {
        stripe.lookup_key(id).await.unwrap();
    }
    let lines: Vec<String> = seen.lock().unwrap().iter().map(|call| call.line.clone()).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/prices/gold.v2",
            "GET /v1/prices/gold%20plan%2F50%25",
            "GET /v1/prices/gr%C3%B6%C3%9Fe%2B%3F%23",
        ]
    );
}
