//! The objects at Stripe that the plan file names: whether they are there, and as it needs them.
//! What is there is never changed; a missing meter can be made.

use serde_json::Value;

use super::calls::ApiCall;
use super::customers::made;
use super::{MAX_PAGES, Stripe, no_date};
use crate::billing::sink::SinkError;
use crate::catalog::Catalog;

/// Where an event of ours names its customer.
const CUSTOMER: &str = "stripe_customer_id";
/// Where it has its units.
const VALUE: &str = "value";

/// An object at Stripe that the plan file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeObject {
    /// What it is.
    pub kind: ObjectKind,
    /// The event name of a meter, or the lookup key of a price.
    pub name: String,
    /// What names it in the plan file: `meter.calls`, `plan.pro`.
    pub by: String,
    /// Its id at Stripe, where it is there.
    pub id: Option<String>,
    /// What is wrong with it; empty: nothing.
    pub faults: Vec<String>,
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A billing meter.
    Meter,
    /// A price that recurs: of a plan or an addon.
    Recurring,
    /// A price that is paid once: of a top-up.
    Once,
}

/// What a plan file names, not looked up yet.
fn named(catalog: &Catalog) -> Vec<(ObjectKind, String, String)> {
    let mut all = Vec::new();
    for meter in &catalog.meters {
        let by = format!("meter.{}", meter.name);
        all.extend(meter.stripe.iter().map(|it| (ObjectKind::Meter, it.event.clone(), by.clone())));
    }
    let mut prices = |kind, table: &str, name: &str, keys: &[String]| {
        all.extend(keys.iter().map(|key| (kind, key.clone(), format!("{table}.{name}"))));
    };
    catalog.plans.iter().for_each(|it| prices(ObjectKind::Recurring, "plan", &it.name, &it.prices));
    let addons = catalog.addons.iter();
    addons.for_each(|it| prices(ObjectKind::Recurring, "addon", &it.name, &it.prices));
    catalog.topups.iter().for_each(|it| prices(ObjectKind::Once, "topup", &it.name, &it.prices));
    all
}

impl Stripe {
    /// The objects that this plan file names, as they stand.
    pub(crate) async fn objects(&self, catalog: &Catalog) -> Result<Vec<StripeObject>, SinkError> {
        let named = named(catalog);
        let has_meters = named.iter().any(|it| it.0 == ObjectKind::Meter);
        let meters = if has_meters { self.all_meters().await? } else { Vec::new() };
        let mut objects = Vec::new();
        for (kind, name, by) in named {
            let found = match kind {
                ObjectKind::Meter => meter_of(&meters, &name).cloned(),
                ObjectKind::Recurring | ObjectKind::Once => {
                    let answer = self.inner.ask(&ApiCall::prices(&name)).await?;
                    answer.body["data"].get(0).cloned()
                }
            };
            let id = found.as_ref().and_then(|it| it["id"].as_str()).map(str::to_owned);
            let faults = faults(kind, found.as_ref());
            objects.push(StripeObject { kind, name, by, id, faults });
        }
        Ok(objects)
    }

    /// Makes a meter of this event name. The caller has seen that there is none.
    pub(crate) async fn make_meter(&self, event: &str) -> Result<(), SinkError> {
        // Stripe repeats the answer to a key for a day: one made later may be needed within it.
        let asked = self.inner.ask(&ApiCall::one_meter()).await?;
        let minute = asked.date_s.ok_or_else(no_date)?.div_euclid(60);
        let key = format!("tg_meter_{event}_{minute}");
        made(self.inner.http.post_once(&ApiCall::make_meter(event), &key).await).map(drop)
    }

    pub(super) async fn all_meters(&self) -> Result<Vec<Value>, SinkError> {
        let mut all: Vec<Value> = Vec::new();
        let mut call = ApiCall::meters(None);
        for _ in 0..MAX_PAGES {
            let answer = self.inner.ask(&call).await?;
            let page = answer.body["data"].as_array().cloned().unwrap_or_default();
            let last = page.last().and_then(|it| it["id"].as_str()).map(str::to_owned);
            all.extend(page);
            match last.filter(|_| answer.body["has_more"] == true) {
                Some(last) => call = ApiCall::meters(Some(&last)),
                None => break,
            }
        }
        Ok(all)
    }
}

/// The active meter of an event name, of which there is one at most.
fn meter_of<'a>(meters: &'a [Value], event: &str) -> Option<&'a Value> {
    meters.iter().find(|it| it["event_name"] == event && it["status"] == "active")
}

/// What is wrong with an object.
fn faults(kind: ObjectKind, found: Option<&Value>) -> Vec<String> {
    let Some(found) = found else { return vec!["it is missing, or not active".to_owned()] };
    let text = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
    let pairs: &[(&str, &Value, &str)] = match kind {
        ObjectKind::Meter => &[
            ("default_aggregation.formula", &found["default_aggregation"]["formula"], "sum"),
            (
                "customer_mapping.event_payload_key",
                &found["customer_mapping"]["event_payload_key"],
                CUSTOMER,
            ),
            (
                "value_settings.event_payload_key",
                &found["value_settings"]["event_payload_key"],
                VALUE,
            ),
        ],
        ObjectKind::Recurring => &[("type", &found["type"], "recurring")],
        ObjectKind::Once => &[("type", &found["type"], "one_time")],
    };
    let wrong = pairs.iter().filter(|(_, is, wanted)| *is != wanted);
    wrong.map(|(name, is, wanted)| format!("{name} is {}, not {wanted}", text(is))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_is_not_as_it_is_needed_says_why() {
        let meter = |status: &str, formula: &str| {
            json!({
                "event_name": "calls", "status": status,
                "default_aggregation": { "formula": formula },
                "customer_mapping": { "event_payload_key": CUSTOMER },
                "value_settings": { "event_payload_key": VALUE },
            })
        };
        let all = [meter("inactive", "sum"), meter("active", "count")];
        let found = meter_of(&all, "calls");
        let said = faults(ObjectKind::Meter, found);
        assert_eq!(said, ["default_aggregation.formula is count, not sum"]);
        assert!(faults(ObjectKind::Meter, Some(&meter("active", "sum"))).is_empty());
        assert!(meter_of(&all[..1], "calls").is_none(), "another may be made of its name");
        let price = json!({ "type": "one_time" });
        assert!(faults(ObjectKind::Once, Some(&price)).is_empty());
        let said = faults(ObjectKind::Recurring, Some(&price));
        assert_eq!(said, ["type is one_time, not recurring"]);
    }
}
