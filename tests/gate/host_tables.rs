//! Tenants as the host's own tables have them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::directory::{HostTenant, PaymentState, TenantSource};
use tallygate::identity::Caller;
use tallygate::middleware::GateLayer;
use tallygate::store::{StoreError, StoreErrorKind, StoreFuture};
use tallygate::testing::START_MS;
use tallygate::{Gate, GateBuilder, ManualClock};
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "2/day"
    [plan.pro]
    quota.requests = "5/day"
    [billing]
    unpaid = "payment-required"
"#;

const SERVICE: &str = "identify = []\n[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"";

/// Past this, a tenant is asked about again before its next request.
const AGED: Duration = Duration::from_secs(31);

#[derive(Clone, Default)]
struct Tables(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rows: Mutex<BTreeMap<String, HostTenant>>,
    asked: AtomicUsize,
    is_away: AtomicBool,
}

impl Tables {
    fn put(&self, id: &str, row: HostTenant) {
        self.0.rows.lock().unwrap().insert(id.to_owned(), row);
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }

    fn away(&self, is_away: bool) {
        self.0.is_away.store(is_away, Ordering::Relaxed);
    }
}

impl TenantSource for Tables {
    fn tenant(&self, id: &str) -> StoreFuture<Option<HostTenant>> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let row = match self.0.is_away.load(Ordering::Relaxed) {
            true => Err(StoreError::new(StoreErrorKind::Unavailable, "no connection")),
            false => Ok(self.0.rows.lock().unwrap().get(id).cloned()),
        };
        Box::pin(async move { row })
    }
}

async fn open() -> (Gate, ManualClock, Tables) {
    let (clock, tables) = (ManualClock::at_unix_ms(START_MS), Tables::default());
    let builder = GateBuilder::from_text(SERVICE).plans(PLANS).tenants(tables.clone());
    (builder.clock(clock.clone()).open().await.unwrap(), clock, tables)
}

async fn status(gate: &Gate, tenant: &'static str) -> u16 {
    let layer = GateLayer::new(gate).caller(move |_| Some(Caller::new(tenant)));
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
    layer.layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn plan_exceptions_and_payment_are_the_hosts_and_usage_is_kept() {
    let (gate, clock, tables) = open().await;
    assert_eq!(status(&gate, "acme").await, 401, "no row");
    tables.put("globex", HostTenant::new());
    tables.put("initech", HostTenant::new().plan("pro"));
    for tenant in ["globex", "globex"] {
        assert_eq!(status(&gate, tenant).await, 200, "made at first sight");
    }
    assert_eq!(status(&gate, "globex").await, 429, "the default plan");
    let asked = tables.asked();
    assert_eq!(status(&gate, "globex").await, 429);
    assert_eq!(tables.asked(), asked, "cached");

    tables.put("globex", HostTenant::new().plan("pro"));
    clock.advance(AGED);
    for n in 0..3 {
        assert_eq!(status(&gate, "globex").await, 200, "{n}: five, of which two are used");
    }
    assert_eq!(status(&gate, "globex").await, 429);
    let more = HostTenant::new().plan("pro").override_("quota.requests = \"6/day\"", None);
    tables.put("globex", more.clone());
    clock.advance(AGED);
    assert_eq!(status(&gate, "globex").await, 200, "an exception");
    assert_eq!(status(&gate, "globex").await, 429);

    let version = async || {
        let globex = gate.directory().find("globex").await.unwrap().unwrap();
        globex.record().version
    };
    let before = version().await;
    clock.advance(AGED);
    assert_eq!(status(&gate, "globex").await, 429);
    assert_eq!(version().await, before, "the same row writes nothing");
    tables.put("globex", more.payment(PaymentState::Unpaid));
    clock.advance(AGED);
    assert_eq!(status(&gate, "globex").await, 402);
}

#[tokio::test]
async fn a_plan_that_the_file_lacks_is_the_default_plan() {
    let (gate, _clock, tables) = open().await;
    tables.put("acme", HostTenant::new().plan("gold"));
    for expected in [200, 200, 429] {
        assert_eq!(status(&gate, "acme").await, expected);
    }
}

#[tokio::test]
async fn while_the_tables_are_away_a_known_tenant_stays_and_another_gets_503() {
    let (gate, clock, tables) = open().await;
    tables.put("acme", HostTenant::new().plan("pro"));
    tables.put("other", HostTenant::new());
    assert_eq!(status(&gate, "acme").await, 200);
    tables.away(true);
    clock.advance(AGED);
    assert_eq!(status(&gate, "acme").await, 200);
    assert_eq!(status(&gate, "other").await, 503);
    tables.away(false);
    clock.advance(AGED);
    assert_eq!(status(&gate, "other").await, 200);
}

#[tokio::test]
async fn a_row_that_is_gone_ends_its_tenant() {
    let (gate, clock, tables) = open().await;
    tables.put("acme", HostTenant::new());
    assert_eq!(status(&gate, "acme").await, 200);
    tables.0.rows.lock().unwrap().clear();
    for _ in 0..2 {
        clock.advance(AGED);
        status(&gate, "acme").await;
    }
    assert_eq!(status(&gate, "acme").await, 401);
    tables.put("acme", HostTenant::new());
    clock.advance(AGED);
    assert_eq!(status(&gate, "acme").await, 200, "and is as it was: one of two is used");
    assert_eq!(status(&gate, "acme").await, 429);
}
