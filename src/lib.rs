//! Embeddable quotas, metering and billing for Rust APIs: one layer and one TOML file.
//!
//! ```text
//! request -> middleware ----> gate  admit ----------------------> inner service, or a refusal
//!                              |  1 identify   who is calling
//!              hot path        |  2 resolve    which plan, which limits
//!            (memory only)     |  3 decide     rates, quota leases, concurrency: all or none
//!                              |  4 record     what was used, when the response ends
//! - - - - - - - - - - - - - - -+- - - - - - - - - - - - - - - - - - - - - - - - - - - - - - -
//!              cold path          5 lease      units taken in advance from the store
//!           (off the request)     6 flush      what was used, in batches to the store
//!                                 7 report     what a tenant sees of itself: `GET /usage`
//!                                 8 bill       what is owed, into Stripe's meters (`stripe`)
//!                                 9 react      Stripe's webhooks into tenants' plans (`stripe`)
//! ```
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # #[cfg(all(feature = "tower", feature = "testing"))] {
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use tallygate::middleware::GateLayer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # type Body = Empty<bytes::Bytes>;
//! let (gate, _clock) = tallygate::testing::gate(r#"
//!     default-plan = "free"
//!     [plan.free]
//!     quota.requests = "2/day"
//! "#);
//! let api = service_fn(|_: Request<Body>| async {
//!     Ok::<_, Infallible>(Response::new(Body::new()))
//! });
//! let api = GateLayer::new(&gate).layer(api);
//! for expected in [200, 200, 429] {
//!     let request = Request::get("/v1/hello").header("x-tenant", "acme");
//!     let request = request.body(Body::new()).unwrap();
//!     let response = api.clone().oneshot(request).await.unwrap();
//!     assert_eq!(response.status(), expected);
//! }
//! # }
//! # });
//! ```
//!
//! A service opens its gate from two files: [`Gate::open`]. Its framework's adapter is a crate of
//! its own (`tallygate-axum`, `tallygate-actix-web`, `tallygate-lambda`); others are written with
//! [`adapter`]. Tests of a host make a gate as above, with the feature `testing`.
//!
//! Modules stand in the order in which a request meets them. Start at [`Gate`].

pub mod identity;

pub mod directory;

pub mod catalog;

mod tenants;

mod policy;

mod sheets;

mod payers;

mod admission;

mod gate;

mod quota;

mod renewal;

mod rates;

mod ledger;

mod events;

pub mod ingest;

#[cfg_attr(
    not(feature = "stripe"),
    allow(dead_code, unreachable_pub, reason = "Stripe is the one service that is billed into")
)]
pub mod billing;

pub mod store;

mod serving;

pub mod adapter;

pub mod decision;

pub mod wire;

pub mod report;

mod config;

pub mod telemetry;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(feature = "tower")]
pub mod middleware;

mod clock;
mod delays;
mod error;
mod flights;
mod holders;
mod ids;
mod overrides;
mod own_type;
mod patience;
mod places;
mod random;
mod repeated;
mod task;
mod text_file;
mod toml_file;
mod turns;

pub use catalog::{Feature, Plan};
pub use clock::{Clock, ManualClock, Now, SystemClock};
pub use decision::{LimitState, Outcome, Reason, Refusal, RefusedCall};
pub use error::Error;
pub use gate::{
    Admitted, Ask, Entitlements, Gate, GateBuilder, Identified, OnRefusal, Permit, Restored,
    SinceCopy, TenantHandle, Usage,
};
#[doc(hidden)]
pub use gate::{CLOSE_WITHIN, LEASE_WAIT, LEASE_WAITERS};
pub use ledger::flush::FlushError;
pub use quota::alert::Alert;
