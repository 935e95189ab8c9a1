//! Routes that show a tenant its own usage: free, never limited, and also answered while the tenant
//! is over its limit or has not paid.

use actix_web::dev::ServiceRequest;
use actix_web::guard::{Any, Get, Head};
use actix_web::http::{Method, header};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Route};
use tallygate::adapter::{IdentifyStep, Waited};
use tallygate::admin::{self, Admin, AdminRequest};
use tallygate::ingest::MAX_BODY;
use tallygate::own_keys::{self, KeysRequest};
use tallygate::wire::Reply;
use tallygate::{Gate, Identified, report};

use crate::reply::response;
use crate::view::View;

const USAGE: &str = "/usage";
const HISTORY: &str = "/usage/history";
const KEYS: &str = "/usage/keys";
const KEY: &str = "/usage/keys/{key}";
const PAGE: &str = "/usage-page";

/// Marker that [`usage_routes`] leaves in the `App` for the middleware around it.
struct UsageRoutes;

/// The same for the keys of [`usage_routes_with_keys`].
struct KeysRoutes;

/// The same marker for [`ingest_routes`].
struct IngestRoutes;

/// The same for [`admin_routes`], with the path that they are under.
struct AdminRoutes(String);

/// The name of the resource of [`admin_routes`] in the `App`.
const ADMIN: &str = "tallygate-admin";

/// What a browser says about the page that sends a request (Fetch Metadata, W3C).
const SEC_FETCH_SITE: header::HeaderName = header::HeaderName::from_static("sec-fetch-site");

/// By which a key is made once.
const IDEMPOTENCY_KEY: header::HeaderName = header::HeaderName::from_static("idempotency-key");

/// The routes that show a tenant its own usage: `GET /usage` (JSON, with `ETag`), `GET
/// /usage/history?meter=..` and `GET /usage-page` (an HTML page that asks for a key and shows the
/// same).
///
/// ```
/// # #[actix_web::main]
/// # async fn main() {
/// use actix_web::{App, test};
/// use tallygate_actix_web::{GateMiddleware, usage_routes};
///
/// let (gate, _clock) = tallygate::testing::gate(r#"
///     default-plan = "free"
///     [plan.free]
///     quota.requests = "1/day"
/// "#);
/// let app = App::new().wrap(GateMiddleware::new(&gate)).configure(usage_routes(&gate));
/// let app = test::init_service(app).await;
/// for _ in 0..3 {
///     let ask = test::TestRequest::get().uri("/usage").insert_header(("x-tenant", "acme"));
///     assert_eq!(test::call_service(&app, ask.to_request()).await.status(), 200);
/// }
/// # }
/// ```
///
/// For `App::configure`: the routes identify their callers themselves, so [`GateMiddleware`] around
/// that `App` lets these three paths through, and the plan file need not list them. If they are
/// configured in a `web::Scope` behind the middleware, the plan file must name them with the
/// scope's prefix; otherwise each look at the usage is an ordinary request:
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
/// [`GateMiddleware`]: crate::GateMiddleware
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

/// The same where a tenant may also manage its own API keys: `GET` and `POST /usage/keys`, `DELETE
/// /usage/keys/{key}`, and a tab for them on the page. A key that is made so may do what its caller
/// may, or less. Leave it to [`usage_routes`] where keys are the operator's alone.
///
/// ```
/// # fn app(gate: &tallygate::Gate) {
/// use actix_web::App;
/// use tallygate_actix_web::{GateMiddleware, usage_routes_with_keys};
///
/// let app = App::new().wrap(GateMiddleware::new(gate)).configure(usage_routes_with_keys(gate));
/// # let _ = app;
/// # }
/// ```
pub fn usage_routes_with_keys(gate: &Gate) -> impl FnOnce(&mut ServiceConfig) + Clone + use<> {
    let (usage, history) = (gate.clone(), gate.clone());
    let (all, one) = (gate.clone(), gate.clone());
    move |config| {
        let page = async || response(report::page_with_keys_reply());
        let all = move |request, body| manage_keys(all.clone(), request, body);
        let one = move |request, body| manage_keys(one.clone(), request, body);
        config
            .app_data(UsageRoutes)
            .app_data(KeysRoutes)
            .route(USAGE, look().to(move |request| show_usage(usage.clone(), request)))
            .route(HISTORY, look().to(move |request| show_history(history.clone(), request)))
            .route(PAGE, look().to(page))
            .route(KEYS, web::to(all))
            .route(KEY, web::to(one));
    }
}

async fn manage_keys(gate: Gate, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let who = match identify(&gate, &request).await {
        Ok(who) => who,
        Err(refused) => return response(refused), // nothing of the body is read
    };
    let body = body.to_bytes_limited(own_keys::MAX_BODY).await.ok().and_then(Result::ok);
    let header = |name| request.headers().get(name).map(header::HeaderValue::as_bytes);
    let asked = KeysRequest {
        method: request.method().as_str(),
        key: request.path().rsplit_once("/usage/keys/").map(|(_, key)| key),
        query: request.query_string(),
        content_type: header(header::CONTENT_TYPE),
        site: header(SEC_FETCH_SITE),
        once: header(IDEMPOTENCY_KEY),
        body: body.as_deref(),
    };
    response(gate.keys_reply(&who, asked).await)
}

/// Whether this is a request for its own `App`'s routes for keys.
fn is_keys(request: &ServiceRequest) -> bool {
    let below = request.path().strip_prefix(KEYS);
    let is_there = below.is_some_and(|below| {
        below
            .strip_prefix('/')
            .map_or(below.is_empty(), |key| !key.is_empty() && !key.contains('/'))
    });
    is_there && request.app_data::<KeysRoutes>().is_some()
}

/// The route `POST /usage`: takes usage reported by your other services, with the token of
/// `[ingest]`. The answer (202 only once every event is on record) is that of
/// [`tallygate::ingest`].
///
/// For `App::configure`: [`GateMiddleware`](crate::GateMiddleware) around that `App` lets it
/// through, because it authenticates its callers itself.
pub fn ingest_routes(gate: &Gate) -> impl FnOnce(&mut ServiceConfig) + Clone + use<> {
    let gate = gate.clone();
    move |config| {
        let take = move |request, body| take_usage(gate.clone(), request, body);
        config.app_data(IngestRoutes).route(USAGE, web::post().to(take));
    }
}

/// The operator's routes under this path, as [`tallygate::admin`] lists them: see tenants and their
/// usage, and change what they may use. Every request needs a token of
/// [`new_operator`](tallygate::directory::Directory::new_operator), but for the console at this
/// path itself: a page for a browser that holds no data, and asks for one.
///
/// For `App::configure`: [`GateMiddleware`](crate::GateMiddleware) around that `App` lets them
/// through. Choose a path that only operators reach, or an `App` on a listener of its own:
///
/// ```
/// # fn app(gate: &tallygate::Gate) {
/// use actix_web::App;
/// use tallygate_actix_web::{GateMiddleware, admin_routes};
///
/// let app = App::new().wrap(GateMiddleware::new(gate)).configure(admin_routes(gate, "/admin"));
/// # let _ = app;
/// # }
/// ```
///
/// # Panics
///
/// If the path is empty or `/`: then they would take every request.
pub fn admin_routes(gate: &Gate, path: &str) -> impl FnOnce(&mut ServiceConfig) + Clone + use<> {
    let path = format!("/{}", path.trim_matches('/'));
    assert!(path.len() > 1, "the operator's routes need a path of their own, such as \"/admin\"");
    let admin = gate.admin();
    move |config| {
        let operate = move |request, body| operate(admin.clone(), request, body);
        let all = web::resource(["", "/{tail:.*}"]).name(ADMIN).to(operate);
        let scope = web::scope(&path).service(all);
        config.app_data(AdminRoutes(path)).service(scope);
    }
}

/// The path below the routes' own, as sent: actix-web's view of it is decoded, and an id may hold a
/// slash. Scopes around them have as many segments in it as in their patterns.
fn below_mount(request: &HttpRequest) -> &str {
    let pattern = request.match_pattern().unwrap_or_default();
    let segments = pattern.matches('/').count();
    let path = request.uri().path();
    path.match_indices('/').nth(segments).map_or("", |(at, _)| &path[at..])
}

async fn operate(admin: Admin, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let path = below_mount(&request);
    let method = request.method().as_str();
    if let Some(page) = admin.console(method, path) {
        return response(page);
    }
    let header = |name| request.headers().get(name).map(header::HeaderValue::as_bytes);
    let (token, site) = (header(header::AUTHORIZATION), header(SEC_FETCH_SITE));
    let operator = match admin.known(token, site).await {
        Ok(operator) => operator,
        Err(refused) => return response(refused), // nothing of the body is read
    };
    let body = body.to_bytes_limited(admin::MAX_BODY).await.ok().and_then(Result::ok);
    let (query, once) = (request.query_string(), header(IDEMPOTENCY_KEY));
    let asked = AdminRequest { method, path, query, body: body.as_deref(), once };
    response(admin.reply(&operator, asked).await)
}

/// Whether this is a request for its own `App`'s operator's routes, and not for one of the app's
/// own below the same path.
fn is_admin(request: &ServiceRequest) -> bool {
    let within = |routes: &AdminRoutes| {
        let rest = request.uri().path().strip_prefix(&*routes.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_within = request.app_data::<AdminRoutes>().is_some_and(within);
    is_within && request.match_name() == Some(ADMIN)
}

async fn take_usage(gate: Gate, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let token = request.headers().get(header::AUTHORIZATION);
    let token = token.map(header::HeaderValue::as_bytes);
    if let Some(refused) = gate.ingest().refused(token) {
        return response(refused); // nothing of the body is read
    }
    // A longer body is not read to its end. For a broken one `body` is `None`, and the client is
    // gone.
    let body = body.to_bytes_limited(MAX_BODY).await.ok().and_then(Result::ok);
    response(gate.ingest().reply(token, body.as_deref()).await)
}

/// Whether this is a request for its own `App`'s ingest route.
fn is_ingest(request: &ServiceRequest) -> bool {
    request.path() == USAGE
        && request.method() == Method::POST
        && request.app_data::<IngestRoutes>().is_some()
}

/// Whether this is a request for a route of its own `App` that identifies callers itself. Paths are
/// compared as sent: another spelling is an ordinary request.
pub(crate) fn is_own(request: &ServiceRequest) -> bool {
    #[cfg(feature = "stripe")]
    if crate::webhook::is_webhook(request) {
        return true;
    }
    if is_ingest(request) || is_admin(request) || is_keys(request) {
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

/// Identifies the caller, waiting where memory has no answer.
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
