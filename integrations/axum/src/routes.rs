//! Routes that show a tenant its own usage: free, never limited, and also answered while the tenant
//! is over its limit or has not paid.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::routing::{any, get, post};
use axum_core::body::Body;
use axum_core::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tallygate::adapter::{IdentifyStep, Waited};
use tallygate::admin::{self, Admin, AdminRequest, KnownOperator};
use tallygate::ingest::MAX_BODY;
use tallygate::middleware::HttpView;
use tallygate::own_keys::{self, KeysRequest};
use tallygate::wire::Reply;
use tallygate::{Admitted, Gate, Identified, report};
use tower_layer::Layer;
use tower_service::Service;

use crate::{GateLayer, GateService};

/// What a browser says about the page that sends a request (Fetch Metadata, W3C).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// By which a key is made once.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The routes that show a tenant its own usage: `GET /usage` (JSON, with `ETag`), `GET
/// /usage/history?meter=..` and `GET /usage-page` (an HTML page that asks for a key and shows the
/// same).
///
/// Merge it **after** `.layer(GateLayer::new(&gate))`: it identifies its callers itself, and the
/// plan file need not list it. If it is merged before, the plan file must name the routes;
/// otherwise each look at the usage is an ordinary request:
///
/// ```toml
/// [route.usage]
/// match = ["GET /usage", "GET /usage/history"]
/// free  = true
///
/// [route.usage-page]
/// match = "GET /usage-page"
/// auth  = "none"
/// ```
///
/// It takes the gate, or the layer where that finds the callers ([`GateLayer::caller`]):
/// `usage_router(&layer)`.
pub fn usage_router<S: Clone + Send + Sync + 'static>(gate: impl Into<GateLayer>) -> Router<S> {
    let layer = gate.into();
    let (usage, history) = (layer.clone(), layer.clone());
    gated_fallback(layer)
        .route("/usage", get(move |request| show_usage(usage, request)))
        .route("/usage/history", get(move |request| show_history(history, request)))
        .route("/usage-page", get(async || response(report::page_reply())))
}

/// The same where a tenant may also manage its own API keys: `GET` and `POST /usage/keys`, `DELETE
/// /usage/keys/{key}`, and a tab for them on the page. A key that is made so may do what its caller
/// may, or less. Leave it to [`usage_router`] where keys are the operator's alone.
///
/// ```
/// # use axum::Router;
/// # use tallygate_axum::{GateLayer, usage_router_with_keys};
/// # fn app(gate: &tallygate::Gate, api: Router) -> Router {
/// api.layer(GateLayer::new(gate)).merge(usage_router_with_keys(gate))
/// # }
/// ```
pub fn usage_router_with_keys<S: Clone + Send + Sync + 'static>(
    gate: impl Into<GateLayer>,
) -> Router<S> {
    let layer = gate.into();
    let (usage, history) = (layer.clone(), layer.clone());
    let (all, one) = (layer.clone(), layer.clone());
    gated_fallback(layer)
        .route("/usage", get(move |request| show_usage(usage, request)))
        .route("/usage/history", get(move |request| show_history(history, request)))
        .route("/usage-page", get(async || response(report::page_with_keys_reply())))
        .route("/usage/keys", any(move |request| manage_keys(all, request)))
        .route("/usage/keys/{key}", any(move |request| manage_keys(one, request)))
}

async fn manage_keys(layer: GateLayer, mut request: Request) -> Response {
    layer.name_caller(&mut request);
    let (parts, body) = request.into_parts();
    let who = match identify(layer.gate(), &parts).await {
        Ok(who) => who,
        Err(refused) => return response(refused), // nothing of the body is read
    };
    let body = axum::body::to_bytes(body, own_keys::MAX_BODY).await.ok();
    let header = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
    let path = parts.uri.path();
    let request = KeysRequest {
        method: parts.method.as_str(),
        key: path.rsplit_once("/usage/keys/").map(|(_, key)| key),
        query: parts.uri.query().unwrap_or_default(),
        content_type: header(header::CONTENT_TYPE),
        site: header(SEC_FETCH_SITE),
        once: header(IDEMPOTENCY_KEY),
        body: body.as_deref(),
    };
    response(layer.gate().keys_reply(&who, request).await)
}

/// The route `POST /usage`: takes usage reported by your other services, with the token of
/// `[ingest]`. The answer (202 only once every event is on record) is that of
/// [`tallygate::ingest`].
///
/// Merge it **after** `.layer(GateLayer::new(&gate))`, beside [`usage_router`] or elsewhere: it
/// authenticates its callers itself.
///
/// It takes the gate or the layer, as [`usage_router`] does.
pub fn ingest_router<S: Clone + Send + Sync + 'static>(gate: impl Into<GateLayer>) -> Router<S> {
    let layer = gate.into();
    let gate = layer.gate().clone();
    let router = gated_fallback(layer);
    router.route("/usage", post(move |request| take_usage(gate, request)))
}

/// The operator's routes, as [`tallygate::admin`] lists them: see tenants and their usage, and
/// change what they may use. Every request needs a token of
/// [`new_operator`](tallygate::directory::Directory::new_operator), but for the console at the
/// root: a page for a browser that holds no data, and asks for one.
///
/// Nest it **after** `.layer(GateLayer::new(&gate))`, under a path that only operators reach, or on
/// a listener of its own; a layer of yours around it may ask for more than the token:
///
/// ```
/// # use axum::Router;
/// # use tallygate_axum::{GateLayer, admin_router};
/// # fn app(gate: &tallygate::Gate, api: Router) -> Router {
/// api.layer(GateLayer::new(gate)).nest("/admin", admin_router(gate))
/// # }
/// ```
pub fn admin_router<S: Clone + Send + Sync + 'static>(gate: &Gate) -> Router<S> {
    let admin = gate.admin();
    Router::new().fallback(move |request| operate(admin, request))
}

async fn operate(admin: Admin, request: Request) -> Response {
    if let Some(page) = admin.console(request.method().as_str(), request.uri().path()) {
        return response(page);
    }
    let (parts, body) = request.into_parts();
    match by_token(&admin, &parts).await {
        Ok(operator) => operate_as(&admin, &operator, parts, body).await,
        Err(refused) => response(refused), // nothing of the body is read
    }
}

/// The operator with the token of a request.
pub(crate) async fn by_token(admin: &Admin, parts: &Parts) -> Result<KnownOperator, Reply> {
    let header = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
    admin.known(header(header::AUTHORIZATION), header(SEC_FETCH_SITE)).await
}

/// The operator of a connection that only the process's user can make, by this name.
#[cfg(all(unix, feature = "tokio"))]
pub(crate) fn by_user(admin: &Admin, name: String, parts: &Parts) -> Result<KnownOperator, Reply> {
    admin.local(name, parts.headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes))
}

/// The answer to a request of this operator.
pub(crate) async fn operate_as(
    admin: &Admin,
    operator: &KnownOperator,
    parts: Parts,
    body: Body,
) -> Response {
    let header = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
    let body = axum::body::to_bytes(body, admin::MAX_BODY).await.ok();
    let request = AdminRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        body: body.as_deref(),
        once: header(IDEMPOTENCY_KEY),
    };
    response(admin.reply(operator, request).await)
}

/// A router without routes. [`Router::merge`] keeps the merged router's default fallback, so this
/// one's fallback must be behind the gate, as the other's was.
pub(crate) fn gated_fallback<S: Clone + Send + Sync + 'static>(layer: GateLayer) -> Router<S> {
    Router::new().layer(FallbackLayer(layer))
}

/// Puts the gate around a fallback, unless the request has already passed one, which means that the
/// router was merged before its `.layer(..)`.
#[derive(Clone)]
struct FallbackLayer(GateLayer);

#[derive(Clone)]
struct Fallback {
    plain: axum::routing::Route,
    gated: GateService<axum::routing::Route>,
}

impl Layer<axum::routing::Route> for FallbackLayer {
    type Service = Fallback;

    fn layer(&self, inner: axum::routing::Route) -> Fallback {
        Fallback { plain: inner.clone(), gated: self.0.layer(inner) }
    }
}

impl Service<Request> for Fallback {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.gated, cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match request.extensions().get::<Admitted>() {
            Some(_) => Box::pin(self.plain.call(request)),
            None => Box::pin(self.gated.call(request)),
        }
    }
}

async fn take_usage(gate: Gate, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let token = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if let Some(refused) = gate.ingest().refused(token) {
        return response(refused); // nothing of the body is read
    }
    // A longer body is not read to its end. For a broken one `body` is `None`, and the client is
    // gone.
    let body = axum::body::to_bytes(body, MAX_BODY).await.ok();
    response(gate.ingest().reply(token, body.as_deref()).await)
}

async fn show_usage(layer: GateLayer, request: Request) -> Response {
    let (gate, parts) = (layer.gate(), named(&layer, request));
    let known = parts.headers.get(header::IF_NONE_MATCH);
    let known = known.and_then(|value| value.to_str().ok());
    response(match identify(gate, &parts).await {
        Ok(who) => gate.usage_reply(&who, known).await,
        Err(refused) => refused,
    })
}

async fn show_history(layer: GateLayer, request: Request) -> Response {
    let (gate, parts) = (layer.gate(), named(&layer, request));
    response(match identify(gate, &parts).await {
        Ok(who) => {
            let query = parts.uri.query().unwrap_or_default();
            gate.history_reply(&who, query).await
        }
        Err(refused) => refused,
    })
}

/// The parts of a request, with its caller among the extensions if the layer finds one.
fn named(layer: &GateLayer, mut request: Request) -> Parts {
    layer.name_caller(&mut request);
    request.into_parts().0
}

/// Identifies the caller, waiting where memory has no answer.
async fn identify(gate: &Gate, parts: &Parts) -> Result<Identified, Reply> {
    let view = HttpView::of_parts(parts, crate::layer::peer(&parts.extensions));
    let mut waited = Waited::default();
    loop {
        match gate.identify_request(&view, waited) {
            IdentifyStep::Done(who) => return Ok(who),
            IdentifyStep::Refused(refusal) => return Err(gate.refusal_reply(&refusal)),
            IdentifyStep::Wait(pending) => waited = pending.await,
        }
    }
}

pub(crate) fn response(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, value);
        }
    }
    response
}
