//! Settings beside the plans: purchases on top of one, exceptions of one tenant, and the effects of
//! payment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Enforce, Feature, MeterId, PlanId, Quota, Rate};

/// An addon bought on top of a plan, times a quantity.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "what Stripe sells"))]
pub(crate) struct Addon {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Stripe price lookup keys.
    pub prices: Vec<String>,
    /// Added to numeric features, per piece.
    pub features: Vec<(Arc<str>, i64)>,
    /// Added to quotas, per piece: atoms to add to the limit with the same words.
    pub quotas: Vec<Quota>,
}

/// Units bought once.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "what Stripe sells"))]
pub(crate) struct Topup {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Stripe price lookup keys.
    pub prices: Vec<String>,
    /// Atoms granted, by meter.
    pub adds: Vec<(MeterId, u64)>,
    /// Lifetime of the grant.
    pub expires: Option<Duration>,
}

/// A tenant's own contract period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// First instant, Unix milliseconds (local midnight of the date in the file).
    pub from_ms: i64,
    /// Its length in months (`1y` is 12).
    pub months: u32,
}

/// Changes of a plan by an exception or an operator's override.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlanChanges {
    /// Another plan as the base.
    pub plan: Option<PlanId>,
    /// Rates replaced, by their key in the file.
    pub rates: BTreeMap<Arc<str>, Vec<Rate>>,
    /// Quotas replaced, by meter.
    pub quotas: BTreeMap<MeterId, Vec<Quota>>,
    /// Features replaced.
    pub features: BTreeMap<Arc<str>, Feature>,
    /// Concurrency replaced.
    pub concurrency: Option<u32>,
    /// Enforcement replaced.
    pub enforce: Option<Enforce>,
    /// Contract period.
    pub term: Option<Term>,
}

/// A `[tenant.x]` table: an exception with an end. Its `note` is for readers of the file.
#[derive(Clone, Debug)]
pub(crate) struct Exception {
    /// The changes.
    pub changes: PlanChanges,
    /// First instant at which it no longer holds, Unix milliseconds.
    pub until_ms: Option<i64>,
}

/// Effect of a payment state on a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PaymentRule {
    /// The whole plan.
    Full,
    /// Another plan.
    Plan(PlanId),
    /// The plan for this long, then another rule.
    Grace(Duration, Box<PaymentRule>),
    /// 402 until paid.
    PaymentRequired,
}

/// The `[billing]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BillingTable {
    /// In a trial.
    pub trialing: PaymentRule,
    /// A payment failed and is being retried.
    pub past_due: PaymentRule,
    /// Retries have ended.
    pub unpaid: PaymentRule,
    /// The subscription has ended.
    pub canceled: PaymentRule,
    /// The plan to which a customer without one is subscribed when a payment method arrives.
    pub on_payment_method: Option<PlanId>,
    /// Treatment of a subscription whose payment has finally failed.
    pub on_final_failure: OnFinalFailure,
}

/// Treatment of a subscription whose payment has finally failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnFinalFailure {
    /// It stays as Stripe's own settings leave it.
    #[default]
    Keep,
    /// It is canceled.
    Cancel,
}
