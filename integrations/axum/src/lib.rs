//! tallygate for axum: the layer, extractors, and routes that show a tenant its own usage. Open the
//! gate with [`Gate::open`](tallygate::Gate::open); `examples/axum-api` is a whole program.
//!
//! ```
//! use axum::routing::{get, post};
//! use axum::{Json, Router};
//! use tallygate::Gate;
//! use tallygate_axum::{GateLayer, Refused, Tenant, Usage, usage_router};
//!
//! fn app(gate: &Gate) -> Router {
//!     Router::new()
//!         .route("/v1/search", get(search))
//!         .route("/v1/chat", post(chat))
//!         .layer(GateLayer::new(gate))
//!         .merge(usage_router(gate))
//! }
//!
//! async fn search(tenant: Tenant) -> String {
//!     format!("{tenant} found nothing")
//! }
//!
//! async fn chat(usage: Usage, Json(most): Json<u64>) -> Result<String, Refused> {
//!     usage.take("output-tokens", most).await?;   // before it is spent; a refusal is a response
//!     usage.add("input-tokens", 12);              // the true numbers, when they are known
//!     usage.add("output-tokens", most / 2);
//!     Ok("hello".to_owned())
//! }
//! ```
//!
//! - [`GateLayer`] knows axum. It matches the plan file's routes by the router's own match and the
//!   full requested path, also inside [`Router::nest`](axum::Router::nest), and takes the peer from
//!   axum's `ConnectInfo` ([`serve`] provides it, and so does
//!   `into_make_service_with_connect_info::<SocketAddr>()`; without it, limits `per ip` hold for
//!   all callers of a tenant together, and no proxy is trusted).
//! - An existing app's own authentication stays: [`GateLayer::caller`] says who calls, and on which
//!   plan, by what a layer around it has left in the request's extensions.
//! - [`serve`] listens until the process is asked to end, then drains and closes the gate.
//! - [`Tenant`], [`Plan`] and [`Usage`] cost a clone of an `Arc`. Without the layer they answer 500
//!   with a sentence that says so; `Option<Tenant>` and the like answer `None` instead.
//! - [`usage_router`] belongs after `.layer(..)`: it identifies its callers itself and decides
//!   nothing, so it also answers tenants that are over their limit or have not paid. The same goes
//!   for [`ingest_router`], where other services report usage, and for [`admin_router`], where
//!   operators see and change what tenants may use. [`admin_socket`] serves the same to the command
//!   `tallygate` on the same machine, without a token.
//! - [`DigestBodies`] compares the bodies of idempotent requests.
//! - Paths that no route answers are gated too. A router merged after `.layer(..)` takes over that
//!   fallback, ungated: merge it before.
//! - A CORS layer belongs outside, in a later `.layer(..)`: there it answers preflights and lets
//!   pages of other origins read refusals.
//! - With the feature `stripe`, `stripe_router` takes Stripe's webhooks.
//!
//! All deciding, counting and writing is done in `tallygate`, none here.

#[cfg(all(unix, feature = "tokio"))]
mod admin_socket;
mod digest;
mod extract;
mod layer;
mod refused;
mod routes;
#[cfg(feature = "tokio")]
mod serve;
mod service;
#[cfg(all(unix, feature = "tokio"))]
mod socket_file;
#[cfg(feature = "stripe")]
mod webhook;

/// The core, in the version that this adapter works with.
pub use tallygate;

#[cfg(all(unix, feature = "tokio"))]
pub use admin_socket::{AdminSocket, admin_socket};
pub use digest::{DigestBodies, DigestFuture, Digested};
pub use extract::{NotAdmitted, Plan, Tenant, Usage};
pub use layer::GateLayer;
pub use refused::Refused;
pub use routes::{admin_router, ingest_router, usage_router, usage_router_with_keys};
#[cfg(feature = "tokio")]
pub use serve::{ServeError, serve};
pub use service::{GateService, ResponseFuture};
pub use tallygate::identity::Caller;
#[cfg(feature = "stripe")]
pub use webhook::stripe_router;

/// The examples of the README compile, and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
