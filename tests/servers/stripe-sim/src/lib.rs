//! A Stripe that misbehaves: a local, stateful server with the part of Stripe's API that usage
//! billing needs, which fails on command.
//!
//! Meters and their events, with identifiers that stay taken for a window, limits on timestamps,
//! one call at a time per customer and meter, late rejections, and lagging summaries; customers,
//! prices with movable lookup keys, subscriptions, and invoices, which start as drafts and advance
//! by a test clock; connected accounts; idempotency keys; signed webhooks, in the shapes of two API
//! versions. A script of faults decides what fails, how, and how often.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use stripe_sim::{Fault, Settings, Sim};
//!
//! let sim = Sim::start(Settings::default()).await?;
//! let lost = r#"{"on": "POST /v1/billing/meter_events", "do": "lose"}"#;
//! sim.fault(serde_json::from_str::<Fault>(lost)?);
//! println!("POST {}/v1/billing/meter_events takes effect, and its answer is lost", sim.url());
//! sim.stop().await;
//! # Ok(()) }
//! ```
//!
//! # Limits
//!
//! Its shapes and parameters are compared with Stripe's published API (`tests/sim/published.rs`),
//! and every answer is validated against its published schema (`tests/sim/schema.rs`). Its
//! behaviour follows Stripe's documentation and others' reports; where neither says anything, the
//! module states its assumption. It has no proration, tiers, tax, discounts or `/v2` writes. It
//! serves loopback, over plain HTTP.

mod admin;
mod answer;
mod bodies;
mod clock;
mod faults;
mod form;
mod server;
mod settings;
mod webhook;
mod world;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use faults::{Fault, FaultKind};
pub use server::Answered;
pub use settings::Settings;
pub use webhook::{Delivery, signature};
pub use world::Total;

use server::Shared;

/// A running simulator. Stops when dropped.
#[derive(Debug)]
pub struct Sim {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Sim {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    ///
    /// If no port is available.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Self::start_on(0, settings).await
    }

    /// Starts on this loopback port; 0 is a free one.
    ///
    /// # Errors
    ///
    /// If the port is not available.
    pub async fn start_on(port: u16, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings));
        let server = tokio::spawn(server::serve(listener, shared.clone()));
        Ok(Self { address, shared, server })
    }

    /// Its base URL: `http://127.0.0.1:P`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its time, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.shared.with(|world| world.now())
    }

    /// Stands still at this Unix second from now on; if that has passed, returns false and changes
    /// nothing.
    pub fn stand_at(&self, at: i64) -> bool {
        self.shared.with(|world| {
            let forward = world.clock.stand_at(at);
            world.turn();
            forward
        })
    }

    /// Moves its clock ahead by seconds, and makes the changes due by then.
    pub fn advance(&self, seconds: u32) {
        self.shared.with(|world| {
            world.clock.advance(seconds);
            world.turn();
        });
    }

    /// Creates a meter that sums the events of this name, as `POST /v1/billing/meters` would.
    ///
    /// # Errors
    ///
    /// Stripe's refusal as text: a meter of this name exists already.
    pub fn create_meter(&self, event_name: &str) -> Result<Value, String> {
        let params = serde_json::json!({
            "display_name": event_name,
            "event_name": event_name,
            "default_aggregation": { "formula": "sum" },
        });
        let params = params.as_object().expect("it was written as one");
        let made = self.shared.with(|world| world.create_meter(params));
        made.map_err(|refusal| format!("{refusal:?}"))
    }

    /// Makes a call as the account's owner would by hand: without faults, rate limit or latency,
    /// and not listed in [`calls`](Self::calls). `path` may have a query. Returns the answer's
    /// body.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let sim = stripe_sim::Sim::start(stripe_sim::Settings::default()).await?;
    /// let made = sim.call("POST", "/v1/customers", "email=a@b.c");
    /// let list = sim.call("GET", "/v1/customers?email=a@b.c", "");
    /// assert_eq!(list["data"][0]["id"], made["id"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call(&self, method: &str, path: &str, form: &str) -> Value {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut params = form::parse(query.as_bytes());
        params.extend(form::parse(form.as_bytes()));
        let call = world::Call {
            method: method.to_owned(),
            path: path.to_owned(),
            params,
            idempotency_key: None,
            account: None,
            version: None,
        };
        self.shared.with(|world| world.call(&call)).body
    }

    /// Adds a line to the script of faults.
    pub fn fault(&self, fault: Fault) {
        self.shared.with(|world| world.script.push(fault));
    }

    /// Clears the script of faults.
    pub fn heal(&self) {
        self.shared.with(|world| world.script.clear());
    }

    /// Changes settings.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        self.shared.with(|world| change(&mut world.settings));
    }

    /// Makes an event with a snapshot of this object and sends it as the script says. Returns its
    /// JSON.
    pub fn emit(&self, kind: &str, object: &Value) -> Value {
        self.shared.with(|world| world.emit(kind, object, None))
    }

    /// The same for an object of a connected account.
    pub fn emit_for(&self, account: &str, kind: &str, object: &Value) -> Value {
        self.shared.with(|world| {
            world.acting_as(Some(account.to_owned()), |world| world.emit(kind, object, None))
        })
    }

    /// Everything counted: the truth, whatever the summaries show yet.
    pub fn totals(&self) -> Vec<Total> {
        self.shared.with(|world| world.totals())
    }

    /// Every call with its answer, oldest first.
    pub fn calls(&self) -> Vec<Answered> {
        self.shared.calls()
    }

    /// Every attempt to send a webhook, oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries()
    }

    /// Closes every connection and frees the port.
    pub async fn stop(mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The examples of the README compile, and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
