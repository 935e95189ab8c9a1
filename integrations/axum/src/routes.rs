//! The routes that show a tenant its own use: free, never limited, and answered also while the
//! tenant is over its limit or has not paid.

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use axum_core::body::Body;
use axum_core::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tollgate::middleware::HttpView;
use tollgate::wire::Reply;
use tollgate::{Gate, Identified, IdentifyStep, Waited, report};

/// `GET /usage` (JSON, with `ETag`), `GET /usage/history?meter=..` and `GET /usage-page` (one page
/// for people, which asks for a key and shows the same).
///
/// Merge it **after** `.layer(TollgateLayer::new(&gate))`: it identifies its callers by itself, and
/// the plan file need not know of it. Merged before, the plan file must name the routes, or looking
/// at one's use is a request like any other:
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
pub fn usage_router<S: Clone + Send + Sync + 'static>(gate: &Gate) -> Router<S> {
    let (usage, history) = (gate.clone(), gate.clone());
    Router::new()
        .route("/usage", get(move |request| show_usage(usage, request)))
        .route("/usage/history", get(move |request| show_history(history, request)))
        .route("/usage-page", get(async || response(report::page_reply())))
}

async fn show_usage(gate: Gate, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let known = parts.headers.get(header::IF_NONE_MATCH);
    let known = known.and_then(|value| value.to_str().ok());
    response(match identify(&gate, &parts).await {
        Ok(who) => gate.usage_reply(&who, known).await,
        Err(refused) => refused,
    })
}

async fn show_history(gate: Gate, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    response(match identify(&gate, &parts).await {
        Ok(who) => {
            let query = parts.uri.query().unwrap_or_default();
            gate.history_reply(&who, query).await
        }
        Err(refused) => refused,
    })
}

/// Who is asking, waiting where memory does not know.
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
