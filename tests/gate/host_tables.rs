//! Tenants as the host's own tables have them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::directory::{HostTenant, PaymentState, TenantSource};
use tallygate::identity::Caller;
use tallygate::middleware::GateLayer;
use tallygate::store::{StoreError, StoreErrorKind, StoreFuture};
use tallygate::testing::START_MS;
use tallygate::{Ask, Gate, GateBuilder, ManualClock, Permit, Reason};
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
    /// How long an answer takes, in milliseconds.
    takes_ms: AtomicU64,
    /// Questions that are open, and the most that were at once.
    open: AtomicUsize,
    most: AtomicUsize,
}

/// A question that is open.
struct Open(Arc<Inner>);

impl Open {
    fn of(inner: &Arc<Inner>) -> Self {
        let open = inner.open.fetch_add(1, Ordering::Relaxed) + 1;
        inner.most.fetch_max(open, Ordering::Relaxed);
        Self(inner.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
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
        let open = Open::of(&self.0);
        Box::pin(async move {
            let takes_ms = open.0.takes_ms.load(Ordering::Relaxed);
            if takes_ms > 0 {
                tokio::time::sleep(Duration::from_millis(takes_ms)).await;
            }
            row
        })
    }
}

async fn open() -> (Gate, ManualClock, Tables) {
    let (clock, tables) = (ManualClock::at_unix_ms(START_MS), Tables::default());
    let builder = GateBuilder::from_text(SERVICE).plans(PLANS).tenants(tables.clone());
    (builder.clock(clock.clone()).open().await.unwrap(), clock, tables)
}

async fn status(gate: &Gate, tenant: &'static str) -> u16 {
    status_of(gate, Caller::new(tenant)).await
}

async fn status_of(gate: &Gate, caller: Caller) -> u16 {
    let layer = GateLayer::new(gate).caller(move |_| Some(caller.clone()));
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

    let before = version(&gate, "globex").await;
    clock.advance(AGED);
    assert_eq!(status(&gate, "globex").await, 429);
    assert_eq!(version(&gate, "globex").await, before, "the same row writes nothing");
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

/// The version of a tenant's record.
async fn version(gate: &Gate, tenant: &str) -> u64 {
    gate.directory().find(tenant).await.unwrap().unwrap().record().version
}

/// Rows of which one part cannot be, and what the rest of each allows.
fn rows_with_a_bad_part() -> Vec<(&'static str, HostTenant, usize)> {
    let pro = || HostTenant::new().plan("pro");
    let four = |row: HostTenant| row.override_("quota.requests = \"4/day\"", None);
    let many = (0..40)
        .fold(pro(), |row, n| row.override_(format!("quota.requests = \"{}/day\"", 100 - n), None));
    vec![
        ("no such meter", four(pro()).override_("quota.gone = \"9/day\"", None), 4),
        ("no TOML", four(pro().override_("= 9", None)), 4),
        ("too long", four(pro().override_("#".repeat(1_025), None)), 4),
        ("empty", four(pro().override_("", None)), 4),
        ("too many", four(many), 4),
        ("only a bad one", pro().override_("quota.gone = \"9/day\"", None), 5),
        ("a plan's name that is too long", HostTenant::new().plan("x".repeat(65)), 2),
        ("an empty plan's name", HostTenant::new().plan(""), 2),
        ("a control character", four(HostTenant::new().plan("a\u{1}b")), 4),
    ]
}

#[tokio::test]
async fn what_is_good_of_a_row_counts_where_a_part_of_it_cannot_be() {
    for (what, row, allowed) in rows_with_a_bad_part() {
        let (gate, clock, tables) = open().await;
        tables.put("new", row.clone());
        for n in 0..allowed {
            assert_eq!(status(&gate, "new").await, 200, "{what}: {n} of {allowed}");
        }
        assert_eq!(status(&gate, "new").await, 429, "{what}: a new tenant");

        tables.put("known", HostTenant::new().plan("pro"));
        assert_eq!(status(&gate, "known").await, 200);
        tables.put("known", row.clone().payment(PaymentState::Unpaid));
        clock.advance(AGED);
        assert_eq!(status(&gate, "known").await, 402, "{what}: unpaid");
        tables.put("known", row);
        clock.advance(AGED);
        for n in 1..allowed {
            assert_eq!(status(&gate, "known").await, 200, "{what}: {n} of {allowed}");
        }
        assert_eq!(status(&gate, "known").await, 429, "{what}: a known tenant");
    }
}

#[tokio::test]
async fn an_equal_row_changes_nothing_whatever_is_in_it() {
    let four = "quota.requests = \"4/day\"";
    let twice = HostTenant::new().override_(four, None).override_("rate.all = \"9/s\"", None);
    let ended = Some(UNIX_EPOCH + Duration::from_millis(START_MS as u64) - Duration::from_secs(1));
    let mut rows = rows_with_a_bad_part();
    rows.push(("one twice", twice.override_(four, None), 4));
    rows.push(("an ended one", HostTenant::new().override_(four, ended), 2));
    for (what, row, _) in rows {
        let (gate, clock, tables) = open().await;
        tables.put("acme", row);
        assert_eq!(status(&gate, "acme").await, 200, "{what}");
        let before = version(&gate, "acme").await;
        for _ in 0..4 {
            let asked = tables.asked();
            clock.advance(AGED);
            status(&gate, "acme").await;
            assert!(tables.asked() > asked, "{what}");
        }
        assert_eq!(version(&gate, "acme").await, before, "{what}");
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

/// A worker keeps its handle, and a job of it is at work.
#[tokio::test]
async fn a_row_that_is_gone_ends_work_with_a_kept_handle_until_it_is_back() {
    let (gate, clock, tables) = open().await;
    tables.put("acme", HostTenant::new().plan("pro"));
    let acme = gate.tenant("acme").await.unwrap();
    let ask = || Ask::new(&acme, "job").cost("requests", 1);
    let job = gate.admit(ask()).await.unwrap();
    tables.0.rows.lock().unwrap().clear();
    for _ in 0..2 {
        clock.advance(AGED);
        let _ = gate.admit(ask()).await.map(Permit::cancel);
    }
    assert_eq!(gate.admit(ask()).await.unwrap_err().reason, Reason::Unidentified);
    let refused = job.usage().take("requests", 1).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Unidentified);
    tables.put("acme", HostTenant::new().plan("pro"));
    clock.advance(AGED);
    job.usage().take("requests", 1).await.unwrap();
    gate.admit(ask()).await.unwrap().settle();
    job.settle();
}

/// Requests of this many users of a tenant at once, and as many handles of it for work; of each,
/// whether it was let in.
async fn all_at_once(gate: &Gate, tenant: &'static str) -> Vec<bool> {
    let mut all = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (by_layer, by_work) = (gate.clone(), gate.clone());
        let caller = Caller::new(tenant).user(format!("u{n}"));
        all.spawn(async move { status_of(&by_layer, caller).await != 503 });
        all.spawn(async move { by_work.tenant(tenant).await.is_ok() });
    }
    all.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_tenant_is_asked_about_one_question_at_a_time() {
    let (gate, clock, tables) = open().await;
    tables.0.takes_ms.store(300, Ordering::Relaxed);
    let row = HostTenant::new().plan("pro").override_("quota.requests = \"4/day\"", None);
    tables.put("acme", row.clone());
    assert_eq!(all_at_once(&gate, "acme").await, [true; 128]);
    // One that makes it, and one when it is loaded.
    assert!(tables.asked() <= 2, "{} for a new tenant", tables.asked());
    assert_eq!(version(&gate, "acme").await, 1, "made once");
    for (n, aged) in [AGED, Duration::from_secs(16), AGED].into_iter().enumerate() {
        tables.put("acme", row.clone().override_(format!("quota.requests = \"{n}/day\""), None));
        let asked = tables.asked();
        clock.advance(aged);
        all_at_once(&gate, "acme").await;
        let asked = tables.asked() - asked;
        assert!((1..=2).contains(&asked), "{n}: {asked} for a known tenant");
    }
    assert_eq!(tables.0.most.load(Ordering::Relaxed), 1, "at once");
}

#[tokio::test(start_paused = true)]
async fn silent_tables_are_not_asked_by_each_who_waits() {
    let (gate, _clock, tables) = open().await;
    tables.put("acme", HostTenant::new());
    tables.0.takes_ms.store(60_000, Ordering::Relaxed);
    assert_eq!(all_at_once(&gate, "acme").await, [false; 128]);
    assert!(tables.asked() <= 2, "{}", tables.asked());
}
