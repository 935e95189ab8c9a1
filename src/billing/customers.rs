//! Store of customer facts from events: one item for each customer, and a mark for each event.
//! Price names are stored beside it (`prices.rs`).
//!
//! # Laws
//!
//! 1. Facts are written over the version they were derived from: concurrent events do not lose each
//!    other.
//! 2. An event is marked only after its effect is durable. A mark only saves work: an event that is
//!    processed twice changes nothing ([`super::reducer`]).
//! 3. Unknown events are kept for [`KEEP_S`], with their body where it is small.

use std::sync::Arc;

use super::item::make;
use super::reducer::Facts;
use super::webhook::WebhookEvent;
use crate::directory::{CUSTOMER_FORMAT, tenant_of};
use crate::ids::Surrogate;
use crate::store::layout::{Space, check_format, format};
use crate::store::{Change, Item, Store, StoreError, StoreErrorKind, Value, When, Write, Written};

/// How often a change is retried after a concurrent one: as many events of one customer at once as
/// Stripe sends.
const ATTEMPTS: usize = 32;

/// How long an event's mark is kept: Stripe retries for 3 days, and manually for 30.
const KEEP_S: i64 = 40 * 86_400;

/// Largest body kept of an unknown event.
const MAX_KEPT: usize = 64 * 1024;

/// Largest facts of a customer: leaves room within the limit of an item. Invoices that no longer
/// decide anything are folded away; what remains is some thousand lines of packs that were paid for
/// and could not be granted.
const MAX_FACTS: usize = 350 * 1024;

/// Format of an event's mark.
const EVENT_FORMAT: i64 = 1;

const FACTS: &str = "facts";
const VERSION: &str = "version";
const POLLED: &str = "polled_ms";

/// Customers and events of one space.
#[derive(Clone)]
pub(crate) struct Customers {
    pub(super) store: Arc<dyn Store>,
    pub(super) space: Space,
}

/// A customer as stored in its item.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownCustomer {
    pub(crate) facts: Facts,
    /// Number of changes to the facts; 0 before the first.
    pub(crate) version: i64,
    pub(crate) tenant: Option<Surrogate>,
    /// When the service was last asked about it without an event, Unix milliseconds; 0 for never.
    pub(crate) polled_ms: i64,
}

/// The reason an event is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It took effect.
    Applied,
    /// No handler knows it.
    Unknown,
    /// It is a Checkout that could not link the tenant that it names.
    NotLinked(NotLinked),
    /// It is of the other mode.
    OtherMode,
    /// It is of a connected account.
    OtherAccount,
}

/// Why a Checkout links no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotLinked {
    /// There is no such tenant.
    NoTenant,
    /// Its customer belongs to another tenant.
    CustomerTaken,
    /// It is a purchase of another customer than its tenant's.
    OtherCustomer,
    /// The name of the tenant, or of the customer, is none.
    Name,
}

/// What is written of an event that took effect.
const APPLIED: &str = "applied";

impl Customers {
    pub(crate) fn new(store: Arc<dyn Store>, space: Space) -> Self {
        Self { store, space }
    }

    pub(crate) async fn read(&self, customer: &str) -> Result<KnownCustomer, StoreError> {
        let item = self.store.read(self.space.customer(customer)).await?;
        item.as_ref().map_or_else(|| Ok(KnownCustomer::default()), decode)
    }

    /// Changes a customer's facts and returns the result. `change` is applied again to facts that
    /// were written concurrently; unchanged facts cost no write.
    pub(crate) async fn change(
        &self,
        customer: &str,
        change: impl Fn(&mut Facts),
    ) -> Result<KnownCustomer, StoreError> {
        let mut known = self.read(customer).await?;
        for _ in 0..ATTEMPTS {
            let mut facts = known.facts.clone();
            change(&mut facts);
            if facts == known.facts {
                return Ok(known);
            }
            known = match make(&*self.store, self.write(customer, known.version, &facts)?).await? {
                Written::Applied(Some(item)) => return decode(&item),
                // Another's write, or our own after a lost reply: then it includes the change.
                Written::Refused(Some(item)) => decode(&item)?,
                Written::Applied(None) | Written::Refused(None) => KnownCustomer::default(),
            };
        }
        let message = "concurrent changes to this customer: try again";
        Err(StoreError::new(StoreErrorKind::Throttled, message))
    }

    /// Records when the service was last asked about a customer.
    pub(crate) async fn polled(&self, customer: &str, now_ms: i64) -> Result<(), StoreError> {
        let (name, format) = format(CUSTOMER_FORMAT);
        let write = Write {
            key: self.space.customer(customer),
            when: vec![],
            change: vec![Change::Set(name, format), Change::Set(POLLED.into(), Value::Int(now_ms))],
        };
        make(&*self.store, write).await.map(|_| ())
    }

    /// Whether this event has taken effect. One that was only kept is taken again when it comes
    /// again: its tenant may be there by now, its type known, the mode the other one.
    pub(crate) async fn is_marked(&self, event: &WebhookEvent) -> Result<bool, StoreError> {
        let Some(item) = self.store.read(self.space.webhook(&event.id)).await? else {
            return Ok(false);
        };
        check_format(&item, EVENT_FORMAT, "a webhook")?;
        Ok(item.text("was") == Some(APPLIED))
    }

    /// Marks an event as processed.
    pub(crate) async fn mark(
        &self,
        event: &WebhookEvent,
        mark: Mark,
        body: &[u8],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (name, version) = format(EVENT_FORMAT);
        let word = match mark {
            Mark::Applied => APPLIED,
            Mark::Unknown => "unknown",
            Mark::NotLinked(_) => "not linked",
            Mark::OtherMode => "other mode",
            Mark::OtherAccount => "other account",
        };
        let ttl = now_ms.div_euclid(1_000).saturating_add(KEEP_S);
        let mut change = vec![
            Change::Set(name, version),
            Change::Set("type".into(), Value::Text(event.kind.clone())),
            Change::Set("created".into(), Value::Int(event.created_s)),
            Change::Set("was".into(), Value::Text(word.to_owned())),
            Change::Set(Item::TTL.into(), Value::Int(ttl)),
        ];
        if mark != Mark::Applied && body.len() <= MAX_KEPT {
            change.push(Change::Set("body".into(), Value::Bytes(body.to_vec())));
        }
        let write = Write { key: self.space.webhook(&event.id), when: vec![], change };
        make(&*self.store, write).await.map(|_| ())
    }

    fn write(&self, customer: &str, version: i64, facts: &Facts) -> Result<Write, StoreError> {
        let invalid = |what: &str| StoreError::new(StoreErrorKind::Invalid, what.to_owned());
        let body =
            postcard::to_stdvec(facts).map_err(|_| invalid("a customer's facts do not encode"))?;
        if body.len() > MAX_FACTS {
            return Err(invalid(
                "a customer has too many subscriptions, or paid packs that could not be granted: \
                 link it to its tenant, or find out why they cannot be granted",
            ));
        }
        let (name, format) = format(CUSTOMER_FORMAT);
        let when = match version {
            0 => When::Missing(VERSION.into()),
            known => When::Equals(VERSION.into(), Value::Int(known)),
        };
        Ok(Write {
            key: self.space.customer(customer),
            when: vec![when],
            change: vec![
                Change::Set(name, format),
                Change::Set(VERSION.into(), Value::Int(version.saturating_add(1))),
                Change::Set(FACTS.into(), Value::Bytes(body)),
            ],
        })
    }
}

fn decode(item: &Item) -> Result<KnownCustomer, StoreError> {
    let tenant = tenant_of(item)?;
    let polled_ms = item.int(POLLED).unwrap_or(0);
    // Linked, but with no event yet.
    let Some(version) = item.int(VERSION) else {
        return Ok(KnownCustomer { tenant, polled_ms, ..KnownCustomer::default() });
    };
    let facts = item.bytes(FACTS).and_then(|bytes| postcard::from_bytes(bytes).ok());
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a customer's facts cannot be read");
    Ok(KnownCustomer { facts: facts.ok_or_else(damaged)?, version, tenant, polled_ms })
}

/// The customer of this event: the one its object belongs to, or is.
pub(crate) fn customer_of(event: &WebhookEvent) -> Option<&str> {
    let object = &event.object;
    let of = &object["customer"];
    let own = (object["object"] == "customer").then(|| object["id"].as_str()).flatten();
    // A detached payment method no longer has a customer.
    let was = event.previous.as_ref().and_then(|previous| previous["customer"].as_str());
    of.as_str().or(of["id"].as_str()).or(own).or(was).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::store::Memory;

    fn customers() -> Customers {
        Customers::new(Arc::new(Memory::new()), Space::new("s"))
    }

    #[tokio::test]
    async fn more_facts_of_a_customer_than_an_item_holds_are_refused() {
        let named = |letters: usize| {
            move |facts: &mut Facts| facts.price("price_1", &"x".repeat(letters), 1)
        };
        let long = MAX_FACTS - 1_000;
        let mut facts = Facts::default();
        named(long)(&mut facts);
        let most = long + MAX_FACTS - postcard::to_stdvec(&facts).unwrap().len();
        let customers = customers();
        assert_eq!(customers.change("cus_1", named(most)).await.unwrap().version, 1);
        for letters in [most + 1, 2 * most] {
            let refused = customers.change("cus_2", named(letters)).await.unwrap_err();
            assert_eq!(refused.kind, StoreErrorKind::Invalid, "{refused}");
        }
        assert_eq!(customers.read("cus_2").await.unwrap().version, 0);
    }

    #[tokio::test]
    async fn when_stripe_was_asked_last_is_known_of_a_customer_without_an_event_too() {
        let customers = customers();
        customers.polled("cus_1", 77).await.unwrap();
        let known = customers.read("cus_1").await.unwrap();
        assert_eq!((known.polled_ms, known.version), (77, 0));
        customers.change("cus_1", |facts| facts.price("price_1", "pro", 1)).await.unwrap();
        let known = customers.read("cus_1").await.unwrap();
        assert_eq!((known.polled_ms, known.version), (77, 1));
    }

    #[test]
    fn an_event_is_of_the_customer_that_its_object_is_or_belongs_to_or_belonged_to() {
        let of = |object: Json, previous: Option<Json>| {
            let (kind, id) = ("x".to_owned(), "evt_1".to_owned());
            let (created_s, live, thin) = (1, false, false);
            let (account, version) = (None, None);
            let event = WebhookEvent {
                id,
                kind,
                created_s,
                live,
                object,
                previous,
                account,
                version,
                thin,
            };
            customer_of(&event).map(str::to_owned)
        };
        let it = Some("cus_1".to_owned());
        assert_eq!(of(json!({ "object": "customer", "id": "cus_1" }), None), it);
        assert_eq!(of(json!({ "object": "invoice", "id": "in_1", "customer": "cus_1" }), None), it);
        assert_eq!(of(json!({ "id": "in_1", "customer": { "id": "cus_1" } }), None), it);
        let detached = json!({ "object": "payment_method", "id": "pm_1", "customer": null });
        assert_eq!(of(detached.clone(), Some(json!({ "customer": "cus_1" }))), it);
        assert_eq!(of(detached, None), None, "no tenant has it");
        assert_eq!(of(json!({ "object": "customer", "id": "" }), None), None);
    }
}
