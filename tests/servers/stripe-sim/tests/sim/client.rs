//! A client that hides nothing: one call, its status, its headers, its JSON, or no answer.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use stripe_sim::{Settings, Sim};

pub(crate) struct Client {
    base: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

impl Client {
    pub(crate) fn new(base: impl Into<String>) -> Self {
        Self { base: base.into(), pool: Pool::builder(TokioExecutor::new()).build_http() }
    }

    /// No answer is `None`.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        form: &str,
        key: Option<&str>,
    ) -> Option<Answer> {
        let mut request = hyper::Request::builder()
            .method(method)
            .header("authorization", "Bearer sk_test_sim")
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (uri, body) = match method {
            "POST" => (format!("{}{path}", self.base), form.to_owned()),
            _ if form.is_empty() => (format!("{}{path}", self.base), String::new()),
            _ => (format!("{}{path}?{form}", self.base), String::new()),
        };
        let request = request.uri(uri).body(Full::new(Bytes::from(body))).unwrap();
        let response = self.pool.request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    pub(crate) async fn post(&self, path: &str, form: &str) -> Answer {
        self.call("POST", path, form, None).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, query: &str) -> Answer {
        self.call("GET", path, query, None).await.unwrap()
    }

    /// A customer's id.
    pub(crate) async fn customer(&self, form: &str) -> String {
        id(&self.post("/v1/customers", form).await.ok())
    }

    /// A meter's id.
    pub(crate) async fn meter(&self, event_name: &str) -> String {
        let form =
            format!("display_name=x&event_name={event_name}&default_aggregation[formula]=sum");
        id(&self.post("/v1/billing/meters", &form).await.ok())
    }

    pub(crate) async fn send(&self, customer: &str, value: i64, rest: &str) -> Option<Answer> {
        let form = format!(
            "event_name=api&payload[stripe_customer_id]={customer}&payload[value]={value}&{rest}"
        );
        self.call("POST", EVENTS, &form, None).await
    }
}

pub(crate) const EVENTS: &str = "/v1/billing/meter_events";

/// 17 March 2026, 12:00 UTC: where the clock of these tests stands.
pub(crate) const NOW: i64 = 1_773_748_800;

pub(crate) async fn start() -> (Sim, Client) {
    let sim = Sim::start(Settings::default()).await.unwrap();
    assert!(sim.stand_at(NOW));
    let client = Client::new(sim.url());
    (sim, client)
}

pub(crate) fn fault(sim: &Sim, fault: Value) {
    sim.fault(serde_json::from_value(fault).unwrap());
}

/// A line of the script for the next meter event.
pub(crate) fn next_event(what: Value) -> Value {
    json!({ "on": format!("POST {EVENTS}"), "do": what })
}

pub(crate) fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

/// The one total there is, with how many events made it.
#[track_caller]
pub(crate) fn total(sim: &Sim) -> (i64, u64) {
    let totals = sim.totals();
    assert!(totals.len() <= 1, "{totals:?}");
    totals.first().map_or((0, 0), |total| (total.total, total.events))
}
