//! The simulated account: every object, and the effect of each call on them. Without I/O: a call
//! comes in with its parameters and leaves with an answer; resulting events wait in
//! [`World::outgoing`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::{Map, Value, json};

use crate::answer::{Answer, Refusal};
use crate::clock::Clock;
use crate::faults::Script;
use crate::settings::Settings;

mod events;
mod invoices;
mod meters;
mod objects;
mod render;
mod subscriptions;
mod turn;

pub use meters::Total;

use meters::MeterEvent;

/// Parameters of a call: a tree whose leaves are text.
pub(crate) type Params = Map<String, Value>;

pub(crate) type Outcome = Result<Value, Refusal>;

/// Most objects on one page.
const MAX_PAGE: usize = 100;

/// A call to the API.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) params: Params,
    pub(crate) idempotency_key: Option<String>,
    /// The connected account to act for (`Stripe-Account`); `None` for the account itself.
    pub(crate) account: Option<String>,
    /// The API version of the answer (`Stripe-Version`); `None` for the account's version.
    pub(crate) version: Option<String>,
}

/// Whose objects a call sees and makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Acting {
    /// The account's own.
    #[default]
    Own,
    /// A connected account's.
    Connected(String),
    /// All of them, while time advances.
    All,
}

/// The remembered call of an idempotency key.
#[derive(Debug)]
struct Remembered {
    call: (String, String, Params),
    /// `None` while the call has not ended.
    answer: Option<Answer>,
    at: i64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) script: Script,
    /// Objects by kind and id. Ids ascend, so the order is that of creation.
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    /// Owning connected account, by object id.
    owners: HashMap<String, String>,
    acting: Acting,
    /// By event name and customer.
    meter_events: HashMap<(String, String), Vec<MeterEvent>>,
    /// When each identifier was last taken, and by what.
    identifiers: HashMap<String, meters::Taken>,
    /// Accepted, rejected, not yet reported.
    rejected: Vec<meters::Rejected>,
    /// Set by the script: the next meter event is accepted and rejected later for this.
    pub(crate) reject_next: Option<String>,
    keys: HashMap<String, Remembered>,
    /// Subscriptions whose trial was announced to end.
    noticed: HashSet<String>,
    /// Time up to which all due changes were made.
    turned_at: Option<i64>,
    /// Events to be sent, as bodies with their types.
    pub(crate) outgoing: VecDeque<(String, Value)>,
    made: u64,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Begins a call: returns the answer that its idempotency key remembers or refuses, or `None`.
    pub(crate) fn begin(&mut self, call: &Call) -> Option<Answer> {
        let key = call.idempotency_key.as_ref().filter(|_| call.method == "POST")?;
        let (now, window) = (self.now(), self.settings.idempotency_window_s);
        let this = (call.method.clone(), call.path.clone(), call.params.clone());
        if let Some(known) = self.keys.get(key).filter(|known| now - known.at < window) {
            if known.call != this {
                return Some(Refusal::other_parameters(key).into());
            }
            return Some(known.answer.clone().unwrap_or_else(|| Refusal::key_in_use().into()));
        }
        self.keys.insert(key.clone(), Remembered { call: this, answer: None, at: now });
        None
    }

    /// Ends a call that [`World::begin`] began. Refusals that never began to execute (429, and
    /// invalid parameters) are forgotten, as at Stripe.
    pub(crate) fn end(&mut self, call: &Call, answer: &Answer) {
        let Some(key) = call.idempotency_key.as_ref().filter(|_| call.method == "POST") else {
            return;
        };
        if answer.status < 400 || answer.status >= 500 {
            if let Some(known) = self.keys.get_mut(key) {
                known.answer = Some(answer.clone());
            }
        } else {
            self.keys.remove(key);
        }
    }

    /// Executes the call.
    pub(crate) fn call(&mut self, call: &Call) -> Answer {
        self.turn();
        let version = call.version.clone().unwrap_or_else(|| self.settings.api_version.clone());
        self.acting_as(call.account.clone(), |world| match world.route(call) {
            Ok(body) => Answer::ok(world.rendered(&body, &version)),
            Err(refusal) => refusal.into(),
        })
    }

    /// Does something with the objects of a connected account, or with the account's own.
    pub(crate) fn acting_as<T>(
        &mut self,
        account: Option<String>,
        does: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let acting = account.map_or(Acting::Own, Acting::Connected);
        let before = std::mem::replace(&mut self.acting, acting);
        let done = does(self);
        self.acting = before;
        done
    }

    /// The lock that this call needs, if any: one such call at a time.
    pub(crate) fn lock_of(call: &Call) -> Option<String> {
        if call.method != "POST" || call.path != "/v1/billing/meter_events" {
            return None;
        }
        let payload = call.params.get("payload");
        let customer = payload.and_then(|p| p.get("stripe_customer_id")).and_then(Value::as_str);
        let event = call.params.get("event_name").and_then(Value::as_str);
        Some(format!("{} {}", event.unwrap_or_default(), customer.unwrap_or_default()))
    }

    fn route(&mut self, call: &Call) -> Outcome {
        let params = &call.params;
        let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        match (call.method.as_str(), parts.as_slice()) {
            ("POST", ["v1", "billing", "meters"]) => self.create_meter(params),
            ("GET", ["v1", "billing", "meters"]) => {
                self.list("meter", &call.path, params, &["status"])
            }
            ("GET", ["v1", "billing", "meters", id]) => self.get("meter", id),
            ("POST", ["v1", "billing", "meters", id, "deactivate"]) => self.deactivate_meter(id),
            ("GET", ["v1", "billing", "meters", id, "event_summaries"]) => {
                self.summaries(id, params)
            }
            ("POST", ["v1", "billing", "meter_events"]) => self.take_meter_event(params),
            ("POST", ["v1", "billing", "meter_event_adjustments"]) => self.adjust(params),
            ("POST", ["v1", "customers"]) => self.create_customer(params),
            ("GET", ["v1", "customers"]) => self.list("customer", &call.path, params, &["email"]),
            ("GET", ["v1", "customers", "search"]) => self.search_customers(params),
            ("GET", ["v1", "customers", id]) => self.get("customer", id),
            ("POST", ["v1", "customers", id]) => self.update_customer(id, params),
            ("DELETE", ["v1", "customers", id]) => self.delete_customer(id),
            ("POST", ["v1", "products"]) => self.create_product(params),
            ("GET", ["v1", "products", id]) => self.get("product", id),
            ("POST", ["v1", "prices"]) => self.create_price(params),
            ("GET", ["v1", "prices"]) => self.list_prices(params),
            ("GET", ["v1", "prices", id]) => self.get("price", id),
            ("POST", ["v1", "prices", id]) => self.update_price(id, params),
            ("POST", ["v1", "subscriptions"]) => self.create_subscription(params),
            ("GET", ["v1", "subscriptions"]) => self.list_subscriptions(params),
            ("GET", ["v1", "subscriptions", id]) => self.get("subscription", id),
            ("POST", ["v1", "subscriptions", id]) => self.update_subscription(id, params),
            ("DELETE", ["v1", "subscriptions", id]) => self.cancel_subscription(id),
            ("GET", ["v1", "invoices"]) => {
                self.list("invoice", &call.path, params, &["customer", "status"])
            }
            ("POST", ["v1", "invoices"]) => self.create_invoice(params),
            ("GET", ["v1", "invoices", id]) => self.get("invoice", id),
            ("DELETE", ["v1", "invoices", id]) => self.delete_draft(id),
            ("GET", ["v1", "invoices", id, "lines"]) => self.lines(id, &call.path, params),
            ("POST", ["v1", "invoices", id, "pay"]) => self.pay_invoice(id, params),
            ("POST", ["v1", "invoices", id, "finalize"]) => self.finalize_invoice(id, params),
            ("POST", ["v1", "invoices", id, "void"]) => self.close_invoice(id, params, "void"),
            ("POST", ["v1", "invoices", id, "mark_uncollectible"]) => {
                self.close_invoice(id, params, "uncollectible")
            }
            ("POST", ["v1", "invoiceitems"]) => self.create_invoice_item(params),
            ("GET", ["v1", "invoiceitems", id]) => self.get("invoiceitem", id),
            ("POST", ["v1", "invoiceitems", id]) => self.update_invoice_item(id, params),
            ("DELETE", ["v1", "invoiceitems", id]) => self.delete_invoice_item(id),
            ("GET", ["v1", "events"]) => self.list_events(params),
            ("GET", ["v1", "events", id]) => self.get("event", id),
            ("GET", ["v2", "core", "events", id]) => self.get("v2 event", id),
            (method, _) => Err(Refusal::no_route(method, &call.path)),
        }
    }

    /// The next id of a kind; ids sort by age.
    fn next_id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}_sim{:010}", self.made)
    }

    fn table(&self, kind: &'static str) -> impl DoubleEndedIterator<Item = &Value> {
        let all = self.objects.get(kind).into_iter().flat_map(BTreeMap::values);
        all.filter(|object| self.sees(text(object, "id")))
    }

    fn find(&self, kind: &'static str, id: &str) -> Option<&Value> {
        self.objects.get(kind)?.get(id).filter(|_| self.sees(id))
    }

    fn sees(&self, id: &str) -> bool {
        match &self.acting {
            Acting::All => true,
            Acting::Own => !self.owners.contains_key(id),
            Acting::Connected(account) => self.owners.get(id) == Some(account),
        }
    }

    fn put(&mut self, kind: &'static str, object: Value) -> Value {
        let id = text(&object, "id").to_owned();
        if let Acting::Connected(account) = &self.acting {
            self.owners.insert(id.clone(), account.clone());
        }
        self.objects.entry(kind).or_default().insert(id, object.clone());
        object
    }

    fn get(&self, kind: &'static str, id: &str) -> Outcome {
        self.find(kind, id).cloned().ok_or_else(|| Refusal::no_such(kind, id, "id"))
    }

    /// The objects of a kind, newest first, that match each of these fields as requested.
    fn list(&self, kind: &'static str, path: &str, params: &Params, by: &[&str]) -> Outcome {
        let mut known = by.to_vec();
        known.extend(PAGING);
        allow(params, &known)?;
        let asked: Vec<(&str, &str)> =
            by.iter().filter_map(|field| Some((*field, params.get(*field)?.as_str()?))).collect();
        let wanted = self.table(kind).rev().filter(|object| {
            asked.iter().all(|(field, value)| object[*field].as_str() == Some(*value))
        });
        page(path, params, wanted.cloned())
    }
}

/// Parameters of every list.
const PAGING: [&str; 3] = ["limit", "starting_after", "expand"];

/// One page, starting after `starting_after`.
fn page(path: &str, params: &Params, all: impl Iterator<Item = Value>) -> Outcome {
    let limit = whole(params, "limit")?.map_or(10, |n| usize::try_from(n).unwrap_or(0));
    if limit == 0 || limit > MAX_PAGE {
        let message = format!("This value must be between 1 and {MAX_PAGE}.");
        return Err(Refusal::invalid(Some("parameter_invalid_integer"), Some("limit"), message));
    }
    let after = params.get("starting_after").and_then(Value::as_str);
    let mut all = all.skip_while(|object| after.is_some_and(|after| text(object, "id") != after));
    if after.is_some() {
        all.next();
    }
    let mut data: Vec<Value> = all.take(limit + 1).collect();
    let has_more = data.len() > limit;
    data.truncate(limit);
    Ok(json!({ "object": "list", "url": path, "has_more": has_more, "data": data }))
}

/// Refuses parameters that the endpoint does not have, as Stripe does.
fn allow(params: &Params, known: &[&str]) -> Result<(), Refusal> {
    match params.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Refusal::unknown_parameter(name)),
        None => Ok(()),
    }
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, Refusal> {
    let given = params.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    given.ok_or_else(|| Refusal::missing(name))
}

/// A whole number, if the parameter is there.
fn whole(params: &Params, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(value) = params.get(name) else { return Ok(None) };
    let number = value.as_str().and_then(|value| value.parse().ok());
    number.map(Some).ok_or_else(|| {
        let message = format!("Invalid integer: {value}");
        Refusal::invalid(Some("parameter_invalid_integer"), Some(name), message)
    })
}

fn flag(params: &Params, name: &str) -> Option<bool> {
    params.get(name).and_then(Value::as_str).map(|value| value == "true")
}

/// A text field of an object, or nothing.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// An object as published by Stripe, with every field present, to be filled in.
fn shape(published: &str) -> Value {
    serde_json::from_str(published).expect("the shapes in this crate are JSON")
}
