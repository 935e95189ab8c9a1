//! tallygate for actix-web: the middleware, extractors, and the routes that show a tenant its own
//! use.
//!
//! ```
//! use actix_web::{App, HttpServer, web};
//! use tallygate::Gate;
//! use tallygate_actix_web::{Refused, Tenant, GateMiddleware, Usage, usage_routes};
//!
//! async fn serve(gate: Gate) -> std::io::Result<()> {
//!     HttpServer::new(move || {
//!         App::new()
//!             .wrap(GateMiddleware::new(&gate))             // one gate, shared by all workers
//!             .configure(usage_routes(&gate))
//!             .route("/v1/search", web::get().to(search))
//!             .route("/v1/chat", web::post().to(chat))
//!     })
//!     .bind(("127.0.0.1", 3000))?
//!     .run()
//!     .await
//! }
//!
//! async fn search(tenant: Tenant) -> String {
//!     format!("{tenant} found nothing")
//! }
//!
//! async fn chat(usage: Usage, most: web::Json<u64>) -> Result<String, Refused> {
//!     usage.take("output-tokens", *most).await?;  // before it is spent; a refusal is a response
//!     usage.add("input-tokens", 12);              // the true numbers, when they are known
//!     usage.add("output-tokens", *most / 2);
//!     Ok("hello".to_owned())
//! }
//! ```
//!
//! - [`GateMiddleware`] is a middleware of actix-web's own kind, around an `App` or a `web::Scope`.
//!   It stands before routing, asks the app which of its patterns a path is on where it can be read
//!   in more than one way, and gates what no route answers too. Middlewares that change paths
//!   (`NormalizePath`) belong outside of it.
//! - [`Tenant`], [`Plan`] and [`Usage`] cost a clone of an `Arc`. Without the middleware they
//!   answer 500 with a sentence that says so; `Option<Tenant>` and the like are `None` instead.
//! - [`usage_routes`] identify their callers by themselves and decide nothing, and so answer
//!   whoever is over its limit or has not paid.
//! - What a middleware further out has verified of the caller it leaves as [`Claims`] in the
//!   request's extensions, where `[[identify]] claim = ".."` of the service file reads it.
//! - [`DigestBodies`] compares the bodies of requests that count once.
//! - With the feature `stripe`, `stripe_routes` take Stripe's webhooks.
//!
//! A request is settled when its body ends: streams are counted chunk by chunk, a client that goes
//! away has used what passed, and a handler's error is charged by its status. (An error that a
//! *middleware* within returns passes through as it is, without limit headers: what it becomes is
//! written outside.) All deciding, counting and writing is `tallygate`'s; nothing here does any.
//!
//! By itself actix-web notices that a client went away only when it next writes to it: a stream
//! that is silent, or a slow handler, keeps its hold until then. With
//! `HttpServer::h1_allow_half_closed(false)` it is noticed at once.

mod body;
mod digest;
mod extract;
mod future;
mod middleware;
mod refused;
mod reply;
mod routes;
mod view;
#[cfg(feature = "stripe")]
mod webhook;

pub use body::GateBody;
pub use digest::{DigestBodies, Digested};
pub use extract::{NotAdmitted, Plan, Tenant, Usage};
pub use future::ResponseFuture;
pub use middleware::{GateMiddleware, Gated};
pub use refused::Refused;
pub use routes::{ingest_routes, usage_routes};
pub use tallygate::identity::Claims;
#[cfg(feature = "stripe")]
pub use webhook::stripe_routes;
