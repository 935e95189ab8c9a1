//! What Stripe calls, and what this demo adds to try it.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, ServiceConfig};
use tallygate::Gate;
use tallygate_actix_web::stripe_routes;

use crate::stripe;

/// `POST /webhooks/stripe`, and `POST /demo/report`: what is owed is sent now. The middleware lets
/// the first through; of the second the plan file says that it asks nobody who they are.
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
