//! Billing terms of recorded use.
//!
//! # Laws
//!
//! 1. The customer is the account under which use was admitted, never the current one.
//! 2. A period ends with its era: at a subscription's begin or end, or with a move to another
//!    customer. Units recorded after that, because it was learned of late, are its overrun: owed as
//!    recorded, and dated after the end.
//! 3. Owed is what is on record, either all of it or what was used beyond a quota with
//!    `over = "bill"`: recorded where it was drawn, in the billing period in which it was used,
//!    whatever windows the quotas have. Nothing is computed from what a plan includes, and so a
//!    change of plan neither removes nor adds anything.

use super::ItemId;
use super::dates::minutes_of;
use super::due::{BillingTerms, Overrun};
use crate::catalog::{Catalog, Send, Zone};
use crate::directory::{EraEdge, TenantRecord};

/// How long after its time a begin or an end may be learned of without a look at when usage was
/// recorded, because events are dated by the minute; and after which all processes know it.
const PROMPT_MS: i64 = 60_000;

/// Most periods between a late edge and the time at which it was learned of: as many edges as a
/// record has, and the months in which usage can still be dated.
const MAX_PARTS: usize = 66;

/// The terms of an item by the era in which its period began. `None` if none of it is sent: the
/// meter is no longer in the plan file, or has no `stripe`, or counts in units that do not divide.
pub(crate) fn terms(
    id: &ItemId,
    catalog: &Catalog,
    record: &TenantRecord,
    carry: bool,
) -> Option<BillingTerms> {
    let meter = &catalog.meters[usize::from(catalog.meter(&id.meter)?.0)];
    let stripe = meter.stripe.as_ref()?;
    // Counted at another scale than the current one: a whole number of atoms to the unit, or
    // nothing.
    let scaled = stripe.atoms_per_unit.checked_mul(id.scale)?;
    let atoms_per_unit = scaled / meter.scale.max(1);
    if atoms_per_unit == 0 || !scaled.is_multiple_of(meter.scale.max(1)) {
        return None;
    }
    // A period may have begun with the former customer, and a cycle of that one's have been learned
    // of since.
    let (at_ms, zone) = (record.came_ms(&id.account, id.period_ms), &catalog.timezone);
    let era = record.era(at_ms);
    let period_end_ms = era.period(at_ms, zone).end_ms;
    let ends_ms = record.left_ms(&id.account, period_end_ms);
    let late = era.ends.filter(|edge| {
        edge.at_ms == ends_ms && edge.seen_ms.saturating_sub(edge.at_ms) >= PROMPT_MS
    });
    let overrun = late.and_then(|edge| overrun(&id.account, record, zone, edge));
    let (customer, event) = (id.account.to_string(), stripe.event.clone());
    let overage = stripe.send == Send::Overage;
    Some(BillingTerms { customer, event, atoms_per_unit, overage, ends_ms, overrun, carry })
}

/// What was recorded between a late edge and the time at which it was learned of: it lies in the
/// periods of that time, as they are known now. One without a begin of a minute has no date: its
/// units stay with those before.
fn overrun(account: &str, record: &TenantRecord, zone: &Zone, late: EraEdge) -> Option<Overrun> {
    let (mut parts, mut from_ms) = (Vec::new(), late.at_ms);
    for _ in 0..MAX_PARTS {
        if from_ms >= late.seen_ms {
            break;
        }
        let end_ms = record.era(from_ms).period(from_ms, zone).end_ms;
        let part = (from_ms, record.left_ms(account, end_ms));
        let (first_s, last_s) = minutes_of(part);
        parts.extend((first_s <= last_s).then_some(part));
        from_ms = end_ms;
    }
    let known_ms = late.seen_ms.saturating_add(PROMPT_MS);
    (!parts.is_empty()).then_some(Overrun { parts, known_ms, owed: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Surrogate;

    const PLANS: &str = r#"
        default-plan = "free"
        [meter.hours]
        parts  = 60
        stripe = { event = "hours" }
        [meter.tokens]
        stripe = { event = "tokens", unit = "k" }
        [plan.free]
    "#;

    #[test]
    fn a_unit_of_stripe_is_as_many_atoms_as_the_use_was_counted_in() {
        let catalog = Catalog::parse("plans.toml", PLANS, std::time::UNIX_EPOCH).unwrap();
        let atoms = |meter: &str, scale| {
            let id = ItemId {
                account: "cus_1".into(),
                tenant: Surrogate::test(1),
                meter: meter.into(),
                scale,
                period_ms: 0,
            };
            let record = TenantRecord::begin(Surrogate::test(1), "acme", 0);
            let terms = terms(&id, &catalog, &record, false);
            terms.map(|terms| terms.atoms_per_unit)
        };
        assert_eq!(atoms("hours", 60), Some(60));
        assert_eq!(atoms("hours", 30), Some(30), "what was counted in halves of what it is now");
        assert_eq!(atoms("tokens", 1), Some(1_000));
        assert_eq!(atoms("tokens", 60), Some(60_000));
        assert_eq!(atoms("colours", 1), None);
    }
}
