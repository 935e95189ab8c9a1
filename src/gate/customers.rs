//! Tenants and their customers at Stripe: linked once, and kept in step with what the customers'
//! events say.
//!
//! # Laws
//!
//! 1. What a tenant is held to is a function of all that is known of its customer. Facts that
//!    change while they are put into force are put into force too.
//! 2. Every step is harmless twice: a plan is the plan, a grant has the name of the line that was
//!    paid for, a subscription is looked for before it is made.
//! 3. Stripe is changed only where `[billing]` asks for it (`on-payment-method`,
//!    `on-final-failure`), and only after a look at how things stand there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::clock::time_at;
use sha2::{Digest, Sha256};

use super::billing::{Billing, EffectFailed};
use super::{Gate, Inner};
use crate::billing::customers::{Customers, KnownCustomer};
use crate::billing::reducer::{Base, Facts, HeldAddon, PlanState, TopUp, WantedObject};
use crate::billing::snapshot::id_of;
use crate::billing::stripe::Dated;
use crate::catalog::{Catalog, MeterId, OnFinalFailure, Sold};
use crate::directory::{
    DirectoryError, Grant, PaymentState, SoldAddon, Subscribed, SubscriptionSpan, Tenant,
    TenantRecord,
};
use crate::error::Error;
use crate::identity::hex;
use crate::repeated::repeated;

/// How often a tenant is brought in step anew because its customer's facts changed meanwhile.
const ROUNDS: usize = 8;

/// How often Stripe is asked about a customer without an event: for webhooks that do not come.
const POLL_EVERY_MS: i64 = 86_400_000;

/// How long before the last time that Stripe was asked an invoice may have been paid without its
/// event: the events are sent again for three days.
const LATE_S: i64 = 3 * 86_400;

/// Customers asked about in one report: two calls each, at Stripe's slowest pace 10 s of it.
const POLLS: usize = 100;

/// Passes of looking things up: an invoice, its lines, their prices, and once more.
const FETCHES: usize = 4;

/// Prices that mean nothing here, and of which the record is asked in one pass.
const MAX_RECALLED: usize = 64;

/// Longest name of a grant, as the directory has it.
const MAX_GRANT: usize = 64;

/// When each customer is to be asked about next, Unix milliseconds.
#[derive(Debug, Default)]
pub(super) struct Polls(Mutex<HashMap<String, i64>>);

impl Gate {
    /// Links a tenant to its Stripe customer (`cus_..`), and puts into force what that customer's
    /// events have said by now. Use that was admitted before is never billed.
    ///
    /// # Errors
    ///
    /// If there is no such tenant, the customer is another tenant's, or the store does not do it:
    /// then link again. Where Stripe does not answer, the link stands, and what it would have said
    /// is asked for again within a day.
    pub async fn link_customer(&self, tenant: &str, customer: &str) -> Result<(), Error> {
        match self.inner.link(tenant, customer).await {
            Ok(()) => Ok(()),
            Err(EffectFailed::Directory(DirectoryError::NoTenant)) => {
                Err(Error::NoTenant(tenant.to_owned()))
            }
            Err(error @ (EffectFailed::Sink(_) | EffectFailed::Undecided)) => {
                tracing::warn!(tenant, %error, "linked; its state at Stripe is not known yet");
                Ok(())
            }
            Err(EffectFailed::Store(error)) => Err(error.into()),
            Err(EffectFailed::Directory(error)) => Err(error.into()),
            Err(EffectFailed::Busy | EffectFailed::Unreadable) => Err(DirectoryError::Busy.into()),
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
    pub(super) async fn link(&self, tenant: &str, customer: &str) -> Result<(), EffectFailed> {
        let found = self.tenants.directory.find(tenant).await?.ok_or(DirectoryError::NoTenant)?;
        found.link_customer(customer).await?;
        self.settle_customer(customer, "what its customer's events said before").await
    }

    /// Makes the tenant's record follow what its customer's events say. Facts that change meanwhile
    /// are followed too: whoever writes the record last has seen the last facts.
    pub(super) async fn settle_customer(
        &self,
        customer: &str,
        note: &str,
    ) -> Result<(), EffectFailed> {
        let customers =
            Customers::new(self.leasing.ctx.store.clone(), self.leasing.writer.space.clone());
        let mut known = customers.read(customer).await?;
        for _ in 0..ROUNDS {
            let fetched = self.fetch_wanted(&customers, customer, &mut known).await;
            let state = self.state_of(&known);
            let looked_up = fetched.is_ok();
            let tenant = self.follow(customer, &known, (&state, looked_up), note).await?;
            let followed = (known.version, known.tenant);
            if known.facts.is_large() {
                self.fold(&customers, customer, &known, tenant.as_ref()).await?;
            }
            let acted = match &tenant {
                Some(_) => self.act(&customers, customer, &mut known, &state).await,
                None => Ok(()),
            };
            let after = customers.read(customer).await?;
            if (after.version, after.tenant) == followed {
                fetched?;
                acted?;
                let decided = state.wanted.is_empty() || self.billing.is_none();
                return if decided { Ok(()) } else { Err(EffectFailed::Undecided) };
            }
            known = after;
        }
        Err(EffectFailed::Busy)
    }

    /// Asks Stripe about customers that it has not been asked about for a day.
    pub(super) async fn poll(&self, billing: &Billing, customers: Vec<String>) {
        let mut asked = 0;
        for customer in customers {
            let now_ms = self.clock.now().wall_ms;
            if asked == POLLS || billing.polls.next(&customer).is_some_and(|at| now_ms < at) {
                continue;
            }
            match self.poll_one(billing, &customer, now_ms).await {
                Ok((next_ms, called)) => {
                    asked += usize::from(called);
                    billing.polls.set(customer, next_ms);
                }
                Err(error) => {
                    repeated!(warn, now_ms, "a customer could not be queried"; %error);
                }
            }
        }
    }

    async fn poll_one(
        &self,
        billing: &Billing,
        customer: &str,
        now_ms: i64,
    ) -> Result<(i64, bool), EffectFailed> {
        let known = billing.customers.read(customer).await?;
        let next_ms = known.polled_ms.saturating_add(POLL_EVERY_MS);
        if now_ms < next_ms || known.tenant.is_none() {
            return Ok((next_ms.max(now_ms.saturating_add(1)), false));
        }
        for told in billing.stripe.subscriptions(customer).await? {
            self.told(&billing.customers, customer, told).await?;
        }
        // No older ones: packs that were sold before tallygate was in use are not its to give.
        let asked_ms = if known.polled_ms > 0 { known.polled_ms } else { now_ms };
        let since_s = asked_ms.div_euclid(1_000).saturating_sub(LATE_S);
        let paid = billing.stripe.paid_since(customer, since_s).await?;
        let take = |facts: &mut Facts| {
            for (invoice, at_s) in &paid {
                facts.fetched_invoice(invoice, *at_s);
            }
        };
        billing.customers.change(customer, take).await?;
        self.settle_customer(customer, "stripe: asked, for events that may be missing").await?;
        billing.customers.polled(customer, now_ms).await?;
        Ok((now_ms.saturating_add(POLL_EVERY_MS), true))
    }

    async fn told(
        &self,
        customers: &Customers,
        customer: &str,
        (object, at_s): Dated,
    ) -> Result<KnownCustomer, EffectFailed> {
        Ok(customers.change(customer, |facts| facts.fetched(&object, at_s)).await?)
    }

    /// Looks up what the events do not decide: first what other customers' events said of a price,
    /// then at Stripe. Where Stripe does not answer, the facts stay as they were, which gives the
    /// customer the better of what may be.
    async fn fetch_wanted(
        &self,
        customers: &Customers,
        customer: &str,
        known: &mut KnownCustomer,
    ) -> Result<(), EffectFailed> {
        for _ in 0..FETCHES {
            self.recall_prices(customers, customer, known).await?;
            let wanted = self.state_of(known).wanted;
            if let (Some(billing), false) = (&self.billing, wanted.is_empty()) {
                for wanted in wanted {
                    *known = self.fetch(billing, customers, customer, &wanted).await?;
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    /// What is on record of prices that mean nothing by this customer's own events.
    async fn recall_prices(
        &self,
        customers: &Customers,
        customer: &str,
        known: &mut KnownCustomer,
    ) -> Result<(), EffectFailed> {
        let catalog = self.catalogs.live.load().catalog.clone();
        let unresolved = known.facts.unresolved(|key| catalog.sold_at(key));
        for price in unresolved.into_iter().take(MAX_RECALLED) {
            let means = |key: &str| catalog.sold_at(key).is_some();
            let waits = known.tenant.map(|_| customer);
            let keys = customers.price_keys(&price, waits, means).await?;
            if keys.keys().any(|key| means(key)) {
                let learn = |facts: &mut Facts| {
                    keys.iter().for_each(|(key, at_s)| facts.price(&price, key, *at_s));
                };
                *known = customers.change(customer, learn).await?;
            }
        }
        Ok(())
    }

    async fn fetch(
        &self,
        billing: &Billing,
        customers: &Customers,
        customer: &str,
        wanted: &WantedObject,
    ) -> Result<KnownCustomer, EffectFailed> {
        let stripe = &billing.stripe;
        Ok(match wanted {
            WantedObject::Subscription(id) => match stripe.subscription(id).await? {
                Some(told) => self.told(customers, customer, told).await?,
                None => customers.change(customer, |facts| facts.no_subscription(id)).await?,
            },
            WantedObject::Price(id) => {
                let (key, at_s) = stripe.lookup_key(id).await?;
                if self.catalogs.live.load().catalog.sold_at(&key).is_some() {
                    customers.note_price(id, &key, at_s).await?;
                }
                customers.change(customer, |facts| facts.price(id, &key, at_s)).await?
            }
            WantedObject::Invoice(id) => match stripe.invoice(id).await? {
                Some((object, at_s)) => {
                    let take = |facts: &mut Facts| {
                        facts.fetched_invoice(&object, at_s);
                    };
                    customers.change(customer, take).await?
                }
                None => customers.change(customer, |facts| facts.no_invoice(id)).await?,
            },
            WantedObject::Lines(id) => {
                let (lines, at_s) = stripe.lines(id).await?;
                customers.change(customer, |facts| facts.lines(id, lines.clone(), at_s)).await?
            }
        })
    }

    /// Folds away what decides nothing any more; not what is still to be granted.
    async fn fold(
        &self,
        customers: &Customers,
        customer: &str,
        known: &KnownCustomer,
        tenant: Option<&Tenant>,
    ) -> Result<(), EffectFailed> {
        let state = self.state_of(known);
        let catalog = self.catalogs.live.load().catalog.clone();
        let pending: BTreeSet<String> = match tenant {
            Some(tenant) => {
                let due = self.due_topups(&catalog, &state, tenant).await?;
                due.into_iter().map(|(line, _)| line).collect()
            }
            // They are granted once it is linked.
            None => state.topups.into_keys().collect(),
        };
        let fold = |facts: &mut Facts| {
            // What came in between has not been granted.
            if *facts == known.facts {
                facts.fold(&pending);
            }
        };
        customers.change(customer, fold).await?;
        Ok(())
    }

    fn state_of(&self, known: &KnownCustomer) -> PlanState {
        let catalog = &self.catalogs.live.load().catalog;
        known.facts.state(|price| catalog.sold_at(price))
    }

    /// What was paid for and has not been given, by the line of its invoice. What a line gives is
    /// fixed in the store when it is first seen.
    async fn due_topups(
        &self,
        catalog: &Catalog,
        state: &PlanState,
        tenant: &Tenant,
    ) -> Result<Vec<(String, Grant)>, EffectFailed> {
        let (directory, record) = (&self.tenants.directory, tenant.record());
        let is_held = |grant: &Grant| record.grants.iter().any(|held| held.id == grant.id);
        let mut offered = topups(catalog, state);
        offered.retain(|_, grants| !grants.iter().all(is_held));
        let mut due = Vec::new();
        if offered.is_empty() {
            return Ok(due);
        }
        let given = directory.given_grants(record.surrogate).await?;
        for (line, grants) in offered {
            let name = name_of(line.clone());
            let fixed = match given.lines.get(&name) {
                Some(fixed) => fixed.clone(),
                None => directory.fix_line(record.surrogate, &name, &grants).await?,
            };
            let open = fixed.into_iter().filter(|g| !is_held(g) && !given.past.contains(&g.id));
            due.extend(open.map(|grant| (line.clone(), grant)));
        }
        Ok(due)
    }

    /// Writes the record of the tenant whose customer this is, which comes back; `None` if it has
    /// no tenant, or its tenant has another customer by now. A customer that never had a
    /// subscription with the meaning of a plan leaves plan and payment as they are: an operator may
    /// have set them. So does one whose subscription has ended, once that is known.
    async fn follow(
        &self,
        customer: &str,
        known: &KnownCustomer,
        (state, looked_up): (&PlanState, bool),
        note: &str,
    ) -> Result<Option<Tenant>, EffectFailed> {
        let Some(surrogate) = known.tenant else { return Ok(None) };
        let Some(tenant) = self.tenants.directory.get(surrogate).await? else { return Ok(None) };
        let is_its = |tenant: &Tenant| tenant.record().account.as_deref() == Some(customer);
        let live = self.catalogs.live.load_full();
        let catalog = &live.catalog;
        let spans = spans(customer, known, (tenant.record(), catalog), self.clock.now().wall_ms);
        let spans = tenant.record().lacks(spans);
        if !is_its(&tenant) {
            // It decides nothing any more, but dates what was used while it was.
            if tenant.record().has_had(customer) && !spans.is_empty() {
                tenant.edit().subscriptions(spans).note(note).save().await?;
            }
            return Ok(None);
        }
        let edit = tenant.edit().only_on(customer).subscriptions(spans);
        let mut edit = edit.sold_addons(addons(catalog, state));
        if let Some(Base { subscription, price, keys, payment, since_s, anchor_s, .. }) =
            &state.base
            && let Some(Sold::Plan(plan)) = catalog.sold_at(price)
        {
            let bought = (&*catalog.plans[usize::from(plan.0)].name, keys.as_slice());
            let times_ms = (ms(*since_s), ms(*anchor_s));
            edit = edit.subscribed(Subscribed::new(subscription, bought, *payment, times_ms));
        } else if looked_up && has_left(tenant.record(), known, state) {
            edit = edit.unsubscribed();
        }
        let mut tenant = edit.note(note).save().await?;
        if !is_its(&tenant) {
            return Ok(None);
        }
        self.give(customer, &mut tenant, state, note).await?;
        Ok(Some(tenant))
    }

    /// Grants what was paid for and has not been given.
    async fn give(
        &self,
        customer: &str,
        tenant: &mut Tenant,
        state: &PlanState,
        note: &str,
    ) -> Result<(), EffectFailed> {
        let live = self.catalogs.live.load_full();
        let (catalog, surrogate) = (&live.catalog, tenant.record().surrogate);
        let now_ms = self.clock.now().wall_ms;
        for (_, grant) in self.due_topups(catalog, state, tenant).await? {
            // The terms of a pack are those that were in force when it was first seen, also where
            // it had ended by then.
            if grant.expires_ms.is_some_and(|end| end <= now_ms) {
                self.tenants.directory.note_past_grant(surrogate, &grant).await?;
                continue;
            }
            let (id, meter) = (grant.id.clone(), grant.meter.clone());
            let edit = tenant.edit().only_on(customer).paid_grant(grant);
            match edit.note(note).save().await {
                Ok(given) => *tenant = given,
                // Tried again whenever the customer is looked at; Stripe need not repeat the event.
                Err(error @ DirectoryError::TooMany { .. }) => {
                    let tenant = &tenant.record().id;
                    tracing::error!(
                        %tenant, grant = %id, %error,
                        "paid for but not granted: end a grant that is used up (`end_grant`)"
                    );
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let plan = live.resolve(tenant.record(), now_ms).policy.plan.clone();
            if catalog.meter(&meter).is_none_or(|meter| !plan.limits(meter)) {
                let tenant = &tenant.record().id;
                tracing::error!(
                    %tenant, grant = %id, %meter, plan = %plan.name,
                    "paid for, but the plan does not limit the meter: kept until one does"
                );
            }
        }
        Ok(())
    }

    /// Does at Stripe what `[billing]` asks for, once it is needed there.
    async fn act(
        &self,
        customers: &Customers,
        customer: &str,
        known: &mut KnownCustomer,
        state: &PlanState,
    ) -> Result<(), EffectFailed> {
        let (Some(billing), false) = (&self.billing, state.deleted) else { return Ok(()) };
        let live = self.catalogs.live.load_full();
        let rules = &live.catalog.billing;
        let sold = |key: &str| live.catalog.sold_at(key);
        let told = match (&state.base, &state.method) {
            (Some(base), _) if has_failed(base) => match rules.on_final_failure {
                OnFinalFailure::Cancel => self.cancel(billing, customer, base).await?,
                OnFinalFailure::Keep => None,
            },
            (base, Some(method))
                if is_without(base.as_ref()) && !known.facts.has_ended_since(method.1, sold) =>
            {
                let plan = rules.on_payment_method.map(|plan| usize::from(plan.0));
                match plan.and_then(|plan| live.catalog.plans.get(plan)?.prices.first()) {
                    Some(price) => self.subscribe(billing, customer, known, price, method).await?,
                    None => None,
                }
            }
            _ => None,
        };
        if let Some(told) = told {
            self.told(customers, customer, told).await?;
        }
        Ok(())
    }

    /// Cancels a subscription that cannot be paid for; not one that only waits for a payment method
    /// (paused), nor one that was paid meanwhile, nor one that goes on after an invoice was given
    /// up and whose next invoice is being retried: the event of that may be on its way.
    async fn cancel(
        &self,
        billing: &Billing,
        customer: &str,
        base: &Base,
    ) -> Result<Option<Dated>, EffectFailed> {
        let stripe = &billing.stripe;
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
                    billing.customers.change(customer, take).await?;
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
        billing: &Billing,
        customer: &str,
        known: &mut KnownCustomer,
        price: &str,
        (method, since_s): &(String, i64),
    ) -> Result<Option<Dated>, EffectFailed> {
        let customers = &billing.customers;
        for told in billing.stripe.subscriptions(customer).await? {
            *known = self.told(customers, customer, told).await?;
        }
        self.recall_prices(customers, customer, known).await?;
        let catalog = self.catalogs.live.load().catalog.clone();
        let sold = |key: &str| catalog.sold_at(key);
        if known.facts.has_plan(sold) || known.facts.has_ended_since(*since_s, sold) {
            return Ok(None);
        }
        tracing::info!(%customer, price, "subscribed: a payment method has arrived");
        Ok(Some(billing.stripe.subscribe(customer, price, method).await?))
    }
}

impl Polls {
    fn next(&self, customer: &str) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(customer).copied()
    }

    fn set(&self, customer: String, next_ms: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(customer, next_ms);
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

/// Whether what the tenant subscribed to means no plan any more: it is over, or its price is
/// another. A key that this process's plan file lacks is no reason: another file may have it.
fn has_left(record: &TenantRecord, known: &KnownCustomer, state: &PlanState) -> bool {
    let doubts = |wanted: &WantedObject| matches!(wanted, WantedObject::Subscription(_));
    record.subscription().is_some_and(|says| {
        state.base.is_none()
            && !state.wanted.iter().any(doubts)
            && !known.facts.goes_on_at(&says.id, &says.prices)
    })
}

/// The customer's subscriptions, for the tenant's history.
fn spans(
    customer: &str,
    known: &KnownCustomer,
    (record, catalog): (&TenantRecord, &Catalog),
    now_ms: i64,
) -> Vec<SubscriptionSpan> {
    let spans = known.facts.spans(|price| catalog.sold_at(price), |id| record.has_span(id));
    let spans = spans.iter().map(|(id, span)| {
        let life = (ms(span.from_s), span.until_s.map(ms));
        SubscriptionSpan::new((id, customer), ms(span.anchor_s), life, now_ms)
    });
    spans.collect()
}

/// Addons as the record holds them.
fn addons(catalog: &Catalog, state: &PlanState) -> Vec<SoldAddon> {
    let mut sold = Vec::new();
    for (HeldAddon { price, keys, past_due_s }, quantity) in &state.addons {
        if let (Some(Sold::Addon(at)), true) = (catalog.sold_at(price), *quantity > 0) {
            let name = &catalog.addons[at].name;
            sold.push(SoldAddon::new(name, keys, *quantity, past_due_s.map(ms)));
        }
    }
    sold
}

/// What was paid for, by the line of its invoice, on the terms of this catalog.
fn topups(catalog: &Catalog, state: &PlanState) -> BTreeMap<String, Vec<Grant>> {
    let mut lines = BTreeMap::new();
    for (line, TopUp { price, quantity, paid_s }) in &state.topups {
        let Some(Sold::Topup(at)) = catalog.sold_at(price) else { continue };
        if *quantity == 0 {
            continue;
        }
        let offer = &catalog.topups[at];
        let life = offer.expires.map(|life| i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
        let ends = life.map(|life| time_at(ms(*paid_s).saturating_add(life)));
        let grant = |(meter, atoms): &(MeterId, u64)| {
            let meter = &catalog.meters[usize::from(meter.0)];
            let (units, meter) = (atoms / meter.scale, meter.name.to_string());
            // The invoice's line and the meter.
            let id = name_of(format!("{line}.{meter}"));
            let grant = Grant::new(id, meter, units.saturating_mul(*quantity))
                .source("topup")
                .note(format!("{quantity} x {}, line {line}", offer.name));
            match ends {
                Some(at) => grant.expires(at),
                None => grant,
            }
        };
        lines.insert(line.clone(), offer.adds.iter().map(grant).collect());
    }
    lines
}

/// A name in the store: a hash of it where it is too long or of other characters.
fn name_of(name: String) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.len() <= MAX_GRANT && name.chars().all(legal) {
        return name;
    }
    format!("topup.{}", &hex(&Sha256::digest(name.as_bytes()))[..32])
}

fn ms(second: i64) -> i64 {
    second.saturating_mul(1_000)
}
