//! Step 9, react: webhooks become plans. What a gate bills with stands here too. Nothing of it is
//! on a request's way.
//!
//! A webhook is verified, written down with all that its customer's events have said, taken into
//! the tenant's record, and only then answered with 200. Whoever dies in between is asked again by
//! Stripe, and does it again: every step is harmless twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ends::Ends;
use super::{Gate, Inner};
use crate::billing::customers::{Customers, Mark, customer_of};
use crate::billing::follower::{EffectFailed, Polls};
use crate::billing::lock::Lock;
use crate::billing::reducer::{EventTaken, Facts, prices};
use crate::billing::report::Reporter;
use crate::billing::stripe::{Stripe, StripeSettings};
use crate::billing::webhook::{self, WebhookEvent};
use crate::clock::Clock;
use crate::config::{Secret, StripeConfig, StripeMode, TooOld};
use crate::directory::DirectoryError;
use crate::error::Error;
use crate::repeated::repeated;
use crate::store::layout::Space;
use crate::store::{Store, StoreError, StoreErrorKind};
use crate::task::OwnedTask;
use crate::telemetry;
use crate::wire::{Reply, plain_problem};

/// Where a Checkout Session's metadata names the tenant it was made for.
const CHECKOUT_TENANT: &str = "tallygate_tenant";

/// Most shapes that are remembered as having been logged.
const MAX_LOGGED: usize = 64;

/// Stripe as the service file has it, with its secrets read.
pub(super) struct StripeSetup {
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
    /// Types and API versions of webhooks that could not be read and were logged.
    unreadable: Mutex<BTreeSet<(String, Option<String>)>>,
    pub(super) ends: Ends,
    pub(super) task: Mutex<Option<OwnedTask>>,
}

/// Reads the secrets and checks them against the mode.
pub(super) fn stripe(config: Option<&StripeConfig>) -> Result<Option<StripeSetup>, Error> {
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
    Ok(Some(StripeSetup { stripe, secrets, mode, every, carry: config.too_old == TooOld::Carry }))
}

impl Billing {
    pub(super) async fn open(
        settled: Option<StripeSetup>,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        space: &str,
    ) -> Result<Option<Self>, StoreError> {
        let Some(StripeSetup { stripe, secrets, mode, every, carry }) = settled else {
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
            unreadable: Mutex::default(),
            ends: Ends::default(),
            task: Mutex::new(None),
        }))
    }
}

impl Gate {
    /// Takes a webhook of Stripe: `signature` is the value of `Stripe-Signature`, `body` the raw
    /// body, at most [`webhook::MAX_BODY`] long. Answered with 200 once what it says is durable
    /// and, in this process, in force; with 4xx if it is not genuine, with 503 if it could not be
    /// applied now, and with 422 if it would say something and is in the shape of no API version
    /// that is known here: Stripe sends it again, and shows that it fails.
    ///
    /// Other processes hold the tenant to its new plan when what they know of it has aged.
    pub async fn stripe_webhook(&self, signature: &[u8], body: &[u8]) -> Reply {
        let inner = &self.inner;
        let Some(billing) = inner.billing.as_ref().filter(|billing| !billing.secrets.is_empty())
        else {
            let detail = "There is no stripe.webhook-secret in the service file.";
            return plain_problem(404, "Webhooks are not accepted", detail);
        };
        let now_s = inner.clock.now().wall_ms.div_euclid(1_000);
        let event = match webhook::receive(signature, body, &billing.secrets, now_s) {
            Ok(event) => event,
            Err(error) => {
                telemetry::webhook_event("refused");
                repeated!(warn, now_s.saturating_mul(1_000), "a webhook was refused"; %error);
                return plain_problem(error.status(), "Webhook refused", &error.to_string());
            }
        };
        match inner.take_event(billing, &event, body).await {
            Ok(mark) => {
                telemetry::webhook_event("taken");
                tracing::info!(event = %event.id, kind = %event.kind, ?mark, "webhook accepted");
                Reply {
                    status: 200,
                    headers: vec![("content-type", "application/json".to_owned())],
                    body: b"{\"received\":true}".to_vec(),
                }
            }
            Err(EffectFailed::Unreadable) => {
                telemetry::webhook_event("unreadable");
                billing.log_unreadable(&event);
                let detail = "Its object matches no known API version.";
                plain_problem(422, "Webhook not understood", detail)
            }
            Err(error) => {
                telemetry::webhook_event("waits");
                let now_ms = now_s.saturating_mul(1_000);
                let WebhookEvent { id, kind, .. } = &event;
                repeated!(warn, now_ms, "a webhook waits"; event = %id, %kind, %error);
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
        event: &WebhookEvent,
        body: &[u8],
    ) -> Result<Mark, EffectFailed> {
        let customers = &billing.customers;
        if customers.is_marked(event).await? {
            return Ok(Mark::Applied);
        }
        let mark = if event.live != (billing.mode == StripeMode::Live) {
            Mark::OtherMode
        } else if event.account.is_some() {
            // A platform hears of its connected accounts' customers, too: those pay others.
            Mark::OtherAccount
        } else {
            self.apply_event(billing, event).await?
        };
        customers.mark(event, mark, body, self.clock.now().wall_ms).await?;
        Ok(mark)
    }

    /// A Checkout that names its tenant links the customer it was made for. One that only took a
    /// payment, or a payment method, takes no tenant away from the customer that it has.
    async fn link_checkout(
        &self,
        event: &WebhookEvent,
        customer: &str,
    ) -> Result<Mark, EffectFailed> {
        let Some(tenant) = event.object["metadata"][CHECKOUT_TENANT].as_str() else {
            return Ok(Mark::Unknown);
        };
        let found = match self.tenants.directory.find(tenant).await {
            Ok(found) => found,
            Err(error) if is_final(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let has = found.as_ref().and_then(|found| found.record().account.clone());
        if let Some(has) = has.filter(|has| has != customer) {
            let (event, mode) = (&event.id, event.object["mode"].as_str().unwrap_or_default());
            if matches!(mode, "payment" | "setup") {
                let why = "make the session with `customer` set, or link the tenant by hand";
                tracing::error!(
                    %event, %tenant, %customer, %has, mode,
                    "a Checkout was paid by another customer than its tenant's: not linked; {why}"
                );
                return Ok(Mark::Unknown);
            }
            tracing::warn!(
                %event, %tenant, %customer, was = %has,
                "a Checkout links a tenant to another customer: the previous customer's \
                 subscriptions still run"
            );
        }
        match self.follower().link(tenant, customer).await {
            Ok(()) => Ok(Mark::Applied),
            Err(EffectFailed::Directory(error)) if is_final(&error) => {
                tracing::error!(event = %event.id, %error, "a Checkout links no tenant");
                Ok(Mark::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps on record what prices were called: a lookup key may move to another. Customers that
    /// wait for it come back, by price.
    async fn note_prices(
        &self,
        customers: &Customers,
        event: &WebhookEvent,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, EffectFailed> {
        let catalog = self.catalogs.live.load().catalog.clone();
        let mut seen: Vec<(String, String, i64)> = Vec::new();
        let mut note = |object: &serde_json::Value, at_s: i64| {
            seen.extend(prices(object).into_iter().map(|(id, key)| (id, key, at_s)));
        };
        note(&event.object, event.created_s);
        if let Some(previous) = &event.previous {
            let mut before = event.object.clone();
            for (field, value) in previous.as_object().into_iter().flatten() {
                before[field.as_str()] = value.clone();
            }
            note(&before, event.created_s.saturating_sub(1));
        }
        let mut waiting = BTreeMap::new();
        for (price, key, at_s) in seen {
            if catalog.sold_at(&key).is_some() {
                let waits = customers.note_price(&price, &key, at_s).await?;
                waiting.insert(price, waits);
            }
        }
        waiting.retain(|_, waits| !waits.is_empty());
        Ok(waiting)
    }

    /// Puts into force what prices mean for those who waited for it. One for whom that cannot be
    /// done goes on waiting, and keeps nobody else's event from being taken.
    async fn settle_waiting(
        &self,
        customers: &Customers,
        waiting: BTreeMap<String, BTreeSet<String>>,
        note: &str,
    ) -> Result<(), EffectFailed> {
        for (price, waits) in waiting {
            let mut settled = BTreeSet::new();
            for customer in waits {
                match self.follower().settle_customer(&customer, note).await {
                    Ok(()) => drop(settled.insert(customer)),
                    Err(EffectFailed::Store(error)) if !is_damaged(&error) => {
                        return Err(error.into());
                    }
                    Err(error) => {
                        let now_ms = self.clock.now().wall_ms;
                        repeated!(warn, now_ms, "a customer waits for a price"; %customer, %error);
                    }
                }
            }
            customers.settled(&price, &settled).await?;
        }
        Ok(())
    }

    async fn apply_event(
        &self,
        billing: &Billing,
        event: &WebhookEvent,
    ) -> Result<Mark, EffectFailed> {
        let customers = &billing.customers;
        let note = format!("stripe: {}", event.kind);
        // What is made of it is seen on facts of nobody, so that an event without meaning writes
        // nothing.
        match (Facts::default().take(event), customer_of(event)) {
            (EventTaken::MeterErrors, _) => {
                for identifier in billing.stripe.rejected(&event.id).await? {
                    billing.reporter.note_rejected(&identifier).await?;
                }
                Ok(Mark::Applied)
            }
            (EventTaken::Checkout, Some(customer)) => self.link_checkout(event, customer).await,
            (EventTaken::Unreadable, _) => Err(EffectFailed::Unreadable),
            (EventTaken::Price, _) => {
                let waiting = self.note_prices(customers, event).await?;
                self.settle_waiting(customers, waiting, &note).await?;
                Ok(Mark::Applied)
            }
            (EventTaken::Yes, Some(customer)) => {
                let waiting = self.note_prices(customers, event).await?;
                let take = |facts: &mut Facts| {
                    facts.take(event);
                };
                customers.change(customer, take).await?;
                self.follower().settle_customer(customer, &note).await?;
                self.settle_waiting(customers, waiting, &note).await?;
                Ok(Mark::Applied)
            }
            _ => Ok(Mark::Unknown),
        }
    }
}

impl Billing {
    /// Once for each type and version, in this process: Stripe repeats each for days.
    fn log_unreadable(&self, event: &WebhookEvent) {
        let mut logged = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = (event.kind.clone(), event.version.clone());
        if logged.len() < MAX_LOGGED && logged.insert(shape) {
            let WebhookEvent { id, kind, version, .. } = event;
            let version = version.as_deref().unwrap_or("unknown");
            tracing::error!(
                event = %id, %kind, version,
                "a webhook has an unknown shape and no effect: set the \
                 endpoint's API version at Stripe to 2024 or later"
            );
        }
    }
}

/// Whether the store has it, and it cannot be read or written.
pub(super) fn is_damaged(error: &StoreError) -> bool {
    matches!(error.kind, StoreErrorKind::Corrupt | StoreErrorKind::Invalid)
}

/// Whether another attempt would fare no better.
fn is_final(error: &DirectoryError) -> bool {
    matches!(
        error,
        DirectoryError::NoTenant
            | DirectoryError::CustomerTaken
            | DirectoryError::TenantId
            | DirectoryError::Text { .. }
    )
}
