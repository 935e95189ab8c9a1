//! The webhook reducer: what a customer's events say about plan and payment.
//!
//! # Laws
//!
//! 1. [`Facts::take`] is commutative, associative and idempotent: facts depend on the **set** of
//!    events taken, never on their order or on how often each came. So do states.
//! 2. Of one subscription the newest snapshot holds. Stripe's times are full seconds: of several
//!    within one, the one that the others' `previous_attributes` lead to; an end is final whatever
//!    its time. Where that does not decide, [`PlanState::wanted`] names the object: fetched anew
//!    and given to [`Facts::fetched`], it decides. Until then the one that gives the customer most
//!    holds, so that nobody loses a plan to a doubt.
//! 3. Nothing here asks the time: periods of grace are counted by whoever applies the state.
//!
//! # What it does not do
//!
//! It reads no store and calls nobody. It keeps every invoice it was told of, about a hundred bytes
//! each, because one that was forgotten could be opened again by an old event.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::snapshot::{Status, Subscription, text};
use super::webhook::Event;
use crate::catalog::Sold;
use crate::directory::PaymentState;

/// What the events of one customer say. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    subscriptions: BTreeMap<String, Frontier>,
    invoices: BTreeMap<String, Invoice>,
    /// Payment methods: when each was last attached or detached, and which it was.
    methods: BTreeMap<String, (i64, bool)>,
    /// Lookup keys of prices, by id; of a key that moved, the greatest.
    prices: BTreeMap<String, String>,
    deleted_s: Option<i64>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It says something about plan or payment; now or before.
    Yes,
    /// A meter reports rejected events: to be fetched, and their identifiers noted with
    /// [`super::report::Reporter::note_rejected`].
    MeterErrors,
    /// A Checkout was completed: it may name the tenant that its customer is linked to. What was
    /// bought is said by the subscription, or the invoice, that it made.
    Checkout,
    /// Nothing that is known here: to be kept, and answered with 200.
    Unknown,
}

/// Where a customer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanState {
    /// The subscription that decides plan, payment and anchor.
    pub base: Option<Base>,
    /// How many of each addon, by lookup key.
    pub addons: BTreeMap<String, u64>,
    /// Top-ups that were paid for, by invoice and line: each is granted once, under this name.
    pub topups: BTreeMap<String, TopUp>,
    /// The newest payment method, and since when it is there, Unix seconds.
    pub method: Option<(String, i64)>,
    /// Whether the customer was deleted.
    pub deleted: bool,
    /// Objects without which the events do not decide: to be fetched.
    pub wanted: BTreeSet<Wanted>,
}

/// The base subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its id.
    pub subscription: String,
    /// The lookup key that means a plan.
    pub price: String,
    /// How it stands with payment.
    pub payment: PaymentState,
    /// Since when, Unix seconds: grace is counted from here.
    pub since_s: i64,
    /// From where its periods are counted, Unix seconds: they advance by themselves when a renewal
    /// event is missed.
    pub anchor_s: i64,
    /// Whether it goes on though an invoice of it was given up as uncollectible.
    pub given_up: bool,
}

/// Units that were bought once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopUp {
    /// The lookup key.
    pub price: String,
    /// How often it was bought.
    pub quantity: u64,
    /// When it was paid for, Unix seconds.
    pub paid_s: i64,
}

/// An object to be fetched from Stripe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// A subscription, for [`Facts::fetched`].
    Subscription(String),
    /// A price, for [`Facts::price`].
    Price(String),
}

/// The newest snapshots of one subscription: one, unless several have the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Frontier {
    /// Whether it has ended, when, and whether by more than a `created` event: the greatest holds.
    rank: (bool, i64, bool),
    newest: BTreeSet<Snapshot>,
}

/// A subscription as one event showed it, and as it was before that event, if it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Snapshot {
    is: Subscription,
    was: Option<Subscription>,
}

/// An invoice: whatever was once said of it stays said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Invoice {
    subscription: Option<String>,
    failed_s: Option<i64>,
    /// When it was paid; the earliest that was said.
    paid_s: Option<i64>,
    uncollectible: bool,
    /// Prices and quantities of its lines, by place.
    lines: BTreeMap<u32, (String, u64)>,
}

impl Facts {
    /// Takes an event of this customer.
    pub fn take(&mut self, event: &Event) -> Taken {
        let kind = event.kind.as_str();
        if kind == "v1.billing.meter.error_report_triggered" {
            return Taken::MeterErrors;
        }
        if kind == "checkout.session.completed" {
            return Taken::Checkout;
        }
        let object = &event.object;
        let known = !event.thin
            && match kind.split('.').next() {
                _ if kind.starts_with("customer.subscription.") => self.subscription(event),
                Some("invoice") => self.invoice(event),
                _ => match kind {
                    "customer.deleted" => {
                        let at_s = Some(event.created_s);
                        self.deleted_s = self.deleted_s.map_or(at_s, |known| at_s.min(Some(known)));
                        true
                    }
                    "payment_method.attached" => self.method(text(object, "id"), event, true),
                    "payment_method.detached" => self.method(text(object, "id"), event, false),
                    "setup_intent.succeeded" => {
                        self.method(text(object, "payment_method"), event, true)
                    }
                    _ => false,
                },
            };
        if known { Taken::Yes } else { Taken::Unknown }
    }

    /// Takes a subscription that was fetched when Stripe's clock showed this second. It decides
    /// about everything before that second, and about that second unless an event of it shows
    /// something else: fetch again later then.
    pub fn fetched(&mut self, object: &Value, at_s: i64) {
        if let Some(is) = Subscription::read(object) {
            self.prices_of(object);
            self.newer(
                text(object, "id"),
                (is.has_ended(), at_s, true),
                Snapshot { is, was: None },
            );
        }
    }

    /// Takes the lookup key of a price; an empty one for a price without.
    pub fn price(&mut self, id: &str, lookup_key: &str) {
        let known = self.prices.entry(id.to_owned()).or_default();
        if known.as_str() < lookup_key {
            *known = lookup_key.to_owned();
        }
    }

    /// Where the customer stands. `sold` says what a lookup key means: see
    /// [`crate::catalog::Catalog::sold_at`].
    pub fn state(&self, sold: impl Fn(&str) -> Option<Sold>) -> PlanState {
        let mut state = PlanState {
            method: self.newest_method(),
            deleted: self.deleted_s.is_some(),
            ..PlanState::default()
        };
        let mut best: Option<((Status, i64, &String), Subscription, String)> = None;
        for (id, frontier) in &self.subscriptions {
            let Some((mut is, decided)) = frontier.holds() else { continue };
            if !decided {
                state.wanted.insert(Wanted::Subscription(id.clone()));
            }
            if let Some(deleted_s) = self.deleted_s.filter(|_| !is.has_ended()) {
                // Stripe ends a deleted customer's subscriptions; the events may be on their way.
                is.status = Status::Ended;
                is.ended_s = Some(deleted_s);
            }
            for (price, quantity) in &is.items {
                match sold(price) {
                    Some(Sold::Plan(_)) => {
                        let rank = (is.status, is.start_s, id);
                        if best.as_ref().is_none_or(|(known, ..)| *known < rank) {
                            best = Some((rank, is.clone(), price.clone()));
                        }
                    }
                    Some(Sold::Addon(_)) if is.status >= Status::PastDue => {
                        let sum = state.addons.entry(price.clone()).or_default();
                        *sum = sum.saturating_add(*quantity);
                    }
                    _ => {}
                }
            }
        }
        state.base = best.and_then(|((.., id), is, price)| self.base(id, &is, price));
        self.topups(&sold, &mut state);
        state
    }

    fn subscription(&mut self, event: &Event) -> bool {
        let Some(is) = Subscription::read(&event.object) else { return false };
        self.prices_of(&event.object);
        let was = event.previous.as_ref().and_then(|previous| {
            let mut before = event.object.clone();
            for (field, value) in previous.as_object()? {
                before[field.as_str()] = value.clone();
            }
            Subscription::read(&before).filter(|was| *was != is)
        });
        let ended = is.has_ended() || event.kind == "customer.subscription.deleted";
        let later = event.kind != "customer.subscription.created";
        let rank = (ended, event.created_s, later);
        self.newer(text(&event.object, "id"), rank, Snapshot { is, was });
        true
    }

    fn newer(&mut self, id: &str, rank: (bool, i64, bool), snapshot: Snapshot) {
        let frontier = self.subscriptions.entry(id.to_owned()).or_default();
        if frontier.newest.is_empty() || rank > frontier.rank {
            *frontier = Frontier { rank, newest: BTreeSet::from([snapshot]) };
        } else if rank == frontier.rank {
            frontier.newest.insert(snapshot);
        }
    }

    fn invoice(&mut self, event: &Event) -> bool {
        let object = &event.object;
        let id = text(object, "id");
        if id.is_empty() {
            return false;
        }
        let invoice = self.invoices.entry(id.to_owned()).or_default();
        let of = text(&object["parent"]["subscription_details"], "subscription");
        if !of.is_empty() {
            invoice.subscription = Some(of.to_owned());
        }
        let status = text(object, "status");
        if status == "paid" || event.kind == "invoice.paid" {
            let at_s = object["status_transitions"]["paid_at"].as_i64();
            let at_s = at_s.unwrap_or(event.created_s);
            invoice.paid_s = Some(invoice.paid_s.map_or(at_s, |known| known.min(at_s)));
        }
        invoice.uncollectible |= status == "uncollectible";
        if event.kind == "invoice.payment_failed" {
            let at_s = invoice.failed_s.unwrap_or(i64::MAX).min(event.created_s);
            invoice.failed_s = Some(at_s);
        }
        let lines = object["lines"]["data"].as_array().into_iter().flatten();
        for (place, line) in (0..).zip(lines) {
            let price = text(&line["pricing"]["price_details"], "price");
            let quantity = line["quantity"].as_u64().unwrap_or(1);
            // Of lines that differ between events, which finalized ones do not, the greatest.
            let line = (price.to_owned(), quantity);
            let known = invoice.lines.entry(place).or_default();
            if *known < line {
                *known = line;
            }
        }
        true
    }

    fn method(&mut self, id: &str, event: &Event, attached: bool) -> bool {
        if !id.is_empty() {
            // Within one second: detached, since what was detached cannot be attached again.
            let news = (event.created_s, !attached);
            let known = self.methods.entry(id.to_owned()).or_insert((i64::MIN, false));
            if (known.0, !known.1) <= news {
                *known = (event.created_s, attached);
            }
        }
        !id.is_empty()
    }

    fn newest_method(&self) -> Option<(String, i64)> {
        let there = self.methods.iter().filter(|(_, (_, attached))| *attached);
        let newest = there.max_by_key(|(id, (since_s, _))| (*since_s, *id))?;
        Some((newest.0.clone(), newest.1.0))
    }

    fn prices_of(&mut self, subscription: &Value) {
        for item in subscription["items"]["data"].as_array().into_iter().flatten() {
            let price = &item["price"];
            self.price(text(price, "id"), text(price, "lookup_key"));
        }
    }

    fn base(&self, id: &str, is: &Subscription, price: String) -> Option<Base> {
        let unpaid = || {
            let of = self.invoices.values().filter(|i| i.subscription.as_deref() == Some(id));
            of.filter(|invoice| invoice.paid_s.is_none())
        };
        let failed_s = || unpaid().filter_map(|i| i.failed_s).min().unwrap_or(is.period_s);
        let (payment, since_s) = match is.status {
            Status::Incomplete => return None,
            Status::Ended => (PaymentState::Canceled, is.ended_s.unwrap_or(is.period_s)),
            Status::Unpaid => (PaymentState::Unpaid, failed_s()),
            Status::PastDue => (PaymentState::PastDue, failed_s()),
            Status::Trialing => (PaymentState::Trialing, is.start_s),
            Status::Active => (PaymentState::Good, is.start_s),
        };
        let (subscription, anchor_s) = (id.to_owned(), is.anchor_s);
        let ended = payment == PaymentState::Canceled;
        let given_up = !ended && unpaid().any(|invoice| invoice.uncollectible);
        Some(Base { subscription, price, payment, since_s, anchor_s, given_up })
    }

    fn topups(&self, sold: &impl Fn(&str) -> Option<Sold>, state: &mut PlanState) {
        for (id, invoice) in &self.invoices {
            let Some(paid_s) = invoice.paid_s else { continue };
            for (place, (price, quantity)) in &invoice.lines {
                match self.prices.get(price) {
                    None if !price.is_empty() => {
                        state.wanted.insert(Wanted::Price(price.clone()));
                    }
                    Some(key) if matches!(sold(key), Some(Sold::Topup(_))) => {
                        let topup = TopUp { price: key.clone(), quantity: *quantity, paid_s };
                        state.topups.insert(format!("{id}.{place}"), topup);
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Frontier {
    /// The snapshot that holds, and whether the events decide that it does.
    fn holds(&self) -> Option<(Subscription, bool)> {
        let is_before =
            |one: &Snapshot| self.newest.iter().any(|o| o.was.as_ref() == Some(&one.is));
        let last: BTreeSet<&Subscription> =
            self.newest.iter().filter(|one| !is_before(one)).map(|one| &one.is).collect();
        let mut held = match last.first() {
            Some(only) if last.len() == 1 => ((*only).clone(), true),
            // Ordered by what it gives the customer.
            _ => (self.newest.iter().map(|one| &one.is).max()?.clone(), false),
        };
        if self.rank.0 {
            // Several snapshots of an end are one end.
            held.0.status = Status::Ended;
            held.1 = true;
        }
        Some(held)
    }
}

#[cfg(test)]
#[path = "reducer_tests.rs"]
mod tests;
