//! When a key was last used: to the hour, and written once for it.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::directory::Tenant;
use tallygate::middleware::GateLayer;
use tallygate::store::Memory;
use tallygate::testing::{Faulty, START_MS};
use tallygate::{Gate, GateBuilder, ManualClock};
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "100000/day"
"#;

/// Past this, a cached caller is looked up again.
const AGED: Duration = Duration::from_secs(31);

const HOUR: Duration = Duration::from_secs(3_600);

async fn asks(gate: &Gate, key: &str) -> u16 {
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let request = Request::get("/").header("authorization", format!("Bearer {key}"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    GateLayer::new(gate).layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

async fn last_used(tenant: &Tenant, id: &str) -> Option<SystemTime> {
    tenant.keys().await.unwrap().iter().find(|key| key.id == id).unwrap().last_used
}

fn start_plus(hours: u32) -> Option<SystemTime> {
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(START_MS.unsigned_abs());
    Some(start + hours * HOUR)
}

struct World {
    gate: Gate,
    clock: ManualClock,
    store: Faulty,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    std::fs::write(&pepper, "a pepper of at least thirty-two bytes, for tests").unwrap();
    let service = format!(
        "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n[[identify]]\n\
         api-key = [\"authorization\"]\npepper = [{{ id = \"1\", file = {pepper:?} }}]"
    );
    let clock = ManualClock::at_unix_ms(START_MS);
    let store = Faulty::scripted(Memory::new(), []);
    let builder = GateBuilder::from_text(&service).plans(PLANS).store(store.clone());
    let gate = builder.clock(clock.clone()).open().await.unwrap();
    World { gate, clock, store, _folder: folder }
}

/// Waits for what is put on record in the background.
async fn until_used(tenant: &Tenant, id: &str, at: Option<SystemTime>) {
    for _ in 0..2_000 {
        if last_used(tenant, id).await == at {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{:?} is on record, not {at:?}", last_used(tenant, id).await);
}

#[tokio::test]
async fn the_hour_of_the_last_use_is_on_record_and_a_key_that_is_unused_has_none() {
    let w = world().await;
    let acme = w.gate.directory().tenant("acme").note("signed up").save().await.unwrap();
    let (used, unused) = (acme.new_key("ci").await.unwrap(), acme.new_key("old").await.unwrap());
    assert_eq!(asks(&w.gate, used.expose()).await, 200);
    until_used(&acme, &used.id, start_plus(0)).await;
    w.clock.advance(HOUR * 3 / 2);
    assert_eq!(last_used(&acme, &used.id).await, start_plus(0), "no request, no use");
    assert_eq!(asks(&w.gate, used.expose()).await, 200);
    until_used(&acme, &used.id, start_plus(1)).await;
    assert_eq!(last_used(&acme, &unused.id).await, None);
    acme.revoke_key(&used.id).await.unwrap();
    assert_eq!(last_used(&acme, &used.id).await, start_plus(1), "it is known of a revoked key");
    assert_eq!(asks(&w.gate, used.expose()).await, 401);
}

#[tokio::test]
async fn a_use_while_the_store_is_away_is_on_record_with_the_next_look_up() {
    let w = world().await;
    let acme = w.gate.directory().tenant("acme").note("signed up").save().await.unwrap();
    let key = acme.new_key("ci").await.unwrap();
    assert_eq!(asks(&w.gate, key.expose()).await, 200);
    until_used(&acme, &key.id, start_plus(0)).await;
    w.store.outage(true);
    w.clock.advance(HOUR);
    assert_eq!(asks(&w.gate, key.expose()).await, 200, "as last known");
    w.store.outage(false);
    assert_eq!(last_used(&acme, &key.id).await, start_plus(0), "it was not looked up");
    w.clock.advance(AGED);
    assert_eq!(asks(&w.gate, key.expose()).await, 200);
    until_used(&acme, &key.id, start_plus(1)).await;
}
