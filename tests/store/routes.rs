//! The operator's routes, and a tenant's own keys, over each store: one life of a service, whose
//! answers are the same wherever it is kept, but for ids and secrets.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;
use serde_json::{Value, json};
use stripe_sim::{Settings, Sim};
use tallygate::admin::AdminRequest;
use tallygate::directory::Role;
use tallygate::own_keys::KeysRequest;
use tallygate::store::{DynamoDb, Memory, Redb, Store};
use tallygate::testing::{START_MS, identified_by};
use tallygate::{Ask, Gate, GateBuilder, ManualClock};
use test_support::dynamodb::client;
use test_support::{gates, skips};

const PAGE: &str = include_str!("../../docs/openapi.yaml");

const PLANS: &str = r#"
    default-plan = "free"
    [meter.requests]
    stripe = { event = "api_requests", send = "all" }
    [meter.credits]
    [plan.free]
    quota.requests = "1k/month"
    quota.credits  = "10/day"
    [plan.pro]
    quota.requests = "5k/month"
    quota.credits  = ["100/day", "1k/month"]
"#;

/// A service over a store, with its Stripe.
struct Life {
    gate: Gate,
    clock: ManualClock,
    sim: Sim,
    tokens: [String; 2],
    /// What was asked and what was answered.
    answers: Vec<String>,
    /// The lines that were answered well.
    done: BTreeSet<String>,
    _folder: tempfile::TempDir,
}

fn service(folder: &Path, stripe: &str) -> String {
    let pepper = folder.join("pepper");
    std::fs::write(&pepper, "p".repeat(32)).unwrap();
    format!(
        "[store]\nkind = \"memory\" # stands back behind the one that is handed in\n\
         [[identify]]\napi-key = \"x-api-key\"\npepper = [{{ id = \"1\", file = {pepper:?} }}]\n\
         [flush]\nmode = \"fast\"\n{stripe}"
    )
}

impl Life {
    async fn begin(store: impl Store) -> Self {
        let sim = Sim::start(Settings::default()).await.unwrap();
        assert!(sim.stand_at(START_MS / 1_000));
        sim.create_meter("api_requests").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let stripe = gates::stripe_table(folder.path(), "sk_test_x", "whsec_x", &sim.url());
        let builder = GateBuilder::from_text(&service(folder.path(), &stripe)).plans(PLANS);
        let clock = ManualClock::at_unix_ms(START_MS);
        let gate =
            builder.store(store).clock(clock.clone()).sends_reports(false).open().await.unwrap();
        let mut tokens = [String::new(), String::new()];
        for (token, role) in tokens.iter_mut().zip([Role::Read, Role::Write]) {
            *token = gate.directory().new_operator("kim", role).await.unwrap().expose().to_owned();
            clock.advance(std::time::Duration::from_millis(1));
        }
        let (answers, done) = Default::default();
        Self { gate, clock, sim, tokens, answers, done, _folder: folder }
    }

    fn note(&mut self, line: &str, status: u16, body: &Value) {
        // No two changes are of one instant: those have no order in a history.
        self.clock.advance(std::time::Duration::from_millis(1));
        self.answers.push(named(&format!("{line}: {status} {body}")));
        if status < 300 {
            self.done.insert(line.to_owned());
        }
    }

    /// An operator's request. A look is made with the token that may only look.
    async fn ask(&mut self, line: &str, body: Value) -> Value {
        self.ask_once(line, body, None).await
    }

    async fn ask_once(&mut self, line: &str, body: Value, once: Option<&[u8]>) -> Value {
        let token = &self.tokens[usize::from(!line.starts_with("GET"))];
        let authorization = format!("Bearer {token}");
        let admin = self.gate.admin();
        let operator = admin.known(Some(authorization.as_bytes()), None).await.unwrap();
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let body = body.to_string();
        let body = Some(body.as_bytes());
        let reply = admin.reply(&operator, AdminRequest { method, path, query, body, once }).await;
        let answer = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        self.note(line, reply.status, &answer);
        answer
    }

    /// A request of the caller with this key about the tenant's keys.
    async fn own(&mut self, key: &str, method: &str, id: Option<&str>, body: Value) -> Value {
        let who = identified_by(&self.gate, &[("x-api-key", key)]).await;
        let body = body.to_string();
        let request = KeysRequest {
            method,
            key: id,
            query: "",
            content_type: Some(b"application/json"),
            site: None,
            once: None,
            body: Some(body.as_bytes()),
        };
        let reply = self.gate.keys_reply(&who, request).await;
        let answer = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        self.note(&format!("{method} /usage/keys"), reply.status, &answer);
        answer
    }

    async fn uses(&mut self, tenant: &str, meter: &str, units: u64) {
        let handle = self.gate.tenant(tenant).await.unwrap();
        let admitted = match self.gate.admit(Ask::new(&handle, "work").cost(meter, units)).await {
            Ok(permit) => {
                permit.settle();
                true
            }
            Err(_) => false,
        };
        self.answers.push(format!("{units} {meter} of {tenant}: {admitted}"));
    }
}

/// A text without ids and secrets, and without the hour of a key's last use, which is written
/// beside the request.
fn named(text: &str) -> String {
    let varying = Regex::new(r"\b(tg(op)?_[0-9A-Za-z.]+|k[0-9a-f]{16}|[0-9a-f]{32})").unwrap();
    let used = Regex::new("\"last-used\":(null|\"[^\"]*\")").unwrap();
    let text = varying.replace_all(text, "<id>");
    used.replace_all(&text, "\"last-used\":<hour>").into_owned()
}

fn text(of: &Value) -> &str {
    of.as_str().unwrap_or_else(|| panic!("{of}"))
}

/// Tenants are made, changed, used and refused.
async fn tenants(life: &mut Life) {
    for id in ["acme", "globex", "initech"] {
        life.ask("POST /tenants", json!({ "id": id, "reason": "signed up" })).await;
    }
    life.ask("POST /tenants", json!({ "id": "acme", "plan": "pro", "reason": "again" })).await;
    life.ask("POST /tenants", json!({ "id": "a\nb", "reason": "r" })).await;
    life.ask("GET /tenants", json!({})).await;
    life.ask("GET /tenants?limit=2", json!({})).await;
    life.ask("GET /tenants?after=acme&prefix=g", json!({})).await;
    life.ask("GET /tenants/acme", json!({})).await;
    life.ask("GET /tenants/nemo", json!({})).await;
    life.uses("acme", "credits", 8).await;
    life.uses("acme", "credits", 8).await;
    life.ask("GET /tenants/acme/refusals?limit=5", json!({})).await;
    life.ask("GET /refusals", json!({})).await;
    let reset = json!({ "limit": "credits/day", "reason": "outage" });
    life.ask("POST /tenants/acme/resets", reset.clone()).await;
    life.ask("POST /tenants/acme/resets", reset).await;
    life.uses("acme", "credits", 9).await;
    let gift = json!({ "id": "g", "meter": "credits", "units": 5, "reason": "sorry" });
    life.ask("POST /tenants/acme/grants", gift.clone()).await;
    life.ask("POST /tenants/acme/grants", gift).await;
    life.uses("acme", "credits", 4).await;
    let more = json!({ "changes": "quota.credits = \"20/day\"", "reason": "a pilot" });
    let shown = life.ask("POST /tenants/acme/overrides", more).await.to_string();
    let id = Regex::new("\"id\":\"([0-9a-f]{12})\"").unwrap();
    let id = id.captures(&shown).unwrap_or_else(|| panic!("{shown}"))[1].to_owned();
    life.uses("acme", "credits", 3).await;
    life.ask(&format!("DELETE /tenants/acme/overrides/{id}"), json!({ "reason": "over" })).await;
    let more = json!({ "changes": "concurrency = 5", "reason": "a pilot" });
    life.ask("POST /tenants/acme/overrides", more).await;
    life.ask("DELETE /tenants/acme/overrides", json!({ "reason": "over" })).await;
    life.ask("DELETE /tenants/acme/grants/g", json!({ "reason": "over" })).await;
    life.ask("DELETE /tenants/acme/grants/none", json!({ "reason": "over" })).await;
    life.ask("PATCH /tenants/acme", json!({ "plan": "pro", "reason": "paid" })).await;
    life.uses("acme", "credits", 30).await;
    life.ask("PATCH /tenants/globex", json!({ "suspended": true, "reason": "abuse" })).await;
    life.uses("globex", "credits", 1).await;
    life.ask("GET /tenants/globex", json!({})).await;
    life.ask("PATCH /tenants/globex", json!({ "plan": "gold", "reason": "r" })).await;
}

/// Keys are made, once, replaced and revoked; by the operator, and by the tenant itself.
async fn keys(life: &mut Life) {
    let new = json!({ "name": "ci", "permissions": ["read", "write"] });
    let made = life.ask_once("POST /tenants/acme/keys", new.clone(), Some(b"k1")).await;
    life.ask_once("POST /tenants/acme/keys", new, Some(b"k1")).await;
    let (id, key) = (text(&made["id"]).to_owned(), text(&made["key"]).to_owned());
    let rotation = format!("POST /tenants/acme/keys/{id}/rotation");
    let other = life.ask(&rotation, json!({ "overlap-seconds": 600 })).await;
    let end = json!({ "expires": "2100-01-01" });
    life.ask(&format!("PATCH /tenants/acme/keys/{}", text(&other["id"])), end).await;
    life.ask("GET /tenants/acme/keys", json!({})).await;

    life.own(&key, "GET", None, json!({})).await;
    let own = life.own(&key, "POST", None, json!({ "name": "own", "permissions": ["read"] })).await;
    let less = text(&own["key"]).to_owned();
    life.own(&less, "POST", None, json!({ "name": "x", "permissions": ["write"] })).await;
    life.own(&less, "DELETE", Some(text(&other["id"])), json!({})).await;
    life.own(&key, "DELETE", Some(text(&own["id"])), json!({})).await;
    life.own(&key, "DELETE", Some("k0000000000000000"), json!({})).await;
    life.own(&key, "GET", None, json!({})).await;
    life.ask(&format!("DELETE /tenants/acme/keys/{}", text(&other["id"])), json!(null)).await;
    life.ask("GET /tenants/acme/keys", json!({})).await;
}

/// What is seen afterwards, of all, and of one that is erased.
async fn looks(life: &mut Life) {
    life.gate.ensure_customer("initech").await.unwrap();
    life.uses("initech", "requests", 7).await;
    life.gate.report_now().await.unwrap();
    life.uses("initech", "requests", 2).await;
    life.gate.flush_now().await.unwrap();
    for target in [
        "/health",
        "/operator",
        "/plans",
        "/billing",
        "/billing?tenant=initech",
        "/top?limit=2",
        "/tenants/acme/usage",
        "/tenants/acme/usage/history?meter=credits",
        "/tenants/acme/peek?meter=credits&units=3",
        "/tenants/acme/history",
    ] {
        life.ask(&format!("GET {target}"), json!({})).await;
    }
    let lee = life.gate.directory().new_operator("lee", Role::Read).await.unwrap();
    life.ask(&format!("DELETE /operators/{}", lee.id), json!({})).await;
    life.ask("GET /operators", json!({})).await;
    life.ask("GET /operators/history", json!({})).await;
    life.ask("DELETE /tenants/initech", json!({ "reason": "asked for it" })).await;
    life.ask("GET /tenants/initech", json!({})).await;
    life.ask("GET /tenants", json!({})).await;
    assert_eq!(life.sim.totals().iter().map(|it| it.total).sum::<i64>(), 7);
}

/// The operations of the operator's routes.
fn operations() -> Vec<(String, Regex)> {
    let names = Regex::new(r"\{[^}]+\}").unwrap();
    let (mut path, mut all) = (String::new(), Vec::new());
    for line in PAGE.lines() {
        if let Some(name) = line.strip_prefix("  /").and_then(|it| it.strip_suffix(':')) {
            path = format!("/{name}");
        }
        let method = line.strip_prefix("    ").and_then(|it| it.strip_suffix(':'));
        let method = method.filter(|it| ["get", "post", "patch", "put", "delete"].contains(it));
        if let (Some(method), Some(path)) = (method, path.strip_prefix("/admin")) {
            let method = method.to_uppercase();
            let like = names.replace_all(path, "[^/?]+");
            let like = Regex::new(&format!(r"^{method} {like}(\?.*)?$")).unwrap();
            all.push((format!("{method} {path}"), like));
        }
    }
    all
}

async fn answers(store: impl Store) -> Vec<String> {
    let mut life = Life::begin(store).await;
    tenants(&mut life).await;
    keys(&mut life).await;
    looks(&mut life).await;
    life.gate.close().await.unwrap();
    for (operation, like) in operations() {
        assert!(life.done.iter().any(|line| like.is_match(line)), "{operation} in no life");
    }
    life.answers
}

#[track_caller]
fn same(here: &[String], memory: &[String]) {
    for (here, memory) in here.iter().zip(memory) {
        assert_eq!(here, memory);
    }
    assert_eq!(here.len(), memory.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_the_same_over_each_store() {
    let memory = answers(Memory::new()).await;
    assert!(operations().len() > 20);
    let folder = tempfile::tempdir().unwrap();
    let redb = Redb::open(folder.path().join("store.redb")).unwrap();
    same(&answers(redb).await, &memory);
    let server = tokio::task::spawn_blocking(dynamodb_local::shared).await.unwrap();
    let Some(server) = skips::needed("routes on DynamoDB Local", server) else { return };
    DynamoDb::create_table(&client(server.endpoint()), "routes", None).await.unwrap();
    same(&answers(DynamoDb::new(client(server.endpoint()), "routes")).await, &memory);
}
