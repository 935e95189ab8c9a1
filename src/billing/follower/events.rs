//! Step 9, react: webhooks become plans. Nothing of it is on a request's way.
//!
//! A webhook is verified, written down with all that its customer's events have said, taken into
//! the tenant's record, and only then answered with 200. If the process dies in between, Stripe
//! sends it again, and all of it is done again: every step is harmless twice.

use std::collections::{BTreeMap, BTreeSet};

use super::{EffectFailed, Follower};
use crate::billing::customers::{Mark, NotLinked, customer_of};
use crate::billing::reducer::{EventTaken, Facts, prices};
use crate::billing::report::Reporter;
use crate::billing::stripe::Stripe;
use crate::billing::webhook::WebhookEvent;
use crate::config::StripeMode;
use crate::directory::DirectoryError;
use crate::repeated::repeated;

/// Where a Checkout Session's metadata names the tenant it was made for.
pub(crate) const CHECKOUT_TENANT: &str = "tallygate_tenant";

/// The account whose events are taken in, and who hears of those that a report has caused.
pub(crate) struct EventsOf<'a> {
    pub(crate) mode: StripeMode,
    pub(crate) stripe: &'a Stripe,
    pub(crate) reporter: &'a Reporter,
}

impl Follower<'_> {
    /// Makes an event durable and puts it into force.
    pub(crate) async fn take_event(
        &self,
        at: &EventsOf<'_>,
        event: &WebhookEvent,
        body: &[u8],
    ) -> Result<Mark, EffectFailed> {
        if self.customers.is_marked(event).await? {
            return Ok(Mark::Applied);
        }
        let mark = if event.live != (at.mode == StripeMode::Live) {
            Mark::OtherMode
        } else if event.account.is_some() {
            // A platform hears of its connected accounts' customers, too: those pay others.
            Mark::OtherAccount
        } else {
            self.apply_event(at, event).await?
        };
        self.customers.mark(event, mark, body, self.clock.now().wall_ms).await?;
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
        let found = match self.directory.find(tenant).await {
            Ok(found) => found,
            Err(error) if not_linked(&error).is_some() => None,
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
                return Ok(Mark::NotLinked(NotLinked::OtherCustomer));
            }
            tracing::warn!(
                %event, %tenant, %customer, was = %has,
                "a Checkout links a tenant to another customer: the previous customer's \
                 subscriptions still run"
            );
        }
        match self.link(tenant, customer).await {
            Ok(()) => Ok(Mark::Applied),
            Err(EffectFailed::Directory(error)) => {
                let why = not_linked(&error).ok_or(error)?;
                tracing::error!(
                    event = %event.id, %tenant, %customer, ?why,
                    "a Checkout links no tenant: once that is put right, send the event again from \
                     Stripe's dashboard, or with `tallygate event apply`"
                );
                Ok(Mark::NotLinked(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps on record what prices were called: a lookup key may move to another. Customers that
    /// wait for it come back, by price.
    async fn note_prices(
        &self,
        event: &WebhookEvent,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, EffectFailed> {
        let catalog = self.live.load().catalog.clone();
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
                let waits = self.customers.note_price(&price, &key, at_s).await?;
                waiting.insert(price, waits);
            }
        }
        waiting.retain(|_, waits| !waits.is_empty());
        Ok(waiting)
    }

    /// Puts into force what prices mean for those who waited for it. One for whom that cannot be
    /// done goes on waiting, and does not keep other events from being taken.
    async fn settle_waiting(
        &self,
        waiting: BTreeMap<String, BTreeSet<String>>,
        note: &str,
    ) -> Result<(), EffectFailed> {
        for (price, waits) in waiting {
            let mut settled = BTreeSet::new();
            for customer in waits {
                match self.settle_customer(&customer, note).await {
                    Ok(()) => drop(settled.insert(customer)),
                    Err(EffectFailed::Store(error)) if error.is_temporary() => {
                        return Err(error.into());
                    }
                    Err(error) => {
                        let now_ms = self.clock.now().wall_ms;
                        repeated!(warn, now_ms, "a customer waits for a price"; %customer, %error);
                    }
                }
            }
            self.customers.settled(&price, &settled).await?;
        }
        Ok(())
    }

    async fn apply_event(
        &self,
        at: &EventsOf<'_>,
        event: &WebhookEvent,
    ) -> Result<Mark, EffectFailed> {
        let note = format!("stripe: {}", event.kind);
        // What is made of it is seen on empty facts, so that an event without meaning writes
        // nothing.
        match (Facts::default().take(event), customer_of(event)) {
            (EventTaken::MeterErrors, _) => {
                for identifier in at.stripe.rejected(&event.id).await? {
                    at.reporter.note_rejected(&identifier).await?;
                }
                Ok(Mark::Applied)
            }
            (EventTaken::Checkout, Some(customer)) => self.link_checkout(event, customer).await,
            (EventTaken::Unreadable, _) => Err(EffectFailed::Unreadable),
            (EventTaken::Price, _) => {
                let waiting = self.note_prices(event).await?;
                self.settle_waiting(waiting, &note).await?;
                Ok(Mark::Applied)
            }
            (EventTaken::Yes, Some(customer)) => {
                let waiting = self.note_prices(event).await?;
                let take = |facts: &mut Facts| {
                    facts.take(event);
                };
                self.customers.change(customer, take).await?;
                self.settle_customer(customer, &note).await?;
                self.settle_waiting(waiting, &note).await?;
                Ok(Mark::Applied)
            }
            _ => Ok(Mark::Unknown),
        }
    }
}

/// Why a tenant cannot be linked, where another attempt would fare no better by itself.
fn not_linked(error: &DirectoryError) -> Option<NotLinked> {
    match error {
        DirectoryError::NoTenant => Some(NotLinked::NoTenant),
        DirectoryError::CustomerTaken => Some(NotLinked::CustomerTaken),
        DirectoryError::TenantId | DirectoryError::Text { .. } => Some(NotLinked::Name),
        _ => None,
    }
}
