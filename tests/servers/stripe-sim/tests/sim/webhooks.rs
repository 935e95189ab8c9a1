//! Webhooks: signed, repeated until answered with 2xx, duplicated and shuffled by the script.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use stripe_sim::{Settings, Sim, signature};
use tokio::net::TcpListener;

use crate::client::{Client, NOW, fault};

/// An endpoint that remembers what it was sent.
#[derive(Default)]
struct Endpoint {
    got: Mutex<Vec<(String, Bytes)>>,
    status: AtomicU16,
}

impl Endpoint {
    async fn start(status: u16) -> (Arc<Self>, String) {
        let endpoint = Arc::new(Self { status: status.into(), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let serving = endpoint.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let endpoint = serving.clone();
                let service = service_fn(move |request| take(endpoint.clone(), request));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        (endpoint, url)
    }

    /// What has come once at least `n` have.
    async fn wait(&self, n: usize) -> Vec<(String, Bytes)> {
        for _ in 0..500 {
            let got = self.got.lock().unwrap().clone();
            if got.len() >= n {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {n} came", self.got.lock().unwrap().len());
    }

    async fn numbers(&self, n: usize) -> Vec<i64> {
        let number = |(_, body): (String, Bytes)| {
            let event: Value = serde_json::from_slice(&body).unwrap();
            event["data"]["object"]["n"].as_i64().unwrap()
        };
        self.wait(n).await.into_iter().map(number).collect()
    }
}

async fn take(
    endpoint: Arc<Endpoint>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let signature = request.headers()["stripe-signature"].to_str().unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    endpoint.got.lock().unwrap().push((signature, body));
    let mut response = Response::default();
    *response.status_mut() =
        hyper::StatusCode::from_u16(endpoint.status.load(Ordering::SeqCst)).unwrap();
    Ok(response)
}

async fn start(status: u16) -> (Sim, Arc<Endpoint>) {
    let (endpoint, url) = Endpoint::start(status).await;
    let settings = Settings {
        webhook_url: Some(url),
        webhook_secrets: vec!["whsec_old".to_owned(), "whsec_new".to_owned()],
        webhook_retry_ms: 5,
        ..Settings::default()
    };
    let sim = Sim::start(settings).await.unwrap();
    assert!(sim.stand_at(NOW));
    (sim, endpoint)
}

#[tokio::test]
async fn each_is_signed_with_every_secret_over_its_raw_body() {
    let (sim, endpoint) = start(200).await;
    sim.emit("invoice.paid", &json!({ "n": 1 }));
    let got = endpoint.wait(1).await;
    let (signed, body) = &got[0];
    let secrets = ["whsec_old".to_owned(), "whsec_new".to_owned()];
    assert_eq!(*signed, signature(&secrets, NOW, body));
    assert!(signed.starts_with(&format!("t={NOW},v1=")));
}

#[tokio::test]
async fn they_come_in_order_once_unless_the_script_says_otherwise() {
    let (sim, endpoint) = start(200).await;
    fault(&sim, json!({ "on": "webhook twice", "do": { "duplicate": { "copies": 1 } } }));
    fault(&sim, json!({ "on": "webhook never", "do": "drop" }));
    for (n, kind) in ["a", "twice", "never", "b"].into_iter().enumerate() {
        sim.emit(kind, &json!({ "n": n }));
    }
    assert_eq!(endpoint.numbers(4).await, [0, 1, 1, 3]);
}

#[tokio::test]
async fn a_shuffle_loses_none_and_keeps_no_order() {
    let (sim, endpoint) = start(200).await;
    fault(&sim, json!({ "on": "webhook ", "do": { "shuffle": { "of": 6, "seed": 7 } } }));
    for n in 0..6 {
        sim.emit("x", &json!({ "n": n }));
    }
    let mut numbers = endpoint.numbers(6).await;
    assert_ne!(numbers, [0, 1, 2, 3, 4, 5]);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn one_that_is_refused_comes_again_until_it_is_taken() {
    let (sim, endpoint) = start(500).await;
    sim.emit("x", &json!({ "n": 1 }));
    endpoint.wait(2).await;
    endpoint.status.store(200, Ordering::SeqCst);
    for _ in 0..500 {
        let told = sim.deliveries();
        if told.last().is_some_and(|last| last.status == Some(200)) {
            assert!(told.len() >= 3);
            assert_eq!(told[0].status, Some(500));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it was given up");
}

#[tokio::test]
async fn a_bad_one_is_sent_on_demand_with_its_answer() {
    let (sim, endpoint) = start(400).await;
    let client = Client::new(sim.url());
    let ask = json!({
        "type": "x",
        "object": { "n": 1 },
        "raw": { "secret": "whsec_foreign", "at": NOW - 301 },
    });
    let answer = client.post("/_sim/events", &ask.to_string()).await.ok();
    assert_eq!(answer["status"], 400);
    let (signed, body) = endpoint.wait(1).await[0].clone();
    assert_eq!(signed, signature(&["whsec_foreign".to_owned()], NOW - 301, &body));
    let usual = json!({ "type": "y", "object": { "n": 2 } });
    let event = client.post("/_sim/events", &usual.to_string()).await.ok();
    assert_eq!(event["type"], "y");
    endpoint.wait(2).await;
}
