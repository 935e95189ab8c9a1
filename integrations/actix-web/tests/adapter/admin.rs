//! The operator's routes behind actix-web, under a path of their own.

use actix_web::body::to_bytes;
use actix_web::http::Method;
use actix_web::{App, test, web};
use tallygate::GateBuilder;
use tallygate::directory::Role;
use tallygate_actix_web::{GateMiddleware, admin_routes};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.credits]
    [plan.free]
    quota.credits = "10/day"
"#;

#[actix_web::test]
async fn an_operator_changes_a_tenant_and_nobody_else_does() {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\"";
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let token = gate.directory().new_operator("kim", Role::Write).await.unwrap();
    let app = App::new().wrap(GateMiddleware::new(&gate)).configure(admin_routes(&gate, "/admin"));
    let app = test::init_service(app).await;
    let call = async |token: &str, line: &str, site: &str, body: String| {
        let (method, target) = line.split_once(' ').unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = test::TestRequest::with_uri(target).method(method).set_payload(body);
        let request = request.insert_header(("authorization", format!("Bearer {token}")));
        let request = request.insert_header(("sec-fetch-site", site));
        let answer = test::call_service(&app, request.to_request()).await;
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body()).await.unwrap_or_default();
        (status, serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default())
    };
    let new = || r#"{"id":"a/b","reason":"signed up"}"#.to_owned();
    let token = token.expose();
    assert_eq!(call("tgop_1", "POST /admin/tenants", "none", new()).await.0, 401);
    assert_eq!(call(token, "POST /admin/tenants", "cross-site", new()).await.0, 403);
    assert_eq!(call(token, "POST /admin/tenants", "none", new()).await.0, 201);
    let (status, tenant) = call(token, "GET /admin/tenants/a%2Fb", "none", String::new()).await;
    assert_eq!((status, &*tenant["id"].to_string()), (200, "\"a/b\""));
    let (_, page) = call(token, "GET /admin/tenants?limit=1", "none", String::new()).await;
    assert_eq!(page["next"], "a/b");
    let long = " ".repeat(tallygate::admin::MAX_BODY + 1);
    assert_eq!(call(token, "POST /admin/tenants", "none", long).await.0, 413);
    assert_eq!(call(token, "POST /admin", "none", String::new()).await.0, 404);
    for console in ["/admin", "/admin/"] {
        // As a browser sends it that follows a link from another site.
        let request = test::TestRequest::get().uri(console);
        let request = request.insert_header(("sec-fetch-site", "cross-site"));
        let answer = test::call_service(&app, request.to_request()).await;
        assert_eq!(answer.status(), 200, "{console}");
        assert_eq!(answer.headers().get("content-type").unwrap(), "text/html; charset=utf-8");
        assert!(answer.headers().contains_key("content-security-policy"));
    }
    let beside = call("", "GET /adminx", "none", String::new()).await;
    assert_eq!(beside.0, 401, "another path is behind the gate: {}", beside.1);
    gate.close().await.unwrap();
}

#[actix_web::test]
async fn the_apps_own_routes_below_the_operators_path_are_behind_the_gate() {
    let (gate, _clock) = tallygate::testing::gate(PLANS);
    let own = async || "own";
    let app = App::new()
        .wrap(GateMiddleware::new(&gate))
        .route("/admin/reports", web::get().to(own))
        .service(web::scope("/admin/own").route("/{name}", web::get().to(own)))
        .configure(admin_routes(&gate, "/admin"));
    let app = test::init_service(app).await;
    for path in ["/admin/reports", "/admin/own/x"] {
        let answer = test::call_service(&app, test::TestRequest::with_uri(path).to_request()).await;
        assert_eq!(answer.status(), 401, "{path}");
        let body = to_bytes(answer.into_body()).await.unwrap();
        let detail = String::from_utf8(body.to_vec()).unwrap();
        assert!(!detail.contains("operator"), "the gate refuses it: {detail}");
        let request = test::TestRequest::with_uri(path).insert_header(("x-tenant", "acme"));
        let answer = test::call_service(&app, request.to_request()).await;
        assert_eq!(to_bytes(answer.into_body()).await.unwrap_or_default(), "own", "{path}");
    }
}

#[actix_web::test]
async fn the_operators_routes_may_be_in_a_scope() {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\"";
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    let token = gate.directory().new_operator("kim", Role::Write).await.unwrap();
    gate.directory().tenant("a/b").note("signed up").save().await.unwrap();
    let scope = web::scope("/in/{region}").configure(admin_routes(&gate, "/ops/admin"));
    let app = test::init_service(App::new().service(scope)).await;
    let answer = async |path: &str| {
        let request = test::TestRequest::with_uri(path);
        let bearer = ("authorization", format!("Bearer {}", token.expose()));
        let answer = test::call_service(&app, request.insert_header(bearer).to_request()).await;
        (answer.status().as_u16(), to_bytes(answer.into_body()).await.unwrap_or_default())
    };
    let (status, body) = answer("/in/e%2Fu/ops/admin/tenants/a%2Fb").await;
    let tenant: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    assert_eq!((status, &*tenant["id"].to_string()), (200, "\"a/b\""));
    let (status, page) = answer("/in/eu/ops/admin").await;
    assert!(status == 200 && page.starts_with(b"<!"), "{status}");
}

#[actix_web::test]
#[should_panic(expected = "a path of their own")]
async fn the_operators_routes_take_no_whole_app() {
    let (gate, _clock) = tallygate::testing::gate(PLANS);
    let _ = admin_routes(&gate, "/");
}
