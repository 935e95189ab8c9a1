//! Step 7, react: webhooks become plans, and step 6, bill: usage is reported. Nothing here is on a
//! request's way.
//!
//! A webhook is verified, written down with all that its customer's events have said, taken into
//! the tenant's record, and only then answered with 200. Whoever dies in between is asked again by
//! Stripe, and does it again: every step is harmless twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::reports::ReportTask;
use super::{Gate, Inner};
use crate::billing::customers::{Customers, Known, Mark, customer_of};
use crate::billing::reducer::{Base, Facts, PlanState, Taken, Wanted};
use crate::billing::report::Reporter;
use crate::billing::sink::SinkError;
use crate::billing::stripe::{Stripe, StripeSettings};
use crate::billing::webhook::{self, Event};
use crate::catalog::Sold;
use crate::clock::Clock;
use crate::config::{Secret, StripeConfig, StripeMode};
use crate::directory::DirectoryError;
use crate::error::Error;
use crate::store::layout::Space;
use crate::store::{Store, StoreError};
use crate::wire::{Reply, plain_problem};

/// How often a tenant's plan is written anew because its customer's facts changed meanwhile.
const ROUNDS: usize = 8;

/// Stripe as the service file has it, with its secrets read.
pub(super) struct Settled {
    stripe: Stripe,
    secrets: Vec<Secret>,
    mode: StripeMode,
    every: Duration,
}

/// What a gate bills with.
pub(super) struct Billing {
    stripe: Stripe,
    secrets: Vec<Secret>,
    mode: StripeMode,
    customers: Customers,
    pub(super) every: Duration,
    pub(super) reporter: Reporter,
    pub(super) task: Mutex<Option<ReportTask>>,
}

/// Why a webhook could not be applied now. Stripe sends it again.
#[derive(Debug, thiserror::Error)]
enum Failed {
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
pub(super) fn stripe(config: &StripeConfig) -> Result<Settled, Error> {
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
    Ok(Settled { stripe, secrets, mode: config.mode, every: config.report_every })
}

impl Billing {
    pub(super) async fn open(
        settled: Settled,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        space: &str,
    ) -> Result<Self, StoreError> {
        let Settled { stripe, secrets, mode, every } = settled;
        let sink = Arc::new(stripe.clone());
        let reporter = Reporter::open(store.clone(), sink, clock.clone(), space, 0).await?;
        let customers = Customers::new(store.clone(), Space::new(space));
        Ok(Self { stripe, secrets, mode, customers, every, reporter, task: Mutex::new(None) })
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
                tracing::warn!(%error, "a webhook was refused");
                return plain_problem(error.status(), "Webhook refused", &error.to_string());
            }
        };
        match inner.take_event(billing, &event, body).await {
            Ok(mark) => {
                tracing::info!(event = %event.id, kind = %event.kind, ?mark, "a webhook was taken");
                Reply {
                    status: 200,
                    headers: vec![("content-type", "application/json".to_owned())],
                    body: b"{\"received\":true}".to_vec(),
                }
            }
            Err(error) => {
                tracing::warn!(event = %event.id, kind = %event.kind, %error, "a webhook waits");
                plain_problem(503, "Webhook not applied", "It was not applied. Send it again.")
            }
        }
    }

    /// Links a tenant to its Stripe customer (`cus_..`), and puts into force what that customer's
    /// events have said by now. Use that was admitted before is never billed.
    ///
    /// # Errors
    ///
    /// If there is no such tenant, the customer is another tenant's, or the store does not do it:
    /// then link again.
    pub async fn link_customer(&self, tenant: &str, customer: &str) -> Result<(), Error> {
        let found = self.directory().find(tenant).await?;
        let found = found.ok_or_else(|| Error::NoTenant(tenant.to_owned()))?;
        self.inner.learn(&found.link_customer(customer).await?);
        match self.inner.settle_customer(customer, "what its customer's events said before").await {
            Ok(_) | Err(Failed::Sink(_) | Failed::Undecided) => Ok(()),
            Err(Failed::Store(error)) => Err(error.into()),
            Err(Failed::Directory(error)) => Err(error.into()),
            Err(Failed::Busy) => Err(DirectoryError::Busy.into()),
        }
    }

    /// The tenant's Stripe customer: the one it is linked to, or else one that was made for it
    /// before, or a new one. Linked when this returns.
    ///
    /// # Errors
    ///
    /// As [`link_customer`](Self::link_customer), and if Stripe does not answer or there is none in
    /// the service file.
    pub async fn ensure_customer(&self, tenant: &str) -> Result<String, Error> {
        let found = self.directory().find(tenant).await?;
        let found = found.ok_or_else(|| Error::NoTenant(tenant.to_owned()))?;
        if let Some(customer) = &found.record().account {
            return Ok(customer.clone());
        }
        let billing = self.inner.billing.as_ref().ok_or(Error::NoStripe)?;
        let name = found.record().surrogate.to_string();
        let customer = billing.stripe.customer_for(&name, tenant).await?;
        self.link_customer(tenant, &customer).await?;
        Ok(customer)
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

    /// Makes the tenant's record follow what its customer's events say. Facts that change meanwhile
    /// are followed too: whoever writes the record last has seen the last facts.
    async fn settle_customer(&self, customer: &str, note: &str) -> Result<(), Failed> {
        let customers = Customers::new(self.store.clone(), self.writer.space.clone());
        let mut known = customers.read(customer).await?;
        for _ in 0..ROUNDS {
            let fetched = self.fetch_wanted(&customers, customer, &mut known).await;
            let state = self.state_of(&known);
            self.follow(customer, &known, &state, note).await?;
            let after = customers.read(customer).await?;
            if after.version == known.version && after.tenant == known.tenant {
                fetched?;
                let decided = state.wanted.is_empty() || self.billing.is_none();
                return if decided { Ok(()) } else { Err(Failed::Undecided) };
            }
            known = after;
        }
        Err(Failed::Busy)
    }

    /// Fetches what the events do not decide. Where Stripe does not answer, the facts stay as they
    /// were, which gives the customer the better of what may be.
    async fn fetch_wanted(
        &self,
        customers: &Customers,
        customer: &str,
        known: &mut Known,
    ) -> Result<(), Failed> {
        let Some(billing) = &self.billing else { return Ok(()) };
        for wanted in self.state_of(known).wanted {
            *known = match &wanted {
                Wanted::Subscription(id) => match billing.stripe.subscription(id).await? {
                    Some((object, at_s)) => {
                        let take = |facts: &mut Facts| facts.fetched(&object, at_s);
                        customers.change(customer, take).await?
                    }
                    None => continue,
                },
                Wanted::Price(id) => {
                    let key = billing.stripe.lookup_key(id).await?;
                    let take = |facts: &mut Facts| facts.price(id, &key);
                    customers.change(customer, take).await?
                }
            };
        }
        Ok(())
    }

    fn state_of(&self, known: &Known) -> PlanState {
        let catalog = &self.live.load().catalog;
        known.facts.state(|price| catalog.sold_at(price))
    }

    /// Writes the record. A customer without a subscription that means a plan leaves plan and
    /// payment as they are: an operator may have set them.
    async fn follow(
        &self,
        customer: &str,
        known: &Known,
        state: &PlanState,
        note: &str,
    ) -> Result<(), Failed> {
        let (Some(surrogate), Some(base)) = (known.tenant, &state.base) else { return Ok(()) };
        let Some(tenant) = self.directory.get(surrogate).await? else { return Ok(()) };
        if tenant.record().account.as_deref() != Some(customer) {
            return Ok(());
        }
        let Base { price, payment, since_s, anchor_s, .. } = base;
        let ms = |second: i64| second.saturating_mul(1_000);
        let mut edit = tenant.edit().payment_since(*payment, ms(*since_s)).anchor(ms(*anchor_s));
        let live = self.live.load_full();
        if let Some(Sold::Plan(plan)) = live.catalog.sold_at(price) {
            edit = edit.plan(&*live.catalog.plans[usize::from(plan.0)].name);
        }
        self.learn(&edit.note(note).save().await?);
        Ok(())
    }

    /// A tenant's record as it was just written is in force here with the next request.
    fn learn(&self, tenant: &crate::directory::Tenant) {
        let record = tenant.record().clone();
        if let Some(known) = self.tenants.get(&record.surrogate).map(|known| known.clone()) {
            known.learn(record, &self.live.load(), &self.hub, self.clock.now());
        }
    }
}
