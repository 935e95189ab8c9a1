//! tallygate for AWS Lambda: the same layer as everywhere, and what a function needs besides.
//!
//! ```no_run
//! use lambda_http::{Body, Error, Request, Response, service_fn};
//! use tallygate::middleware::GateLayer;
//! use tower_layer::Layer;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let gate = tallygate_lambda::builder("tallygate.toml").open().await?;
//!     let app = GateLayer::new(&gate).layer(service_fn(search));
//!     tallygate_lambda::run(&gate, app).await
//! }
//!
//! async fn search(_: Request) -> Result<Response<Body>, Error> {
//!     Ok(Response::new("found".into()))
//! }
//! ```
//!
//! An axum `Router` with `tallygate_axum::GateLayer` is passed to [`run`] as it is (take
//! `tallygate-axum` with `default-features = false`): extractors and usage routes work the same.
//!
//! | what differs on Lambda | what is done here |
//! |---|---|
//! | the caller was identified before | [`run`] leaves its claims and address in the request |
//! | the process freezes once it has answered | an extension flushes before the freeze |
//! | it ends at SIGTERM, or without a word | SIGTERM closes the gate; nothing waits for it |
//! | clocks stop while it is frozen | [`builder`] sets a [`WallClock`], which catches up |
//!
//! The claims are what `[[identify]] claim = ".."` of the service file reads.
//!
//! Functions of other kinds, each with its own `run` and with the part of it that stands in a
//! handler of yours:
//!
//! | function | invoked by | does |
//! |---|---|---|
//! | [`run_ingest`] | SQS, EventBridge | counts usage, each event once |
//! | [`Cognito`] | a user pool's triggers | makes tenants, puts plan and features into tokens |
//! | `run_stripe_webhook` | Stripe, through a front door | moves tenants between plans |
//! | `run_stripe_report` | a schedule | sends to Stripe what is owed |
//!
//! (Those of Stripe with the feature `stripe`.)
//!
//! With the feature `dynamodb`, `dynamodb_client` is a client of the table for a small binary that
//! starts quickly: of the SDK it takes what a function needs.
//!
//! # Laws
//!
//! 1. The answer never waits for the flush, and the next invocation never begins before it has
//!    ended or failed.
//! 2. What a flush could not write stays in memory and goes with the next. A sandbox that ends with
//!    it unwritten (store away, then no more invocations) loses it: one invocation's use, or as
//!    many as there were since the store went away.
//! 3. An invocation that runs into its timeout loses its own use, for Lambda kills the process.
//!
//! Sandboxes are many: from 33 on those that lease from one quota share sub-pools of it, as servers
//! would, so that none pays for the entries of all others.
//!
//! Not promised: leases of a sandbox that vanished without SIGTERM come back only when somebody
//! needs their units and has sealed its log.
//!
//! # Managed Instances
//!
//! There an instance serves several invocations at once (`AWS_LAMBDA_MAX_CONCURRENCY`), is never
//! frozen, and no extension is told of invocations. The same `run` serves there, with tokio's
//! multi-threaded runtime, and records as a server does: every `flush.every`, which is what an
//! abrupt death loses in `fast`, and at SIGTERM after the answers that are on their way. No
//! invocation is killed at its timeout. (Tried against a Runtime API of our own: AWS's emulator
//! takes one invocation at a time. How long Lambda waits there after SIGTERM is not published.)

mod caller;
mod clock;
mod cognito;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod event;
mod extension;
mod flush;
mod ingest;
mod run;
#[cfg(feature = "stripe")]
mod stripe;
#[cfg(feature = "testing")]
pub mod testing;

pub use caller::caller_of;
pub use clock::WallClock;
pub use cognito::{CONFIRM_WITHIN, Cognito, LOGIN_WITHIN, OPEN_WITHIN};
#[cfg(feature = "dynamodb")]
pub use dynamodb::dynamodb_client;
pub use ingest::{count, run_ingest};
pub use run::{Function, builder, run};
#[cfg(feature = "stripe")]
pub use stripe::{run_stripe_report, run_stripe_webhook, stripe_report, stripe_webhook};
