//! A whole program with the middleware that most apps have, each on its side of the gate. Runs
//! where `plans.toml` is:
//!
//!     cargo run -p tallygate-actix-web --example layers

use std::error::Error;

use actix_cors::Cors;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Compress, Logger};
use actix_web::{App, HttpServer, web};
use tallygate_actix_web::tallygate::Gate;
use tallygate_actix_web::{GateMiddleware, Tenant, usage_routes};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init(); // what Logger and the gate say
    let gate = Gate::open("tallygate.toml").await?; // before the server: one for all workers
    let shared = gate.clone();
    HttpServer::new(move || app(shared.clone()))
        .shutdown_timeout(15) // streams are cut in time for the gate to close, before a SIGKILL
        .tcp_nodelay(true) // small answers go out at once
        .h1_allow_half_closed(false) // notices a disconnected client at once
        .bind(("127.0.0.1", 3000))?
        .run()
        .await?;
    gate.close().await?; // last: writes what was counted
    Ok(())
}

/// What is wrapped last is outermost: a request meets it first.
pub(crate) fn app(
    gate: Gate,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let cors = Cors::default()
        .allowed_origin("https://app.example")
        .allowed_methods(["GET"])
        .allowed_headers(["authorization"])
        .expose_headers(["RateLimit", "RateLimit-Policy", "Retry-After"]); // it replaces the gate's
    App::new()
        .wrap(Compress::default()) // inside: `response-bytes` counts what is sent
        .wrap(GateMiddleware::new(&gate))
        .wrap(cors) // outside: preflights are free, scripts can read refusals
        .wrap(Logger::default()) // outermost: writes of refusals and preflights too
        .configure(usage_routes(&gate))
        .route("/v1/report", web::get().to(report))
}

async fn report(tenant: Tenant) -> String {
    format!("a line of {tenant}\n").repeat(1_000)
}
