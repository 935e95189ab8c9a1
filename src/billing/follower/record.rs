//! A tenant's record, as its customer's events say: plan, addons, payment, the dates of
//! subscriptions, and what was paid for once.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{EffectFailed, Follower};
use crate::billing::customers::KnownCustomer;
use crate::billing::reducer::{Base, HeldAddon, PlanState, TopUp, WantedObject};
use crate::catalog::{Catalog, MeterId, Sold};
use crate::clock::time_at;
use crate::directory::{
    DirectoryError, Grant, SoldAddon, Subscribed, SubscriptionSpan, Tenant, TenantRecord,
};
use crate::identity::hex;

/// Longest name of a grant, as the directory has it.
const MAX_GRANT: usize = 64;

impl Follower<'_> {
    /// Top-ups that were paid and are not given yet, by the line of their invoice. The grants of a
    /// line are fixed in the store when it is first seen.
    pub(super) async fn due_topups(
        &self,
        catalog: &Catalog,
        state: &PlanState,
        tenant: &Tenant,
    ) -> Result<Vec<(String, Grant)>, EffectFailed> {
        let (directory, record) = (&self.directory, tenant.record());
        let is_held = |grant: &Grant| record.grants.iter().any(|held| held.id == grant.id);
        let mut offered = topups(catalog, state);
        offered.retain(|_, grants| !grants.iter().all(is_held));
        let mut due = Vec::new();
        if offered.is_empty() {
            return Ok(due);
        }
        let given = directory.given_grants(record.surrogate).await?;
        for (line, grants) in offered {
            let name = name_of(line.clone());
            let fixed = match given.lines.get(&name) {
                Some(fixed) => fixed.clone(),
                None => directory.fix_line(record.surrogate, &name, &grants).await?,
            };
            let open = fixed.into_iter().filter(|g| !is_held(g) && !given.past.contains(&g.id));
            due.extend(open.map(|grant| (line.clone(), grant)));
        }
        Ok(due)
    }

    /// Writes the record of the tenant whose customer this is, which comes back; `None` if it has
    /// no tenant, or its tenant has another customer by now. A customer that never had a
    /// subscription with the meaning of a plan leaves plan and payment as they are: an operator may
    /// have set them. So does one whose subscription has ended, once that is known.
    pub(super) async fn follow(
        &self,
        customer: &str,
        known: &KnownCustomer,
        (state, looked_up): (&PlanState, bool),
        note: &str,
    ) -> Result<Option<Tenant>, EffectFailed> {
        let Some(surrogate) = known.tenant else { return Ok(None) };
        let Some(tenant) = self.directory.get(surrogate).await? else { return Ok(None) };
        let is_its = |tenant: &Tenant| tenant.record().account.as_deref() == Some(customer);
        let live = self.live.load_full();
        let catalog = &live.catalog;
        let spans = spans(customer, known, (tenant.record(), catalog), self.clock.now().wall_ms);
        let spans = tenant.record().lacks(spans);
        if !is_its(&tenant) {
            // It decides nothing any more, but dates what was used while it was.
            if tenant.record().has_had(customer) && !spans.is_empty() {
                tenant.edit().subscriptions(spans).note(note).save().await?;
            }
            return Ok(None);
        }
        let edit = tenant.edit().only_on(customer).subscriptions(spans);
        let mut edit = edit.sold_addons(addons(catalog, state));
        if let Some(Base { subscription, price, keys, payment, since_s, anchor_s, .. }) =
            &state.base
            && let Some(Sold::Plan(plan)) = catalog.sold_at(price)
        {
            let bought = (&*catalog.plans[usize::from(plan.0)].name, keys.as_slice());
            let times_ms = (ms(*since_s), ms(*anchor_s));
            edit = edit.subscribed(Subscribed::new(subscription, bought, *payment, times_ms));
        } else if looked_up && has_left(tenant.record(), known, state) {
            edit = edit.unsubscribed();
        }
        let mut tenant = edit.note(note).save().await?;
        if !is_its(&tenant) {
            return Ok(None);
        }
        self.give(customer, &mut tenant, state, note).await?;
        Ok(Some(tenant))
    }

    /// Grants what was paid for and has not been given.
    async fn give(
        &self,
        customer: &str,
        tenant: &mut Tenant,
        state: &PlanState,
        note: &str,
    ) -> Result<(), EffectFailed> {
        let live = self.live.load_full();
        let (catalog, surrogate) = (&live.catalog, tenant.record().surrogate);
        let now_ms = self.clock.now().wall_ms;
        for (_, grant) in self.due_topups(catalog, state, tenant).await? {
            // The terms of a pack are those that were in force when it was first seen, also where
            // it had ended by then.
            if grant.expires_ms.is_some_and(|end| end <= now_ms) {
                self.directory.note_past_grant(surrogate, &grant).await?;
                continue;
            }
            let (id, meter) = (grant.id.clone(), grant.meter.clone());
            let edit = tenant.edit().only_on(customer).paid_grant(grant);
            match edit.note(note).save().await {
                Ok(given) => *tenant = given,
                // Tried again whenever the customer is looked at; Stripe need not repeat the event.
                Err(error @ DirectoryError::TooMany { .. }) => {
                    let tenant = &tenant.record().id;
                    tracing::error!(
                        %tenant, grant = %id, %error,
                        "paid for but not granted: end a grant that is used up (`end_grant`)"
                    );
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let plan = live.resolve(tenant.record(), now_ms).policy.plan.clone();
            if catalog.meter(&meter).is_none_or(|meter| !plan.limits(meter)) {
                let tenant = &tenant.record().id;
                tracing::error!(
                    %tenant, grant = %id, %meter, plan = %plan.name,
                    "paid for, but the plan does not limit the meter: kept until one does"
                );
            }
        }
        Ok(())
    }
}

/// Whether what the tenant subscribed to means no plan any more: it is over, or its price is
/// another. A key that this process's plan file lacks is no reason: another file may have it.
fn has_left(record: &TenantRecord, known: &KnownCustomer, state: &PlanState) -> bool {
    let doubts = |wanted: &WantedObject| matches!(wanted, WantedObject::Subscription(_));
    record.subscription().is_some_and(|says| {
        state.base.is_none()
            && !state.wanted.iter().any(doubts)
            && !known.facts.goes_on_at(&says.id, &says.prices)
    })
}

/// The customer's subscriptions, for the tenant's history.
fn spans(
    customer: &str,
    known: &KnownCustomer,
    (record, catalog): (&TenantRecord, &Catalog),
    now_ms: i64,
) -> Vec<SubscriptionSpan> {
    let spans = known.facts.spans(|price| catalog.sold_at(price), |id| record.has_span(id));
    let spans = spans.iter().map(|(id, span)| {
        let life = (ms(span.from_s), span.until_s.map(ms));
        SubscriptionSpan::new((id, customer), ms(span.anchor_s), life, now_ms)
    });
    spans.collect()
}

/// Addons as the record holds them.
fn addons(catalog: &Catalog, state: &PlanState) -> Vec<SoldAddon> {
    let mut sold = Vec::new();
    for (HeldAddon { price, keys, past_due_s }, quantity) in &state.addons {
        if let (Some(Sold::Addon(at)), true) = (catalog.sold_at(price), *quantity > 0) {
            let name = &catalog.addons[at].name;
            sold.push(SoldAddon::new(name, keys, *quantity, past_due_s.map(ms)));
        }
    }
    sold
}

/// Paid top-ups by the line of their invoice, on the terms of this catalog.
fn topups(catalog: &Catalog, state: &PlanState) -> BTreeMap<String, Vec<Grant>> {
    let mut lines = BTreeMap::new();
    for (line, TopUp { price, quantity, paid_s }) in &state.topups {
        let Some(Sold::Topup(at)) = catalog.sold_at(price) else { continue };
        if *quantity == 0 {
            continue;
        }
        let offer = &catalog.topups[at];
        let life = offer.expires.map(|life| i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
        let ends = life.map(|life| time_at(ms(*paid_s).saturating_add(life)));
        let grant = |(meter, atoms): &(MeterId, u64)| {
            let meter = &catalog.meters[usize::from(meter.0)];
            let (units, meter) = (atoms / meter.scale, meter.name.to_string());
            // The invoice's line and the meter.
            let id = name_of(format!("{line}.{meter}"));
            let grant = Grant::new(id, meter, units.saturating_mul(*quantity))
                .source("topup")
                .note(format!("{quantity} x {}, line {line}", offer.name));
            match ends {
                Some(at) => grant.expires(at),
                None => grant,
            }
        };
        lines.insert(line.clone(), offer.adds.iter().map(grant).collect());
    }
    lines
}

/// A name in the store: a hash of it where it is too long or of other characters.
fn name_of(name: String) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.len() <= MAX_GRANT && name.chars().all(legal) {
        return name;
    }
    format!("topup.{}", &hex(&Sha256::digest(name.as_bytes()))[..32])
}

fn ms(second: i64) -> i64 {
    second.saturating_mul(1_000)
}
