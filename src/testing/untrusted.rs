//! Fuzz entries for all outside input: each takes arbitrary bytes, returns quickly, and checks its
//! invariants. The fuzz targets call them, and `tests/gate/fuzz_corpus.rs` calls them with the
//! seeds in `fuzz/seeds`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use super::START_MS;
use crate::admin::{AdminRequest, MAX_BODY};
use crate::catalog::{Catalog, Every, Zone};
use crate::clock::time_at;
use crate::config::Config;
use crate::directory::{Role, TenantRecord};
use crate::gate::{Answer, Gate, IdentifyStep, Step, Waited};
use crate::identity::RequestView;
use crate::ids::Surrogate;
use crate::policy::resolve::LiveCatalog;
use crate::report::MAX_ROWS;
use crate::wire::Reply;

/// A fuzz entry.
pub type Target = fn(&[u8]);

/// Every target with its name: the folder of its seeds, and its file in `fuzz/fuzz_targets`.
pub const TARGETS: [(&str, Target); 9] = [
    ("plan_file", plan_file),
    ("service_file", service_file),
    ("headers", headers),
    ("paths", paths),
    ("jwt", jwt),
    ("webhook", webhook),
    ("ingest", ingest),
    ("history", history),
    ("admin", admin),
];

/// Limit on the error report for one file, in bytes.
const MAX_TOLD: usize = 24 * 1024;

/// Calls per gate. After that the gate is dropped, with its store.
const CALLS: u32 = 2_000;

/// A plan file: a legal one is lowered for a tenant on each of its plans, an illegal one must get a
/// short error report.
pub fn plan_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let catalog = match Catalog::parse("plans.toml", text, time_at(START_MS)) {
        Ok(catalog) => Arc::new(catalog),
        Err(errors) => return assert!(errors.to_string().len() <= MAX_TOLD, "told at length"),
    };
    let live = LiveCatalog::new(catalog.clone(), 1, 1);
    let ids = catalog.tenants.keys().map(|id| &**id).chain(["acme"]);
    for id in ids.take(8) {
        for plan in catalog.plans.iter().take(32) {
            let Ok(surrogate) = Surrogate::draw() else { return };
            let mut record = TenantRecord::begin(surrogate, id, START_MS);
            record.plan = Some(plan.name.to_string());
            let resolved = live.resolve(&record, START_MS);
            let anchors = resolved.anchors;
            for every in [Every::Hour, Every::Day, Every::Month, Every::Cycle, Every::Term] {
                let window = every.window(START_MS, &catalog.timezone, &anchors);
                assert!(window.start_ms <= START_MS && START_MS < window.end_ms);
            }
        }
    }
    let _ = catalog.routes.find("GET", "/");
    if let Err(errors) = catalog.parse_changes(text) {
        assert!(errors.to_string().len() <= MAX_TOLD);
    }
}

/// A service file; and an environment variable: the end of its name in the first line, its value in
/// the rest.
pub fn service_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (name, value) = text.split_once('\n').unwrap_or((text, ""));
    let variable = (format!("TALLYGATE__{}", name.to_ascii_uppercase()), value.to_owned());
    for parsed in
        [Config::parse("tallygate.toml", text, []), Config::parse("tallygate.toml", "", [variable])]
    {
        match parsed {
            Ok(config) => drop(format!("{config:?}")),
            Err(errors) => assert!(errors.to_string().len() <= MAX_TOLD, "told at length"),
        }
    }
}

/// A request: method, path and peer in the first line, headers in the rest, decided by a gate that
/// examines all of them.
pub fn headers(data: &[u8]) {
    let request = Sent::read(data);
    on_stage("UTC", |Stage { gate, runtime, .. }| {
        let answer = runtime.block_on(async {
            let mut waited = Waited::default();
            loop {
                match gate.admit_request(&request, waited) {
                    Step::Done(answer) => break answer,
                    Step::Wait(pending) => waited = pending.await,
                }
            }
        });
        if let Answer::Refuse(refusal) = answer {
            check(&gate.refusal_reply(&refusal));
            check(&gate.grpc_refusal_reply(&refusal));
        }
    });
}

/// A router with the patterns before an empty line, and the paths after it.
pub fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (patterns, paths) = text.split_once("\n\n").unwrap_or(("GET /{*rest}", text));
    let mut plans = String::from("default-plan = \"free\"\n[plan.free]\n");
    for (n, pattern) in patterns.lines().take(32).enumerate() {
        let pattern = toml::Value::String(pattern.to_owned());
        plans.push_str(&format!("[route.r{n}]\nmatch = {pattern}\n"));
    }
    match Catalog::parse("plans.toml", &plans, time_at(START_MS)) {
        Ok(catalog) => {
            for path in paths.lines().take(64) {
                for method in ["GET", "HEAD", "POST", "get", ""] {
                    let first = catalog.routes.find(method, path);
                    assert_eq!(first, catalog.routes.find(method, path), "{path}");
                }
            }
        }
        Err(errors) => assert!(errors.to_string().len() <= MAX_TOLD),
    }
}

/// A raw token, and the same bytes as the claims of a genuine one.
pub fn jwt(data: &[u8]) {
    #[cfg(feature = "jwt")]
    {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        use hmac::{Hmac, KeyInit, Mac};

        use crate::identity::jwt::{TokenRules, Verifier};

        const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
        let claims = TokenRules {
            issuer: "https://id.example.com".into(),
            audience: vec!["api".into()],
            tenant: "org_id".into(),
            user: Some("sub".into()),
            plan: Some("plan".into()),
            permissions: None,
        };
        let Ok(verifier) = Verifier::hs256(claims, SECRET) else { return };
        let _ = verifier.verify(&String::from_utf8_lossy(data), START_MS);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", part(b"{\"alg\":\"HS256\"}"), part(data));
        let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(SECRET) else { return };
        mac.update(signed.as_bytes());
        let token = format!("{signed}.{}", part(&mac.finalize().into_bytes()));
        if let Ok(verified) = verifier.verify(&token, START_MS) {
            assert!(crate::identity::is_tenant_id(&verified.caller().tenant));
        }
    }
    #[cfg(not(feature = "jwt"))]
    let _ = data;
}

/// A webhook: raw header and body, separated by the first line break; and the whole input as the
/// body of a genuine one.
pub fn webhook(data: &[u8]) {
    use hmac::{Hmac, KeyInit, Mac};

    use crate::billing::reducer::Facts;
    use crate::billing::webhook::receive;
    use crate::config::Secret;

    let secrets = [Secret::new("whsec_fuzz"), Secret::new("whsec_old")];
    let now_s = START_MS / 1_000;
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, body) = data.split_at(end);
    assert!(receive(header, body, &secrets, now_s).is_err(), "signed by chance");
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(b"whsec_fuzz") else { return };
    mac.update(format!("{now_s}.").as_bytes());
    mac.update(data);
    let signature = crate::identity::hex(&mac.finalize().into_bytes());
    let header = format!("t={now_s},v1={signature}");
    let Ok(event) = receive(header.as_bytes(), data, &secrets, now_s) else { return };
    #[cfg(feature = "stripe")]
    let _ = crate::billing::customers::customer_of(&event);
    let mut facts = Facts::default();
    let taken = facts.take(&event);
    assert_eq!(facts.take(&event), taken, "the same event again");
    facts.fetched(&event.object, event.created_s);
    let _ = facts.state(|_| None);
    let _ = facts.state(|_| Some(crate::catalog::Sold::Topup(0)));
    let _ = facts.state(|_| Some(crate::catalog::Sold::Plan(crate::catalog::PlanId(0))));
}

/// The body of `POST /usage`, also as a queue message.
pub fn ingest(data: &[u8]) {
    on_stage("UTC", |Stage { gate, runtime, .. }| {
        runtime.block_on(async {
            check(&gate.ingest().reply_to_known(Some(data)).await);
            if let Ok(text) = std::str::from_utf8(data) {
                assert_eq!(gate.ingest().messages(&[text]).await.len(), 1);
            }
        });
    });
}

/// The query of `GET /usage/history`, after a byte that selects a time zone.
pub fn history(data: &[u8]) {
    const ZONES: [&str; 6] = [
        "UTC",
        "America/New_York",
        "Asia/Tokyo",
        "Pacific/Kiritimati",
        "Pacific/Apia",
        "Africa/Casablanca",
    ];
    let Some((zone, query)) = data.split_first() else { return };
    let Ok(query) = std::str::from_utf8(query) else { return };
    let zone = ZONES[usize::from(*zone) % ZONES.len()];
    let request = Sent::read(b"GET /usage 127.0.0.1\nx-tenant: acme");
    on_stage(zone, |Stage { gate, runtime, .. }| {
        let reply = runtime.block_on(async {
            let mut waited = Waited::default();
            let who = loop {
                match gate.identify_request(&request, waited) {
                    IdentifyStep::Done(who) => break who,
                    IdentifyStep::Refused(refusal) => panic!("refused: {:?}", refusal.reason),
                    IdentifyStep::Wait(pending) => waited = pending.await,
                }
            };
            gate.history_reply(&who, query).await
        });
        check(&reply);
        assert!(reply.body.len() <= 256 * MAX_ROWS, "an answer without a bound");
    });
    assert!(Zone::new(zone).is_some());
}

/// A request of the operator's routes: method and target in the first line, headers in the next,
/// and behind an empty line the body. `authorization: read` and `authorization: write` stand for
/// the tokens of two operators.
pub fn admin(data: &[u8]) {
    let end = data.windows(2).position(|it| it == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let request = Sent::read(head);
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    on_stage("UTC", |Stage { gate, runtime, tokens: [read, write], .. }| {
        let role = request.header("authorization");
        let authorization = match role {
            Some(b"read") => Some(format!("Bearer {read}").into_bytes()),
            Some(b"write") => Some(format!("Bearer {write}").into_bytes()),
            other => other.map(<[u8]>::to_vec),
        };
        let site = request.header("sec-fetch-site");
        runtime.block_on(async {
            let admin = gate.admin();
            if let Some(page) = admin.console(&request.method, path) {
                check(&page);
            }
            let before = seen(gate).await;
            let may_change = role == Some(b"write");
            match admin.known(authorization.as_deref(), site).await {
                Ok(operator) => {
                    assert!(may_change || role == Some(b"read"), "a token by chance");
                    let reply = admin.reply(
                        &operator,
                        AdminRequest {
                            method: &request.method,
                            path,
                            query,
                            body: (body.len() <= MAX_BODY).then_some(body),
                            once: request.header("idempotency-key"),
                        },
                    );
                    let reply = reply.await;
                    check(&reply);
                    let is_ours = reply.status < 500 && reply.status != 401;
                    assert!(is_ours, "{} {path}: {}", request.method, reply.status);
                }
                Err(refused) => assert!(matches!(refused.status, 401 | 403), "{}", refused.status),
            }
            assert!(may_change || seen(gate).await == before, "changed without the right to");
        });
    });
}

/// What an operator may change, as far as a look at the first tenants shows it.
async fn seen(gate: &Gate) -> Vec<(Arc<TenantRecord>, usize)> {
    let mut seen = Vec::new();
    for tenant in gate.directory().list("", "", 5).await.expect("a store in memory") {
        let keys = tenant.keys().await.expect("a store in memory").len();
        seen.push((tenant.record().clone(), keys));
    }
    seen
}

/// Checks that apply to every answer.
fn check(reply: &Reply) {
    assert!((200..600).contains(&reply.status));
    for (name, value) in &reply.headers {
        let is_legal = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        assert!(is_legal && *name == name.to_ascii_lowercase(), "{name}: {value:?}");
    }
}

/// Plans that use everything in a request: keys, trusted headers, addresses, idempotency keys.
fn plans(zone: &str) -> String {
    format!(
        r#"
        default-plan = "free"
        timezone = "{zone}"
        [meter.egress]
        count = "response-bytes"
        [meter.upload]
        count = "request-bytes"
        [route.pay]
        match = "POST /v1/{{account}}/payments"
        once-by = "idempotency-key"
        [route.open]
        match = "GET /open/{{*rest}}"
        auth = "optional"
        [plan.free]
        rate.default = "1000000/s per ip"
        quota.requests = "1000000/hour"
        quota.upload = "1TB/day"
        "#
    )
}

const SERVICE: &str = r#"
    [store]
    kind = "memory"
    [[identify]]
    header = "x-tenant"
    user-header = "x-user"
    [[identify]]
    claim = "org"
    [identity]
    unknown = "create"
    [proxy]
    trust = ["127.0.0.0/8", "10.0.0.0/8", "::1"]
    [http]
    strip-prefix = "/prod"
    [flush]
    mode = "fast"
"#;

struct Stage {
    zone: String,
    runtime: tokio::runtime::Runtime,
    gate: Gate,
    /// Tokens of operators: one may look, one may also change.
    tokens: [String; 2],
    left: u32,
}

/// Runs `work` on this thread's gate for this zone, which is replaced after some calls.
fn on_stage(zone: &str, work: impl FnOnce(&Stage)) {
    thread_local! {
        static STAGES: RefCell<Vec<Stage>> = const { RefCell::new(Vec::new()) };
    }
    let taken = STAGES.with_borrow_mut(|stages| {
        let at = stages.iter().position(|stage| stage.zone == zone)?;
        Some(stages.swap_remove(at))
    });
    let mut stage = taken.filter(|stage| stage.left > 0).unwrap_or_else(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let builder = crate::GateBuilder::from_text(SERVICE).plans(&plans(zone));
        let builder = builder.clock(crate::ManualClock::at_unix_ms(START_MS));
        let gate = runtime.block_on(builder.open()).expect("a gate of these plans");
        let tokens = [Role::Read, Role::Write].map(|role| {
            let made = runtime.block_on(gate.directory().new_operator("kim", role));
            made.expect("an operator").expose().to_owned()
        });
        runtime.block_on(gate.directory().tenant("acme").save()).expect("a tenant");
        Stage { zone: zone.to_owned(), runtime, gate, tokens, left: CALLS }
    });
    stage.left -= 1;
    work(&stage);
    STAGES.with_borrow_mut(|stages| stages.push(stage));
}

/// A request as bytes: `METHOD PATH PEER`, and header lines.
struct Sent {
    method: String,
    path: String,
    peer: Option<IpAddr>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Sent {
    /// As a server would pass it on: token names in lower case, values without control characters.
    fn read(data: &[u8]) -> Self {
        let mut lines = data.split(|byte| *byte == b'\n');
        let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let mut words = first.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, path, peer) = (word(), word(), word().parse().ok());
        let header = |line: &[u8]| {
            let end = line.iter().position(|byte| *byte == b':')?;
            let name = String::from_utf8_lossy(&line[..end]).to_ascii_lowercase();
            let value = line[end + 1..].trim_ascii().to_vec();
            let is_legal = value.iter().all(|byte| *byte >= b' ' && *byte != 127);
            is_legal.then_some((name, value))
        };
        Self { method, path, peer, headers: lines.take(200).filter_map(header).collect() }
    }
}

impl RequestView for Sent {
    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        let of_name = self.headers.iter().filter(|(known, _)| known == name);
        of_name.map(|(_, value)| &**value).collect()
    }

    fn claim(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        let value = self.header(&format!("claim-{name}"))?;
        Some(String::from_utf8_lossy(value))
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }
}
