//! Actions at Stripe that `[billing]` asks for: cancelling subscriptions that cannot be paid, and
//! subscribing customers that can pay.

use super::{EffectFailed, Follower};
use crate::billing::customers::KnownCustomer;
use crate::billing::reducer::{Base, Facts, PlanState};
use crate::billing::snapshot::id_of;
use crate::billing::stripe::{Dated, Stripe};
use crate::catalog::OnFinalFailure;
use crate::directory::PaymentState;

impl Follower<'_> {
    /// Does at Stripe what `[billing]` asks for, once it is needed there.
    pub(super) async fn act(
        &self,
        customer: &str,
        known: &mut KnownCustomer,
        state: &PlanState,
    ) -> Result<(), EffectFailed> {
        let (Some(stripe), false) = (self.stripe, state.deleted) else { return Ok(()) };
        let live = self.live.load_full();
        let rules = &live.catalog.billing;
        let sold = |key: &str| live.catalog.sold_at(key);
        let told = match (&state.base, &state.method) {
            (Some(base), _) if has_failed(base) => match rules.on_final_failure {
                OnFinalFailure::Cancel => self.cancel(stripe, customer, base).await?,
                OnFinalFailure::Keep => None,
            },
            (base, Some(method))
                if is_without(base.as_ref()) && !known.facts.has_ended_since(method.1, sold) =>
            {
                let plan = rules.on_payment_method.map(|plan| usize::from(plan.0));
                match plan.and_then(|plan| live.catalog.plans.get(plan)?.prices.first()) {
                    Some(price) => self.subscribe(stripe, customer, known, price, method).await?,
                    None => None,
                }
            }
            _ => None,
        };
        if let Some(told) = told {
            self.told(customer, told).await?;
        }
        Ok(())
    }

    /// Cancels a subscription that cannot be paid for; not one that only waits for a payment method
    /// (paused), nor one that was paid meanwhile, nor one that goes on after an invoice was given
    /// up and whose next invoice is being retried: the event of that may be on its way.
    async fn cancel(
        &self,
        stripe: &Stripe,
        customer: &str,
        base: &Base,
    ) -> Result<Option<Dated>, EffectFailed> {
        let Some((stands, _)) = stripe.subscription(&base.subscription).await? else {
            return Ok(None);
        };
        match stands["status"].as_str() {
            Some("unpaid") => {}
            Some("past_due") => {
                let Some(newest) = id_of(&stands["latest_invoice"]) else { return Ok(None) };
                let Some((invoice, at_s)) = stripe.invoice(newest).await? else { return Ok(None) };
                if invoice["status"] != "uncollectible" {
                    let take = |facts: &mut Facts| {
                        facts.fetched_invoice(&invoice, at_s);
                    };
                    self.customers.change(customer, take).await?;
                    return Ok(None);
                }
            }
            _ => return Ok(None),
        }
        tracing::info!(subscription = %base.subscription, "canceled: payment has finally failed");
        Ok(stripe.cancel(&base.subscription).await?)
    }

    /// Subscribes a customer, unless Stripe has a subscription of it that means a plan and has not
    /// ended, or has ended since the payment method was attached: the webhook of the method may be
    /// late. What Stripe lists is taken in first, so that a price goes by all its names.
    async fn subscribe(
        &self,
        stripe: &Stripe,
        customer: &str,
        known: &mut KnownCustomer,
        price: &str,
        (method, since_s): &(String, i64),
    ) -> Result<Option<Dated>, EffectFailed> {
        for told in stripe.subscriptions(customer).await? {
            *known = self.told(customer, told).await?;
        }
        self.recall_prices(customer, known).await?;
        let catalog = self.live.load().catalog.clone();
        let sold = |key: &str| catalog.sold_at(key);
        if known.facts.has_plan(sold) || known.facts.has_ended_since(*since_s, sold) {
            return Ok(None);
        }
        tracing::info!(%customer, price, "subscribed: a payment method has arrived");
        Ok(Some(stripe.subscribe(customer, price, method).await?))
    }
}

/// Whether payment for the base subscription has finally failed.
fn has_failed(base: &Base) -> bool {
    match base.payment {
        PaymentState::Unpaid => true,
        PaymentState::PastDue => base.given_up,
        _ => false,
    }
}

fn is_without(base: Option<&Base>) -> bool {
    base.is_none_or(|base| base.payment == PaymentState::Canceled)
}
