//! The operator's routes behind axum, under a path of their own.

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tallygate::directory::Role;
use tallygate::{Gate, GateBuilder};
use tallygate_axum::{GateLayer, admin_router};
use tower::ServiceExt;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.credits]
    [plan.free]
    quota.credits = "10/day"
"#;

async fn gate() -> Gate {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\"";
    GateBuilder::from_text(service).plans(PLANS).open().await.unwrap()
}

async fn call(app: &Router, token: &str, line: &str, body: Body) -> (u16, serde_json::Value) {
    let (method, target) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(target);
    let request = request.header("authorization", format!("Bearer {token}"));
    let answer = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn an_operator_changes_a_tenant_and_nobody_else_does() {
    let gate = gate().await;
    let token = gate.directory().new_operator("kim", Role::Write).await.unwrap();
    let app = Router::new().layer(GateLayer::new(&gate)).nest("/admin", admin_router(&gate));
    let new = || Body::from(r#"{"id":"a/b","reason":"signed up"}"#);
    assert_eq!(call(&app, "tgop_1", "POST /admin/tenants", new()).await.0, 401);
    assert_eq!(call(&app, token.expose(), "POST /admin/tenants", new()).await.0, 201);
    let (status, tenant) = call(&app, token.expose(), "GET /admin/tenants/a%2Fb", "".into()).await;
    assert_eq!((status, &*tenant["id"].to_string()), (200, "\"a/b\""));
    let (_, page) = call(&app, token.expose(), "GET /admin/tenants?limit=1", "".into()).await;
    assert_eq!(page["next"], "a/b");
    let long = Body::from(vec![b' '; tallygate::admin::MAX_BODY + 1]);
    assert_eq!(call(&app, token.expose(), "POST /admin/tenants", long).await.0, 413);
    assert_eq!(call(&app, token.expose(), "POST /admin", "".into()).await.0, 404);
    gate.close().await.unwrap();
}

#[tokio::test]
async fn a_page_of_another_site_and_a_body_without_a_token_are_not_read() {
    let gate = gate().await;
    let token = gate.directory().new_operator("kim", Role::Write).await.unwrap();
    let app = Router::new().nest("/admin", admin_router(&gate));
    for (token, site, status) in [("tgop_1", "none", 401), (token.expose(), "cross-site", 403)] {
        let body = Body::from_stream(tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let request = Request::post("/admin/tenants").header("sec-fetch-site", site);
        let request = request.header("authorization", format!("Bearer {token}"));
        let answer = app.clone().oneshot(request.body(body).unwrap());
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), answer).await;
        assert_eq!(answer.expect("it is answered").unwrap().status(), status);
    }
    gate.close().await.unwrap();
}

#[tokio::test]
async fn the_console_is_at_the_root_and_needs_no_token() {
    let gate = gate().await;
    let nested = Router::new().layer(GateLayer::new(&gate)).nest("/admin", admin_router(&gate));
    for (app, at) in [(nested, "/admin"), (admin_router(&gate), "/")] {
        // As a browser sends it that follows a link from another site.
        let request = Request::get(at).header("sec-fetch-site", "cross-site");
        let answer = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!((answer.status().as_u16(), at), (200, at));
        assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
    }
    gate.close().await.unwrap();
}
