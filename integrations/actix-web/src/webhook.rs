//! Stripe's webhook route: not identified by a credential, but authenticated by its signature.

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::web::{self, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use tallygate::Gate;
use tallygate::billing::webhook::MAX_BODY;

use crate::reply::response;

const PATH: &str = "/webhooks/stripe";

/// Marker that [`stripe_routes`] leaves in the `App` for the middleware around it.
struct StripeRoutes;

/// The route `POST /webhooks/stripe` for Stripe's webhooks, for `App::configure`: enter this path
/// of your host as the endpoint at Stripe. `docs/billing.md` lists the events to subscribe to.
/// [`GateMiddleware`](crate::GateMiddleware) around that `App` lets it through.
///
/// If it is configured in a `web::Scope` behind the middleware, the plan file must name the route
/// with the scope's prefix (`auth = "none"`); otherwise Stripe is an ordinary caller. For another
/// path, write a handler around [`Gate::stripe_webhook`], which needs the raw body.
pub fn stripe_routes(gate: &Gate) -> impl FnOnce(&mut ServiceConfig) + Clone + use<> {
    let gate = gate.clone();
    move |config| {
        let take = web::post().to(move |request, body| take(gate.clone(), request, body));
        config.app_data(StripeRoutes).route(PATH, take);
    }
}

/// Whether this is a request for its own `App`'s webhook.
pub(crate) fn is_webhook(request: &ServiceRequest) -> bool {
    request.path() == PATH
        && request.method() == Method::POST
        && request.app_data::<StripeRoutes>().is_some()
}

async fn take(gate: Gate, request: HttpRequest, body: Payload) -> HttpResponse {
    // Too long, or broken off, in which case the client is gone.
    let Ok(Ok(body)) = body.to_bytes_limited(MAX_BODY).await else {
        return HttpResponse::PayloadTooLarge().finish();
    };
    let signature = request.headers().get("stripe-signature");
    let signature = signature.map_or(&b""[..], |value| value.as_bytes());
    response(gate.stripe_webhook(signature, &body).await)
}
