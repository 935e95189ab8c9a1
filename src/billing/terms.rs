//! On which terms use is billed, and what a billing period included.
//!
//! # Laws
//!
//! 1. The customer is the account under which use was admitted, never the one of today.
//! 2. Only a quota with `over = "bill"` makes overage that is owed. What a period included is the
//!    most that was offered at any look during it, and what was used while nothing was billed. So
//!    who changes its plan within a period never owes for units that were its own, and what is
//!    owed already is not taken back.
//! 3. What was drawn from grants was given or paid for before: it is included, as far as the pools
//!    beyond the quota say that it is not overage. Of a tenant without grants they are not asked:
//!    a cost that was learned late is in none of them, and owed all the same.
//! 4. Overage is counted over the billing period. A billed quota by the hour, day or week has no
//!    such sum: nothing of it is owed.
//!
//! Not promised: what a tenant with grants draws beyond its quota while a report reads the logs may
//! be taken for its own. Overage between the last look and a change to a plan that does not bill
//! (at most `stripe.report-every`) is not owed. A change between the last look and the period's end
//! is not seen.

use std::sync::Arc;

use super::ItemId;
use super::item::make;
use super::report::Terms;
use crate::catalog::{Anchors, Catalog, Every, MeterId, Over, Plan, Scope, Send};
use crate::directory::TenantRecord;
use crate::store::layout::{Space, check_format, format};
use crate::store::{
    Change, Item, Store, StoreError, StoreErrorKind, TTL, Value, When, Write, Written,
};

/// Format of a period's item.
const FORMAT: i64 = 1;

/// How long a period's item is kept after its end: as long as usage is looked through.
const KEEP_S: i64 = 400 * 86_400;

/// How often a change starts over because another reporter came in between.
const ATTEMPTS: usize = 8;

const INCLUDED: &str = "included";
const BILLED: &str = "billed";
const ENDS: &str = "ends_ms";

/// What a plan says of a meter whose overage is sent. In atoms of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Beyond this, use is owed.
    Billed(u64),
    /// Beyond this, use is refused.
    Denied(u64),
    /// Use is neither bounded nor owed.
    Free,
}

/// What a period has included so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Period {
    included: u64,
    /// Whether overage was billed at any look.
    billed: bool,
}

impl Period {
    /// `beyond`: what of the use the pools beyond the quota gave, where the tenant has grants.
    fn look(self, offer: Offer, used: u64, beyond: Option<u64>) -> Self {
        let Self { included, billed } = self.drawn(used, beyond);
        match offer {
            Offer::Billed(limit) => Self { included: included.max(limit), billed: true },
            Offer::Denied(limit) if billed => Self { included: included.max(limit), billed },
            // A cost that was learned late may pass a limit that refuses: it is not owed.
            Offer::Denied(limit) => Self { included: included.max(limit).max(used), billed },
            Offer::Free => Self { included: included.max(used), billed },
        }
    }

    /// What came from the quota and from grants is included.
    fn drawn(self, used: u64, beyond: Option<u64>) -> Self {
        let within = beyond.map_or(0, |beyond| used.saturating_sub(beyond));
        Self { included: self.included.max(within), ..self }
    }
}

/// The terms of an item by a tenant's plan and anchors as they are now, and where overage is sent
/// what the plan offers: for [`settle`]. `None` if nothing of it is sent: a meter that is not in
/// the plan file any more, or has no `stripe`, or counts in units that do not divide.
pub(crate) fn terms(
    id: &ItemId,
    catalog: &Catalog,
    plan: &Plan,
    anchors: &Anchors,
) -> Option<(Terms, Option<Offer>)> {
    let at = catalog.meter(&id.meter)?;
    let meter = &catalog.meters[usize::from(at.0)];
    let stripe = meter.stripe.as_ref()?;
    // Counted at another scale than today's: a whole number of atoms to the unit, or nothing.
    let scaled = stripe.atoms_per_unit.checked_mul(id.scale)?;
    let atoms_per_unit = scaled / meter.scale.max(1);
    if atoms_per_unit == 0 || !scaled.is_multiple_of(meter.scale.max(1)) {
        return None;
    }
    let rescale = |limit: u64| {
        let atoms = u128::from(limit) * u128::from(id.scale) / u128::from(meter.scale.max(1));
        u64::try_from(atoms).unwrap_or(u64::MAX)
    };
    let offer = (stripe.send == Send::Overage).then(|| match offer(plan, at) {
        Offer::Billed(limit) => Offer::Billed(rescale(limit)),
        Offer::Denied(limit) => Offer::Denied(rescale(limit)),
        Offer::Free => Offer::Free,
    });
    let ends_ms = Every::Cycle.window(id.period_ms, &catalog.timezone, anchors).end_ms;
    let (customer, event) = (id.account.to_string(), stripe.event.clone());
    let terms = Terms { customer, event, atoms_per_unit, included: 0, ends_ms, carry: true };
    Some((terms, offer))
}

/// The quotas of a meter whose overage is billed, by their words: where the tenant has grants on
/// it, from which it draws before it draws beyond them. Otherwise none.
pub(crate) fn billed_quotas(
    id: &ItemId,
    catalog: &Catalog,
    plan: &Plan,
    record: &TenantRecord,
) -> Vec<Arc<str>> {
    let Some(meter) = catalog.meter(&id.meter) else { return Vec::new() };
    let quotas = || plan.quotas.get(&meter).into_iter().flatten();
    let granted = record.grants.iter().any(|grant| *grant.meter == *id.meter)
        || quotas().any(|quota| quota.every == Every::Once);
    // Pools count at today's scale.
    let scale = catalog.meters[usize::from(meter.0)].scale;
    let billed = quotas().filter(|quota| quota.over == Over::Bill && quota.scope == Scope::Tenant);
    let words: Vec<Arc<str>> = billed.map(|quota| quota.id.clone()).collect();
    if granted && scale == id.scale { words } else { Vec::new() }
}

fn offer(plan: &Plan, meter: MeterId) -> Offer {
    let all = || plan.quotas.get(&meter).into_iter().flatten();
    let of_tenant = || all().filter(|quota| quota.scope == Scope::Tenant);
    let limit_of = |over: Over, short: bool| {
        let is_short = |every| matches!(every, Every::Hour | Every::Day | Every::Week);
        let those =
            of_tenant().filter(|quota| quota.over == over && short | !is_short(quota.every));
        those.filter_map(|quota| quota.limit).min()
    };
    match (limit_of(Over::Bill, false), limit_of(Over::Deny, true)) {
        (Some(limit), _) => Offer::Billed(limit),
        (None, Some(limit)) if of_tenant().all(|quota| quota.over == Over::Deny) => {
            Offer::Denied(limit)
        }
        _ => Offer::Free,
    }
}

/// Looks at a period: puts into `terms` what it includes by now and when it ends. After its end
/// that is as it was last seen, but for grants that were drawn from at last. `beyond`: see
/// [`billed_quotas`].
pub(crate) async fn settle(
    store: &dyn Store,
    space: &Space,
    (id, used, beyond): (&ItemId, u64, Option<u64>),
    offer: Offer,
    terms: &mut Terms,
    now_ms: i64,
) -> Result<(), StoreError> {
    let key = space.terms(&id.account, id.tenant, &id.meter, id.scale, id.period_ms);
    let mut stands = store.read(key.clone()).await?;
    for _ in 0..ATTEMPTS {
        let known = stands.as_ref().map(decode).transpose()?;
        let ends_ms = known.map_or(terms.ends_ms, |(_, ends_ms)| ends_ms);
        let before = known.map(|(period, _)| period);
        let period = match before {
            Some(period) if now_ms >= ends_ms => period.drawn(used, beyond),
            _ => before.unwrap_or_default().look(offer, used, beyond),
        };
        if before == Some(period) {
            (terms.included, terms.ends_ms) = (period.included, ends_ms);
            return Ok(());
        }
        let write = Write {
            key: key.clone(),
            when: match before {
                None => vec![When::Absent],
                Some(before) => vec![
                    When::Equals(INCLUDED.into(), text(before.included)),
                    When::Equals(BILLED.into(), Value::Int(before.billed.into())),
                ],
            },
            change: encode(period, ends_ms),
        };
        stands = match make(store, write).await? {
            Written::Applied(item) | Written::Refused(item) => item,
        };
    }
    Err(StoreError::new(StoreErrorKind::Throttled, "others keep changing these terms"))
}

fn encode(period: Period, ends_ms: i64) -> Vec<Change> {
    let (name, version) = format(FORMAT);
    vec![
        Change::Set(name, version),
        Change::Set(INCLUDED.into(), text(period.included)),
        Change::Set(BILLED.into(), Value::Int(period.billed.into())),
        Change::Set(ENDS.into(), Value::Int(ends_ms)),
        Change::Set(TTL.into(), Value::Int(ends_ms.div_euclid(1_000).saturating_add(KEEP_S))),
    ]
}

/// Atoms do not fit a signed number.
fn text(atoms: u64) -> Value {
    Value::Text(atoms.to_string())
}

fn decode(item: &Item) -> Result<(Period, i64), StoreError> {
    check_format(item, FORMAT, "a billing period")?;
    let parts = || {
        let included = item.text(INCLUDED)?.parse().ok()?;
        let billed = item.int(BILLED)? != 0;
        Some((Period { included, billed }, item.int(ENDS)?))
    };
    parts()
        .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "a billing period cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is owed after these looks: what was offered, and what was used by then.
    fn owed(looks: &[(Offer, u64)]) -> u64 {
        let mut period = Period::default();
        for (offer, used) in looks {
            period = period.look(*offer, *used, None);
        }
        looks.last().unwrap().1.saturating_sub(period.included)
    }

    #[test]
    fn what_was_drawn_from_grants_is_not_overage() {
        let look = |period: Period, used, beyond| period.look(Offer::Billed(100), used, beyond);
        // 100 of the quota, 50 of a grant, 10 beyond.
        let period = look(look(Period::default(), 120, Some(0)), 160, Some(10));
        assert_eq!(160 - period.included, 10);
        // The grant ends and is forgotten: it stays included.
        assert_eq!(170 - look(period, 170, None).included, 20);
        assert_eq!(160 - Period::default().drawn(160, Some(10)).included, 10);
    }

    #[test]
    fn overage_is_what_passes_the_most_that_was_included() {
        use Offer::{Billed, Denied, Free};
        assert_eq!(owed(&[(Billed(100), 99)]), 0);
        assert_eq!(owed(&[(Billed(100), 130)]), 30);
        // To a smaller plan and to a larger one, within a period.
        assert_eq!(owed(&[(Billed(100), 50), (Billed(10), 60)]), 0);
        assert_eq!(owed(&[(Billed(10), 5), (Billed(100), 60)]), 0);
        // What was used while nothing was billed is not owed later.
        assert_eq!(owed(&[(Free, 900), (Billed(100), 950)]), 50);
        assert_eq!(owed(&[(Denied(200), 150), (Billed(100), 160)]), 0);
        // A cost that was learned late, on a plan that bills nothing.
        assert_eq!(owed(&[(Denied(10), 12)]), 0);
        // Overage stays owed on a plan that refuses.
        assert_eq!(owed(&[(Billed(100), 130), (Denied(10), 130)]), 30);
    }
}
