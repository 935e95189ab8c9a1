//! Billing: recorded use reaches the billing service exactly once, and the service's payment events
//! decide plans. `docs/billing.md` says how to set it up. A host calls `Gate::stripe_webhook`,
//! `Gate::report_now` and `Gate::audit`; the types here are their results.
//!
//! | part | does |
//! |---|---|
//! | `sink` | the service as billing sees it: send, sum, time |
//! | `outbox` | the amount owed for one account, tenant, meter and period, without I/O |
//! | `entries` | the outbox as an operator sees it |
//! | [`report`] | the reporter: from the ledger through the outbox to the service |
//! | `audit` (feature `stripe`) | whether use, debt, sends and the service's counts agree |
//! | `webhook` | authenticity and content of webhooks |
//! | `reducer` | plan and payment state from a customer's events |
//! | `follower` (feature `stripe`) | a tenant's record made what its customer's events say |
//! | `stripe` (feature `stripe`) | Stripe as such a service |

mod advance;
#[cfg(feature = "stripe")]
pub mod audit;
#[cfg(feature = "stripe")]
pub(crate) mod customers;
mod dates;
pub(crate) mod decisions;
pub(crate) mod due;
mod entries;
#[cfg(feature = "stripe")]
pub(crate) mod follower;
mod item;
pub(crate) mod outbox;
#[cfg(feature = "stripe")]
mod prices;
mod reconcile;
#[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "Stripe alone keeps facts"))]
pub(crate) mod reducer;
pub mod report;
pub(crate) mod restored;
pub(crate) mod result;
pub(crate) mod sink;
pub(crate) mod snapshot;
#[cfg(feature = "stripe")]
pub(crate) mod stripe;
#[cfg(feature = "stripe")]
pub(crate) mod terms;
#[doc(hidden)]
pub mod webhook;

#[cfg(feature = "stripe")]
pub use crate::config::StripeConfig;
#[doc(hidden)]
pub use decisions::OutboxDecision;
#[doc(hidden)]
pub use entries::{BilledPeriod, DecidedEntry, EntryState, OutboxRow};
#[doc(hidden)]
pub use item::ItemId;
pub use outbox::Stopped;
pub use restored::SentSinceCopy;
#[doc(hidden)]
pub use sink::SinkError;
#[cfg(feature = "stripe")]
#[doc(hidden)]
pub use stripe::{ObjectKind, StripeInvoice, StripeObject};
