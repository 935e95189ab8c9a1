//! docs/admin.md: what the operator's lists cost among many tenants, in a file of redb.
//! `TALLYGATE_TENANTS=1000000` for the figures of the page.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use pages::admin::with_admin;
use serde_json::Value;
use tallygate::directory::Role;
use tallygate::{Ask, Gate, GateBuilder, Reason};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/month"
"#;

/// Tenants that are being made at once: their writes share transactions of the file.
const AT_ONCE: usize = 512;

/// Between two tries of a call that the store was too slow for.
const RETRY: Duration = Duration::from_millis(50);

/// A tenant that has used most of its quota, to be found at the top.
const BUSIEST: &str = "tenant-0000777";

async fn open(folder: &std::path::Path) -> Gate {
    let path = folder.join("many.redb").display().to_string();
    let service =
        format!("flush.mode = \"fast\"\nidentity.unknown = \"create\"\n[store]\npath = '{path}'\n");
    GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap()
}

/// The tenant calls once, and is in this process's memory from then on.
async fn call(gate: &Gate, id: &str, requests: u64) {
    let tenant = gate.tenant(id).await.unwrap();
    loop {
        match gate.admit(Ask::new(&tenant, "work").cost("requests", requests)).await {
            Ok(permit) => return permit.settle(),
            // The disk is behind: so many tenants never begin at once in a service.
            Err(refusal) => assert_eq!(refusal.reason, Reason::Unavailable),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn ask(app: &Router, token: &str, path: &str) -> Value {
    let request = axum::http::Request::get(format!("/admin{path}"));
    let request = request.header("authorization", format!("Bearer {token}"));
    let begun = Instant::now();
    let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    println!("GET {path}: {:?}", begun.elapsed());
    assert_eq!(status, 200, "{path}");
    serde_json::from_slice(&body).unwrap()
}

fn ids(answer: &Value) -> Vec<&str> {
    let tenants = answer["tenants"].as_array().unwrap();
    tenants.iter().map(|tenant| tenant["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_the_top_find_their_tenants_among_many() {
    let tenants = std::env::var("TALLYGATE_TENANTS").map_or(2_000, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let gate = open(folder.path()).await;
    let mut calling = JoinSet::new();
    for n in 0..tenants {
        let gate = gate.clone();
        calling.spawn(async move { call(&gate, &format!("tenant-{n:07}"), 1).await });
        if calling.len() == AT_ONCE {
            calling.join_next().await.unwrap().unwrap();
        }
    }
    calling.join_all().await;
    call(&gate, BUSIEST, 900).await;
    let token = gate.directory().new_operator("kim@example.com", Role::Read).await.unwrap();
    let app = with_admin(&gate, Router::new());
    let get = async |path: &str| ask(&app, token.expose(), path).await;

    println!("among {tenants} tenants");
    let middle = format!("tenant-{:07}", tenants / 2);
    assert_eq!(ids(&get("/tenants?limit=100").await).len(), 100);
    let after = get(&format!("/tenants?after={middle}&limit=100")).await;
    assert_eq!(ids(&after)[0], format!("tenant-{:07}", tenants / 2 + 1));
    let found = get(&format!("/tenants?prefix={BUSIEST}")).await;
    assert_eq!(ids(&found), [BUSIEST]);
    let top = get("/top").await;
    assert_eq!(ids(&top)[0], BUSIEST);
    println!("{} of them in use", top["in-use"]);
    gate.close().await.unwrap();
}
