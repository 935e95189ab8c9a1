//! Which route of the plan file a request is on: the one of the handler that it reaches, however
//! its path is spelled.

use actix_web::dev::Service;
use actix_web::middleware::{NormalizePath, TrailingSlash};
use actix_web::test::{TestRequest, call_and_read_body, call_service, init_service};
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, web};
use tallygate::{Admitted, testing};
use tallygate_actix_web::{GateMiddleware, usage_routes};

use crate::support::{Gated, Server};

const PLANS: &str = r#"
    default-plan = "free"
    [route.files]
    match = "GET /files/{*path}"
    needs = "files"
    [route.search]
    match = "GET /v1/search"
    auth = "optional"
    [route.any]
    match = "GET /v1/{kind}"
    [route.dir]
    match = "GET /{dir}/"
    [plan.free]
    quota.requests = "1000/day"
    feature.files = false
"#;

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path).insert_header(("x-tenant", "acme"))
}

async fn said(request: HttpRequest) -> String {
    let route = request.extensions().get::<Admitted>().and_then(Admitted::route);
    route.map_or("none".to_owned(), |route| route.to_string())
}

#[actix_web::test]
async fn an_empty_rest_does_not_leave_its_route() {
    let (gate, _clock) = testing::gate(PLANS);
    let app =
        App::new().wrap(GateMiddleware::new(&gate)).route("/files/{tail:.*}", web::get().to(said));
    let app = init_service(app).await;
    for path in ["/files/a", "/files/", "/files//", "/%66iles/"] {
        let response = call_service(&app, get(path).to_request()).await;
        assert_eq!(response.status(), 403, "{path}");
    }
}

#[actix_web::test]
async fn the_apps_own_match_says_which_of_two_routes_a_spelling_is() {
    let (gate, _clock) = testing::gate(PLANS);
    let scope = web::scope("/v1")
        .route("/search", web::get().to(said))
        .route("/{kind}", web::get().to(said));
    let app = init_service(App::new().wrap(GateMiddleware::new(&gate)).service(scope)).await;
    // It is decoded before it is routed: so this is the search, though another route is stricter.
    for (path, route) in [("/v1/search", "search"), ("/v1/%73earch", "search"), ("/v1/x", "any")] {
        assert_eq!(call_and_read_body(&app, get(path).to_request()).await, route, "{path}");
    }
}

#[actix_web::test]
async fn a_path_that_no_route_has_is_gated() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = App::new().wrap(GateMiddleware::new(&gate)).configure(usage_routes(&gate));
    let app = init_service(app).await;
    let anonymous = TestRequest::get().uri("/nowhere").to_request();
    assert_eq!(app.call(anonymous).await.unwrap().status(), 401);
    assert_eq!(call_service(&app, get("/nowhere").to_request()).await.status(), 404);
}

async fn shown(request: HttpRequest) -> HttpResponse {
    let route = said(request).await;
    HttpResponse::Ok().insert_header(("x-route", route)).finish()
}

#[test]
fn odd_requests_are_on_the_route_of_their_handler_over_sockets() {
    let gated = Gated::new(
        r#"
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
        cost = { requests = 2 }
        [route.umlaut]
        match = "GET /für"
        cost = { requests = 3 }
        [route.preflight]
        match = "OPTIONS /{*rest}"
        auth = "none"
        [plan.free]
        concurrency = 100
        quota.requests = "100k/day"
        "#,
    );
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let scope = web::scope("/api")
            .service(web::resource("/search").route(web::get().to(shown)))
            .route("/{kind}", web::get().to(shown));
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .configure(usage_routes(&gate))
            .service(scope)
            .route("/v1/accounts/{id}/exports", web::post().to(shown))
            .route("/files/{tail:.*}", web::get().to(shown))
            .route("/für", web::get().to(shown))
    });
    let asked = [
        ("POST", "/v1/accounts/7/exports", 200, "export", 25),
        ("POST", "/v1/accounts//exports", 404, "", 1),
        ("POST", "/v1/accounts/a%2Fb/exports", 200, "export", 25),
        ("POST", "/%761/accounts/%20/%65xports", 200, "export", 25),
        ("POST", "/v1/accounts/7/exports/", 404, "", 25),
        ("GET", "/v1/accounts/7/exports", 404, "", 1),
        ("GET", "/api/search", 200, "search", 5),
        ("GET", "/api/%73earch?q=1", 200, "search", 5),
        ("GET", "/api/search%2f", 200, "kind", 1),
        ("GET", "/api/SEARCH", 200, "kind", 1),
        ("GET", "/api/", 404, "", 1),
        ("GET", "/api//search", 404, "", 5),
        ("POST", "/api/search", 405, "", 1),
        ("OPTIONS", "/api/search", 405, "", 0),
        ("GET", "/files/", 200, "files", 2),
        ("GET", "/files//", 200, "files", 2),
        ("GET", "/files/a//b/", 200, "files", 2),
        ("GET", "/f%C3%BCr", 200, "umlaut", 3),
        ("GET", "/f%c3%bcr", 200, "umlaut", 3),
        ("GET", "/nowhere", 404, "", 1),
        ("GET", "/usage", 200, "", 0),
    ];
    for (method, path, status, route, cost) in asked {
        let before = gated.meter("requests").0;
        let answer = server.send(method, path);
        let told = (answer.status, answer.header("x-route"));
        assert_eq!(told, (status, route), "{method} {path}");
        gated.settled();
        assert_eq!(gated.meter("requests").0 - before, cost, "{method} {path}");
    }
}

#[actix_web::test]
async fn paths_that_are_changed_outside_are_the_ones_that_count() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = App::new()
        .route("/files/{tail:.*}", web::get().to(said))
        .wrap(GateMiddleware::new(&gate))
        .wrap(NormalizePath::new(TrailingSlash::MergeOnly));
    let app = init_service(app).await;
    for path in ["/files/a", "//files//a", "/files//a/"] {
        assert_eq!(call_service(&app, get(path).to_request()).await.status(), 403, "{path}");
    }
}
