//! docs/openapi.yaml against the routes: every operation is called, and what is sent and what is
//! answered are as the description says.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tallygate::directory::Role;
use tallygate::{Ask, Gate, GateBuilder};
use tallygate_axum::{admin_router, ingest_router, usage_router_with_keys};
use tower::ServiceExt;

const PAGE: &str = include_str!("../../../../docs/openapi.yaml");
const ADMIN: &str = include_str!("../../../../docs/admin.md");
const PLANS: &str = r#"
    default-plan = "free"
    [meter.credits]
    [meter.gpu-hours]
    parts = 1000
    [plan.free]
    quota.credits = ["100/month", "3"]
    rate.default = "5000/s"
    feature.exports = true
    feature.seats = 10
    [plan.pro]
    quota.credits = "1000/month"
"#;
const SERVICE: &str = "store.kind = \"memory\"\nflush.mode = \"fast\"\n\
                       ingest.token = { file = \"TOKEN\" }";
const INGEST_TOKEN: &str = "t0ken-of-a-service";

/// The description, and which of its operations have been called.
struct Described {
    page: Value,
    called: BTreeSet<String>,
}

/// A request, and the status that it is to have.
struct Call<'a> {
    /// `GET /admin/tenants/{tenant}`
    operation: &'a str,
    /// What stands for the names in braces, and the query.
    target: String,
    token: &'a str,
    body: Option<Value>,
    status: u16,
}

impl Described {
    fn read() -> Self {
        let page = serde_saphyr::from_str(PAGE).unwrap();
        Self { page, called: BTreeSet::new() }
    }

    /// The description of an operation.
    fn operation(&self, name: &str) -> &Value {
        let (method, path) = name.split_once(' ').unwrap();
        let found = &self.page["paths"][path][method.to_ascii_lowercase()];
        assert!(found.is_object(), "docs/openapi.yaml has no {name}");
        found
    }

    /// Follows a reference within the page.
    fn at<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(link) => self.page.pointer(&link[1..]).unwrap_or_else(|| panic!("{link}")),
            None => value,
        }
    }

    /// Fails unless the value is as the schema says.
    fn check(&self, schema: &Value, value: &Value, what: &str) {
        let mut schema = schema.clone();
        schema["components"] = self.page["components"].clone();
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let faults: Vec<_> = validator.iter_errors(value).map(|it| it.to_string()).collect();
        assert!(faults.is_empty(), "{what}: {value}\n{}", faults.join("\n"));
    }

    /// Sends a request and checks both sides of it. Returns the answer.
    async fn send(&mut self, app: &Router, call: Call<'_>) -> Value {
        let name = call.operation;
        let operation = self.operation(name).clone();
        let (method, _) = name.split_once(' ').unwrap();
        let request = axum::http::Request::builder()
            .method(method)
            .uri(&call.target)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", call.token));
        let mut sent = Body::empty();
        if let Some(body) = &call.body {
            let content = &self.at(&operation["requestBody"])["content"];
            if call.status < 400 {
                self.check(&content["application/json"]["schema"], body, name);
            }
            sent = Body::from(body.to_string());
        }
        let answer = app.clone().oneshot(request.body(sent).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let content_type = answer.headers().get("content-type").cloned();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        assert_eq!(status, call.status, "{name} {}: {body}", call.target);
        let responses = &operation["responses"];
        let response = responses.get(status.to_string());
        assert!(response.is_some() || status >= 400, "{name}: {status} is not described");
        let response = self.at(response.unwrap_or(&responses["default"]));
        if let Some(content) = response["content"].as_object() {
            let (kind, content) = content.iter().next().unwrap();
            assert_eq!(content_type.unwrap(), kind.as_str(), "{name}");
            self.check(&content["schema"], &body, name);
        }
        self.called.insert(name.to_owned());
        body
    }

    /// All operations.
    fn operations(&self) -> BTreeSet<String> {
        let paths = self.page["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().keys().filter(|it| *it != "parameters");
            methods.map(|it| format!("{} {path}", it.to_uppercase())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }
}

/// The whole service.
struct Bed {
    gate: Gate,
    app: Router,
    token: String,
    key: String,
    described: Described,
    _folder: tempfile::TempDir,
}

impl Bed {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, INGEST_TOKEN).unwrap();
        let service = SERVICE.replace("TOKEN", token.to_str().unwrap());
        let gate = GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap();
        let acme = gate.directory().tenant("acme").save().await.unwrap();
        let key = acme.new_key("ci").await.unwrap();
        let operator = gate.directory().new_operator("kim", Role::Write).await.unwrap();
        let app = Router::new()
            .nest("/admin", admin_router(&gate))
            .merge(ingest_router(&gate))
            .merge(usage_router_with_keys(&gate));
        let (token, key) = (operator.expose().to_owned(), key.expose().to_owned());
        Self { gate, app, token, key, described: Described::read(), _folder: folder }
    }

    /// An operator's request.
    async fn ask(&mut self, operation: &str, target: &str, status: u16, body: Value) -> Value {
        let body = Some(body).filter(|it| !it.is_null());
        let (token, target) = (self.token.clone(), format!("/admin{target}"));
        let call = Call { operation, target, token: &token, body, status };
        self.described.send(&self.app, call).await
    }

    /// Another's.
    async fn other(&mut self, operation: &str, target: &str, token: &str, body: Value) -> Value {
        let body = Some(body).filter(|it| !it.is_null());
        let status = if operation.starts_with("POST") { 202 } else { 200 };
        let call = Call { operation, target: target.to_owned(), token, body, status };
        self.described.send(&self.app, call).await
    }
}

#[tokio::test]
async fn the_routes_are_as_the_description_says() {
    let mut bed = Bed::open().await;
    tenants(&mut bed).await;
    units(&mut bed).await;
    keys(&mut bed).await;
    operators(&mut bed).await;
    rehearsed(&mut bed).await;
    callers(&mut bed).await;
    mistakes(&mut bed).await;
    let described = &bed.described;
    assert_eq!(described.called, described.operations(), "operations that were not called");
    bed.gate.close().await.unwrap();
}

async fn tenants(bed: &mut Bed) {
    let none = || Value::Null;
    bed.ask("GET /admin/health", "/health", 200, none()).await;
    bed.ask("GET /admin/operator", "/operator", 200, none()).await;
    bed.ask("GET /admin/billing", "/billing?limit=5&tenant=acme", 200, none()).await;
    bed.ask("GET /admin/plans", "/plans", 200, none()).await;
    let new = json!({ "id": "globex", "plan": "pro", "reason": "signed up" });
    bed.ask("POST /admin/tenants", "/tenants", 201, new.clone()).await;
    bed.ask("POST /admin/tenants", "/tenants", 200, new).await;
    bed.ask("GET /admin/tenants", "/tenants?limit=1&prefix=ac", 200, none()).await;
    bed.ask("GET /admin/tenants", "/tenants?after=b", 200, none()).await;
    let filtered = "/tenants?plan=pro&status=active&payment=good";
    bed.ask("GET /admin/tenants", filtered, 200, none()).await;
    let change = json!({ "plan": "free", "suspended": true, "reason": "chargeback" });
    let of = "/admin/tenants/{tenant}";
    bed.ask(&format!("PATCH {of}"), "/tenants/globex", 200, change).await;
    bed.ask(&format!("GET {of}"), "/tenants/globex", 200, none()).await;
    let why = json!({ "reason": "request 4711" });
    let erased = bed.ask(&format!("DELETE {of}"), "/tenants/globex", 200, why).await;
    assert!(erased["erased"].is_string(), "{erased}");
    let at = format!("/tenants/{}", erased["id"].as_str().unwrap());
    bed.ask(&format!("GET {of}"), &at, 200, none()).await;
}

async fn units(bed: &mut Bed) {
    let of = "/admin/tenants/{tenant}";
    let work = Ask::new(&bed.gate.tenant("acme").await.unwrap(), "work").cost("credits", 40);
    bed.gate.admit(work).await.unwrap().settle();
    let dear = Ask::new(&bed.gate.tenant("acme").await.unwrap(), "work").cost("credits", 400);
    bed.gate.admit(dear).await.unwrap_err();
    let of_acme = "/tenants/acme/refusals?limit=5";
    for (operation, target) in
        [("GET /admin/refusals".to_owned(), "/refusals"), (format!("GET {of}/refusals"), of_acme)]
    {
        let refused = bed.ask(&operation, target, 200, Value::Null).await;
        assert_eq!(refused["refusals"][0]["tenant"], "acme");
    }
    let top = bed.ask("GET /admin/top", "/top", 200, Value::Null).await;
    assert_eq!(top["tenants"][0]["id"], "acme");
    let reset = json!({ "limit": "credits/month", "reason": "outage" });
    let at = "/tenants/acme/resets";
    let given = bed.ask(&format!("POST {of}/resets"), at, 201, reset.clone()).await;
    assert_eq!(given["grant"]["source"], "reset");
    bed.ask(&format!("POST {of}/resets"), at, 200, reset).await;
    let gift = json!({
        "id": "gift", "meter": "credits", "units": 5, "expires": "2100-01-01", "reason": "launch",
    });
    bed.ask(&format!("POST {of}/grants"), "/tenants/acme/grants", 201, gift).await;
    bed.ask(&format!("GET {of}/usage"), "/tenants/acme/usage", 200, Value::Null).await;
    let peeked = "/tenants/acme/peek?meter=credits&units=7";
    let said = bed.ask(&format!("GET {of}/peek"), peeked, 200, Value::Null).await;
    assert_eq!(said["verdict"], "admitted", "{said}");
    let peeked = "/tenants/acme/peek?meter=credits&units=70000";
    let said = bed.ask(&format!("GET {of}/peek"), peeked, 200, Value::Null).await;
    assert_eq!(said["verdict"], "refused", "{said}");
    let over = || json!({ "reason": "over" });
    let at = "/tenants/acme/grants/gift";
    bed.ask(&format!("DELETE {of}/grants/{{grant}}"), at, 200, over()).await;
    let more = json!({
        "changes": "quota.credits = \"7/day\"", "until": "2100-01-01", "reason": "pilot",
    });
    let at = "/tenants/acme/overrides";
    let tenant = bed.ask(&format!("POST {of}/overrides"), at, 201, more).await;
    let at = format!("{at}/{}", tenant["overrides"][0]["id"].as_str().unwrap());
    bed.ask(&format!("DELETE {of}/overrides/{{override}}"), &at, 200, over()).await;
    bed.ask(&format!("DELETE {of}/overrides"), "/tenants/acme/overrides", 200, over()).await;
    bed.ask(&format!("GET {of}/history"), "/tenants/acme/history", 200, Value::Null).await;
    let at = "/tenants/acme/usage/history?meter=credits&from=2026-01-01&to=2026-03-01";
    bed.ask(&format!("GET {of}/usage/history"), at, 200, Value::Null).await;
}

async fn keys(bed: &mut Bed) {
    let of = "/admin/tenants/{tenant}/keys";
    let new = json!({ "name": "laptop", "expires": "2100-01-01" });
    let at = "/tenants/acme/keys";
    let made = bed.ask(&format!("POST {of}"), at, 201, new).await;
    let at = format!("/tenants/acme/keys/{}", made["id"].as_str().unwrap());
    let rotation = json!({ "overlap-seconds": 60 });
    let rotated = format!("POST {of}/{{key}}/rotation");
    bed.ask(&rotated, &format!("{at}/rotation"), 201, rotation).await;
    let end = json!({ "expires": "2099-01-01" });
    bed.ask(&format!("PATCH {of}/{{key}}"), &at, 200, end).await;
    bed.ask(&format!("DELETE {of}/{{key}}"), &at, 200, Value::Null).await;
    bed.ask(&format!("GET {of}"), "/tenants/acme/keys", 200, Value::Null).await;
}

async fn operators(bed: &mut Bed) {
    let of = "/admin/operators";
    let token = bed.gate.directory().new_operator("lee", Role::Read).await.unwrap();
    let (at, one) = (format!("/operators/{}", token.id), format!("DELETE {of}/{{token}}"));
    bed.ask(&one, &format!("{at}?dry-run=true"), 200, Value::Null).await;
    bed.ask(&one, &at, 200, Value::Null).await;
    bed.ask(&format!("GET {of}"), "/operators", 200, Value::Null).await;
    bed.ask(&format!("GET {of}/history"), "/operators/history", 200, Value::Null).await;
}

/// What a change would do.
async fn rehearsed(bed: &mut Bed) {
    let of = "/admin/tenants/{tenant}";
    let why = || json!({ "reason": "r" });
    let keys = bed.ask(&format!("GET {of}/keys"), "/tenants/acme/keys", 200, Value::Null).await;
    let working = keys["keys"].as_array().unwrap().iter().find(|key| key["state"] == "active");
    let key = working.unwrap()["id"].as_str().unwrap().to_owned();
    let new = json!({ "id": "later", "reason": "r" });
    bed.ask("POST /admin/tenants", "/tenants?dry-run=true", 200, new).await;
    for (method, rest, path, body) in [
        ("PATCH", "", "".to_owned(), json!({ "plan": "pro", "reason": "r" })),
        ("DELETE", "", "".to_owned(), why()),
        (
            "POST",
            "/grants",
            "/grants".to_owned(),
            json!({ "id": "g", "meter": "credits", "units": 5, "source": "shop", "reason": "r" }),
        ),
        ("DELETE", "/grants/{grant}", "/grants/none".to_owned(), why()),
        (
            "POST",
            "/overrides",
            "/overrides".to_owned(),
            json!({ "changes": "quota.credits = \"8/day\"", "reason": "r" }),
        ),
        ("DELETE", "/overrides", "/overrides".to_owned(), why()),
        ("DELETE", "/overrides/{override}", "/overrides/none".to_owned(), why()),
        (
            "POST",
            "/resets",
            "/resets".to_owned(),
            json!({ "limit": "credits/month", "reason": "r" }),
        ),
        ("POST", "/keys", "/keys".to_owned(), json!({ "name": "later" })),
        ("PATCH", "/keys/{key}", format!("/keys/{key}"), json!({ "expires": "2099-01-01" })),
        ("DELETE", "/keys/{key}", format!("/keys/{key}"), Value::Null),
        (
            "POST",
            "/keys/{key}/rotation",
            format!("/keys/{key}/rotation"),
            json!({ "overlap-seconds": 60 }),
        ),
    ] {
        let target = format!("/tenants/acme{path}?dry-run=true");
        let would = bed.ask(&format!("{method} {of}{rest}"), &target, 200, body).await;
        assert_eq!(would["dry-run"], true, "{would}");
    }
}

async fn callers(bed: &mut Bed) {
    let key = bed.key.clone();
    let events = json!([
        { "id": "e1", "tenant": "acme", "meter": "credits", "quantity": 2 },
        { "id": "e1", "tenant": "acme", "meter": "credits", "quantity": "2" },
    ]);
    let recorded = bed.other("POST /usage", "/usage", INGEST_TOKEN, events).await;
    assert_eq!(recorded["results"][1]["status"], "duplicate");
    bed.other("GET /usage", "/usage", &key, Value::Null).await;
    let at = "/usage/history?meter=credits&granularity=month";
    bed.other("GET /usage/history", at, &key, Value::Null).await;
    let own = "/usage/keys";
    let (operation, target, body) = ("POST /usage/keys", own.to_owned(), json!({ "name": "mine" }));
    let call = Call { operation, target, token: &key, body: Some(body), status: 201 };
    let made = bed.described.send(&bed.app, call).await;
    let at = format!("{own}/{}", made["id"].as_str().unwrap());
    bed.other("DELETE /usage/keys/{key}", &at, &key, Value::Null).await;
    bed.other("GET /usage/keys", own, &key, Value::Null).await;
}

/// A problem on each of them.
async fn mistakes(bed: &mut Bed) {
    for operation in bed.described.operations() {
        let (method, path) = operation.split_once(' ').unwrap();
        let target = path.replace("{tenant}", "acme").replace(['{', '}'], "");
        let body = (method != "GET").then(|| json!({}));
        let call = Call { operation: &operation, target, token: "tgop_x", body, status: 401 };
        bed.described.send(&bed.app, call).await;
    }
    let no_reason = json!({ "plan": "pro" });
    let of = "/admin/tenants/{tenant}";
    bed.ask(&format!("PATCH {of}"), "/tenants/acme", 400, no_reason).await;
    bed.ask(&format!("GET {of}"), "/tenants/nemo", 404, Value::Null).await;
    let lost = json!([{ "id": "e9", "tenant": "nemo", "meter": "credits", "quantity": 1 }]);
    let token = INGEST_TOKEN;
    let (operation, target) = ("POST /usage", "/usage".to_owned());
    let call = Call { operation, target, token, body: Some(lost), status: 422 };
    bed.described.send(&bed.app, call).await;
}

/// Each route of the page is described, and no other of the operator's.
#[test]
fn the_description_has_the_routes_of_the_page() {
    let rows = ADMIN.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let routes = rows.filter_map(|(route, _)| {
        let (method, target) = route.split_once(' ')?;
        let path = target.split('?').next()?.replace("{id}", "{tenant}");
        if path == "/" {
            return None; // the console's page
        }
        Some(format!("{method} /admin{path}"))
    });
    let described = Described::read().operations().into_iter();
    let described: BTreeSet<_> = described.filter(|it| it.contains(" /admin/")).collect();
    assert_eq!(routes.collect::<BTreeSet<_>>(), described);
}
