//! Stripe's webhook route, and a demo route that reports on request.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, ServiceConfig};
use tallygate::Gate;
use tallygate_actix_web::stripe_routes;

use crate::stripe;

/// `POST /webhooks/stripe`, and `POST /demo/report`, which sends what is owed now. The middleware
/// lets the first through; the plan file gives the second `auth = "none"`.
pub(crate) fn routes(gate: &Gate) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let gate = gate.clone();
    move |config| {
        if stripe::is_on() {
            config.configure(stripe_routes(&gate));
            config.app_data(Data::new(gate)).route("/demo/report", web::post().to(report));
        }
    }
}

async fn report(gate: Data<Gate>) -> HttpResponse {
    match stripe::report(&gate).await {
        Ok(sent) => HttpResponse::Ok().json(sent),
        Err(error) => HttpResponse::BadGateway().json(error),
    }
}
