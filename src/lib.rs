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
//! # Getting started
//!
//! 1. Write two files: the plan file (`plans.toml`, what you sell) and the service file
//!    (`tallygate.toml`, where it runs and how callers are identified).
//! 2. Open them with [`Gate::open`], and create tenants and their keys with [`Gate::directory`].
//! 3. Put the gate in front of your routes with the layer of your framework: `tallygate-axum`,
//!    `tallygate-actix-web`, `tallygate-lambda`, `tallygate-tonic`, or `middleware::GateLayer` for
//!    any other tower service. For another framework write an [`adapter`].
//! 4. In handlers, read the tenant and its plan and report what was used: [`Admitted`], [`Usage`].
//!    Work other than HTTP requests goes through [`Gate::admit`].
//! 5. Call [`Gate::close`] before the process ends.
//!
//! Tests make a gate as above, with the feature `testing`.
//!
//! # Words
//!
//! A **tenant** is the party that is limited and billed; its **outer id** is its name as the host
//! knows it. A **meter** counts **units** (`requests`, bytes, tokens). Methods that take a number
//! take whole units. Reports, limits and audits give an [`Amount`], which also has the part of a
//! unit where a meter divides it. `docs/vocabulary.md` has all the words.
//!
//! # Features
//!
//! | feature | for |
//! |---|---|
//! | `redb` (default) | the embedded store, one file |
//! | `tower` (default) | the tower layer, in the module `middleware` |
//! | `dynamodb` | a DynamoDB table as the store, for several processes |
//! | `jwt` | callers identified by verified JWTs |
//! | `stripe` | billing through Stripe |
//! | `tls-ring` (default), `tls-aws-lc-rs` | TLS of `jwt` and `stripe`, if the host installs none |
//! | `metrics` | counters and histograms through the `metrics` facade |
//! | `testing` | gates for a host's own tests, in the module `testing` |
//!
//! Next: [`Gate`]. In `lib.rs` the modules are in the order in which a request meets them.

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

pub mod admin;

#[doc(hidden)]
pub mod own_keys;

#[cfg_attr(
    not(feature = "stripe"),
    allow(dead_code, unreachable_pub, reason = "Stripe is the one service that is billed into")
)]
pub mod billing;

pub mod notify;

pub mod store;

mod serving;

pub mod adapter;

pub mod decision;

mod decision_log;

pub mod wire;

pub mod report;

mod config;

pub mod telemetry;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(feature = "tower")]
pub mod middleware;

mod amount;
mod clock;
mod delays;
mod error;
mod flights;
mod holders;
#[cfg(feature = "https")]
mod https;
mod ids;
mod notice;
mod overrides;
mod own_type;
mod patience;
mod places;
mod random;
mod repeated;
mod table;
mod task;
mod text_file;
mod toml_file;
mod turns;

pub use amount::Amount;
pub use catalog::{Feature, Plan};
pub use clock::{Clock, ManualClock, Now, SystemClock};
pub use decision::{LimitState, Outcome, Reason, Refusal, RefusedCall};
pub use decision_log::{DecisionRecord, LimitAsked};
pub use error::Error;
pub use gate::{
    Admitted, Ask, Entitlements, Gate, GateBuilder, Health, Identified, MeterName, OnRefusal,
    Permit, Restored, SinceCopy, TenantHandle, Trouble, Usage,
};
#[doc(hidden)]
pub use gate::{
    CLOSE_WITHIN, FilteredTenants, LEASE_WAIT, LEASE_WAITERS, PlanChange, PlanFiles, RecordedUse,
    TenantFilter, TopTenants,
};
#[cfg(feature = "stripe")]
#[doc(hidden)]
pub use gate::{EventApplied, EventRead};
pub use ledger::flush::FlushError;
pub use quota::alert::Alert;
