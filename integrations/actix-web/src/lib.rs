//! tallygate for actix-web: the middleware, extractors, and routes that show a tenant its own
//! usage. Open the gate with [`Gate::open`](tallygate::Gate::open); `examples/actix-api` is a whole
//! program.
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
//! - [`GateMiddleware`] is an ordinary actix-web middleware, around an `App` or a `web::Scope`. It
//!   runs before routing, asks the app which pattern matches where a path can be read in more than
//!   one way, and also gates paths that no route answers. Middlewares that rewrite paths
//!   (`NormalizePath`) belong outside of it.
//! - [`Tenant`], [`Plan`] and [`Usage`] cost a clone of an `Arc`. Without the middleware they
//!   answer 500 with a sentence that says so; `Option<Tenant>` and the like are `None` instead.
//! - [`usage_routes`] identify their callers themselves and decide nothing, so they also answer
//!   tenants that are over their limit or have not paid.
//! - An existing app's own authentication stays: [`GateMiddleware::caller`] says who calls, and on
//!   which plan, by what an outer middleware has left in the request's extensions.
//! - An outer middleware passes the caller attributes it has verified as [`Claims`] in the
//!   request's extensions, where `[[identify]] claim = ".."` of the service file reads them.
//! - [`DigestBodies`] compares the bodies of idempotent requests.
//! - With the feature `stripe`, `stripe_routes` take Stripe's webhooks.
//!
//! A request is settled when its body ends: streams are counted chunk by chunk, a client that
//! disconnects is charged for what was sent, and a handler's error is charged by its status. (An
//! error returned by an *inner middleware* passes through unchanged, without limit headers: its
//! response is written outside.) All deciding, counting and writing is done in `tallygate`, none
//! here.
//!
//! By default actix-web notices a disconnected client only at its next write: a silent stream or a
//! slow handler keeps its hold until then. With `HttpServer::h1_allow_half_closed(false)` it
//! notices at once over HTTP/1.1. **Over HTTP/2 actix-web runs a handler to its end**, whatever
//! becomes of its client: hold and place stay taken until then, so give handlers that may not end a
//! timeout.

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

/// The core, in the version that this adapter works with.
pub use tallygate;

pub use body::GateBody;
pub use digest::{DigestBodies, Digested};
pub use extract::{NotAdmitted, Plan, Tenant, Usage};
pub use future::ResponseFuture;
pub use middleware::{GateMiddleware, Gated};
pub use refused::Refused;
pub use routes::{admin_routes, ingest_routes, usage_routes, usage_routes_with_keys};
pub use tallygate::identity::{Caller, Claims};
#[cfg(feature = "stripe")]
pub use webhook::stripe_routes;

/// The examples of the README compile, and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
