//! `[capacity]` of the service file: as much as it says is in progress, a part is kept for plans
//! that pay, and every place comes back, however its work ends.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;
use serde_json::Value;
use tallygate::identity::Caller;
use tallygate::middleware::{GateBody, GateLayer};
use tallygate::{Ask, Gate, GateBuilder, Identified, Permit, Reason, TenantHandle};
use test_support::bodies::Frames;
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    [route.usage]
    match = "GET /usage"
    free  = true
    [plan.free]
    quota.requests = "1M/day"
    [plan.pro]
    stripe = { price = ["pro_monthly"] }
    [plan.friends]
    pays = true
    concurrency = 2
    [plan.shadow]
    enforce = "shadow"
"#;

/// Three at once, one of them for plans that pay.
const SERVICE: &str = r#"
    identify = []
    [store]
    kind = "memory"
    [flush]
    mode = "fast"
    [capacity]
    requests = 3
    kept     = 1
"#;

/// The plan of a tenant is its name.
const TENANTS: [&str; 4] = ["free", "pro", "friends", "shadow"];

async fn open(service: &str) -> Gate {
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    for plan in TENANTS {
        gate.directory().tenant(plan).plan(plan).save().await.unwrap();
    }
    gate
}

async fn asked(gate: &Gate, tenant: &str) -> Result<Permit, Reason> {
    let tenant = gate.tenant(tenant).await.unwrap();
    gate.admit(Ask::new(&tenant, "work")).await.map_err(|refusal| refusal.reason)
}

#[tokio::test]
async fn a_rush_of_a_free_plan_leaves_the_kept_part_to_plans_that_pay() {
    let gate = open(SERVICE).await;
    let one = asked(&gate, "free").await.unwrap();
    let two = asked(&gate, "free").await.unwrap();
    assert_eq!(asked(&gate, "free").await.unwrap_err(), Reason::Overloaded);
    let paid = asked(&gate, "pro").await.expect("the kept place");
    assert_eq!(asked(&gate, "friends").await.unwrap_err(), Reason::Overloaded);
    one.settle();
    assert_eq!(asked(&gate, "free").await.unwrap_err(), Reason::Overloaded, "two are for all");
    let friend = asked(&gate, "friends").await.expect("its plan says that it pays");
    drop((two, paid, friend));
    gate.close().await.unwrap();
}

#[tokio::test]
async fn without_the_table_as_much_as_comes_is_let_in() {
    let gate = open(SERVICE.split("[capacity]").next().unwrap()).await;
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(asked(&gate, "free").await.unwrap());
    }
}

/// What the layer answers to a request of this tenant, before its body is read.
async fn call(gate: &Gate, tenant: &'static str, path: &str) -> Response<GateBody<Frames>> {
    let layer = GateLayer::new(gate).caller(move |_| Some(Caller::new(tenant)));
    let inner = tower::service_fn(|_: Request<Empty<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Frames::of(3, 10)))
    });
    let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    layer.layer(inner).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_response_has_its_place_until_its_body_ends_or_is_dropped() {
    let gate = open(SERVICE).await;
    let one = call(&gate, "free", "/events").await;
    let two = call(&gate, "free", "/events").await;
    let refused = call(&gate, "free", "/events").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem = refused.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!(problem["title"], "Service at capacity");
    assert_eq!(call(&gate, "free", "/usage").await.status(), 200, "free routes need no place");
    assert_eq!(one.into_body().collect().await.unwrap().to_bytes().len(), 30);
    let three = call(&gate, "free", "/events").await;
    assert_eq!(three.status(), 200);
    assert_eq!(call(&gate, "free", "/events").await.status(), 503);
    drop(two);
    assert_eq!(call(&gate, "free", "/events").await.status(), 200);
    drop(three);
    gate.flush_now().await.unwrap();
    let free = Identified::from(&gate.tenant("free").await.unwrap());
    let used = gate.usage_report(&free).await.unwrap().meters[0].used;
    assert_eq!(used.whole(), 4, "what was refused has used nothing");
}

#[tokio::test]
async fn shadow_is_refused_nothing_and_takes_its_place() {
    let gate = open(SERVICE).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(asked(&gate, "shadow").await.unwrap());
    }
    assert_eq!(asked(&gate, "pro").await.unwrap_err(), Reason::Overloaded);
    all.truncate(2);
    asked(&gate, "pro").await.expect("two are in progress").settle();
}

/// A piece of work in progress, and whether its plan pays.
struct Open {
    permit: Permit,
    tenant: usize,
}

/// How a step ends one.
fn end(open: Open, how: u8) {
    match how {
        0 => open.permit.settle(),
        1 => open.permit.cancel(),
        2 => open.permit.settle_with("tokens", 7),
        _ => drop(open.permit),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a plain count: who is let in, and that every place comes back.
    #[test]
    fn every_place_comes_back(
        requests in 1_u32..6,
        kept in 0_u32..5,
        steps in proptest::collection::vec(
            (0..4_usize, 0..6_u8, any::<prop::sample::Index>()),
            1..60,
        ),
    ) {
        let kept = kept.min(requests - 1);
        let kept_line = if kept == 0 { String::new() } else { format!("kept = {kept}") };
        let table = format!("requests = {requests}\n    {kept_line}");
        let service = SERVICE.replace("requests = 3\n    kept     = 1", &table);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gate = open(&service).await;
            let mut handles: Vec<TenantHandle> = Vec::new();
            for plan in TENANTS {
                handles.push(gate.tenant(plan).await.unwrap());
            }
            let mut inside: Vec<Open> = Vec::new();
            for (tenant, how, which) in steps {
                if how < 4 && !inside.is_empty() {
                    end(inside.swap_remove(which.index(inside.len())), how);
                    continue;
                }
                let room = match TENANTS[tenant] {
                    "free" => inside.len() < (requests - kept) as usize,
                    "shadow" => true,
                    _ => inside.len() < requests as usize,
                };
                let friends = inside.iter().filter(|it| TENANTS[it.tenant] == "friends").count();
                let wanted = match (room, TENANTS[tenant]) {
                    (false, _) => Some(Reason::Overloaded),
                    (true, "friends") if friends == 2 => Some(Reason::Concurrency),
                    (true, _) => None,
                };
                let answer = gate.admit(Ask::new(&handles[tenant], "work")).await;
                prop_assert_eq!(answer.as_ref().err().map(|it| it.reason.clone()), wanted);
                inside.extend(answer.ok().map(|permit| Open { permit, tenant }));
            }
            Ok(())
        })?;
    }
}
