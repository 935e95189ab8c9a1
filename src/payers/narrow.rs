//! Late use of quotas of narrower scope than the tenant: what they pay, and what they owe.

use std::sync::Arc;

use crate::catalog::{MeterId, Over, Scope};
use crate::payers::lanes::Part;
use crate::payers::purse::{self, Purse};
use crate::policy::taken::{PaysFor, Taken};
use crate::policy::{Policy, QuotaRule};
use crate::quota::lease::Lease;
use crate::sheets::hub::Hub;
use crate::sheets::sheet::Sheet;

/// The quotas of a meter of narrower scope than the tenant.
pub(super) fn narrow_of(sheet: &Sheet, meter: MeterId) -> impl Iterator<Item = &QuotaRule> {
    let of_meter = sheet.policy.quotas.iter().filter(move |rule| rule.quota.meter == meter);
    of_meter.filter(|rule| !rule.tenant_wide)
}

/// The scope by whose values a quota counts; `None`: the tenant has one counter.
pub(super) fn scope_of<'a>(policy: &'a Policy, rule: &QuotaRule) -> Option<&'a Scope> {
    policy.pools[rule.debtor].place.scope()
}

/// What was drawn of late use from a quota of narrower scope was used, and the rest of `n` is owed.
/// Returns how many are beyond it and billed, and how many after these are owed.
pub(super) fn settle_narrow(
    q: &Purse<'_>,
    rule: &QuotaRule,
    parts: [Part; 2],
    n: u64,
) -> (u64, u64) {
    let [(_, within), (_, beyond)] = parts;
    for (from, n) in parts {
        if let Some(from) = from {
            purse::settle(q.hub, q.sheet, &Taken { from, n, pays: PaysFor::LateUse, draw: 0 }, n);
        }
    }
    let owed = n - within - beyond;
    if let Some(debtor) = purse::lease_at(q, rule.debtor) {
        settle_late(q.hub, &debtor, owed);
    }
    if rule.quota.over == Over::Bill { (beyond, owed) } else { (0, 0) }
}

/// The same where a lease cannot be waited for: by what is known of it, and in its pool the rest.
pub(super) fn owe_narrow(q: &Purse<'_>, rule: &QuotaRule, n: u64) -> (u64, u64) {
    let included = rule.included.and_then(|pool| purse::lease_at(q, pool));
    let here = included.map_or(0, |lease| lease.remaining().min(n));
    let over = rule.over.and_then(|pool| purse::lease_at(q, pool));
    let beyond = over.as_ref().map_or(0, |lease| lease.remaining().min(n - here));
    if let Some(over) = over {
        settle_late(q.hub, &over, beyond);
    }
    if let Some(debtor) = purse::lease_at(q, rule.debtor) {
        settle_late(q.hub, &debtor, n - beyond);
    }
    if rule.quota.over == Over::Bill { (beyond, n - here - beyond) } else { (0, 0) }
}

/// Late use of a lease of narrower scope, of which nothing was drawn.
fn settle_late(hub: &Hub, lease: &Arc<Lease>, n: u64) {
    if n > 0 {
        owe(hub, lease, n);
        hub.unrecorded.add_lease(lease);
    }
}

/// The debtor owes this much: it is charged to its pool.
pub(super) fn owe(hub: &Hub, debtor: &Arc<Lease>, n: u64) {
    match n {
        0 => {}
        _ if debtor.is_sealed() => drop(debtor.settle_late(n)),
        _ => debtor.owe(n),
    }
    hub.renewals.wake(debtor);
}
