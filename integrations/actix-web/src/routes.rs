//! The routes that show a tenant its own use: free, never limited, and answered also while the
//! tenant is over its limit or has not paid.

use actix_web::dev::ServiceRequest;
use actix_web::guard::{Any, Get, Head};
use actix_web::http::{Method, header};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Route};
use tollgate::wire::Reply;
use tollgate::{Gate, Identified, IdentifyStep, Waited, report};

use crate::reply::response;
use crate::view::View;

const USAGE: &str = "/usage";
const HISTORY: &str = "/usage/history";
const PAGE: &str = "/usage-page";

/// Left in the `App` by [`usage_routes`], for the middleware around it.
struct UsageRoutes;

/// `GET /usage` (JSON, with `ETag`), `GET /usage/history?meter=..` and `GET /usage-page` (one page
/// for people, which asks for a key and shows the same).
///
/// ```
/// # #[actix_web::main]
/// # async fn main() {
/// use actix_web::{App, test};
/// use tollgate_actix_web::{Tollgate, usage_routes};
///
/// let (gate, _clock) = tollgate::testing::gate(r#"
///     default-plan = "free"
///     [plan.free]
///     quota.requests = "1/day"
/// "#);
/// let app = App::new().wrap(Tollgate::new(&gate)).configure(usage_routes(&gate));
/// let app = test::init_service(app).await;
/// for _ in 0..3 {
///     let ask = test::TestRequest::get().uri("/usage").insert_header(("x-tenant", "acme"));
///     assert_eq!(test::call_service(&app, ask.to_request()).await.status(), 200);
/// }
/// # }
/// ```
///
/// For `App::configure`: the routes identify their callers by themselves, so [`Tollgate`] around
/// that `App` lets these three paths through, and the plan file need not know of them. Configured
/// in a `web::Scope` behind the middleware, the plan file must name them with the scope's prefix,
/// or looking at one's use is a request like any other:
///
/// ```toml
/// [route.usage]
/// match = ["GET /account/usage", "GET /account/usage/history"]
/// free  = true
///
/// [route.usage-page]
/// match = "GET /account/usage-page"
/// auth  = "none"
/// ```
///
/// [`Tollgate`]: crate::Tollgate
pub fn usage_routes(gate: &Gate) -> impl FnOnce(&mut ServiceConfig) + Clone + use<> {
    let (usage, history) = (gate.clone(), gate.clone());
    move |config| {
        config
            .app_data(UsageRoutes)
            .route(USAGE, look().to(move |request| show_usage(usage.clone(), request)))
            .route(HISTORY, look().to(move |request| show_history(history.clone(), request)))
            .route(PAGE, look().to(async || response(report::page_reply())));
    }
}

/// Whether a request is for a route of its own `App` that identifies its callers by itself. Paths
/// are compared as they were sent: another spelling is a request like any other.
pub(crate) fn is_own(request: &ServiceRequest) -> bool {
    #[cfg(feature = "stripe")]
    if crate::webhook::is_webhook(request) {
        return true;
    }
    matches!(request.path(), USAGE | HISTORY | PAGE)
        && (request.method() == Method::GET || request.method() == Method::HEAD)
        && request.app_data::<UsageRoutes>().is_some()
}

fn look() -> Route {
    web::route().guard(Any(Get()).or(Head()))
}

async fn show_usage(gate: Gate, request: HttpRequest) -> HttpResponse {
    let known = request.headers().get(header::IF_NONE_MATCH);
    let known = known.and_then(|value| value.to_str().ok());
    response(match identify(&gate, &request).await {
        Ok(who) => gate.usage_reply(&who, known).await,
        Err(refused) => refused,
    })
}

async fn show_history(gate: Gate, request: HttpRequest) -> HttpResponse {
    response(match identify(&gate, &request).await {
        Ok(who) => gate.history_reply(&who, request.query_string()).await,
        Err(refused) => refused,
    })
}

/// Who is asking, waiting where memory does not know.
async fn identify(gate: &Gate, request: &HttpRequest) -> Result<Identified, Reply> {
    let view = View::of_handled(request);
    let mut waited = Waited::default();
    loop {
        match gate.identify_request(&view, waited) {
            IdentifyStep::Done(who) => return Ok(who),
            IdentifyStep::Refused(refusal) => return Err(gate.refusal_reply(&refusal)),
            IdentifyStep::Wait(pending) => waited = pending.await,
        }
    }
}
