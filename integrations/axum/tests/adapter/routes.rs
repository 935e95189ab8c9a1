//! Which route of the plan file a request is on: the one of the handler that it reaches, however
//! its path is spelled.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::{get, post};
use http::{Request, StatusCode};
use tallygate::{Admitted, Gate, testing};
use tallygate_axum::{GateLayer, usage_router};
use tower::Layer;

use crate::support::{meter, request, send, text};

const PLANS: &str = r#"
    default-plan = "free"
    [route.export]
    match = "POST /v1/accounts/{account}/exports"
    cost = { requests = 25 }
    needs = "exports"
    [route.two]
    match = "GET /{a}/{b}"
    [route.under-a]
    match = "GET /a/{*r}"
    [route.z]
    match = "GET /{y}/z"
    cost = { requests = 5 }
    [route.costly]
    match = "GET /v1/models/costly"
    cost = { requests = 25 }
    [route.healthz]
    match = "GET /healthz"
    auth = "none"
    [plan.free]
    quota.requests = "1000/day"
    [plan.pro]
    extends = "free"
    feature.exports = true
"#;

async fn used(gate: &Gate) -> u64 {
    meter(gate, "requests").await.0
}

/// Says on which route it is.
async fn said(admitted: axum::extract::Extension<Admitted>) -> String {
    admitted.route().map_or("none".to_owned(), |route| route.to_string())
}

#[tokio::test]
async fn an_empty_segment_does_not_walk_around_a_price() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route(
            "/v1/accounts/{id}/exports",
            post(async |Path(_): Path<String>| StatusCode::ACCEPTED),
        )
        .route("/{y}/z", get(said))
        .layer(GateLayer::new(&gate));
    for path in ["/v1/accounts/7/exports", "/v1/accounts//exports", "/v1/accounts/%20/exports"] {
        assert_eq!(send(&app, request("POST", path)).await.status(), 403, "{path}");
    }
    assert_eq!(used(&gate).await, 0);
    let acme = gate.directory().tenant("acme").plan("pro").save().await;
    acme.unwrap();
    let (gate, _clock) = testing::gate(&PLANS.replace("needs = \"exports\"", ""));
    let app = Router::new()
        .route("/v1/accounts/{id}/exports", post(async || StatusCode::ACCEPTED))
        .route("/{y}/z", get(said))
        .layer(GateLayer::new(&gate));
    assert_eq!(send(&app, request("POST", "/v1/accounts//exports")).await.status(), 202);
    assert_eq!(used(&gate).await, 25);
    assert_eq!(text(send(&app, request("GET", "//z")).await).await, "z");
    assert_eq!(used(&gate).await, 30);
}

#[tokio::test]
async fn the_routers_own_match_says_which_of_two_routes_a_spelling_is() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/{a}/{b}", get(said))
        .route("/a/{*rest}", get(said))
        .layer(GateLayer::new(&gate));
    assert_eq!(text(send(&app, request("GET", "/%61/a")).await).await, "two");
    assert_eq!(text(send(&app, request("GET", "/a/a")).await).await, "under-a");
}

#[tokio::test]
async fn a_parameter_in_disguise_costs_what_its_value_costs() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new().route("/v1/models/{model}", get(said)).layer(GateLayer::new(&gate));
    for path in ["/v1/models/costly", "/v1/models/%63ostly", "/v1/models/c%6Fstl%79"] {
        assert_eq!(text(send(&app, request("GET", path)).await).await, "costly", "{path}");
    }
    assert_eq!(text(send(&app, request("GET", "/v1/models/cheap")).await).await, "none");
}

#[tokio::test]
async fn an_open_route_in_disguise_opens_no_other_handler() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/healthz", get(async || "well"))
        .route("/{page}", get(async |Path(page): Path<String>| page))
        .layer(GateLayer::new(&gate));
    let anonymous = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(text(send(&app, anonymous("/healthz")).await).await, "well");
    assert_eq!(send(&app, anonymous("/%68ealthz")).await.status(), 401);
}

#[tokio::test]
async fn a_layer_around_the_whole_router_knows_the_same_routes() {
    let (gate, _clock) = testing::gate(PLANS);
    let router =
        Router::new().route("/v1/accounts/{id}/exports", post(async || StatusCode::ACCEPTED));
    let app = Router::new().fallback_service(GateLayer::new(&gate).layer(router));
    assert_eq!(send(&app, request("POST", "/v1/accounts//exports")).await.status(), 403);
}

#[tokio::test]
async fn a_path_that_no_route_has_is_gated_also_behind_the_usage_routes() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = Router::new()
        .route("/a", get(async || "four"))
        .layer(GateLayer::new(&gate))
        .merge(usage_router(&gate));
    let anonymous = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(send(&app, anonymous("/nowhere")).await.status(), 401);
    assert_eq!(send(&app, request("GET", "/nowhere")).await.status(), 404);
    assert_eq!(used(&gate).await, 1);
    assert_eq!(send(&app, request("GET", "/usage")).await.status(), 200);
    assert_eq!(used(&gate).await, 1);
}

/// Sends a request line as it is, and says status and the route that the handler was told of.
async fn raw(address: std::net::SocketAddr, line: &[u8]) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let rest = b" HTTP/1.1\r\nhost: x\r\nx-tenant: acme\r\nconnection: close\r\n\r\n";
    socket.write_all(&[line, rest].concat()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    let route = answer.lines().find_map(|line| line.strip_prefix("x-route: "));
    (status, route.unwrap_or("-").to_owned())
}

async fn shown(
    admitted: Option<axum::extract::Extension<Admitted>>,
) -> [(&'static str, String); 1] {
    let route = admitted.and_then(|admitted| admitted.route());
    [("x-route", route.map_or("none".to_owned(), |route| route.to_string()))]
}

#[tokio::test]
async fn odd_requests_are_on_the_route_of_their_handler_over_sockets() {
    let plans = r#"
        default-plan = "free"
        [route.export]
        match = "POST /v1/accounts/{account}/exports"
        cost = { requests = 25 }
        [route.search]
        match = "GET /api/search"
        cost = { requests = 5 }
        [route.kind]
        match = "GET /api/{kind}"
        [route.files]
        match = "GET /files/{*path}"
        [route.static]
        match = ["GET /static/{*path}", "GET /static", "GET /static/"]
        cost = { requests = 3 }
        [route.umlaut]
        match = "GET /für"
        [route.preflight]
        match = "OPTIONS /{*rest}"
        auth = "none"
        [plan.free]
        quota.requests = "100k/day"
    "#;
    let (gate, _clock) = testing::gate(plans);
    let api = Router::new()
        .route("/search", get(shown))
        .route("/{kind}", get(shown))
        .fallback(async || (StatusCode::NOT_FOUND, "nested"));
    let app = Router::new()
        .route("/v1/accounts/{id}/exports", post(shown))
        .nest("/api", api)
        .route("/files/{*path}", get(shown))
        .route("/f%C3%BCr", get(shown))
        .nest_service("/static", Router::new().fallback(shown))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(GateLayer::new(&gate))
        .merge(usage_router(&gate));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let asked: [(&[u8], u16, &str, u64); 24] = [
        (b"POST /v1/accounts/7/exports", 200, "export", 25),
        (b"POST /v1/accounts//exports", 200, "export", 25),
        (b"POST http://x/v1/accounts//exports?a=/", 200, "export", 25),
        (b"POST /v1/accounts/a%2Fb/exports", 200, "export", 25),
        (b"POST /v1/accounts/%/exports", 200, "export", 25),
        (b"POST /v1/accounts/../exports", 200, "export", 25),
        (b"POST /v1/accounts/7/exports/", 404, "-", 25),
        (b"GET /v1/accounts/7/exports", 405, "-", 1),
        (b"GET /api/search", 200, "search", 5),
        (b"HEAD /api/search", 200, "search", 5),
        (b"HEAD http://x/api/search", 200, "search", 5),
        (b"GET /api/%73earch", 200, "search", 5),
        (b"GET /api/search;v=1", 200, "kind", 1),
        (b"GET /api/SEARCH", 200, "kind", 1),
        (b"GET /api/", 404, "-", 1),
        (b"GET /api//search", 404, "-", 5),
        (b"POST /api/search", 405, "-", 1),
        (b"OPTIONS /api/search", 405, "-", 0),
        (b"GET /files//", 200, "files", 1),
        (b"GET /f%C3%BCr", 200, "umlaut", 1),
        (b"GET /f%c3%bcr", 404, "-", 1),
        (b"GET /static/a//b", 200, "static", 3),
        (b"GET /static/", 200, "static", 3),
        (b"GET /nowhere", 404, "-", 1),
    ];
    for (line, status, route, cost) in asked {
        let said = String::from_utf8_lossy(line);
        let before = used(&gate).await;
        assert_eq!(raw(address, line).await, (status, route.to_owned()), "{said}");
        assert_eq!(used(&gate).await - before, cost, "{said}");
    }
    server.abort();
}
