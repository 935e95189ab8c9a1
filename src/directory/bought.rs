//! A tenant's subscription at the billing service, and the assignments beneath it.
//!
//! # Laws
//!
//! 1. While it lives it decides plan, payment and anchor. Assignments made meanwhile wait beneath.
//! 2. When it ends, the assignments are in force again: the anchor always, so that no end begins a
//!    cycle anew; plan and payment if a plan was assigned, or a payment state that is not good. If
//!    neither was, the tenant is canceled, and `[billing]` says what that means.
//! 3. An end applies once: an operator's later change of plan or payment overrides it.
//! 4. It is of the tenant's account: with another account it is gone, and so is a live one that
//!    means no plan any more. Only the assignments are left, as if it had never been.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::{PaymentState, TenantRecord};

/// State of a tenant's subscription. One that never began has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Subscribed {
    /// Its id at the billing service.
    pub id: String,
    /// The name of the plan that its price meant when this was written.
    pub plan: String,
    /// The lookup keys of its price, newest first: the first one in the plan file says what it
    /// means now, under whichever name.
    #[serde(default)]
    pub prices: Vec<String>,
    /// Its payment state: [`PaymentState::Canceled`] if it has ended.
    pub payment: PaymentState,
    /// Start of that state, Unix milliseconds.
    pub(crate) since_ms: i64,
    /// Anchor of its periods, Unix milliseconds.
    pub(crate) anchor_ms: i64,
}

/// An addon as it was sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SoldAddon {
    /// The name that its price meant when this was written.
    pub name: String,
    /// The lookup keys of its price, newest first.
    pub prices: Vec<String>,
    /// The quantity.
    pub quantity: u64,
    /// When its payment first failed, Unix milliseconds, if it is past due: `[billing]` says how
    /// long it counts from there.
    pub(crate) past_due_ms: Option<i64>,
}

/// The last subscription of a tenant, and the assignments beneath it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bought {
    says: Subscribed,
    beneath: Assigned,
    /// It has ended, and an operator has changed plan or payment since.
    is_past: bool,
}

/// The assignments, in force where no subscription decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Assigned {
    pub(super) plan: Option<String>,
    pub(super) payment: PaymentState,
    pub(super) payment_since_ms: i64,
    pub(super) anchor_ms: i64,
}

impl Subscribed {
    #[cfg(feature = "stripe")]
    pub(crate) fn new(
        id: &str,
        (plan, prices): (&str, &[String]),
        payment: PaymentState,
        (since_ms, anchor_ms): (i64, i64),
    ) -> Self {
        let (id, plan, prices) = (id.to_owned(), plan.to_owned(), prices.to_vec());
        Self { id, plan, prices, payment, since_ms, anchor_ms }
    }

    fn lives(&self) -> bool {
        self.payment != PaymentState::Canceled
    }
}

#[cfg(feature = "stripe")]
impl SoldAddon {
    pub(crate) fn new(
        name: &str,
        prices: &[String],
        quantity: u64,
        past_due_ms: Option<i64>,
    ) -> Self {
        Self { name: name.to_owned(), prices: prices.to_vec(), quantity, past_due_ms }
    }
}

impl Bought {
    /// Whether the subscription's plan is in force, rather than what is assigned.
    fn decides(&self) -> bool {
        let Self { says, beneath, is_past } = self;
        let is_assigned = beneath.plan.is_some() || beneath.payment != PaymentState::Good;
        says.lives() || !is_past && !is_assigned
    }

    /// The subscription, while it lives.
    pub(super) fn living(&self) -> Option<&Subscribed> {
        Some(&self.says).filter(|says| says.lives())
    }
}

impl TenantRecord {
    /// The directory's own anchor, whether a subscription decides or not.
    pub(super) fn own_anchor_ms(&self) -> i64 {
        self.bought.as_deref().map_or(self.anchor_ms, |bought| bought.beneath.anchor_ms)
    }

    /// Applies a subscription's state, except for an end before a known one.
    pub(super) fn follow(&mut self, says: &Subscribed, now_ms: i64) {
        let mut is_past = false;
        if let Some(Bought { says: known, is_past: was_past, .. }) = self.bought.as_deref()
            && !says.lives()
            && !known.lives()
        {
            if known.id != says.id && (says.since_ms, &says.id) < (known.since_ms, &known.id) {
                return;
            }
            is_past = *was_past && known.id == says.id;
        }
        let beneath = self.assigned();
        self.bought = Some(Box::new(Bought { says: says.clone(), beneath, is_past }));
        self.stand(now_ms);
    }

    /// The live subscription, which decides.
    #[cfg(feature = "stripe")]
    pub(crate) fn subscription(&self) -> Option<&Subscribed> {
        self.bought.as_deref().map(|bought| &bought.says).filter(|says| says.lives())
    }

    /// Whether its customer has a subscription that has not ended: to a plan, or to an addon.
    pub(super) fn has_live_subscription(&self) -> bool {
        let living = self.bought.as_deref().and_then(Bought::living);
        living.is_some() || !self.sold_addons.is_empty()
    }

    /// The lookup keys of the price that the plan in force was bought at, newest first; none if it
    /// was assigned.
    pub(crate) fn plan_prices(&self) -> &[String] {
        let bought = self.bought.as_deref().filter(|bought| bought.decides());
        bought.map_or(&[], |bought| &bought.says.prices)
    }

    /// Sets the addons that were sold. Those that are paid for are shown by name.
    pub(super) fn sell_addons(&mut self, sold: &[SoldAddon]) {
        let mut named = BTreeMap::<String, u64>::new();
        for addon in sold.iter().filter(|addon| addon.past_due_ms.is_none()) {
            let sum = named.entry(addon.name.clone()).or_default();
            *sum = sum.saturating_add(addon.quantity);
        }
        (self.addons, self.sold_addons) = (named, sold.to_vec());
    }

    /// Forgets a live subscription: it means no plan any more. An end stays as it is.
    pub(super) fn unsubscribe(&mut self, now_ms: i64) {
        if self.bought.as_deref().is_some_and(|bought| bought.says.lives()) {
            self.forget_bought(now_ms);
        }
    }

    /// Sets the account; purchases of another one are gone.
    pub(super) fn belong(&mut self, account: Option<&String>, now_ms: i64) {
        if self.account.is_some() && self.account.as_ref() != account {
            if self.bought.is_some() || !self.sold_addons.is_empty() {
                self.sell_addons(&[]);
            }
            if self.bought.is_some() {
                self.forget_bought(now_ms);
            }
        }
        self.link(account, now_ms);
    }

    fn forget_bought(&mut self, now_ms: i64) {
        let assigned = self.assigned();
        self.bought = None;
        self.hold(assigned, now_ms);
    }

    /// Changes the assignments. A change of plan or payment overrides an end.
    pub(super) fn assign(
        &mut self,
        now_ms: i64,
        is_word: bool,
        change: impl FnOnce(&mut Assigned),
    ) {
        let mut assigned = self.assigned();
        change(&mut assigned);
        match &mut self.bought {
            Some(bought) => {
                bought.is_past |= is_word && !bought.says.lives();
                bought.beneath = assigned;
                self.stand(now_ms);
            }
            None => self.hold(assigned, now_ms),
        }
    }

    /// The assigned plan, in force or beneath a subscription; `None`: the default plan.
    pub(crate) fn assigned_plan(&self) -> Option<&str> {
        let beneath = self.bought.as_deref().map(|bought| &bought.beneath.plan);
        beneath.unwrap_or(&self.plan).as_deref()
    }

    /// The assigned payment state, in force or beneath a subscription.
    pub(crate) fn assigned_payment(&self) -> PaymentState {
        self.bought.as_deref().map_or(self.payment, |bought| bought.beneath.payment)
    }

    fn assigned(&self) -> Assigned {
        match &self.bought {
            Some(bought) => bought.beneath.clone(),
            None => Assigned {
                plan: self.plan.clone(),
                payment: self.payment,
                payment_since_ms: self.payment_since_ms,
                anchor_ms: self.anchor_ms,
            },
        }
    }

    /// Puts into force either the subscription or the assignments.
    fn stand(&mut self, now_ms: i64) {
        let Some(bought) = self.bought.as_deref() else { return };
        let Bought { says, beneath, .. } = bought;
        let mut holds = beneath.clone();
        if bought.decides() {
            holds.plan = Some(says.plan.clone());
            (holds.payment, holds.payment_since_ms) = (says.payment, says.since_ms);
        }
        if says.lives() {
            holds.anchor_ms = says.anchor_ms;
        }
        self.hold(holds, now_ms);
    }

    fn hold(&mut self, holds: Assigned, now_ms: i64) {
        let Assigned { plan, payment, payment_since_ms, anchor_ms } = holds;
        if self.plan != plan {
            (self.plan, self.plan_since_ms) = (plan, now_ms);
        }
        (self.payment, self.payment_since_ms) = (payment, payment_since_ms);
        self.anchor_ms = anchor_ms;
    }
}
