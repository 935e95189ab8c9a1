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

use serde::{Deserialize, Serialize};

use super::record::{PaymentState, TenantRecord};

/// State of a tenant's subscription. One that never began has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Subscribed {
    /// Its id at the billing service.
    pub id: String,
    /// The name of the plan that its price means.
    pub plan: String,
    /// Its payment state: [`PaymentState::Canceled`] if it has ended.
    pub payment: PaymentState,
    /// Start of that state, Unix milliseconds.
    pub since_ms: i64,
    /// Anchor of its periods, Unix milliseconds.
    pub anchor_ms: i64,
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
    pub(crate) fn new(id: &str, plan: &str, payment: PaymentState, times_ms: (i64, i64)) -> Self {
        let (since_ms, anchor_ms) = times_ms;
        Self { id: id.to_owned(), plan: plan.to_owned(), payment, since_ms, anchor_ms }
    }

    fn lives(&self) -> bool {
        self.payment != PaymentState::Canceled
    }
}

impl TenantRecord {
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

    /// Whether a subscription decides.
    #[cfg(feature = "stripe")]
    pub(crate) fn is_subscribed(&self) -> bool {
        self.bought.as_deref().is_some_and(|bought| bought.says.lives())
    }

    /// Forgets a live subscription: it means no plan any more. An end stays as it is.
    pub(super) fn unsubscribe(&mut self, now_ms: i64) {
        if self.bought.as_deref().is_some_and(|bought| bought.says.lives()) {
            self.forget_bought(now_ms);
        }
    }

    /// Sets the account; purchases of another one are gone.
    pub(super) fn belong(&mut self, account: Option<&String>, now_ms: i64) {
        if self.account.is_some() && self.account.as_ref() != account && self.bought.is_some() {
            self.forget_bought(now_ms);
            self.addons.clear();
        }
        self.account = account.cloned();
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
        let Some(Bought { says, beneath, is_past }) = self.bought.as_deref() else { return };
        let mut holds = beneath.clone();
        let is_assigned = beneath.plan.is_some() || beneath.payment != PaymentState::Good;
        if says.lives() || !is_past && !is_assigned {
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
