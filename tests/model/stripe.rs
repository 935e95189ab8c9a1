//! A Stripe of a history's own: a customer for each tenant, their subscriptions, and its events, in
//! any order and more than once.

use std::collections::BTreeSet;

use serde_json::Value;
use stripe_sim::{Settings, Sim, signature};
use tallygate::Gate;
use tallygate::testing::START_MS;
use test_support::gates;

use crate::history::{Drawn, METERS};
use crate::system::Differs;

const KEY: &str = "sk_test_x";
const SECRET: &str = "whsec_x";

/// Most events of one page, and most that any step of a history makes.
const PAGE: usize = 100;

/// See the [module](self).
pub(crate) struct Stripe {
    pub(crate) sim: Sim,
    pub(crate) customers: Vec<String>,
    /// Subscriptions that live, by tenant.
    subscriptions: Vec<Option<String>>,
    /// Events already passed on.
    delivered: BTreeSet<String>,
    order: Drawn,
    home: tempfile::TempDir,
}

impl Stripe {
    pub(crate) async fn start() -> Self {
        let settings = Settings { webhook_secrets: vec![SECRET.to_owned()], ..Settings::default() };
        let sim = Sim::start(settings).await.unwrap();
        assert!(sim.stand_at(START_MS / 1_000));
        for meter in METERS {
            sim.create_meter(meter).unwrap();
        }
        let home = tempfile::tempdir().unwrap();
        let this = Self {
            sim,
            customers: Vec::new(),
            subscriptions: Vec::new(),
            delivered: BTreeSet::new(),
            order: Drawn(1),
            home,
        };
        for plan in 0..2 {
            let price = format!(
                "currency=usd&unit_amount=2000&product_data[name]=x&recurring[interval]=month&\
                 lookup_key=p{plan}_monthly"
            );
            this.call("POST", "/v1/prices", &price);
        }
        this
    }

    /// Adds a customer who can pay.
    pub(crate) fn customer(&mut self, customer: String) {
        let pays = "invoice_settings[default_payment_method]=pm_card_visa";
        self.call("POST", &format!("/v1/customers/{customer}"), pays);
        self.customers.push(customer);
        self.subscriptions.push(None);
    }

    /// The tenant buys a plan, or changes to it; true: it had none before.
    pub(crate) fn subscribe(&mut self, tenant: usize, plan: usize) -> bool {
        let prices = format!("/v1/prices?lookup_keys[]=p{plan}_monthly");
        let prices = self.call("GET", &prices, "");
        let price = prices["data"][0]["id"].as_str().unwrap();
        let Some(living) = &self.subscriptions[tenant] else {
            let customer = &self.customers[tenant];
            let form = format!("customer={customer}&items[0][price]={price}");
            let made = self.call("POST", "/v1/subscriptions", &form);
            self.subscriptions[tenant] = Some(made["id"].as_str().unwrap().to_owned());
            return true;
        };
        let path = format!("/v1/subscriptions/{living}");
        self.call("POST", &path, &format!("items[0][price]={price}"));
        false
    }

    /// Cancels the subscription. False: there is none.
    pub(crate) fn cancel(&mut self, tenant: usize) -> bool {
        let Some(living) = self.subscriptions[tenant].take() else { return false };
        self.call("DELETE", &format!("/v1/subscriptions/{living}"), "");
        true
    }

    /// Events since the last call, in any order, some of them twice.
    pub(crate) fn events(&mut self) -> Vec<Value> {
        let list = self.call("GET", &format!("/v1/events?limit={PAGE}"), "");
        let events = list["data"].as_array().unwrap();
        let is_new = |event: &&Value| !self.delivered.contains(event["id"].as_str().unwrap());
        let mut events: Vec<_> = events.iter().filter(is_new).cloned().collect();
        assert!(events.len() < PAGE, "more than a page in one step");
        for event in &events {
            self.delivered.insert(event["id"].as_str().unwrap().to_owned());
        }
        for at in 0..events.len() {
            let other = self.order.below(events.len() as u64) as usize;
            events.swap(at, other);
        }
        events.extend_from_within(..events.len() / 3);
        events
    }

    /// Passes them on; those that wait for others are sent again, a second later.
    pub(crate) async fn deliver(
        &self,
        gate: &Gate,
        events: Vec<Value>,
    ) -> Result<Vec<Value>, Differs> {
        let mut waits = Vec::new();
        for event in events {
            let body = event.to_string();
            let signed = signature(&[SECRET.to_owned()], self.sim.now(), body.as_bytes());
            match gate.stripe_webhook(signed.as_bytes(), body.as_bytes()).await.status {
                200 => {}
                503 => waits.push(event),
                status => return Err(format!("webhook: the gate says {status}, of {event}")),
            }
        }
        Ok(waits)
    }

    fn call(&self, method: &str, path: &str, form: &str) -> Value {
        let said = self.sim.call(method, path, form);
        assert!(said["error"].is_null(), "{method} {path}: {said}");
        said
    }

    /// The service file of a gate connected to it.
    pub(crate) fn service(&self) -> String {
        let table = gates::stripe_table(self.home.path(), KEY, SECRET, &self.sim.url());
        gates::service("fast") + &table
    }
}
