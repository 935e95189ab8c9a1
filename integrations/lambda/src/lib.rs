//! tallygate for AWS Lambda: serves the tower layer in a function, and flushes its usage before the
//! freeze.
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
//! Pass an axum `Router` with `tallygate_axum::GateLayer` to [`run`] as it is (take
//! `tallygate-axum` with `default-features = false`): extractors and usage routes work the same.
//!
//! | difference on Lambda | handled by |
//! |---|---|
//! | the front door has identified the caller | [`run`] puts claims and address in the request |
//! | the process freezes once it has answered | an extension flushes before the freeze |
//! | it ends at SIGTERM, or without warning | SIGTERM closes the gate; nothing depends on it |
//! | clocks stop while it is frozen | [`builder`] sets a [`WallClock`], which catches up |
//!
//! `[[identify]] claim = ".."` of the service file reads these claims. [`run_streaming`] is [`run`]
//! for answers that leave piece by piece.
//!
//! Other kinds of function, each with its own `run`, and with its core available for use in a
//! handler of yours:
//!
//! | function | invoked by | does |
//! |---|---|---|
//! | [`run_ingest`] | SQS, EventBridge | counts usage, each event once |
//! | [`run_authorizer`] | an API Gateway | names the tenant of a credential |
//! | [`Cognito`] | a user pool's triggers | creates tenants, adds plan and features to tokens |
//! | `run_stripe_webhook` | Stripe, through a front door | moves tenants between plans |
//! | `run_stripe_report` | a schedule | sends to Stripe what is owed |
//!
//! (The Stripe functions need the feature `stripe`.)
//!
//! What a handler does can be tried without AWS. An SQS batch, delivered twice, counts once:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use serde_json::json;
//! use tallygate_lambda::count;
//!
//! let (gate, _clock) = tallygate::testing::gate(r#"
//!     default-plan = "free"
//!     [meter.jobs]
//!     [plan.free]
//!     quota.jobs = "10k/month"
//! "#);
//! gate.directory().tenant("acme").note("signed up").save().await?;
//! let event = json!({"id": "e-1", "tenant": "acme", "meter": "jobs", "quantity": 3});
//! let message = json!({"messageId": "m-1", "eventSource": "aws:sqs", "body": event.to_string()});
//! let batch = json!({"Records": [message]});
//! for _delivery in 0..2 {
//!     assert_eq!(count(&gate, &batch).await?, json!({"batchItemFailures": []}));
//! }
//! let acme = tallygate::Identified::from(&gate.tenant("acme").await?);
//! let report = gate.usage_report(&acme).await?;
//! assert!(report.meters.iter().any(|meter| &*meter.name == "jobs" && meter.used == 3));
//! # Ok::<(), lambda_http::Error>(()) }).unwrap();
//! ```
//!
//! With the feature `dynamodb`, `dynamodb_client` is a client of the table for a small binary that
//! starts quickly: it uses only the parts of the SDK that a function needs.
//!
//! # Laws
//!
//! 1. The answer never waits for the flush, and the next invocation never begins before the flush
//!    has ended or failed.
//! 2. Usage that a flush could not write stays in memory and goes with the next. A sandbox that
//!    ends before it is written (store away, then no more invocations) loses it: one invocation's
//!    usage, or that of every invocation since the store went away.
//! 3. An invocation that hits its timeout loses its own usage, because Lambda kills the process.
//!
//! There are many sandboxes: from 33 on, those that lease from one quota share sub-pools of it, as
//! servers would, so that none pays for the entries of all the others.
//!
//! Not promised: leases of a sandbox that vanished without SIGTERM come back only when another
//! process needs their units and has sealed its log.
//!
//! # Managed Instances
//!
//! A Managed Instance serves several invocations at once (`AWS_LAMBDA_MAX_CONCURRENCY`), is never
//! frozen, and does not report invocations to extensions. The same `run` serves there, with tokio's
//! multi-threaded runtime, and records as a server does: every `flush.every`, which is the most a
//! crash loses in `fast`, and at SIGTERM after the answers in progress. No invocation is
//! killed at its timeout. (Tried against a Runtime API of our own: AWS's emulator takes one
//! invocation at a time. How long Lambda waits there after SIGTERM is not published.)

mod authorizer;
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
mod stream;
#[cfg(feature = "stripe")]
mod stripe;
#[cfg(feature = "testing")]
pub mod testing;

/// The core, in the version that this adapter works with.
pub use tallygate;

pub use authorizer::{authorize, run_authorizer};
pub use caller::caller_of;
pub use clock::WallClock;
pub use cognito::{CONFIRM_WITHIN, Cognito, LOGIN_WITHIN, OPEN_WITHIN};
#[cfg(feature = "dynamodb")]
pub use dynamodb::dynamodb_client;
pub use ingest::{count, run_ingest};
pub use run::{Function, builder, run};
pub use stream::run_streaming;
#[cfg(feature = "stripe")]
pub use stripe::{run_stripe_report, run_stripe_webhook, stripe_report, stripe_webhook};

/// The examples of the README compile, and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
