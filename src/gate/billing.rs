//! What a gate bills with, and the answers to Stripe's webhooks. Nothing of it is on a request's
//! way.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Gate;
use super::ends::Ends;
use super::last_report::LastReport;
use crate::billing::follower::{EffectFailed, EventsOf, Polls};
use crate::billing::report::Reporter;
use crate::billing::stripe::{Stripe, StripeSettings};
use crate::billing::webhook::{self, WebhookEvent};
use crate::clock::Clock;
use crate::config::{Secret, StripeConfig, StripeMode, TooOld};
use crate::error::Error;
use crate::repeated::repeated;
use crate::store::layout::Space;
use crate::store::{Lock, Store, StoreError};
use crate::task::OwnedTask;
use crate::telemetry;
use crate::wire::{Reply, plain_problem};

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

/// The gate's parts for billing.
pub(super) struct Billing {
    pub(super) stripe: Stripe,
    secrets: Vec<Secret>,
    mode: StripeMode,
    pub(super) every: Duration,
    /// Whether usage that is too old for its period is billed with the open one.
    pub(super) carry: bool,
    pub(super) reporter: Reporter,
    pub(super) lock: Lock,
    pub(super) polls: Polls,
    /// Types and API versions of webhooks that could not be read and were logged.
    unreadable: Mutex<BTreeSet<(String, Option<String>)>>,
    pub(super) ends: Ends,
    pub(super) last_report: LastReport,
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
        let lock = Lock::new(store.clone(), Space::new(space).reporter())?;
        Ok(Some(Self {
            stripe,
            secrets,
            mode,
            every,
            carry,
            reporter,
            lock,
            polls: Polls::default(),
            unreadable: Mutex::default(),
            ends: Ends::default(),
            last_report: LastReport::default(),
            task: Mutex::new(None),
        }))
    }
}

impl Gate {
    /// Handles a webhook from Stripe, for a route of your own; the adapters have one ready.
    /// `signature` is the value of the header `Stripe-Signature`, `body` the raw body, at most 1
    /// MiB.
    ///
    /// | status | when |
    /// |---|---|
    /// | 200 | its effect is durable and, in this process, in force |
    /// | 400, 413 | it is not genuine, or too long |
    /// | 404 | the service file has no `stripe.webhook-secret` |
    /// | 422 | a subscription or invoice in an unknown shape or state; Stripe shows it as failed |
    /// | 503 | it could not be applied now; Stripe sends it again |
    ///
    /// Other processes apply the tenant's new plan within two seconds. `docs/billing.md` lists the
    /// events to subscribe to.
    pub async fn stripe_webhook(&self, signature: &[u8], body: &[u8]) -> Reply {
        let inner = &self.inner;
        let Some(billing) =
            inner.outbound.billing.as_ref().filter(|billing| !billing.secrets.is_empty())
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
        match inner.follower().take_event(&billing.events(), &event, body).await {
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

impl Billing {
    /// Whose events are taken in.
    pub(super) fn events(&self) -> EventsOf<'_> {
        EventsOf { mode: self.mode, stripe: &self.stripe, reporter: &self.reporter }
    }

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
