//! Step 9, react: webhooks become plans. What a gate bills with stands here too. Nothing of it is
//! on a request's way.
//!
//! A webhook is verified, written down with all that its customer's events have said, taken into
//! the tenant's record, and only then answered with 200. Whoever dies in between is asked again by
//! Stripe, and does it again: every step is harmless twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::customers::Polls;
use super::reports::{Ends, Over, ReportTask};
use super::{Gate, Inner};
use crate::billing::customers::{Customers, Mark, customer_of};
use crate::billing::lock::Lock;
use crate::billing::reducer::{Facts, Taken};
use crate::billing::report::Reporter;
use crate::billing::sink::SinkError;
use crate::billing::stripe::{Stripe, StripeSettings};
use crate::billing::webhook::{self, Event};
use crate::clock::Clock;
use crate::config::{Secret, StripeConfig, StripeMode, TooOld};
use crate::directory::DirectoryError;
use crate::error::Error;
use crate::store::layout::Space;
use crate::store::{Store, StoreError};
use crate::telemetry;
use crate::wire::{Reply, plain_problem};

/// Where a Checkout Session's metadata names the tenant it was made for.
const CHECKOUT_TENANT: &str = "tollgate_tenant";

/// Stripe as the service file has it, with its secrets read.
pub(super) struct Settled {
    stripe: Stripe,
    secrets: Vec<Secret>,
    mode: StripeMode,
    every: Duration,
    carry: bool,
}

/// What a gate bills with.
pub(super) struct Billing {
    pub(super) stripe: Stripe,
    secrets: Vec<Secret>,
    mode: StripeMode,
    pub(super) customers: Customers,
    pub(super) every: Duration,
    /// Whether usage that is too old for its period is billed with the open one.
    pub(super) carry: bool,
    pub(super) reporter: Reporter,
    pub(super) lock: Lock,
    pub(super) polls: Polls,
    pub(super) over: Over,
    pub(super) ends: Ends,
    pub(super) task: Mutex<Option<ReportTask>>,
}

/// Why what a customer's events say could not be put into force now. Stripe sends a webhook again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the events do not decide yet")]
    Undecided,
    #[error("others keep changing this customer")]
    Busy,
}

/// Reads the secrets and checks them against the mode.
pub(super) fn stripe(config: Option<&StripeConfig>) -> Result<Option<Settled>, Error> {
    let Some(config) = config else { return Ok(None) };
    let env = |name: &str| std::env::var(name).ok();
    let wrong = |error: &dyn std::fmt::Display| Error::Config(error.to_string());
    let key = config.resolve_key(&env).map_err(|error| wrong(&error))?;
    let secrets = config.resolve_webhook_secrets(&env).map_err(|error| wrong(&error))?;
    let settings = StripeSettings {
        key,
        mode: config.mode,
        account: config.account.clone(),
        base: config.api_base.clone(),
        calls_per_s: None,
    };
    let stripe = Stripe::new(settings).map_err(|error| wrong(&error))?;
    let (mode, every) = (config.mode, config.report_every);
    Ok(Some(Settled { stripe, secrets, mode, every, carry: config.too_old == TooOld::Carry }))
}

impl Billing {
    pub(super) async fn open(
        settled: Option<Settled>,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        space: &str,
    ) -> Result<Option<Self>, StoreError> {
        let Some(Settled { stripe, secrets, mode, every, carry }) = settled else {
            return Ok(None);
        };
        let sink = Arc::new(stripe.clone());
        let reporter = Reporter::open(store.clone(), sink, clock.clone(), space).await?;
        let lock = Lock::new(store.clone(), Space::new(space))?;
        let customers = Customers::new(store.clone(), Space::new(space));
        Ok(Some(Self {
            stripe,
            secrets,
            mode,
            customers,
            every,
            carry,
            reporter,
            lock,
            polls: Polls::default(),
            over: Over::default(),
            ends: Ends::default(),
            task: Mutex::new(None),
        }))
    }
}

impl Gate {
    /// Takes a webhook of Stripe: `signature` is the value of `Stripe-Signature`, `body` the raw
    /// body, at most [`webhook::MAX_BODY`] long. Answered with 200 once what it says is durable
    /// and, in this process, in force; with 4xx if it is not genuine, and with 503 if it could not
    /// be applied now: Stripe sends it again.
    ///
    /// Other processes hold the tenant to its new plan when what they know of it has aged.
    pub async fn stripe_webhook(&self, signature: &[u8], body: &[u8]) -> Reply {
        let inner = &self.inner;
        let Some(billing) = inner.billing.as_ref().filter(|billing| !billing.secrets.is_empty())
        else {
            let detail = "There is no stripe.webhook-secret in the service file.";
            return plain_problem(404, "No webhooks are taken", detail);
        };
        let now_s = inner.clock.now().wall_ms.div_euclid(1_000);
        let event = match webhook::receive(signature, body, &billing.secrets, now_s) {
            Ok(event) => event,
            Err(error) => {
                telemetry::webhook_event("refused");
                tracing::warn!(%error, "a webhook was refused");
                return plain_problem(error.status(), "Webhook refused", &error.to_string());
            }
        };
        match inner.take_event(billing, &event, body).await {
            Ok(mark) => {
                telemetry::webhook_event("taken");
                tracing::info!(event = %event.id, kind = %event.kind, ?mark, "a webhook was taken");
                Reply {
                    status: 200,
                    headers: vec![("content-type", "application/json".to_owned())],
                    body: b"{\"received\":true}".to_vec(),
                }
            }
            Err(error) => {
                telemetry::webhook_event("waits");
                tracing::warn!(event = %event.id, kind = %event.kind, %error, "a webhook waits");
                plain_problem(503, "Webhook not applied", "It was not applied. Send it again.")
            }
        }
    }
}

impl Inner {
    /// Makes an event durable and puts it into force.
    async fn take_event(
        &self,
        billing: &Billing,
        event: &Event,
        body: &[u8],
    ) -> Result<Mark, Failed> {
        let customers = &billing.customers;
        if customers.is_marked(event).await? {
            return Ok(Mark::Applied);
        }
        let mark = if event.live != (billing.mode == StripeMode::Live) {
            Mark::OtherMode
        } else {
            self.apply_event(billing, event).await?
        };
        customers.mark(event, mark, body, self.clock.now().wall_ms).await?;
        Ok(mark)
    }

    /// A Checkout that names its tenant links the customer it was made for.
    async fn link_checkout(&self, event: &Event, customer: &str) -> Result<Mark, Failed> {
        let Some(tenant) = event.object["metadata"][CHECKOUT_TENANT].as_str() else {
            return Ok(Mark::Unknown);
        };
        match self.link(tenant, customer).await {
            Ok(()) => Ok(Mark::Applied),
            // Nothing that another attempt would change.
            Err(Failed::Directory(
                error @ (DirectoryError::NoTenant
                | DirectoryError::CustomerTaken
                | DirectoryError::TenantId
                | DirectoryError::Text { .. }),
            )) => {
                tracing::error!(event = %event.id, %error, "a Checkout links no tenant");
                Ok(Mark::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    async fn apply_event(&self, billing: &Billing, event: &Event) -> Result<Mark, Failed> {
        // What is made of it is seen on facts of nobody, so that an event without meaning writes
        // nothing.
        match (Facts::default().take(event), customer_of(event)) {
            (Taken::MeterErrors, _) => {
                for identifier in billing.stripe.rejected(&event.id).await? {
                    billing.reporter.note_rejected(&identifier).await?;
                }
                Ok(Mark::Applied)
            }
            (Taken::Checkout, Some(customer)) => self.link_checkout(event, customer).await,
            (Taken::Yes, Some(customer)) => {
                let take = |facts: &mut Facts| {
                    facts.take(event);
                };
                billing.customers.change(customer, take).await?;
                self.settle_customer(customer, &format!("stripe: {}", event.kind)).await?;
                Ok(Mark::Applied)
            }
            _ => Ok(Mark::Unknown),
        }
    }
}
