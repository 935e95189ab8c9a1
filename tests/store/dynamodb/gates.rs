//! Two gates on one table, each behind a wire that fails every second request: one quota, exact to
//! the unit, and all of it recorded.

use tallygate::store::DynamoDb;
use tallygate::{Ask, Gate, GateBuilder, TenantHandle};
use test_support::dynamodb::client;
use test_support::gates::{ByHeader, meter};
use test_support::skips;

use super::proxy::{Fault, Proxy};
use crate::shared_table::serve;

const QUOTA: usize = 200;

const SERVICE: &str = r#"
    [store]
    kind = "memory"             # stands back behind the one that is handed in
    [[identify]]
    header = "x-gateway-tenant"
    [identity]
    unknown = "create"
    [proxy]
    trust = ["127.0.0.0/8"]
    [flush]
    mode  = "fast"
    every = "100ms"
"#;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = "200/month"
"#;

/// All faults of a wire except silence, which costs its time limit and ends like a cut.
const FAULTS: [Fault; 9] = [
    Fault::CutInRequest,
    Fault::CutBefore,
    Fault::CutAfter,
    Fault::CutInReply,
    Fault::Late,
    Fault::Twice,
    Fault::Error500 { applied: false },
    Fault::Error500 { applied: true },
    Fault::Throttled,
];

async fn open(endpoint: &str) -> Gate {
    let store = DynamoDb::new(client(endpoint), "gates");
    let builder = GateBuilder::from_text(SERVICE).plans(PLANS).store(store).identify(ByHeader);
    builder.open().await.unwrap()
}

async fn is_admitted(gate: &Gate, tenant: &TenantHandle) -> bool {
    match gate.admit(Ask::new(tenant, "job").cost("jobs", 1)).await {
        Ok(permit) => {
            permit.settle();
            true
        }
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gates_on_bad_wires_admit_and_record_one_quota_to_the_unit() {
    let endpoint = serve(dynoxide::Database::memory().unwrap()).await.unwrap();
    DynamoDb::create_table(&client(&endpoint), "gates", None).await.unwrap();
    let mut gates = Vec::new();
    for _ in 0..2 {
        let proxy = Proxy::before(&endpoint).await;
        let gate = open(proxy.endpoint()).await;
        let tenant = gate.tenant("acme").await.unwrap();
        gates.push((gate, tenant, proxy));
    }
    let bad = FAULTS.iter().flat_map(|fault| [*fault, Fault::Pass]);
    for (_, _, proxy) in &gates {
        proxy.then(bad.clone().cycle().take(150));
    }
    let mut admitted = 0;
    let mut refused_in_a_row = 0;
    // A refusal is cached for up to 3 s: this many in a row, a moment apart, mean that neither a
    // lease nor the pool has anything.
    while refused_in_a_row < 40 {
        for (gate, tenant, _) in &gates {
            match is_admitted(gate, tenant).await {
                true => (admitted, refused_in_a_row) = (admitted + 1, 0),
                false => refused_in_a_row += 1,
            }
        }
        assert!(admitted <= QUOTA, "never above the limit");
        if refused_in_a_row > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
    assert_eq!(admitted, QUOTA, "and no unit is lost on the way");
    for (gate, _, proxy) in gates {
        gate.close().await.unwrap();
        assert!(proxy.requests() > 20, "the wire was in use");
    }
    let gate = open(&endpoint).await;
    assert_eq!(meter(&gate, "jobs").await.0, QUOTA as u64);
}

/// More gates than one item has room for: the rest of the pool is in sub-pools, and each unit is
/// served once wherever it is.
async fn forty_gates_serve_one_quota_to_the_unit(endpoint: &str) {
    DynamoDb::create_table(&client(endpoint), "gates", None).await.unwrap();
    let mut gates = Vec::new();
    for _ in 0..40 {
        let gate = open(endpoint).await;
        let tenant = gate.tenant("acme").await.unwrap();
        gates.push((gate, tenant));
    }
    let mut admitted = 0;
    for (gate, tenant) in &gates {
        for _ in 0..3 {
            admitted += usize::from(is_admitted(gate, tenant).await);
        }
    }
    let pools = client(endpoint).scan().table_name("gates").send().await.unwrap();
    let keys = pools.items().iter().filter_map(|item| item.get("pk")?.as_s().ok());
    let sub_pools = keys.filter(|key| key.contains("jobs/month") && key.contains("#s")).count();
    assert!(sub_pools > 0, "the pool is split");
    for (gate, _) in &gates[1..] {
        gate.close().await.unwrap();
    }
    // The units given back by the others are here, wherever they are stored.
    let (gate, tenant) = &gates[0];
    let mut refused_in_a_row = 0;
    while refused_in_a_row < 60 {
        match is_admitted(gate, tenant).await {
            true => (admitted, refused_in_a_row) = (admitted + 1, 0),
            false => {
                refused_in_a_row += 1;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    assert_eq!(admitted, QUOTA, "no unit is lost in a sub-pool, and none is served twice");
    gate.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_gates_share_a_quota_through_sub_pools() {
    let endpoint = serve(dynoxide::Database::memory().unwrap()).await.unwrap();
    forty_gates_serve_one_quota_to_the_unit(&endpoint).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_gates_share_a_quota_through_sub_pools_of_dynamodb_local() {
    let server = tokio::task::spawn_blocking(dynamodb_local::shared).await.unwrap();
    let Some(server) = skips::needed("sub-pools on DynamoDB Local", server) else { return };
    forty_gates_serve_one_quota_to_the_unit(server.endpoint()).await;
}

/// The same id at gates that are dropped without a word, one after the other.
async fn work_with_an_id_is_charged_once(endpoint: &str) {
    let table = format!("once-{}", std::process::id());
    DynamoDb::create_table(&client(endpoint), &table, None).await.unwrap();
    for life in 0..3 {
        let store = DynamoDb::new(client(endpoint), &table);
        let builder = GateBuilder::from_text(SERVICE).plans(PLANS).store(store).identify(ByHeader);
        let gate = builder.open().await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        let ask = || Ask::new(&acme, "job").cost("jobs", 50).once("the-job");
        for delivery in 0..3 {
            let permit = gate.admit(ask()).await.unwrap();
            assert_eq!(permit.is_repeat(), life + delivery > 0, "life {life}, {delivery}");
            permit.settle();
            gate.flush_now().await.unwrap();
        }
        assert_eq!(meter(&gate, "jobs").await.0, 50, "life {life}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_with_an_id_is_charged_once_over_lives_of_gates() {
    let endpoint = serve(dynoxide::Database::memory().unwrap()).await.unwrap();
    work_with_an_id_is_charged_once(&endpoint).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_with_an_id_is_charged_once_over_lives_of_gates_on_dynamodb_local() {
    let server = tokio::task::spawn_blocking(dynamodb_local::shared).await.unwrap();
    let Some(server) = skips::needed("work with an id on DynamoDB Local", server) else { return };
    work_with_an_id_is_charged_once(server.endpoint()).await;
}
