//! What stands in front of the gate to run a trace through it: an adapter with its server.

use std::time::Duration;

use tallygate::directory::PaymentState;
use tallygate::store::Memory;
use tallygate::testing::{self, Faulty};
use tallygate::{Gate, ManualClock, TenantHandle, Trouble};
use tokio::runtime::Runtime;

use crate::answer::Answer;
use crate::trace::{Act, PLANS, Request, Step, TENANTS};

/// How often a request is sent again that was too late; one that goes on so is a fault.
const TRIES: usize = 2;

/// Longest wait for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// The meters of [`PLANS`].
const METERS: [&str; 5] = ["requests", "egress", "ingress", "tokens", "gems"];

/// An adapter that serves [`crate::api`] behind a gate.
pub trait Front {
    /// What keeps a request open on the client's side: dropped, its client goes away.
    type Open;

    /// Sends a request and reads its answer to the end.
    fn send(&mut self, request: &Request) -> Answer;

    /// Sends a request and reads so many bytes of the answer's body.
    fn open(&mut self, request: &Request, bytes: usize) -> (Answer, Self::Open);
}

/// What came of a trace.
#[derive(Debug)]
pub struct Outcome {
    /// Answers in the order of the trace.
    pub answers: Vec<Answer>,
    /// What each tenant is shown of its use afterwards, by a gate that knows nothing but the store.
    pub ledger: Vec<String>,
}

/// Runs a trace through the front that `make` puts before a new gate. The front is made, and the
/// gate lives, on a runtime of two threads.
pub fn run<F: Front>(make: impl FnOnce(&Gate, &Runtime) -> F, trace: &[Step]) -> Outcome {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let table = Memory::new();
    let store = Faulty::scripted(table.clone(), []);
    let (gate, clock) = runtime.block_on(async { testing::gate_with(PLANS, store.clone()) });
    let tenants = runtime.block_on(make_tenants(&gate));
    let mut front = make(&gate, &runtime);
    let mut answers = Vec::new();
    for step in trace {
        clock.advance(step.wait);
        take(&mut front, &step.act, &store, &mut answers);
        runtime.block_on(recovered(&gate));
        runtime.block_on(settled(&gate, &tenants));
    }
    drop(front);
    let passed = trace.iter().map(|step| step.wait).sum();
    let ledger = runtime.block_on(async {
        gate.close().await.unwrap();
        let (gate, clock) = testing::gate_with(PLANS, table);
        ledger(&gate, &clock, passed).await
    });
    Outcome { answers, ledger }
}

fn take<F: Front>(front: &mut F, act: &Act, store: &Faulty, answers: &mut Vec<Answer>) {
    let mut note = |asked: &Request, answer| {
        answers.push(Answer { asked: asked.to_string(), ..answer });
    };
    match act {
        Act::Send(request) => note(request, send_in_time(front, request)),
        Act::Cut(request, bytes) => note(request, open_in_time(front, request, *bytes).0),
        Act::During(held, bytes, request) => {
            let (begun, open) = open_in_time(front, held, *bytes);
            note(held, begun);
            note(request, send_in_time(front, request));
            drop(open);
        }
        Act::Outage(request) => {
            store.outage(true);
            note(request, front.send(request));
            store.outage(false);
        }
    }
}

/// What `ask` brings when its request did not wait for its lease in vain, as it may where the
/// machine stands still for 250 ms. Such a one is not counted, and is sent again.
fn in_time<T>(mut ask: impl FnMut() -> T, answer: impl Fn(&T) -> &Answer) -> T {
    let is_late = |came: &T| answer(came).body.contains("temporary-reduced-capacity");
    let mut came = ask();
    for _ in 0..TRIES {
        if !is_late(&came) {
            break;
        }
        came = ask();
    }
    came
}

fn send_in_time<F: Front>(front: &mut F, request: &Request) -> Answer {
    in_time(|| front.send(request), |answer| answer)
}

fn open_in_time<F: Front>(front: &mut F, request: &Request, bytes: usize) -> (Answer, F::Open) {
    in_time(|| front.open(request, bytes), |(answer, _)| answer)
}

async fn make_tenants(gate: &Gate) -> Vec<TenantHandle> {
    let mut handles = Vec::new();
    for (id, plan) in TENANTS {
        let tenant = gate.directory().tenant(id).plan(plan).note("trace");
        let tenant = match id {
            "late" => tenant.payment(PaymentState::Unpaid),
            "gone" => tenant.suspend(),
            _ => tenant,
        };
        tenant.save().await.unwrap();
        handles.push(gate.tenant(id).await.unwrap());
    }
    handles
}

/// Waits until the gate knows that the store answers: what it does by itself may have met the
/// outage or not, and the next request is not to depend on it.
async fn recovered(gate: &Gate) {
    let meets = |trouble: &Trouble| match trouble {
        Trouble::StoreAway => true,
        Trouble::NotWritten { error, .. } => error.is_some(),
        _ => false,
    };
    let recovered = async {
        while gate.health().troubles.iter().any(meets) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let recovered = tokio::time::timeout(PATIENCE, recovered).await;
    assert!(recovered.is_ok(), "the store is away still: {:?}", gate.health());
}

/// Waits until no request is in flight, for a server takes its time to learn that a client went
/// away, and until leases are at rest.
async fn settled(gate: &Gate, tenants: &[TenantHandle]) {
    let all = async {
        while tenants.iter().any(|tenant| tenant.in_flight() != Some(0)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, all).await;
    assert!(settled.is_ok(), "a request is in flight still, and holds what it holds");
    testing::leases_at_rest(gate).await;
}

/// Everything that is recorded, as `GET /usage` and its history tell it.
async fn ledger(gate: &Gate, clock: &ManualClock, passed: Duration) -> Vec<String> {
    clock.advance(passed);
    let mut rows = Vec::new();
    for (tenant, _) in TENANTS {
        let who = testing::identified(gate, tenant).await;
        let report = gate.usage_reply(&who, None).await;
        // How old the numbers of other processes may be is a matter of the moment.
        let report = String::from_utf8(report.body).unwrap();
        let parts = report.split("\"staleness_ms\":");
        let aged = |part: &str| part.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
        rows.push(format!("{tenant}: {}", parts.map(aged).collect::<String>()));
        for meter in METERS {
            let query = format!("meter={meter}&from=2026-03-16&to=2026-03-25&granularity=day");
            let history = gate.history_reply(&who, &query).await;
            assert_eq!(history.status, 200, "{history:?}");
            rows.push(format!("{tenant}: {}", String::from_utf8(history.body).unwrap()));
        }
    }
    rows
}
