//! Follows customers: makes a tenant's record what the events of its customer at Stripe say.
//!
//! # Laws
//!
//! 1. What a tenant is held to is a function of all that is known of its customer. Facts that
//!    change while they are put into force are put into force too.
//! 2. Every step is harmless twice: a plan is the plan, a grant has the name of the line that was
//!    paid for, a subscription is looked for before it is made.
//! 3. Stripe is changed only where `[billing]` asks for it (`on-payment-method`,
//!    `on-final-failure`), and only after a look at how things stand there.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::billing::customers::{Customers, KnownCustomer};
use crate::billing::reducer::{Facts, PlanState, WantedObject};
use crate::billing::sink::SinkError;
use crate::billing::stripe::{Dated, Stripe};
use crate::clock::Clock;
use crate::directory::{Directory, DirectoryError, Tenant};
use crate::policy::resolve::LiveCatalog;
use crate::repeated::repeated;
use crate::store::StoreError;

mod act;
mod events;
mod record;

pub(crate) use events::{CHECKOUT_TENANT, EventsOf};

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

/// See the [module](self).
pub(crate) struct Follower<'a> {
    pub(crate) customers: Customers,
    pub(crate) directory: &'a Directory,
    pub(crate) live: &'a ArcSwap<LiveCatalog>,
    pub(crate) clock: &'a dyn Clock,
    /// `None`: the service file has no Stripe, and what events do not decide stays open.
    pub(crate) stripe: Option<&'a Stripe>,
}

/// When each customer is to be asked about next, Unix milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Polls(Mutex<HashMap<String, i64>>);

/// Why what a customer's events say could not be put into force now. Stripe sends a webhook again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EffectFailed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the events do not decide yet")]
    Undecided,
    #[error("concurrent changes to this customer")]
    Busy,
    #[error("its shape is unknown")]
    Unreadable,
}

impl Follower<'_> {
    /// Links a tenant to its customer, and puts into force what that customer's events have said.
    pub(crate) async fn link(&self, tenant: &str, customer: &str) -> Result<(), EffectFailed> {
        let found = self.directory.find(tenant).await?.ok_or(DirectoryError::NoTenant)?;
        found.link_customer(customer).await?;
        self.settle_customer(customer, "what its customer's events said before").await
    }

    /// Makes the tenant's record follow what its customer's events say. Facts that change meanwhile
    /// are followed too: the process that writes the record last has seen the last facts.
    pub(crate) async fn settle_customer(
        &self,
        customer: &str,
        note: &str,
    ) -> Result<(), EffectFailed> {
        let mut known = self.customers.read(customer).await?;
        for _ in 0..ROUNDS {
            let fetched = self.fetch_wanted(customer, &mut known).await;
            let state = self.state_of(&known);
            let looked_up = fetched.is_ok();
            let tenant = self.follow(customer, &known, (&state, looked_up), note).await?;
            let followed = (known.version, known.tenant);
            if known.facts.is_large() {
                self.fold(customer, &known, tenant.as_ref()).await?;
            }
            let acted = match &tenant {
                Some(_) => self.act(customer, &mut known, &state).await,
                None => Ok(()),
            };
            let after = self.customers.read(customer).await?;
            if (after.version, after.tenant) == followed {
                fetched?;
                acted?;
                let decided = state.wanted.is_empty() || self.stripe.is_none();
                return if decided { Ok(()) } else { Err(EffectFailed::Undecided) };
            }
            known = after;
        }
        Err(EffectFailed::Busy)
    }

    /// Asks Stripe about customers that it has not been asked about for a day.
    pub(crate) async fn poll(&self, stripe: &Stripe, polls: &Polls, customers: Vec<String>) {
        let mut asked = 0;
        for customer in customers {
            let now_ms = self.clock.now().wall_ms;
            if asked == POLLS || polls.next(&customer).is_some_and(|at| now_ms < at) {
                continue;
            }
            match self.poll_one(stripe, &customer, now_ms).await {
                Ok((next_ms, called)) => {
                    asked += usize::from(called);
                    polls.set(customer, next_ms);
                }
                Err(error) => {
                    repeated!(warn, now_ms, "a customer could not be queried"; %error);
                }
            }
        }
    }

    async fn poll_one(
        &self,
        stripe: &Stripe,
        customer: &str,
        now_ms: i64,
    ) -> Result<(i64, bool), EffectFailed> {
        let known = self.customers.read(customer).await?;
        let next_ms = known.polled_ms.saturating_add(POLL_EVERY_MS);
        if now_ms < next_ms || known.tenant.is_none() {
            return Ok((next_ms.max(now_ms.saturating_add(1)), false));
        }
        for told in stripe.subscriptions(customer).await? {
            self.told(customer, told).await?;
        }
        // No older ones: packs that were sold before tallygate was in use are not its to give.
        let asked_ms = if known.polled_ms > 0 { known.polled_ms } else { now_ms };
        let since_s = asked_ms.div_euclid(1_000).saturating_sub(LATE_S);
        let paid = stripe.paid_since(customer, since_s).await?;
        let take = |facts: &mut Facts| {
            for (invoice, at_s) in &paid {
                facts.fetched_invoice(invoice, *at_s);
            }
        };
        self.customers.change(customer, take).await?;
        self.settle_customer(customer, "stripe: asked, for events that may be missing").await?;
        self.customers.polled(customer, now_ms).await?;
        Ok((now_ms.saturating_add(POLL_EVERY_MS), true))
    }

    async fn told(
        &self,
        customer: &str,
        (object, at_s): Dated,
    ) -> Result<KnownCustomer, EffectFailed> {
        Ok(self.customers.change(customer, |facts| facts.fetched(&object, at_s)).await?)
    }

    /// Looks up what the events do not decide: first what other customers' events said of a price,
    /// then at Stripe. Where Stripe does not answer, the facts stay as they were, which gives the
    /// customer the better of what may be.
    async fn fetch_wanted(
        &self,
        customer: &str,
        known: &mut KnownCustomer,
    ) -> Result<(), EffectFailed> {
        for _ in 0..FETCHES {
            self.recall_prices(customer, known).await?;
            let wanted = self.state_of(known).wanted;
            if let (Some(stripe), false) = (self.stripe, wanted.is_empty()) {
                for wanted in wanted {
                    *known = self.fetch(stripe, customer, &wanted).await?;
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Reads the recorded meaning of prices that have none in this customer's own events.
    async fn recall_prices(
        &self,
        customer: &str,
        known: &mut KnownCustomer,
    ) -> Result<(), EffectFailed> {
        let catalog = self.live.load().catalog.clone();
        let unresolved = known.facts.unresolved(|key| catalog.sold_at(key));
        for price in unresolved.into_iter().take(MAX_RECALLED) {
            let means = |key: &str| catalog.sold_at(key).is_some();
            let waits = known.tenant.map(|_| customer);
            let keys = self.customers.price_keys(&price, waits, means).await?;
            if keys.keys().any(|key| means(key)) {
                let learn = |facts: &mut Facts| {
                    keys.iter().for_each(|(key, at_s)| facts.price(&price, key, *at_s));
                };
                *known = self.customers.change(customer, learn).await?;
            }
        }
        Ok(())
    }

    async fn fetch(
        &self,
        stripe: &Stripe,
        customer: &str,
        wanted: &WantedObject,
    ) -> Result<KnownCustomer, EffectFailed> {
        Ok(match wanted {
            WantedObject::Subscription(id) => match stripe.subscription(id).await? {
                Some(told) => self.told(customer, told).await?,
                None => self.customers.change(customer, |facts| facts.no_subscription(id)).await?,
            },
            WantedObject::Price(id) => {
                let (key, at_s) = stripe.lookup_key(id).await?;
                if self.live.load().catalog.sold_at(&key).is_some() {
                    self.customers.note_price(id, &key, at_s).await?;
                }
                self.customers.change(customer, |facts| facts.price(id, &key, at_s)).await?
            }
            WantedObject::Invoice(id) => match stripe.invoice(id).await? {
                Some((object, at_s)) => {
                    let take = |facts: &mut Facts| {
                        facts.fetched_invoice(&object, at_s);
                    };
                    self.customers.change(customer, take).await?
                }
                None => self.customers.change(customer, |facts| facts.no_invoice(id)).await?,
            },
            WantedObject::Lines(id) => {
                let (lines, at_s) = stripe.lines(id).await?;
                self.customers
                    .change(customer, |facts| facts.lines(id, lines.clone(), at_s))
                    .await?
            }
        })
    }

    /// Folds away what decides nothing any more; not what is still to be granted.
    async fn fold(
        &self,
        customer: &str,
        known: &KnownCustomer,
        tenant: Option<&Tenant>,
    ) -> Result<(), EffectFailed> {
        let state = self.state_of(known);
        let catalog = self.live.load().catalog.clone();
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
        self.customers.change(customer, fold).await?;
        Ok(())
    }

    fn state_of(&self, known: &KnownCustomer) -> PlanState {
        let catalog = &self.live.load().catalog;
        known.facts.state(|price| catalog.sold_at(price))
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
