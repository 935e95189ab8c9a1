//! docs/migrating.md: what takes the place of other limiters does what they did, and what differs.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get as on_get;
use pages::migrating::{import, may_export, used_so_far};
use tallygate::store::Memory;
use tallygate::{GateBuilder, testing};
use tallygate_axum::GateLayer;
use test_support::gates::meter;

use crate::support::{request, send, toml_of};

const PAGE: &str = "docs/migrating.md";

#[tokio::test]
async fn callers_without_a_name_are_limited_by_address() {
    let blocks = toml_of(PAGE, "tower_governor");
    let [plans, service] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
    let builder = GateBuilder::from_text(service).plans(plans).store(Memory::new());
    let gate = builder.open().await.unwrap();
    let app = Router::new().route("/x", on_get(async || "x")).layer(GateLayer::new(&gate));
    let ask = async |address: &'static str| {
        let mut request = request("GET", "/x", "", None);
        request.headers_mut().clear();
        let peer: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        send(&app, request).await
    };
    for _ in 0..5 {
        assert_eq!(ask("192.0.2.1:1").await.status, 200);
    }
    let refused = ask("192.0.2.1:2").await;
    assert_eq!((refused.status, refused.retry_after.as_deref()), (429, Some("2")));
    assert_eq!(ask("192.0.2.2:1").await.status, 200);
    for n in 0..5 {
        assert_eq!(ask(["[2001:db8::1]:1", "[2001:db8::2]:1"][n % 2]).await.status, 200);
    }
    assert_eq!(ask("[2001:db8::3]:1").await.status, 429, "a /64 is one caller");
}

#[tokio::test]
async fn a_counter_goes_on_from_where_the_old_one_stood() {
    let plans = &toml_of(PAGE, "A counter in Redis")[0];
    let (gate, _clock) = testing::gate(plans);
    gate.directory().tenant("acme").note("from Redis").save().await.unwrap();
    assert!(used_so_far(&gate, "acme", 98).await);
    assert!(used_so_far(&gate, "acme", 98).await, "it counts once");
    for _ in 0..2 {
        assert!(may_export(&gate, "acme").await.unwrap().is_ok());
    }
    assert!(may_export(&gate, "acme").await.unwrap().is_err());
    assert_eq!(meter(&gate, "exports").await, (100, 0));
}

#[tokio::test]
async fn a_key_of_api_gateway_goes_on_working() {
    let plans = &toml_of(PAGE, "API Gateway usage plans")[0];
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\"";
    let gate = GateBuilder::from_text(service).plans(plans).open().await.unwrap();
    let app = Router::new().route("/x", on_get(async || "x")).layer(GateLayer::new(&gate));
    let key = "Zx8fV2kQm41bT7yRw0LpA9sD3hJ6nC5e";
    import(&gate, "acme", "main", key).await.unwrap();
    import(&gate, "acme", "main", key).await.unwrap();
    let with = |key: &'static str| {
        let mut request = request("GET", "/x", "", None);
        request.headers_mut().clear();
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        request
    };
    let answer = send(&app, with(key)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.limits.contains("\"requests/month\";r=999999"), "{}", answer.limits);
    assert_eq!(send(&app, with("Zx8fV2kQm41bT7yRw0LpA9sD3hJ6nC5f")).await.status, 401);
}
