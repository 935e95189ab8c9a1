//! One decision as it is logged: a line of JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::amount::Amount;
use crate::clock::time_at;
use crate::decision::{Reason, Refusal};
use crate::wire::{self, Mapping, reason_word};

/// Values of [`DecisionRecord::kind`].
pub(crate) mod kind {
    /// The admission of a request, or of work that is counted as one.
    pub(crate) const REQUEST: &str = "request";
    /// The admission of other work.
    pub(crate) const WORK: &str = "work";
    /// Units for what runs already: a handler's, or the rest of a stream.
    pub(crate) const MORE: &str = "more";
}

/// Values of [`DecisionRecord::verdict`].
pub(crate) mod verdict {
    pub(crate) const ADMITTED: &str = "admitted";
    pub(crate) const REFUSED: &str = "refused";
    /// Admitted because of `shadow`, and would have been refused.
    pub(crate) const SHADOWED: &str = "shadowed";
}

/// A decision of a gate, as it is logged (`[decisions]` in the service file) and as
/// [`Gate::refusals_of`](crate::Gate::refusals_of) returns it. It has ids, and never a credential,
/// a path or an address.
///
/// ```
/// use tallygate::DecisionRecord;
///
/// let line = r#"{"at":"2026-11-26T19:00:00Z","kind":"request","verdict":"refused",
///     "tenant":"acme","route":"chat","plan":"free","revision":3,"reason":"quota-exceeded",
///     "limit":"credits/month","status":429,"retry_after_seconds":12}"#;
/// let record: DecisionRecord = serde_json::from_str(line).unwrap();
/// assert!(record.is_refusal());
/// assert_eq!(record.reason.as_deref(), Some("quota-exceeded"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DecisionRecord {
    #[serde(rename = "at", with = "instant")]
    pub(crate) at_ms: i64,
    /// `request`; `work` ([`Gate::admit`](crate::Gate::admit)); `more`: units for what runs
    /// already.
    pub kind: Cow<'static, str>,
    /// `admitted`, `refused`, or `shadowed`: admitted because of `shadow`.
    pub verdict: Cow<'static, str>,
    /// The tenant's outer id; `None` if the caller is not known.
    pub tenant: Option<Arc<str>>,
    /// The user within the tenant, if the caller has one.
    #[serde(default)]
    pub user: Option<Arc<str>>,
    /// The id of the caller's API key, if it has presented one.
    #[serde(default)]
    pub key: Option<Arc<str>>,
    /// The route's name in the plan file; `default` where none matches, and `None` where it is not
    /// known.
    pub route: Option<Arc<str>>,
    /// The plan, if the caller is known.
    pub plan: Option<Arc<str>>,
    /// The revision of the plan file.
    pub revision: u64,
    /// For an admission: one in so many is logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_in: Option<u32>,
    /// Why it was refused: the last part of the problem's type, or `unidentified`.
    pub reason: Option<Cow<'static, str>>,
    /// The details of the reason, if it has any: the payment, feature, scope or meter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Cow<'static, str>>,
    /// The limit that refused.
    pub limit: Option<Arc<str>>,
    /// The status of the refusal over HTTP.
    pub status: Option<u16>,
    /// Whole seconds to wait before a retry; `None` if waiting does not help.
    pub retry_after_seconds: Option<u64>,
    /// What it asked for, by meter, in units.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<Arc<str>, Number>,
    /// The limits that hold for it, in the order in which they are asked, as they stood before it,
    /// as far as this process knew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitAsked>,
}

/// A limit of a logged decision. In [`DecisionRecord::limits`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LimitAsked {
    /// Its name.
    pub name: Arc<str>,
    /// `rate`, `quota` or `concurrency`.
    pub kind: Cow<'static, str>,
    /// What was asked of it, in units.
    pub asked: Number,
    /// The limit: units in its window, the burst of a rate, calls in flight.
    pub limit: Number,
    /// What was used of it.
    pub used: Number,
    /// What was left of it.
    pub remaining: Number,
    /// Whether it lets units through beyond it (`over`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
}

/// What a decision was about.
#[derive(Clone, Debug, Default)]
pub(crate) struct DecisionParts {
    pub(crate) at_ms: i64,
    pub(crate) kind: &'static str,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) plan: Option<Arc<str>>,
    pub(crate) revision: u64,
    pub(crate) cost: BTreeMap<Arc<str>, Number>,
    pub(crate) limits: Vec<LimitAsked>,
}

impl DecisionRecord {
    fn of(parts: DecisionParts, verdict: &'static str) -> Self {
        let DecisionParts { at_ms, kind, tenant, user, key, route, plan, revision, .. } = parts;
        Self {
            at_ms,
            kind: kind.into(),
            verdict: verdict.into(),
            tenant,
            user,
            key,
            route,
            plan,
            revision,
            one_in: None,
            reason: None,
            about: None,
            limit: None,
            status: None,
            retry_after_seconds: None,
            cost: parts.cost,
            limits: parts.limits,
        }
    }

    /// An admission, of which one in so many is recorded.
    pub(crate) fn admitted(parts: DecisionParts, one_in: u32) -> Self {
        Self { one_in: Some(one_in), ..Self::of(parts, verdict::ADMITTED) }
    }

    /// A refusal. What it says of its caller goes before the parts.
    pub(crate) fn refused(parts: DecisionParts, refusal: &Refusal) -> Self {
        let how = Mapping::of(&refusal.reason);
        let this = Self::of(parts, verdict::REFUSED).because(&refusal.reason);
        Self {
            tenant: refusal.tenant.clone().or(this.tenant),
            user: refusal.user.clone().or(this.user),
            key: refusal.key.clone().or(this.key),
            plan: refusal.plan.clone().or(this.plan),
            limit: refusal.limit.as_ref().map(|limit| limit.name.clone()),
            retry_after_seconds: how.retry.then(|| wire::retry_after(refusal)),
            ..this
        }
    }

    /// What would have been refused without `shadow`.
    pub(crate) fn shadowed(parts: DecisionParts, reason: &Reason, limit: Arc<str>) -> Self {
        let this = Self::of(parts, verdict::SHADOWED).because(reason);
        Self { limit: (!limit.is_empty()).then_some(limit), ..this }
    }

    fn because(self, reason: &Reason) -> Self {
        let status = Some(Mapping::of(reason).status);
        let about: Option<Cow<'static, str>> = match reason {
            Reason::PaymentRequired(payment) => Some(wire::payment_word(*payment).into()),
            Reason::FeatureMissing(name)
            | Reason::PermissionMissing(name)
            | Reason::ScopeMissing(name)
            | Reason::NotMetered(name) => Some(name.to_string().into()),
            _ => None,
        };
        Self { reason: Some(reason_word(reason).into()), about, status, ..self }
    }

    /// When it was decided, by the wall clock of the process.
    pub fn at(&self) -> SystemTime {
        time_at(self.at_ms)
    }

    /// The limits that had less left than was asked of them, and let nothing through beyond it:
    /// those that refuse, by these numbers.
    #[doc(hidden)]
    pub fn short_limits(&self) -> impl Iterator<Item = &LimitAsked> {
        self.limits.iter().filter(|limit| !limit.over && limit.is_short())
    }

    /// Whether it was refused.
    pub fn is_refusal(&self) -> bool {
        self.verdict == verdict::REFUSED
    }
}

impl LimitAsked {
    fn is_short(&self) -> bool {
        self.is_short_of(Amount::units(0))
    }

    /// Whether it has less left than was asked, also with this much beyond it.
    pub(crate) fn is_short_of(&self, beyond: Amount) -> bool {
        let value = |it: &Number| it.as_f64().unwrap_or(f64::MAX);
        value(&self.asked) > value(&self.remaining) + value(&number(beyond))
    }
}

/// An amount as a JSON number: whole units exactly; parts of a unit to the precision of a double.
pub(crate) fn number(amount: Amount) -> Number {
    let part = || amount.atoms() as f64 / amount.scale() as f64;
    match amount.atoms().is_multiple_of(amount.scale()) {
        true => amount.whole().into(),
        false => Number::from_f64(part()).unwrap_or_else(|| amount.whole().into()),
    }
}

/// Instants as RFC 3339 text.
mod instant {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(at_ms: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&crate::wire::rfc3339(*at_ms))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        let text = String::deserialize(from)?;
        let at: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(at.as_millisecond())
    }
}
