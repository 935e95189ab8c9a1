//! The webhook reducer: derives plan and payment from a customer's events.
//!
//! # Laws
//!
//! 1. [`Facts::take`] is commutative, associative and idempotent: facts depend on the **set** of
//!    events taken, never on their order or on how often each came. So do states.
//! 2. Of one subscription the newest snapshot holds. Stripe's times are full seconds: of several
//!    within one, the one that the others' `previous_attributes` lead to; an end is final whatever
//!    its time. Where that is ambiguous, [`PlanState::wanted`] names the object: fetched anew and
//!    passed to [`Facts::fetched`], it decides. Until then the one that gives the customer most
//!    holds, so that no customer loses a plan to a doubt.
//! 3. Nothing here reads a clock: the code that applies the state counts grace periods.
//!
//! # What it does not do
//!
//! It reads no store and makes no calls.
//!
//! # What is forgotten
//!
//! Closed invoices, and other facts that no longer decide anything, are folded away (`fold`) once
//! there are many. An old event could reopen a forgotten one: so events of a newly seen invoice are
//! not trusted if it was created in the time range of folded ones. [`PlanState::wanted`] names it,
//! and once fetched it counts. The same goes for subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::snapshot::{InvoiceSeen, InvoiceStage, LineSeen, Status, Subscription, price_of, text};
use super::webhook::WebhookEvent;
use crate::catalog::Sold;
use crate::directory::PaymentState;

mod fold;

use fold::{Folded, was_folded};

/// Most lookup keys of a price that a tenant's record holds: those of its last renamings.
const MOST_KEYS: usize = 8;

/// The facts from one customer's events. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    subscriptions: BTreeMap<String, Frontier>,
    invoices: BTreeMap<String, Invoice>,
    /// Payment methods: time of the last attachment or detachment, and which of the two it was.
    methods: BTreeMap<String, (i64, bool)>,
    /// Lookup keys seen on prices, by the price's id, and when each was last seen there. A price
    /// whose key has moved to another keeps its meaning.
    prices: BTreeMap<String, BTreeMap<String, i64>>,
    deleted_s: Option<i64>,
    folded: Folded,
}

/// The outcome of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventTaken {
    /// It is about plan or payment, whether new or known.
    Yes,
    /// A meter reports rejected events: to be fetched, and their identifiers recorded with
    /// [`super::report::Reporter::note_rejected`].
    MeterErrors,
    /// A completed Checkout: it may name the tenant to link its customer to. The purchase itself
    /// shows in the subscription, or the invoice, that it created.
    Checkout,
    /// A price was created or changed: record what `prices` finds in it.
    Price,
    /// Relevant, but in no known shape: nothing was taken from it, and it must not be answered with
    /// 200.
    Unreadable,
    /// Of an unknown type: keep it, and answer with 200.
    Unknown,
}

/// The billing state of a customer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanState {
    /// The subscription that decides plan, payment and anchor.
    pub base: Option<Base>,
    /// The quantity of each addon.
    pub addons: BTreeMap<HeldAddon, u64>,
    /// Paid top-ups, by the id of the invoice's line: each is granted once, under this name.
    pub topups: BTreeMap<String, TopUp>,
    /// The newest payment method, and its time of attachment, Unix seconds.
    pub method: Option<(String, i64)>,
    /// Whether the customer was deleted.
    pub deleted: bool,
    /// Objects to be fetched, because the events alone are ambiguous.
    pub wanted: BTreeSet<WantedObject>,
}

/// An addon of a subscription that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldAddon {
    /// The lookup key that means an addon.
    pub price: String,
    /// All lookup keys of its price, newest first.
    pub keys: Vec<String>,
    /// When its payment first failed, Unix seconds, if it is past due.
    pub past_due_s: Option<i64>,
}

/// The base subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// Its id.
    pub subscription: String,
    /// The lookup key that means a plan.
    pub price: String,
    /// All lookup keys of its price, newest first.
    pub keys: Vec<String>,
    /// Its payment state.
    pub payment: PaymentState,
    /// Start of that state, Unix seconds: grace is counted from here. For a failed payment, the
    /// first failure among the invoices that are open now.
    pub since_s: i64,
    /// Anchor of its periods, Unix seconds: they advance by themselves when a renewal event is
    /// missed.
    pub anchor_s: i64,
    /// Whether it continues although its newest invoice was marked uncollectible.
    pub given_up: bool,
}

/// The life of a subscription. Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its begin.
    pub from_s: i64,
    /// Its end, if it has ended.
    pub until_s: Option<i64>,
    /// Anchor of its periods.
    pub anchor_s: i64,
}

/// A one-time purchase of units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopUp {
    /// The lookup key.
    pub price: String,
    /// The quantity bought.
    pub quantity: u64,
    /// Time of payment, Unix seconds.
    pub paid_s: i64,
}

/// An object to be fetched from Stripe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WantedObject {
    /// A subscription, for [`Facts::fetched`].
    Subscription(String),
    /// A price, for [`Facts::price`].
    Price(String),
    /// An invoice, for [`Facts::fetched_invoice`].
    Invoice(String),
    /// All lines of an invoice, for `Facts::lines`: an event shows only the first page.
    Lines(String),
}

/// The newest snapshots of one subscription: one, unless several share a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Frontier {
    /// Whether it has ended, when, and whether by more than a `created` event: the greatest holds.
    rank: (bool, i64, bool),
    newest: BTreeSet<SubscriptionSnapshot>,
    /// It may have been folded away before: only fetched data counts.
    doubtful: bool,
}

/// A subscription as one event showed it, and its state before that event, if given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct SubscriptionSnapshot {
    is: Subscription,
    was: Option<Subscription>,
}

/// An invoice, at the furthest stage seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Invoice {
    stage: InvoiceStage,
    subscription: Option<String>,
    created_s: i64,
    /// Time of its first failed payment.
    failed_s: Option<i64>,
    /// Time of payment: the earliest reported.
    paid_s: Option<i64>,
    /// Prices and quantities of a paid invoice's lines, by line id.
    lines: BTreeMap<String, (String, u64)>,
    /// Whether the lines are complete.
    has_all: bool,
    /// It may have been folded away before: only fetched data counts.
    doubtful: bool,
}

/// A price that means a plan.
struct PlanPrice {
    /// Its lookup key that does.
    key: String,
    /// All of its keys.
    keys: Vec<String>,
}

/// The payment of a subscription, by its invoices.
struct UnpaidInvoices {
    /// The first failure among its open invoices.
    failed_s: i64,
    /// Whether its newest invoice was marked uncollectible, and none is open.
    given_up: bool,
}

impl Facts {
    /// Applies an event of this customer.
    pub(crate) fn take(&mut self, event: &WebhookEvent) -> EventTaken {
        let kind = event.kind.as_str();
        if kind == "v1.billing.meter.error_report_triggered" {
            return EventTaken::MeterErrors;
        }
        if kind == "checkout.session.completed" {
            return EventTaken::Checkout;
        }
        if event.thin {
            return EventTaken::Unknown;
        }
        let object = &event.object;
        let known = match kind.split('.').next() {
            Some("price") => return EventTaken::Price,
            _ if kind.starts_with("customer.subscription.") => return self.subscription(event),
            // An upcoming invoice has no id.
            Some("invoice") if !text(object, "id").is_empty() => return self.invoice(event),
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
        if known { EventTaken::Yes } else { EventTaken::Unknown }
    }

    /// Takes a subscription that was fetched when Stripe's clock showed this second. It decides
    /// everything before that second, and that second itself unless an event from it contradicts:
    /// then fetch again later.
    pub(crate) fn fetched(&mut self, object: &Value, at_s: i64) {
        if let Some(is) = Subscription::read(object) {
            self.prices_of(object, at_s);
            let id = text(object, "id");
            self.newer(id, (is.has_ended(), at_s, true), SubscriptionSnapshot { is, was: None });
            if let Some(frontier) = self.subscriptions.get_mut(id) {
                frontier.doubtful = false;
            }
        }
    }

    /// Records that Stripe has no subscription of this id: it grants nothing.
    pub(crate) fn no_subscription(&mut self, id: &str) {
        self.subscriptions.remove(id);
    }

    /// Takes a fetched invoice; false if it cannot be read.
    pub(crate) fn fetched_invoice(&mut self, object: &Value, at_s: i64) -> bool {
        let (id, Some(seen)) = (text(object, "id"), InvoiceSeen::read(object)) else {
            return false;
        };
        self.seen(id, seen, at_s);
        if let Some(invoice) = self.invoices.get_mut(id) {
            invoice.doubtful = false;
        }
        true
    }

    /// Records that Stripe has no invoice of this id: a deleted draft.
    pub(crate) fn no_invoice(&mut self, id: &str) {
        if let Some(invoice) = self.invoices.get_mut(id) {
            invoice.stage = invoice.stage.max(InvoiceStage::Void);
            invoice.doubtful = false;
        }
    }

    /// Takes all lines of a paid invoice that sell something.
    pub(crate) fn lines(&mut self, id: &str, lines: Vec<LineSeen>, at_s: i64) {
        self.keys_of(&lines, at_s);
        if let Some(invoice) = self.invoices.get_mut(id) {
            let lines = lines.into_iter().map(|line| (line.id, (line.price, line.quantity)));
            invoice.lines.extend(lines);
            invoice.has_all = true;
        }
    }

    /// Records the lookup key that a price had at this second; an empty one for a price without.
    pub(crate) fn price(&mut self, id: &str, lookup_key: &str, at_s: i64) {
        let keys = self.prices.entry(id.to_owned()).or_default();
        if !lookup_key.is_empty() {
            let seen_s = keys.entry(lookup_key.to_owned()).or_insert(at_s);
            *seen_s = at_s.max(*seen_s);
        }
    }

    /// The meaning of a price: that of its newest lookup key that has one.
    fn sold<'a>(
        &'a self,
        price: &str,
        sold: &impl Fn(&str) -> Option<Sold>,
    ) -> Option<(&'a str, Sold)> {
        let keys = self.prices.get(price)?.iter();
        let means = keys.filter_map(|(key, seen_s)| Some((*seen_s, key.as_str(), sold(key)?)));
        let (_, key, sold) = means.max_by_key(|(seen_s, key, _)| (*seen_s, *key))?;
        Some((key, sold))
    }

    /// The lookup keys of a price, newest first: the [`MOST_KEYS`] newest.
    fn keys(&self, price: &str) -> Vec<String> {
        let mut keys: Vec<_> = self.prices.get(price).into_iter().flatten().collect();
        keys.sort_by_key(|(key, seen_s)| std::cmp::Reverse((**seen_s, *key)));
        keys.into_iter().take(MOST_KEYS).map(|(key, _)| key.clone()).collect()
    }

    /// Whether this subscription goes on at a price that has had one of these lookup keys.
    pub(crate) fn goes_on_at(&self, id: &str, keys: &[String]) -> bool {
        let Some((is, _)) = self.subscriptions.get(id).and_then(Frontier::holds) else {
            return false;
        };
        let has = |price: &str| {
            let known = self.prices.get(price);
            known.is_some_and(|known| keys.iter().any(|key| known.contains_key(key)))
        };
        !is.has_ended() && is.items.iter().any(|(price, _)| has(price))
    }

    /// Prices of subscriptions and paid invoices that mean nothing by these facts alone: the price
    /// records may know more of them.
    pub(crate) fn unresolved(&self, sold: impl Fn(&str) -> Option<Sold>) -> BTreeSet<String> {
        let held = self.subscriptions.values().filter_map(Frontier::holds);
        let held = held.flat_map(|(is, _)| is.items.into_iter().map(|(price, _)| price));
        let lines = self.invoices.values().flat_map(|invoice| invoice.lines.values());
        let all = held.chain(lines.map(|(price, _)| price.clone()));
        all.filter(|price| self.sold(price, &sold).is_none()).collect()
    }

    /// Whether it has a subscription that means a plan and has not ended, even one that has not
    /// begun.
    pub(crate) fn has_plan(&self, sold: impl Fn(&str) -> Option<Sold>) -> bool {
        self.subscriptions.values().filter_map(Frontier::holds).any(|(is, _)| {
            let means = |price: &str| matches!(self.sold(price, &sold), Some((_, Sold::Plan(_))));
            !is.has_ended() && is.items.iter().any(|(price, _)| means(price))
        })
    }

    /// Whether a subscription that means a plan ended at this second or later, on purpose or for
    /// want of payment, even of its first one.
    pub(crate) fn has_ended_since(&self, second: i64, sold: impl Fn(&str) -> Option<Sold>) -> bool {
        self.subscriptions.values().filter_map(Frontier::holds).any(|(is, _)| {
            let means = |price: &str| matches!(self.sold(price, &sold), Some((_, Sold::Plan(_))));
            is.over_s().is_some_and(|over_s| over_s >= second)
                && is.items.iter().any(|(price, _)| means(price))
        })
    }

    /// The customer's state. `sold` gives the meaning of a lookup key: see
    /// [`crate::catalog::Catalog::sold_at`].
    pub(crate) fn state(&self, sold: impl Fn(&str) -> Option<Sold>) -> PlanState {
        let mut state = PlanState {
            method: self.newest_method(),
            deleted: self.deleted_s.is_some(),
            ..PlanState::default()
        };
        let mut best: Option<((Status, i64, &String), Subscription, PlanPrice)> = None;
        for (id, frontier) in &self.subscriptions {
            let Some((is, decided)) = frontier.holds() else { continue };
            if !decided || frontier.doubtful {
                state.wanted.insert(WantedObject::Subscription(id.clone()));
            }
            if frontier.doubtful {
                continue;
            }
            let is = self.with_its_customer(is);
            for (price, quantity) in &is.items {
                match self.sold(price, &sold) {
                    Some((key, Sold::Plan(_))) => {
                        // Of several ended ones, the last end counts.
                        let rank = (is.status, is.over_s().unwrap_or(is.start_s), id);
                        if best.as_ref().is_none_or(|(known, ..)| *known < rank) {
                            let price = PlanPrice { key: key.to_owned(), keys: self.keys(price) };
                            best = Some((rank, is.clone(), price));
                        }
                    }
                    Some((key, Sold::Addon(_))) if is.status >= Status::PastDue => {
                        let past_due = is.status == Status::PastDue;
                        let past_due_s = past_due.then(|| self.unpaid(id, &is).failed_s);
                        let (price, keys) = (key.to_owned(), self.keys(price));
                        let addon = HeldAddon { price, keys, past_due_s };
                        let sum = state.addons.entry(addon).or_default();
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

    /// The lives of the subscriptions that mean a plan, or are on record because they did, and
    /// have begun, by their ids.
    pub(crate) fn spans(
        &self,
        sold: impl Fn(&str) -> Option<Sold>,
        is_known: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Span> {
        let means_plan = |price: &str| matches!(self.sold(price, &sold), Some((_, Sold::Plan(_))));
        let known = self.subscriptions.iter().filter(|(_, frontier)| !frontier.doubtful);
        let spans = known.filter_map(|(id, frontier)| {
            let is = self.with_its_customer(frontier.holds()?.0);
            let is_plan = || is.items.iter().any(|(price, _)| means_plan(price));
            let span = is.span().filter(|_| is_known(id) || is_plan())?;
            Some((id.clone(), span))
        });
        spans.collect()
    }

    /// Stripe ends a deleted customer's subscriptions; those events may still be on their way.
    fn with_its_customer(&self, mut is: Subscription) -> Subscription {
        if let Some(deleted_s) = self.deleted_s.filter(|_| !is.has_ended()) {
            is.end();
            is.ended_s = Some(deleted_s);
        }
        is
    }

    fn subscription(&mut self, event: &WebhookEvent) -> EventTaken {
        let Some(is) = Subscription::read(&event.object) else { return EventTaken::Unreadable };
        self.prices_of(&event.object, event.created_s);
        let was = event.previous.as_ref().and_then(|previous| {
            let mut before = event.object.clone();
            for (field, value) in previous.as_object()? {
                before[field.as_str()] = value.clone();
            }
            // A price's previous name is dated before the event.
            self.prices_of(&before, event.created_s.saturating_sub(1));
            Subscription::read(&before).filter(|was| *was != is)
        });
        let ended = is.has_ended() || event.kind == "customer.subscription.deleted";
        let later = event.kind != "customer.subscription.created";
        let rank = (ended, event.created_s, later);
        let id = text(&event.object, "id");
        let doubtful = was_folded(is.start_s, self.folded.subscriptions_s)
            && !self.subscriptions.contains_key(id);
        self.newer(id, rank, SubscriptionSnapshot { is, was });
        if let Some(frontier) = self.subscriptions.get_mut(id) {
            frontier.doubtful |= doubtful;
        }
        EventTaken::Yes
    }

    fn newer(&mut self, id: &str, rank: (bool, i64, bool), snapshot: SubscriptionSnapshot) {
        let frontier = self.subscriptions.entry(id.to_owned()).or_default();
        if frontier.newest.is_empty() || rank > frontier.rank {
            frontier.rank = rank;
            frontier.newest = BTreeSet::from([snapshot]);
        } else if rank == frontier.rank {
            frontier.newest.insert(snapshot);
        }
    }

    fn invoice(&mut self, event: &WebhookEvent) -> EventTaken {
        let id = text(&event.object, "id");
        let deleted = event.kind == "invoice.deleted";
        let Some(seen) = InvoiceSeen::read(&event.object) else { return EventTaken::Unreadable };
        self.seen(id, seen, event.created_s);
        let Some(invoice) = self.invoices.get_mut(id) else { return EventTaken::Yes };
        if deleted {
            invoice.stage = invoice.stage.max(InvoiceStage::Void);
        }
        if event.kind == "invoice.payment_failed" {
            let at_s = invoice.failed_s.unwrap_or(i64::MAX).min(event.created_s);
            invoice.failed_s = Some(at_s);
        }
        EventTaken::Yes
    }

    /// Records the keys that lines give for their prices. A line without a key leaves its price to
    /// be fetched.
    fn keys_of(&mut self, lines: &[LineSeen], at_s: i64) {
        for line in lines.iter().filter(|line| !line.key.is_empty()) {
            self.price(&line.price, &line.key, at_s);
        }
    }

    /// Merges an invoice seen at this second into the known facts.
    fn seen(&mut self, id: &str, seen: InvoiceSeen, at_s: i64) {
        self.keys_of(&seen.lines, at_s);
        let folded_s = self.folded.invoices_s;
        let invoice = self.invoices.entry(id.to_owned()).or_insert_with(|| Invoice {
            doubtful: was_folded(seen.created_s, folded_s),
            ..Invoice::default()
        });
        invoice.stage = invoice.stage.max(seen.stage);
        invoice.created_s = invoice.created_s.max(seen.created_s);
        invoice.subscription = invoice.subscription.take().max(seen.subscription);
        if seen.stage == InvoiceStage::Paid {
            let paid_s = seen.paid_s.unwrap_or(at_s);
            invoice.paid_s = Some(invoice.paid_s.map_or(paid_s, |known| known.min(paid_s)));
            let lines = seen.lines.into_iter();
            invoice.lines.extend(lines.map(|line| (line.id, (line.price, line.quantity))));
            invoice.has_all |= seen.shows_all;
        }
    }

    fn method(&mut self, id: &str, event: &WebhookEvent, attached: bool) -> bool {
        let forgotten =
            !self.methods.contains_key(id) && was_folded(event.created_s, self.folded.methods_s);
        if !id.is_empty() && !forgotten {
            // Within one second: detached, since a detached method cannot be attached again.
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

    fn prices_of(&mut self, subscription: &Value, at_s: i64) {
        for (id, key) in prices(subscription) {
            self.price(&id, &key, at_s);
        }
    }

    /// The payment of a subscription by its invoices.
    fn unpaid(&self, id: &str, is: &Subscription) -> UnpaidInvoices {
        let of = || {
            let of = |i: &&Invoice| i.subscription.as_deref() == Some(id) && !i.doubtful;
            self.invoices.values().filter(of).filter(|invoice| invoice.stage > InvoiceStage::Draft)
        };
        let open = || of().filter(|invoice| invoice.stage == InvoiceStage::Open);
        let newest = of().max_by_key(|invoice| invoice.created_s);
        let lost = newest.filter(|newest| newest.stage == InvoiceStage::Uncollectible);
        let first = open().filter_map(|invoice| invoice.failed_s).min();
        let failed_s = first.or(lost.and_then(|invoice| invoice.failed_s)).unwrap_or(is.period_s);
        UnpaidInvoices { failed_s, given_up: lost.is_some() && open().next().is_none() }
    }

    fn base(&self, id: &str, is: &Subscription, price: PlanPrice) -> Option<Base> {
        let PlanPrice { key: price, keys } = price;
        let UnpaidInvoices { failed_s, given_up } = self.unpaid(id, is);
        let (payment, since_s) = match is.status {
            Status::Expired | Status::Incomplete => return None,
            Status::Ended => (PaymentState::Canceled, is.over_s().unwrap_or(is.period_s)),
            Status::Unpaid => (PaymentState::Unpaid, failed_s),
            Status::PastDue => (PaymentState::PastDue, failed_s),
            Status::Trialing => (PaymentState::Trialing, is.start_s),
            Status::Active => (PaymentState::Good, is.start_s),
        };
        let (subscription, anchor_s) = (id.to_owned(), is.anchor_s);
        let given_up = given_up && payment != PaymentState::Canceled;
        Some(Base { subscription, price, keys, payment, since_s, anchor_s, given_up })
    }

    fn topups(&self, sold: &impl Fn(&str) -> Option<Sold>, state: &mut PlanState) {
        for (id, invoice) in &self.invoices {
            if invoice.doubtful {
                state.wanted.insert(WantedObject::Invoice(id.clone()));
                continue;
            }
            let Some(paid_s) = invoice.paid_s else { continue };
            if !invoice.has_all {
                state.wanted.insert(WantedObject::Lines(id.clone()));
            }
            for (line, (price, quantity)) in &invoice.lines {
                if !self.prices.contains_key(price) {
                    state.wanted.insert(WantedObject::Price(price.clone()));
                } else if let Some((key, Sold::Topup(_))) = self.sold(price, sold) {
                    let topup = TopUp { price: key.to_owned(), quantity: *quantity, paid_s };
                    state.topups.insert(line.clone(), topup);
                }
            }
        }
    }
}

impl Subscription {
    /// Its life, if it has begun.
    fn span(&self) -> Option<Span> {
        let has_begun = !matches!(self.status, Status::Incomplete | Status::Expired);
        let (from_s, until_s, anchor_s) = (self.start_s, self.over_s(), self.anchor_s);
        has_begun.then_some(Span { from_s, until_s, anchor_s })
    }
}

/// Ids of prices in an object, and their lookup keys there.
pub(crate) fn prices(object: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut note = |item: &Value| {
        if let Some((id, key)) = price_of(item) {
            found.insert((id.to_owned(), key.to_owned()));
        }
    };
    if object["object"] == "price" {
        note(&serde_json::json!({ "price": object }));
    }
    for list in [&object["items"], &object["lines"]] {
        list["data"].as_array().into_iter().flatten().for_each(&mut note);
    }
    found
}

impl Frontier {
    /// The snapshot that holds, and whether the events decide it.
    fn holds(&self) -> Option<(Subscription, bool)> {
        let is_before = |one: &SubscriptionSnapshot| {
            self.newest.iter().any(|o| o.was.as_ref() == Some(&one.is))
        };
        let last: BTreeSet<&Subscription> =
            self.newest.iter().filter(|one| !is_before(one)).map(|one| &one.is).collect();
        let mut held = match last.first() {
            Some(only) if last.len() == 1 => ((*only).clone(), true),
            // Ordered by what it gives the customer.
            _ => (self.newest.iter().map(|one| &one.is).max()?.clone(), false),
        };
        if self.rank.0 {
            // Several snapshots of an end are one end.
            held.0.end();
            held.1 = true;
        }
        Some(held)
    }
}

#[cfg(test)]
#[path = "reducer_tests.rs"]
mod tests;
