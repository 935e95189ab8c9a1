//! Fuzz entry for a function's events: returns quickly for any input bytes. Called by a fuzz
//! target, and by `tests/corpus.rs` with the inputs kept in `fuzz/seeds/lambda`.

use std::cell::RefCell;

use lambda_http::request::LambdaRequest;
use lambda_http::{Body, Request};
use serde_json::Value;
use tallygate::Gate;
use tallygate::testing::gate;

use crate::event::makes_a_request;
use crate::{Cognito, caller_of, count};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.calls]
    [plan.free]
    quota.calls = "1000000/month"
    feature.seats = 3
"#;

/// Calls per gate. After that the gate is dropped, with its store.
const CALLS: u32 = 2_000;

thread_local! {
    static STAGE: RefCell<Option<(tokio::runtime::Runtime, Gate, u32)>> =
        const { RefCell::new(None) };
}

/// Feeds the bytes in as usage events, user pool triggers and API gateway events.
pub fn events(data: &[u8]) {
    let request = serde_json::from_slice::<LambdaRequest>(data).ok().filter(makes_a_request);
    if let Some(request) = request {
        let request: Request = request.into();
        let (claims, peer) = caller_of(&request);
        drop(format!("{claims:?} {peer:?}"));
        let _: &Body = request.body();
    }
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
    let stage = STAGE.take().filter(|(.., left)| *left > 0).unwrap_or_else(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let (gate, _clock) = runtime.block_on(async { gate(PLANS) });
        (runtime, gate, CALLS)
    });
    let (runtime, gate, left) = stage;
    runtime.block_on(async {
        let _ = count(&gate, &event).await;
        let open = gate.clone();
        let triggers = Cognito::new(move || {
            let gate = open.clone();
            async move { Ok::<_, tallygate::Error>(gate) }
        });
        let _ = triggers.answer(event).await;
    });
    STAGE.set(Some((runtime, gate, left - 1)));
}
