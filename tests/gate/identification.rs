//! Identification: keys, gateways, unknown callers; the lifetime of cached callers; outages of the
//! directory. And plans that change at run time.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tallygate::middleware::{GateLayer, Peer};
use tallygate::store::Memory;
use tallygate::testing::{Faulty, START_MS};
use tallygate::{Gate, GateBuilder, ManualClock, testing};
use test_support::gates;
use tower::{Layer, ServiceExt};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/day"
    [plan.pro]
    quota.requests = "5000/day"
"#;

/// Past this, a cached caller is looked up again.
const AGED: Duration = Duration::from_secs(31);

struct World {
    gate: Gate,
    clock: ManualClock,
    store: Faulty,
    _folder: tempfile::TempDir,
}

async fn world(unknown: &str, plans: impl FnOnce(&Path) -> Option<String>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    std::fs::write(&pepper, "a pepper of at least thirty-two bytes, for tests").unwrap();
    let service = format!(
        r#"
        [store]
        kind = "memory"
        [[identify]]
        api-key = ["authorization", "x-api-key"]
        pepper  = [{{ id = "1", file = "{}" }}]
        [[identify]]
        header      = "x-tenant"
        user-header = "x-user"
        [identity]
        unknown = "{unknown}"
        [proxy]
        trust = ["10.0.0.0/8"]
        [flush]
        mode = "fast"
        "#,
        pepper.display()
    );
    let clock = ManualClock::at_unix_ms(START_MS);
    let store = Faulty::scripted(Memory::new(), []);
    let builder = GateBuilder::from_text(&service).store(store.clone()).clock(clock.clone());
    let builder = match plans(folder.path()) {
        Some(file) => builder.plans_file(file),
        None => builder.plans(PLANS),
    };
    World { gate: builder.open().await.unwrap(), clock, store, _folder: folder }
}

async fn fixed(unknown: &str) -> World {
    world(unknown, |_| None).await
}

async fn status(gate: &Gate, headers: &[(&str, &str)], peer: &str) -> u16 {
    let mut request = Request::get("/search?q=1").body(Empty::<Bytes>::new()).unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request.extensions_mut().insert(Peer(format!("{peer}:1").parse().unwrap()));
    let inner = tower::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    });
    let service = GateLayer::new(gate).layer(inner);
    service.oneshot(request).await.unwrap().status().as_u16()
}

async fn with_key(gate: &Gate, key: &str) -> u16 {
    status(gate, &[("authorization", &format!("Bearer {key}"))], "192.0.2.1").await
}

async fn new_key(gate: &Gate, tenant: &str) -> (String, tallygate::directory::Tenant) {
    let tenant = gate.directory().tenant(tenant).note("signed up").save().await.unwrap();
    let key = tenant.new_key("ci").await.unwrap();
    (key.expose().to_owned(), tenant)
}

#[tokio::test]
async fn a_key_is_known_in_either_header_and_a_stranger_is_not() {
    let w = fixed("reject").await;
    let (key, _) = new_key(&w.gate, "acme").await;
    assert_eq!(with_key(&w.gate, &key).await, 200);
    assert_eq!(status(&w.gate, &[("x-api-key", &key)], "192.0.2.1").await, 200);
    assert_eq!(with_key(&w.gate, "somebody-elses-key").await, 401);
    assert_eq!(status(&w.gate, &[], "192.0.2.1").await, 401);
    // Two different keys in one request are suspicious.
    let (other, _) = new_key(&w.gate, "other").await;
    let both = [("x-api-key", &*other), ("authorization", &format!("Bearer {key}"))];
    assert_eq!(status(&w.gate, &both, "192.0.2.1").await, 401);
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_the_age_bound() {
    let w = fixed("reject").await;
    let (key, tenant) = new_key(&w.gate, "acme").await;
    assert_eq!(with_key(&w.gate, &key).await, 200);
    let id = tenant.keys().await.unwrap()[0].id.clone();
    tenant.revoke_key(&id).await.unwrap();
    w.clock.advance(AGED);
    assert_eq!(with_key(&w.gate, &key).await, 401);
}

#[tokio::test]
async fn a_key_in_use_is_refused_from_the_instant_at_which_it_ends() {
    let w = fixed("reject").await;
    let (key, tenant) = new_key(&w.gate, "acme").await;
    assert_eq!(with_key(&w.gate, &key).await, 200);
    let id = tenant.keys().await.unwrap()[0].id.clone();
    let new = tenant.rotate_key(&id, Duration::from_secs(2)).await.unwrap();
    for (passed, old) in [(0, 200), (1_999, 200), (1, 401)] {
        w.clock.advance(Duration::from_millis(passed));
        assert_eq!(with_key(&w.gate, &key).await, old);
        assert_eq!(with_key(&w.gate, new.expose()).await, 200);
    }
}

#[tokio::test]
async fn an_imported_hash_lets_its_key_in() {
    use sha2::Digest;
    let w = fixed("reject").await;
    let tenant = w.gate.directory().tenant("acme").note("moved").save().await.unwrap();
    let hash = sha2::Sha256::digest(b"old-key-of-another-system").into();
    tenant.import_key_sha256("old", hash).await.unwrap();
    assert_eq!(with_key(&w.gate, "old-key-of-another-system").await, 200);
}

#[tokio::test]
async fn a_tenant_header_is_believed_from_a_trusted_gateway_alone() {
    let w = fixed("create").await;
    assert_eq!(status(&w.gate, &[("x-tenant", "acme")], "10.0.0.7").await, 200);
    assert_eq!(status(&w.gate, &[("x-tenant", "acme")], "192.0.2.1").await, 401);
    assert!(w.gate.directory().find("acme").await.unwrap().is_some(), "made on first sight");
}

#[tokio::test]
async fn strangers_are_one_tenant_where_that_is_configured() {
    let w = fixed("anonymous").await;
    assert_eq!(status(&w.gate, &[], "192.0.2.1").await, 200);
    assert_eq!(with_key(&w.gate, "nobody-knows-it").await, 200);
    let report = w.gate.tenant("~anonymous").await.unwrap();
    assert_eq!(testing::held(&report), 0);
}

#[tokio::test]
async fn while_the_directory_is_away_who_is_known_stays_and_who_is_not_gets_503() {
    let w = fixed("reject").await;
    let (key, _) = new_key(&w.gate, "acme").await;
    let (other, _) = new_key(&w.gate, "other").await;
    // So many that some are left: without a record a lease has room for four more at a time.
    for _ in 0..21 {
        assert_eq!(with_key(&w.gate, &key).await, 200);
    }
    // Recorded, so that the current lease may be used beyond its first ceiling.
    w.gate.flush_now().await.unwrap();
    tallygate::testing::leases_at_rest(&w.gate).await;
    w.store.outage(true);
    w.clock.advance(AGED);
    // As last known, on the leased units.
    assert_eq!(with_key(&w.gate, &key).await, 200);
    assert_eq!(with_key(&w.gate, &other).await, 503);
    assert_eq!(with_key(&w.gate, "unknown-to-all").await, 503);
    w.store.outage(false);
    w.clock.advance(AGED);
    assert_eq!(with_key(&w.gate, &other).await, 200);
    assert_eq!(with_key(&w.gate, "unknown-to-all").await, 401);
}

#[tokio::test]
async fn a_flood_of_forged_keys_costs_one_look_up_each_and_nobody_else_anything() {
    let w = fixed("reject").await;
    let (key, _) = new_key(&w.gate, "acme").await;
    assert_eq!(with_key(&w.gate, &key).await, 200);
    for i in 0..2_000 {
        assert_eq!(with_key(&w.gate, &format!("forged-{i}")).await, 401);
    }
    let calls = w.store.calls();
    for _ in 0..100 {
        assert_eq!(with_key(&w.gate, "forged-1999").await, 401);
        assert_eq!(with_key(&w.gate, &key).await, 200);
    }
    let more = w.store.calls() - calls;
    assert!(more <= 10, "remembered as nobody's: {more} calls to the store (leases only)");
}

#[tokio::test]
async fn a_change_of_plan_is_seen_within_the_age_bound() {
    let w = fixed("reject").await;
    let (key, tenant) = new_key(&w.gate, "acme").await;
    assert_eq!(with_key(&w.gate, &key).await, 200);
    tenant.edit().plan("pro").note("upgraded").save().await.unwrap();
    w.clock.advance(AGED);
    assert_eq!(with_key(&w.gate, &key).await, 200);
    let who = tallygate::testing::identified_by(&w.gate, &[("x-api-key", &key)]).await;
    let report = w.gate.usage_report(&who).await.unwrap();
    assert_eq!(&*report.plan, "pro");
    let limit = &report.meters[0].limits[0];
    assert_eq!(limit.limit.unwrap(), 5_000);
    assert_eq!(limit.used, 2, "what was used is kept");
}

#[tokio::test]
async fn a_changed_plan_file_acts_and_a_broken_one_does_not() {
    let mut file = String::new();
    let w = world("reject", |folder| {
        let path = folder.join("plans.toml");
        std::fs::write(&path, PLANS.replace("1000/day", "3/day")).unwrap();
        file = path.to_string_lossy().into_owned();
        Some(file.clone())
    })
    .await;
    let (key, _) = new_key(&w.gate, "acme").await;
    for expected in [200, 200, 200, 429, 429] {
        assert_eq!(with_key(&w.gate, &key).await, expected);
    }
    // A raised limit acts on the next request, although the quota was used up and the refusal
    // fresh.
    std::fs::write(&file, PLANS.replace("1000/day", "5/day")).unwrap();
    assert!(w.gate.reload().await.unwrap());
    for expected in [200, 200, 429] {
        assert_eq!(with_key(&w.gate, &key).await, expected);
    }
    std::fs::write(&file, "[plan.free]\nquota.requests = 7\n").unwrap();
    let error = w.gate.reload().await.unwrap_err().to_string();
    assert!(error.contains("plans.toml:2:18"), "{error}");
    assert_eq!(with_key(&w.gate, &key).await, 429, "the previous one stays in force");
    // Going back is a new publication, and revokes nothing that was granted.
    std::fs::write(&file, PLANS.replace("1000/day", "3/day")).unwrap();
    assert!(w.gate.reload().await.unwrap());
    let who = tallygate::testing::identified_by(&w.gate, &[("x-api-key", &key)]).await;
    assert_eq!(w.gate.usage_report(&who).await.unwrap().catalog, 3);
    assert_eq!(with_key(&w.gate, &key).await, 429);
}

/// A gate whose callers bring tokens of one issuer, signed with a shared secret.
async fn with_tokens() -> (Gate, ManualClock, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, TOKEN_SECRET).unwrap();
    let service = format!(
        r#"
        [store]
        kind = "memory"
        [[identify]]
        [identify.jwt]
        secret   = {{ file = "{}" }}
        issuer   = "https://id.example.com"
        audience = "api"
        tenant   = "org_id"
        user     = "sub"
        [identity]
        unknown = "create"
        [flush]
        mode = "fast"
        "#,
        secret.display()
    );
    let clock = ManualClock::at_unix_ms(START_MS);
    let plans = r#"
        default-plan = "free"
        [plan.free]
        quota.requests = ["1000/day", "3/day per user"]
    "#;
    let builder = GateBuilder::from_text(&service).plans(plans).clock(clock.clone());
    (builder.open().await.unwrap(), clock, folder)
}

const TOKEN_SECRET: &str = "a secret of at least thirty-two bytes, for tests";

/// HS256 by hand (RFC 7515), so that the verifier is not tested with itself.
fn token(org: &str, user: &str, expires_in_s: i64) -> String {
    use base64::Engine;
    use hmac::{KeyInit, Mac};
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let exp = START_MS / 1_000 + expires_in_s;
    let claims = serde_json::json!({
        "iss": "https://id.example.com", "aud": "api", "org_id": org, "sub": user, "exp": exp,
    });
    let head = base64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", base64.encode(claims.to_string()));
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(TOKEN_SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", base64.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn a_token_names_tenant_and_user_until_it_ends() {
    let (gate, clock, _folder) = with_tokens().await;
    let ann = token("acme", "ann", 600);
    for expected in [200, 200, 200, 429] {
        assert_eq!(with_key(&gate, &ann).await, expected, "three a day for each user");
    }
    assert_eq!(with_key(&gate, &token("acme", "bob", 600)).await, 200);
    assert!(gate.directory().find("acme").await.unwrap().is_some());
    clock.advance(Duration::from_secs(700));
    assert_eq!(with_key(&gate, &ann).await, 401, "it has ended, though it was known");
    let mut forged = token("acme", "bob", 6_000).into_bytes();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(with_key(&gate, std::str::from_utf8(&forged).unwrap()).await, 401);
}

#[tokio::test]
async fn who_sleeps_stays_known_while_the_directory_is_away() {
    let w = fixed("reject").await;
    let (key, _) = new_key(&w.gate, "acme").await;
    assert_eq!(with_key(&w.gate, &key).await, 200);
    w.gate.flush_now().await.unwrap();
    tallygate::testing::leases_at_rest(&w.gate).await;
    w.clock.advance(2 * AGED);
    assert_eq!(tallygate::testing::doze(&w.gate).await, (1, 0));
    w.store.outage(true);
    assert_eq!(with_key(&w.gate, &key).await, 200);
    assert_eq!(tallygate::testing::doze(&w.gate).await, (0, 1), "its row is not on record");
    w.store.outage(false);
    w.clock.advance(AGED);
    assert_eq!(with_key(&w.gate, &key).await, 200);
    w.gate.close().await.unwrap();
}

#[tokio::test]
async fn a_revoked_key_does_not_come_back_while_the_directory_is_away() {
    let w = fixed("reject").await;
    let (key, tenant) = new_key(&w.gate, "acme").await;
    assert_eq!(with_key(&w.gate, &key).await, 200);
    let id = tenant.keys().await.unwrap()[0].id.clone();
    tenant.revoke_key(&id).await.unwrap();
    w.clock.advance(AGED);
    assert_eq!(with_key(&w.gate, &key).await, 401);
    // Past the time for which the key is remembered as unknown.
    w.clock.advance(AGED);
    w.store.outage(true);
    assert_eq!(with_key(&w.gate, &key).await, 503);
}

#[tokio::test]
async fn a_key_that_is_revoked_while_its_tenant_sleeps_does_not_come_back() {
    let w = fixed("reject").await;
    let (key, tenant) = new_key(&w.gate, "acme").await;
    let (other, _) = new_key(&w.gate, "other").await;
    for key in [&key, &other] {
        assert_eq!(with_key(&w.gate, key).await, 200);
    }
    w.gate.flush_now().await.unwrap();
    tallygate::testing::leases_at_rest(&w.gate).await;
    w.clock.advance(2 * AGED);
    assert_eq!(tallygate::testing::doze(&w.gate).await, (2, 0));
    let id = tenant.keys().await.unwrap()[0].id.clone();
    tenant.revoke_key(&id).await.unwrap();
    w.store.outage(true);
    assert_eq!(with_key(&w.gate, &key).await, 503);
    assert_eq!(with_key(&w.gate, &other).await, 200, "another tenant's stays known");
}

/// Usage counted in a running window stays counted when the time zone changes, here and in a
/// process that starts later; the window ends at the new zone's midnight.
#[tokio::test]
async fn a_changed_time_zone_grants_nothing_anew() {
    use tallygate::testing::{Plans, builder};
    let zone = |name: &str| {
        let plan = "[plan.free]\nquota.requests = \"3/day\"";
        format!("default-plan = \"free\"\ntimezone = \"{name}\"\n{plan}")
    };
    let (store, plans) = (Memory::new(), Plans::new(&zone("UTC")));
    let clock = ManualClock::at_unix_ms(START_MS);
    let open = async || {
        let gate = plans.read_by(builder("")).store(store.clone()).clock(clock.clone());
        gate.open().await.unwrap()
    };
    let asks = async |gate: &Gate| status(gate, &[("x-tenant", "acme")], "10.0.0.7").await;
    let gate = open().await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(asks(&gate).await, expected);
    }
    // It is noon in UTC, and nine in the evening in Tokyo.
    plans.set(&zone("Asia/Tokyo"));
    assert!(gate.reload().await.unwrap());
    assert_eq!(asks(&gate).await, 429, "the same day goes on");
    gate.close().await.unwrap();
    let gate = open().await;
    clock.advance(Duration::from_secs(5));
    assert_eq!(asks(&gate).await, 429, "also for who has not seen the change");
    clock.advance(Duration::from_secs(3 * 3_600 - 10));
    assert_eq!(asks(&gate).await, 429);
    clock.advance(Duration::from_secs(10));
    for expected in [200, 200, 200, 429] {
        assert_eq!(asks(&gate).await, expected, "midnight in Tokyo");
    }
    clock.advance(Duration::from_secs(9 * 3_600));
    assert_eq!(asks(&gate).await, 429, "midnight in UTC is none any more");
}

/// A host that identifies callers by its own header, and no others.
struct Own;

impl tallygate::identity::Identify for Own {
    fn identify(
        &self,
        view: &dyn tallygate::identity::RequestView,
    ) -> tallygate::identity::Identity {
        use tallygate::identity::{Caller, Identity};
        match view.header("x-own").and_then(|id| std::str::from_utf8(id).ok()) {
            Some(id) => Identity::Tenant(Caller::new(id)),
            None => Identity::Absent,
        }
    }
}

/// A gate that creates tenants on first sight, identified by the host first and then by the tables.
async fn with_own() -> Gate {
    let service = gates::service("fast").replace("127.0.0.0", "10.0.0.0");
    GateBuilder::from_text(&service).plans(PLANS).identify(Own).open().await.unwrap()
}

async fn status_of(gate: &Gate, name: &str, value: &str) -> u16 {
    status(gate, &[(name, value)], "10.0.0.1").await
}

#[tokio::test]
async fn what_a_host_does_not_know_the_tables_are_asked() {
    let gate = with_own().await;
    assert_eq!(status_of(&gate, "x-own", "acme").await, 200);
    assert_eq!(status_of(&gate, "x-tenant", "other").await, 200);
    assert_eq!(status_of(&gate, "x-else", "other").await, 401);
}

#[tokio::test]
async fn no_caller_can_be_named_the_anonymous_tenant() {
    let gate = with_own().await;
    for header in ["x-own", "x-tenant"] {
        for id in ["~anonymous", "~", "~else"] {
            assert_eq!(status_of(&gate, header, id).await, 401, "{header}: {id}");
        }
        assert_eq!(status_of(&gate, header, "acme~").await, 200);
    }
    assert!(gate.directory().tenant("~else").save().await.is_err());
    assert!(gate.directory().tenant("~anonymous").save().await.is_ok(), "it may have limits");
}

#[tokio::test]
async fn the_hosts_own_refusal_knows_tenant_user_route_and_request() {
    let service = gates::service("fast").replace("127.0.0.0", "10.0.0.0");
    let header = "header = \"x-tenant\"";
    let service = service.replace(header, &format!("{header}\nuser-header = \"x-user\""));
    let plans = r#"
        default-plan = "free"
        [route.find]
        match = "GET /search"
        cost = { requests = 5 }
        [plan.free]
        quota.requests = "9/day"
    "#;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = seen.clone();
    let builder = GateBuilder::from_text(&service).plans(plans).on_refusal(move |refusal| {
        let call = refusal.call.as_ref().expect("a request was refused");
        let tenant = refusal.tenant.as_deref().unwrap_or("-");
        let (route, plan) = (call.route.as_deref(), refusal.plan.as_deref());
        let header = |name| call.header(name).map(String::from_utf8_lossy);
        let own = (header("accept-language"), header("authorization"), header("cookie"));
        assert_eq!(own, (Some("de".into()), None, None), "credentials are not kept");
        assert!(!format!("{refusal:?}").contains("\"de\""), "{refusal:?}");
        let user = refusal.user.as_deref();
        let (call, query) = (call, call.query.as_deref());
        let line = format!(
            "{tenant} {user:?} {plan:?} {route:?} {} {} {query:?} {:?}",
            call.method, call.path, call.peer
        );
        keep.lock().unwrap().push(line);
        None
    });
    let gate = builder.open().await.unwrap();
    let ask = async |tenant: (&str, &str)| {
        let more = [("accept-language", "de"), ("authorization", "Basic x"), ("cookie", "s=1")];
        let all = [tenant, ("x-user", "7")].into_iter().chain(more);
        status(&gate, &all.collect::<Vec<_>>(), "10.0.0.1").await
    };
    assert_eq!(ask(("x-tenant", "acme")).await, 200);
    assert_eq!(ask(("x-tenant", "acme")).await, 429);
    assert_eq!(ask(("x-else", "acme")).await, 401);
    let seen = seen.lock().unwrap();
    let of = r#"Some("find") GET /search Some("q=1") Some(10.0.0.1)"#;
    assert_eq!(seen[0], format!(r#"acme Some("7") Some("free") {of}"#));
    assert_eq!(seen[1], format!("- None None {of}"));
}

/// A feature that is checked by the handler, and units that it takes.
#[tokio::test]
async fn a_refusal_by_the_handler_names_the_tenant_and_the_request_to_the_host() {
    let plans = r#"
        default-plan = "free"
        [meter.tokens]
        count = "reported"
        hold = 1
        [route.find]
        match = "GET /search"
        [plan.free]
        quota.tokens = "9/day"
    "#;
    for takes in [false, true] {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let keep = seen.clone();
        let builder = testing::builder(plans).on_refusal(move |refusal| {
            let call = refusal.call.as_ref().map(|call| (call.route.clone(), call.path.clone()));
            keep.lock().unwrap().push(format!("{:?} {call:?}", refusal.tenant));
            None
        });
        let gate = builder.open().await.unwrap();
        let handler = tower::service_fn(async |request: Request<Empty<Bytes>>| {
            let admitted = request.extensions().get::<tallygate::Admitted>().unwrap();
            let refusal = match takes {
                true => admitted.usage().take("tokens", 100).await.unwrap_err(),
                false => admitted.plan().require("export").unwrap_err(),
            };
            let mut response = Response::new(Empty::<Bytes>::new());
            response.extensions_mut().insert(tallygate::middleware::Refused(refusal));
            Ok::<_, Infallible>(response)
        });
        let request = Request::get("/search").header("x-tenant", "acme");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = GateLayer::new(&gate).layer(handler).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), if takes { 429 } else { 403 });
        let seen = seen.lock().unwrap();
        assert_eq!(*seen, [r#"Some("acme") Some((Some("find"), "/search"))"#], "takes: {takes}");
    }
}

#[tokio::test]
async fn callers_of_a_network_are_a_tenant_by_the_address_behind_the_proxies() {
    let service = r#"
        [store]
        kind = "memory"
        [[identify]]
        claim = "org"
        [[identify]]
        network = ["10.0.0.0/8"]
        tenant  = "internal"
        [identity]
        unknown = "create"
        [proxy]
        trust = ["10.9.0.0/16"]
    "#;
    let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
    assert_eq!(status(&gate, &[], "10.0.0.7").await, 200);
    assert_eq!(status(&gate, &[], "192.0.2.1").await, 401);
    let through = async |of: &str| status(&gate, &[("x-forwarded-for", of)], "10.9.0.1").await;
    assert_eq!(through("192.0.2.1").await, 401, "the caller's address, not the proxy's");
    assert_eq!(through("10.0.0.7").await, 200);
    let forged = [("x-forwarded-for", "10.0.0.7")];
    assert_eq!(status(&gate, &forged, "192.0.2.1").await, 401, "from no trusted proxy");
    assert!(gate.directory().find("internal").await.unwrap().is_some());
}

#[tokio::test]
async fn with_default_auth_none_only_named_routes_have_a_caller_and_a_cost() {
    let plans = r#"
        default-plan = "free"
        default-auth = "none"
        [route.find]
        match = "GET /search"
        [plan.free]
        quota.requests = "1/day"
    "#;
    let gate = GateBuilder::from_text(&gates::service("fast").replace("127.0.0.0", "10.0.0.0"));
    let gate = gate.plans(plans).open().await.unwrap();
    let other = async |tenant: Option<&str>| {
        let mut request = Request::get("/about").body(Empty::<Bytes>::new()).unwrap();
        if let Some(tenant) = tenant {
            request.headers_mut().insert("x-tenant", tenant.parse().unwrap());
        }
        request.extensions_mut().insert(Peer("10.0.0.1:1".parse().unwrap()));
        let inner = tower::service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
        });
        let response = GateLayer::new(&gate).layer(inner).oneshot(request).await.unwrap();
        (response.status().as_u16(), response.headers().contains_key("ratelimit"))
    };
    for tenant in [None, Some("acme"), Some("acme")] {
        assert_eq!(other(tenant).await, (200, false));
    }
    assert_eq!(status_of(&gate, "x-tenant", "acme").await, 200, "nothing was used before");
    assert_eq!(status_of(&gate, "x-tenant", "acme").await, 429);
    assert_eq!(status_of(&gate, "x-else", "acme").await, 401);
    assert_eq!(other(Some("acme")).await, (200, false));
}
