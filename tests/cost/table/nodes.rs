//! Nodes that share a table, and their traffic: all on one runtime with simulated time, so that an
//! hour takes seconds.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tallygate::testing::{OpenRequest, START_MS};
use tallygate::{Clock, Gate, GateBuilder, Now, Outcome, Reason};
use test_support::gates::ByHeader;
use test_support::requests::Call;
use tokio::time::Instant;

use super::metered::Table;

/// Interval between two batches of requests.
const TICK: Duration = Duration::from_millis(10);

/// The runtime's time, on both clocks.
#[derive(Clone, Copy)]
pub(crate) struct RuntimeClock(pub(crate) Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Now {
        let since = self.0.elapsed();
        let wall_ms = START_MS + since.as_millis() as i64;
        Now { mono_ns: (1 << 62) + since.as_nanos() as u64, wall_ms }
    }
}

/// The calling tenants, by Zipf's law, in order of these shares.
pub(crate) struct Tenants {
    names: Vec<Arc<str>>,
    /// Upper bound of each tenant's range, of a million.
    up_to: Vec<f64>,
    shares: Vec<f64>,
}

/// The clients' results.
#[derive(Clone, Default)]
pub(crate) struct Got {
    pub(crate) admitted: Arc<AtomicU64>,
    pub(crate) refused: Arc<AtomicU64>,
    pub(crate) unavailable: Arc<AtomicU64>,
}

/// SplitMix64: every run draws the same numbers.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Tenants {
    pub(crate) fn new(n: usize) -> Self {
        let weights: Vec<f64> = (1..=n).map(|rank| 1.0 / rank as f64).collect();
        let all: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / all).collect();
        let mut sum = 0.0;
        let up_to = shares.iter().map(|share| {
            sum += share;
            sum
        });
        let up_to = up_to.collect();
        let names = (0..n).map(|i| format!("t{i}").into()).collect();
        Self { names, up_to, shares }
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// A plan file: each tenant's monthly quota is this many times its usage over all `requests`.
    pub(crate) fn plans(&self, requests: u64, times: u64) -> String {
        let mut text =
            "default-plan = \"free\"\n[plan.free]\nquota.requests = \"200/month\"\n".to_owned();
        for (name, share) in self.names.iter().zip(&self.shares) {
            let limit = ((requests * times) as f64 * share).max(200.0) as u64;
            let _ =
                writeln!(text, "[tenant.{name}]\nquota.requests = \"{limit}/month\"\nnote = \"-\"");
        }
        text
    }

    fn pick(&self, chance: &mut Chance) -> &Arc<str> {
        let at = chance.part();
        let i = self.up_to.partition_point(|up_to| *up_to < at);
        &self.names[i.min(self.names.len() - 1)]
    }
}

/// A node, on the runtime that calls.
pub(crate) async fn open(table: &Table, plans: &str, max_write_units: u32) -> Gate {
    node(table, plans, max_write_units).open().await.unwrap()
}

/// The same as a Lambda sandbox, which does not announce itself to the others.
pub(crate) async fn open_sandbox(table: &Table, plans: &str, max_write_units: u32) -> Gate {
    node(table, plans, max_write_units).strict_rates(true).open().await.unwrap()
}

fn node(table: &Table, plans: &str, max_write_units: u32) -> GateBuilder {
    let service = format!(
        "[store]\nkind = \"memory\"\n[[identify]]\nheader = \"x-gateway-tenant\"\n\
         [identity]\nunknown = \"create\"\n[proxy]\ntrust = [\"127.0.0.0/8\"]\n\
         [flush]\nmode = \"fast\"\nevery = \"1s\"\nmax-write-units = {max_write_units}\n"
    );
    let clock = RuntimeClock(Instant::now());
    let builder = GateBuilder::from_text(&service).plans(plans).store(table.node());
    builder.clock(clock).identify(ByHeader)
}

/// Creates every tenant: once in a tenant's life, so not part of the measurement.
pub(crate) async fn make_tenants(table: &Table, plans: &str, tenants: &Tenants) {
    let gate = open(table, plans, 1_000_000).await;
    for name in &tenants.names {
        gate.directory().tenant(name).save().await.unwrap();
    }
    gate.close().await.unwrap();
}

/// This many requests at this rate, each at a random node.
pub(crate) async fn traffic(
    nodes: &[Gate],
    tenants: &Tenants,
    requests: u64,
    per_second: u64,
    chance: &mut Chance,
    got: &Got,
) {
    let begun = Instant::now();
    let mut asked = 0;
    while asked < requests {
        tokio::time::sleep(TICK).await;
        let due = begun.elapsed().as_millis() as u64 * per_second / 1_000;
        while asked < due.min(requests) {
            asked += 1;
            let node = &nodes[chance.next() as usize % nodes.len()];
            ask(node.clone(), tenants.pick(chance).clone(), got.clone());
        }
    }
}

/// One request of each tenant.
pub(crate) async fn each_once(gate: &Gate, tenants: &Tenants, got: &Got) {
    for name in &tenants.names {
        ask(gate.clone(), name.clone(), got.clone());
        tokio::task::yield_now().await;
    }
}

/// One request. Most are answered at once; the rest wait concurrently.
fn ask(gate: Gate, tenant: Arc<str>, got: Got) {
    let mut request = Box::pin(async move {
        let count =
            match OpenRequest::admit(&gate, &Call::new("POST", "/work", [("x-tenant", &*tenant)]))
                .await
            {
                Ok(open) => {
                    open.head(200);
                    open.end(Outcome::Complete { status: 200 });
                    &got.admitted
                }
                Err(Some(refusal)) if refusal.reason == Reason::Unavailable => &got.unavailable,
                Err(_) => &got.refused,
            };
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    if request.as_mut().poll(&mut context).is_pending() {
        tokio::spawn(request);
    }
}
