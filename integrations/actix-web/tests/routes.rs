//! Which route of the plan file a request is on: the one of the handler that it reaches, however
//! its path is spelled.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use actix_web::dev::Service;
use actix_web::test::{TestRequest, call_and_read_body, call_service, init_service};
use actix_web::{App, HttpMessage, HttpRequest, web};
use tollgate::{Admitted, testing};
use tollgate_actix_web::{Tollgate, usage_routes};

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
    let app = App::new().wrap(Tollgate::new(&gate)).route("/files/{tail:.*}", web::get().to(said));
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
    let app = init_service(App::new().wrap(Tollgate::new(&gate)).service(scope)).await;
    // It is decoded before it is routed: so this is the search, though another route is stricter.
    for (path, route) in [("/v1/search", "search"), ("/v1/%73earch", "search"), ("/v1/x", "any")] {
        assert_eq!(call_and_read_body(&app, get(path).to_request()).await, route, "{path}");
    }
}

#[actix_web::test]
async fn a_path_that_no_route_has_is_gated() {
    let (gate, _clock) = testing::gate(PLANS);
    let app = App::new().wrap(Tollgate::new(&gate)).configure(usage_routes(&gate));
    let app = init_service(app).await;
    let anonymous = TestRequest::get().uri("/nowhere").to_request();
    assert_eq!(app.call(anonymous).await.unwrap().status(), 401);
    assert_eq!(call_service(&app, get("/nowhere").to_request()).await.status(), 404);
}
