//! The operator's routes, against a gate in memory: who gets an answer, what each route does, and
//! what hostile requests get.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::directory::Tenant;
use crate::store::Memory;
use crate::testing::{Faulty, Odds};
use crate::{Ask, GateBuilder, ManualClock};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.credits]
    [plan.free]
    quota.credits = "10/day"
    [plan.pro]
    quota.credits = "100/day"
"#;

struct Bed {
    gate: Gate,
    clock: ManualClock,
    write: String,
    read: String,
}

/// A request without a credential.
struct Unknown;

impl crate::identity::RequestView for Unknown {
    fn method(&self) -> &str {
        "GET"
    }

    fn path(&self) -> &str {
        "/v1/chat"
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn headers<'a>(&'a self, _: &str) -> Vec<&'a [u8]> {
        Vec::new()
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        None
    }
}

async fn bed() -> Bed {
    bed_of(PLANS).await
}

async fn bed_of(plans: &str) -> Bed {
    bed_with("store.kind = \"memory\"\nflush.mode = \"fast\"", plans).await // a pepper is drawn
}

async fn bed_with(service: &str, plans: &str) -> Bed {
    let clock = ManualClock::at_unix_ms(1_800_000_000_000);
    let builder = GateBuilder::from_text(service).plans(plans).clock(clock.clone());
    let gate = builder.open().await.unwrap();
    let token = async |name: &str, role| {
        gate.directory().new_operator(name, role).await.unwrap().expose().to_owned()
    };
    let (write, read) = (token("kim", Role::Write).await, token("ada", Role::Read).await);
    Bed { gate, clock, write, read }
}

async fn call(gate: &Gate, token: &str, line: &str, body: &[u8]) -> (u16, Value) {
    call_once(gate, token, line, body, None).await
}

async fn call_once(
    gate: &Gate,
    token: &str,
    line: &str,
    body: &[u8],
    once: Option<&[u8]>,
) -> (u16, Value) {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let admin = gate.admin();
    let authorization = format!("Bearer {token}");
    let reply = match admin.known(Some(authorization.as_bytes()), None).await {
        Ok(operator) => {
            let request = AdminRequest { method, path, query, body: Some(body), once };
            admin.reply(&operator, request).await
        }
        Err(refused) => refused,
    };
    (reply.status, serde_json::from_slice(&reply.body).unwrap())
}

impl Bed {
    async fn get(&self, target: &str) -> (u16, Value) {
        call(&self.gate, &self.read, &format!("GET {target}"), b"").await
    }

    async fn send(&self, line: &str, body: Value) -> (u16, Value) {
        call(&self.gate, &self.write, line, body.to_string().as_bytes()).await
    }

    /// How many single credits are admitted of so many.
    async fn uses(&self, tenant: &str, most: u64) -> u64 {
        let tenant = self.gate.tenant(tenant).await.unwrap();
        for n in 0..most {
            match self.gate.admit(Ask::new(&tenant, "work").cost("credits", 1)).await {
                Ok(permit) => permit.settle(),
                Err(_) => return n,
            }
        }
        most
    }
}

#[tokio::test]
async fn a_support_case_from_the_refusal_to_the_entry() {
    let bed = bed().await;
    let made = bed.send("POST /tenants", json!({ "id": "acme", "reason": "signed up" })).await;
    assert_eq!((made.0, made.1["plan"].as_str()), (201, Some("free")));
    assert_eq!(bed.uses("acme", 99).await, 10);
    let (_, usage) = bed.get("/tenants/acme/usage").await;
    let credits = usage["meters"].as_array().unwrap();
    let credits = credits.iter().find(|meter| meter["name"] == "credits").unwrap();
    assert_eq!(credits["limits"][0]["used"], 10, "{credits}");

    let gift = json!({ "id": "sorry", "meter": "credits", "units": 5, "reason": "ticket 4711" });
    for status in [201, 201] {
        assert_eq!(bed.send("POST /tenants/acme/grants", gift.clone()).await.0, status);
    }
    assert_eq!(bed.uses("acme", 99).await, 5, "the same grant is given once");
    let late = json!({ "id": "late", "meter": "credits", "units": 5, "reason": "x",
                       "expires": "2020-01-01T00:00:00Z" });
    assert_eq!(bed.send("POST /tenants/acme/grants", late).await.0, 422);
    let late = json!({ "changes": "quota.credits = \"9/day\"", "until": "2020-01-01T00:00:00Z",
                       "reason": "x" });
    assert_eq!(bed.send("POST /tenants/acme/overrides", late).await.0, 422);
    let reset = json!({ "limit": "credits/day", "reason": "our outage" });
    let (status, given) = bed.send("POST /tenants/acme/resets", reset.clone()).await;
    assert_eq!((status, given["grant"]["units"].as_u64()), (201, Some(10)));
    assert_eq!(bed.send("POST /tenants/acme/resets", reset).await, (200, json!({"grant": null})));
    assert_eq!(bed.uses("acme", 99).await, 10);

    let (_, history) = bed.get("/tenants/acme/history").await;
    let entries = history["history"].as_array().unwrap();
    let reasons: Vec<_> = entries.iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["signed up", "ticket 4711", "our outage"]);
    let by_kim = |it: &Value| it["actor"] == "kim" && it["outcome"] == "happened";
    assert!(entries.iter().all(by_kim), "{history}");
}

#[tokio::test]
async fn refusals_are_listed_newest_first_with_their_reasons() {
    let bed = bed().await;
    for id in ["acme", "other"] {
        bed.gate.directory().tenant(id).save().await.unwrap();
    }
    assert_eq!(bed.uses("acme", 99).await, 10);
    bed.clock.advance(std::time::Duration::from_millis(1_500));
    bed.send("PATCH /tenants/acme", json!({ "suspended": true, "reason": "r" })).await;
    assert_eq!(bed.uses("acme", 1).await, 0);
    assert_eq!(bed.uses("other", 11).await, 10);
    let step = bed.gate.admit_request(&Unknown, crate::gate::Waited::default());
    assert!(matches!(step, crate::gate::Step::Done(crate::gate::Answer::Refuse(_))), "{step:?}");

    let (_, of_acme) = bed.get("/tenants/acme/refusals").await;
    let refusals = json!([
        {
            "at": "2027-01-15T08:00:01.5Z", "tenant": "acme", "route": "default",
            "reason": "suspended", "limit": null, "plan": "free", "status": 403,
            "retry_after_seconds": null, "user": null, "key": null, "kind": "work", "revision": 1,
            "verdict": "refused",
        },
        {
            "at": "2027-01-15T08:00:00Z", "tenant": "acme", "route": "default",
            "reason": "quota-exceeded", "limit": "credits/day", "plan": "free", "status": 429,
            "retry_after_seconds": 57_600, "user": null, "key": null, "kind": "work",
            "revision": 1, "verdict": "refused",
        },
    ]);
    let by_reason = json!({ "quota-exceeded": 1, "suspended": 1 });
    assert_eq!(of_acme, json!({ "refusals": refusals, "by_reason": by_reason }));

    let (_, of_all) = bed.get("/refusals?limit=2").await;
    let tenants: Vec<_> =
        of_all["refusals"].as_array().unwrap().iter().map(|it| &it["tenant"]).collect();
    assert_eq!(tenants, [&Value::Null, &json!("other")]);
    let by_reason = json!({ "quota-exceeded": 2, "suspended": 1, "unidentified": 1 });
    assert_eq!(of_all["by_reason"], by_reason);
}

#[tokio::test]
async fn plan_suspension_override_and_grant_are_changed_and_ended() {
    let bed = bed().await;
    bed.send("POST /tenants", json!({ "id": "a/b c", "reason": "new" })).await;
    let at = "/tenants/a%2Fb%20c";
    let change = json!({ "plan": "pro", "suspended": true, "reason": "chargeback" });
    let (_, tenant) = bed.send(&format!("PATCH {at}"), change).await;
    assert_eq!((&tenant["plan"], &tenant["status"]), (&json!("pro"), &json!("suspended")));
    let change = json!({ "suspended": false, "reason": "paid" });
    assert_eq!(bed.send(&format!("PATCH {at}"), change).await.1["status"], "active");
    let change = json!({ "plan": null, "reason": "downgrade" });
    let (_, tenant) = bed.send(&format!("PATCH {at}"), change).await;
    assert_eq!((&tenant["plan"], &tenant["assigned-plan"]), (&json!("free"), &json!(null)));

    let until = "2100-01-01";
    let more = json!({
        "changes": "quota.credits = \"7/day\"", "until": until, "reason": "pilot",
    });
    let (status, tenant) = bed.send(&format!("POST {at}/overrides"), more).await;
    let held = &tenant["overrides"][0];
    assert_eq!((status, held["until"].as_str()), (201, Some("2100-01-01T00:00:00Z")));
    assert_eq!(bed.uses("a/b c", 99).await, 7);
    let end = format!("DELETE {at}/overrides/{}", held["id"].as_str().unwrap());
    let (status, tenant) = bed.send(&end, json!({ "reason": "over" })).await;
    assert_eq!((status, &tenant["overrides"]), (200, &json!([])));

    let gift = json!({
        "id": "gift", "meter": "credits", "units": 5, "expires": until, "reason": "launch",
    });
    let (_, tenant) = bed.send(&format!("POST {at}/grants"), gift.clone()).await;
    assert_eq!(tenant["grants"][0]["reason"], "launch");
    let (_, tenant) = bed.send(&format!("DELETE {at}/grants/gift"), json!({"reason": "x"})).await;
    assert_eq!(tenant["grants"], json!([]));
    let (status, again) = bed.send(&format!("POST {at}/grants"), gift).await;
    let detail = again["detail"].as_str().unwrap_or_default();
    assert!(status == 409 && detail.contains("a new id"), "{status} {again}");
}

#[tokio::test]
async fn a_repeated_request_for_a_key_makes_no_second_one() {
    let bed = bed().await;
    bed.send("POST /tenants", json!({ "id": "acme", "reason": "new" })).await;
    let ask = async |line: &str, body: &str, once: &[u8]| {
        call_once(&bed.gate, &bed.write, line, body.as_bytes(), Some(once)).await
    };
    let keys = "POST /tenants/acme/keys";
    let (status, made) = ask(keys, r#"{"name":"ci"}"#, b"r-1").await;
    assert_eq!(status, 201);
    let (status, again) = ask(keys, r#"{"name":"ci"}"#, b"r-1").await;
    assert_eq!((status, &again["key"]), (409, &made["id"]));
    assert!(again["detail"].as_str().unwrap().contains("Rotate"), "{again}");
    let rotate = format!("{keys}/{}/rotation", made["id"].as_str().unwrap());
    let (status, other) = ask(&rotate, r#"{"overlap-seconds":60}"#, b"r-2").await;
    assert_eq!(status, 201);
    let (status, again) = ask(&rotate, r#"{"overlap-seconds":60}"#, b"r-2").await;
    assert_eq!((status, &again["key"]), (409, &other["id"]));
    assert_eq!(ask(keys, r#"{"name":"ci"}"#, b"\xff").await.0, 400);
    assert_eq!(ask(keys, r#"{"name":"ci"}"#, b"a b").await.0, 422);
    let (_, listed) = bed.get("/tenants/acme/keys").await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
}

/// Every `POST`, sent again with other things in between, as after an answer that was lost.
#[tokio::test]
async fn what_is_sent_twice_is_made_once() {
    let bed = bed().await;
    let ask = async |line: &str, body: Value| {
        let body = body.to_string();
        call_once(&bed.gate, &bed.write, line, body.as_bytes(), Some(b"r-1")).await
    };
    let make = json!({ "id": "acme", "plan": "pro", "reason": "new" });
    assert_eq!(ask("POST /tenants", make.clone()).await.0, 201);
    let (status, again) = ask("POST /tenants", make).await;
    assert_eq!((status, &again["version"]), (200, &json!(1)));

    let gift = json!({ "id": "gift", "meter": "credits", "units": 5, "reason": "sorry" });
    let change = json!({ "changes": "concurrency = 5", "reason": "launch" });
    for (line, body) in
        [("POST /tenants/acme/grants", &gift), ("POST /tenants/acme/overrides", &change)]
    {
        let (first, again) = (ask(line, body.clone()).await, ask(line, body.clone()).await);
        assert_eq!((first.0, again.0), (201, 201), "{line}");
        assert_eq!(first.1["version"], again.1["version"], "{line}");
    }

    // More is used before the repeated request comes: without the header it would be given back.
    let reset = json!({ "limit": "credits/day", "reason": "outage" });
    let text = reset.to_string();
    let unused = async |line: &str| {
        call_once(&bed.gate, &bed.write, line, text.as_bytes(), Some(b"r-0")).await.1
    };
    assert!(unused("POST /tenants/acme/resets").await["grant"].is_null(), "nothing to give");
    assert_eq!(bed.uses("acme", 40).await, 40);
    for line in ["POST /tenants/acme/resets", "POST /tenants/acme/resets?dry-run=true"] {
        assert!(unused(line).await["grant"].is_null(), "{line}: nor is it given later");
    }
    let (status, first) = ask("POST /tenants/acme/resets", reset.clone()).await;
    assert_eq!((status, &first["grant"]["units"]), (201, &json!(40)), "{first}");
    assert_eq!(bed.uses("acme", 30).await, 30);
    let (_, again) = ask("POST /tenants/acme/resets", reset.clone()).await;
    assert_eq!(again["grant"], first["grant"]);
    let (_, tenant) = bed.get("/tenants/acme").await;
    assert_eq!(tenant["grants"].as_array().unwrap().len(), 2, "{tenant}");
    // Another request of the same day gives what was used since, beside what is left of the first.
    let (status, other) = bed.send("POST /tenants/acme/resets", reset.clone()).await;
    assert_eq!(status, 201);
    assert_eq!(other["grant"]["units"], json!(30), "{other}");
    // Once its grant has ended nothing is given either.
    bed.clock.advance(std::time::Duration::from_secs(3 * 86_400));
    assert_eq!(bed.uses("acme", 10).await, 10);
    let (status, late) = ask("POST /tenants/acme/resets", reset).await;
    let ended = late["grant"].is_null() || late["grant"]["id"] == first["grant"]["id"];
    assert!(status < 300 && ended, "{status} {late}");
}

/// By what the body says: nothing of it is what the service file gives, an empty list is nothing.
#[tokio::test]
async fn a_key_with_an_empty_list_of_permissions_may_nothing() {
    let service = "identify = [{ api-key = \"x-api-key\", permissions = [\"p:read\"] }]\n\
                   store.kind = \"memory\"\nflush.mode = \"fast\"";
    let bed = bed_with(service, PLANS).await;
    bed.send("POST /tenants", json!({ "id": "acme", "reason": "new" })).await;
    let keys = "POST /tenants/acme/keys";
    for (body, may) in [
        (json!({ "name": "k" }), json!(["p:read"])),
        (json!({ "name": "k", "permissions": [] }), json!([])),
        (json!({ "name": "k", "permissions": null }), json!(["p:read"])),
        (json!({ "name": "k", "permissions": ["p:write"] }), json!(["p:write"])),
    ] {
        let (status, made) = bed.send(keys, body.clone()).await;
        assert_eq!(status, 201, "{made}");
        let rotate = format!("{keys}/{}/rotation", made["id"].as_str().unwrap());
        let (_, rotated) = bed.send(&rotate, json!({ "overlap-seconds": 60 })).await;
        let (_, listed) = bed.get("/tenants/acme/keys").await;
        for id in [&made["id"], &rotated["id"]] {
            let key = listed["keys"].as_array().unwrap().iter().find(|key| key["id"] == *id);
            assert_eq!(key.unwrap()["permissions"], may, "{body}");
        }
    }
    let (status, refused) = bed.send(keys, json!({ "name": "k", "permissions": ["a b"] })).await;
    assert_eq!(status, 422, "{refused}");
}

#[tokio::test]
async fn keys_are_made_shown_once_rotated_and_revoked() {
    let bed = bed().await;
    bed.send("POST /tenants", json!({ "id": "acme", "reason": "new" })).await;
    let new = json!({ "name": "ci", "expires": "2100-01-01T00:00:00Z" });
    let (status, made) = bed.send("POST /tenants/acme/keys", new).await;
    assert_eq!((status, made["key"].as_str().unwrap().len()), (201, 52));
    let id = made["id"].as_str().unwrap();
    let rotate = format!("POST /tenants/acme/keys/{id}/rotation");
    let (status, other) = bed.send(&rotate, json!({ "overlap-seconds": 60 })).await;
    assert_eq!(status, 201);
    bed.clock.advance(std::time::Duration::from_secs(60));
    let end = format!("DELETE /tenants/acme/keys/{}", other["id"].as_str().unwrap());
    assert_eq!(call(&bed.gate, &bed.write, &end, b"").await.0, 200);
    let (_, keys) = bed.get("/tenants/acme/keys").await;
    let keys = keys["keys"].as_array().unwrap();
    let mut states: Vec<_> = keys.iter().map(|it| it["state"].as_str().unwrap()).collect();
    states.sort_unstable();
    assert_eq!(states, ["expired", "revoked"]);
    let shown = other["key"].as_str().unwrap();
    assert!(!json!(keys).to_string().contains(shown), "no key is shown again");
}

#[tokio::test]
async fn an_operators_token_that_has_leaked_is_found_and_revoked() {
    let bed = bed().await;
    let (_, listed) = bed.get("/operators").await;
    let listed = listed["operators"].as_array().unwrap().clone();
    let ada = listed.iter().find(|it| it["name"] == "ada").unwrap();
    assert_eq!((&ada["role"], &ada["state"]), (&json!("read"), &json!("active")));
    assert!(!json!(listed).to_string().contains("tgop_"), "no text of a token");
    let line = format!("DELETE /operators/{}", ada["id"].as_str().unwrap());
    let (status, would) = bed.send(&format!("{line}?dry-run=true"), json!({})).await;
    assert_eq!((status, &would["operator"]), (200, ada));
    assert_eq!(bed.get("/operators").await.0, 200, "it works still");
    let (status, revoked) = bed.send(&line, json!({})).await;
    assert_eq!((status, revoked["state"].as_str()), (200, Some("revoked")));
    assert_eq!(bed.get("/operators").await.0, 401);
    // Who revoked it is on record, and it stays in the list.
    let (_, after) = call(&bed.gate, &bed.write, "GET /operators", b"").await;
    let states: Vec<_> = after["operators"].as_array().unwrap().iter().collect();
    assert_eq!(states.iter().filter(|it| it["state"] == "revoked").count(), 1);
    let (_, history) = call(&bed.gate, &bed.write, "GET /operators/history", b"").await;
    let entries = history["history"].as_array().unwrap();
    let by_kim: Vec<_> = entries.iter().filter(|it| it["actor"] == "kim").collect();
    assert_eq!((by_kim.len(), &by_kim[0]["outcome"]), (1, &json!("happened")), "{history}");
    for (line, status) in [("DELETE /operators/k0", 404), ("POST /operators", 405)] {
        assert_eq!(bed.send(line, json!({})).await.0, status, "{line}");
    }
    assert_eq!(bed.send("DELETE /operators/k0?dry-run=true", json!({})).await.0, 404);
}

#[tokio::test]
async fn tenants_are_listed_in_pages() {
    let bed = bed().await;
    for id in ["a1", "a2", "a3", "b1"] {
        bed.gate.directory().tenant(id).save().await.unwrap();
    }
    let ids = |page: &Value| {
        let tenants = page["tenants"].as_array().unwrap();
        tenants.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (_, first) = bed.get("/tenants?prefix=a&limit=2").await;
    assert_eq!((ids(&first), &first["next"]), (vec!["a1".into(), "a2".into()], &json!("a2")));
    let (_, rest) = bed.get("/tenants?prefix=a&limit=2&after=a2").await;
    assert_eq!((ids(&rest), &rest["next"]), (vec!["a3".into()], &Value::Null));
}

#[tokio::test]
async fn plans_and_meters_are_named_and_limits_say_where_they_come_from() {
    let more = r#"
        [addon.pack]
        adds = { quota.credits = "5/day" }
        [tenant.big]
        quota.credits = "9k/day"
        rate.default  = "9/s"
        note = "a contract"
    "#;
    let bed = bed_of(&format!("{PLANS}{more}")).await;
    let (_, named) = bed.get("/plans").await;
    assert_eq!(named["plans"], json!(["free", "pro"]));
    assert_eq!(named["meters"], json!(["requests", "credits"]));
    assert_eq!(named["default-plan"], "free");
    let directory = bed.gate.directory();
    for id in ["plain", "big"] {
        directory.tenant(id).save().await.unwrap();
    }
    directory.tenant("more").addons([("pack".into(), 2)].into()).save().await.unwrap();
    let end = bed.clock.now().wall() + std::time::Duration::from_secs(60);
    let own = directory.tenant("own").override_("quota.credits = \"7/day\"", Some(end), "pilot");
    own.save().await.unwrap();
    for (id, origins) in [
        ("plain", json!({})),
        ("big", json!({ "credits/day": "exception", "default/s": "exception" })),
        ("more", json!({ "credits/day": "addon" })),
        ("own", json!({ "credits/day": "override" })),
    ] {
        let (_, tenant) = bed.get(&format!("/tenants/{id}")).await;
        assert_eq!(tenant["origins"], origins, "{tenant}");
    }
    bed.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(bed.get("/tenants/own").await.1["origins"], json!({}), "it has ended");
}

#[tokio::test]
async fn the_tenants_nearest_to_a_limit_come_first() {
    let bed = bed().await;
    for (id, used) in [("low", 2), ("high", 9), ("full", 10), ("given", 10), ("same", 9)] {
        bed.gate.directory().tenant(id).save().await.unwrap();
        assert_eq!(bed.uses(id, used).await, used);
    }
    let gift = json!({ "id": "g", "meter": "credits", "units": 30, "reason": "r" });
    assert_eq!(bed.send("POST /tenants/given/grants", gift).await.0, 201);
    assert_eq!(bed.uses("given", 10).await, 10);
    let (_, top) = bed.get("/top").await;
    let shares = |top: &Value| {
        let tenants = top["tenants"].as_array().unwrap();
        let share = |it: &Value| (it["id"].to_string(), it["share"].as_f64().unwrap());
        tenants.iter().map(share).collect::<Vec<_>>()
    };
    let quoted = |id: &str, share| (format!("\"{id}\""), share);
    let all = [("full", 1.0), ("high", 0.9), ("same", 0.9), ("given", 0.5), ("low", 0.2)];
    assert_eq!(shares(&top), all.map(|(id, share)| quoted(id, share)), "{top}");
    assert_eq!(top["in-use"], 5);
    let first = &top["tenants"][0];
    assert_eq!((&first["plan"], &first["status"]), (&json!("free"), &json!("active")));
    assert_eq!(
        (&first["limit"]["id"], &first["limit"]["used"]),
        (&json!("credits/day"), &json!(10))
    );
    let (_, top) = bed.get("/top?limit=2").await;
    assert_eq!(shares(&top), [quoted("full", 1.0), quoted("high", 0.9)]);
    // On the next day nothing is used of a quota of a day.
    bed.clock.advance(std::time::Duration::from_secs(86_400));
    assert_eq!(bed.get("/top").await.1["tenants"], json!([]));
    assert_eq!(bed.get("/top?limit=101").await.0, 400);
    assert_eq!(bed.get("/top?prefix=a").await.0, 400);
}

#[test]
fn the_console_has_one_style_one_script_and_nothing_that_its_policy_forbids() {
    let html = super::console::HTML;
    for element in ["<style", "</style>", "<script", "</script>"] {
        assert_eq!(html.matches(element).count(), 1, "{element}");
    }
    // The SVG namespace is a name, not an address to load.
    let text = html.replace("http://www.w3.org/2000/svg", "");
    for banned in [
        "style=",
        "onclick=",
        "http://",
        "https://",
        "src=",
        "innerHTML",
        "outerHTML",
        "eval(",
        "insertAdjacent",
        "document.write",
        "localStorage",
        "sessionStorage",
        "cookie",
    ] {
        assert!(!text.contains(banned), "{banned}");
    }
}

#[tokio::test]
async fn the_console_is_at_the_root_for_every_browser_and_holds_no_data() {
    let bed = bed().await;
    bed.gate.directory().tenant("acme").save().await.unwrap();
    let admin = bed.gate.admin();
    for (method, path) in [("GET", ""), ("GET", "/"), ("HEAD", "/")] {
        let page = admin.console(method, path).unwrap();
        let header = |name| page.headers.iter().find(|(it, _)| *it == name).unwrap().1.as_str();
        assert_eq!((page.status, header("content-type")), (200, "text/html; charset=utf-8"));
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'; require-trusted-types-for"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.matches("'sha256-").count() == 2, "{policy}");
        assert_eq!(page.body, super::console::HTML.as_bytes());
        assert!(!page.headers.iter().any(|(name, _)| *name == "set-cookie"));
    }
    for (method, path) in [("POST", "/"), ("GET", "/tenants"), ("GET", "//"), ("GET", "/x")] {
        assert!(admin.console(method, path).is_none(), "{method} {path}");
    }
}

#[tokio::test]
async fn tenants_are_found_by_plan_status_and_payment_and_it_says_what_it_read() {
    let bed = bed().await;
    for n in 0..9 {
        let edit = bed.gate.directory().tenant(&format!("t{n}"));
        let edit = if n % 3 == 0 { edit.plan("pro") } else { edit };
        let tenant = edit.save().await.unwrap();
        if n == 6 {
            tenant.suspend("abuse").await.unwrap();
        }
    }
    let found = async |query: &str| {
        let (status, page) = bed.get(&format!("/tenants?{query}")).await;
        assert_eq!(status, 200, "{page}");
        let ids = page["tenants"].as_array().unwrap().iter();
        let ids: Vec<_> = ids.map(|it| it["id"].as_str().unwrap().to_owned()).collect();
        (ids.join(" "), page["read"].as_u64().unwrap(), page["next"].clone())
    };
    let all = |ids: &str, read| (ids.to_owned(), read, Value::Null);
    assert_eq!(found("plan=pro&prefix=t").await, all("t0 t3 t6", 9));
    assert_eq!(found("plan=pro&status=active&prefix=t").await, all("t0 t3", 9));
    assert_eq!(found("status=suspended&payment=good").await.0, "t6");
    assert_eq!(found("payment=unpaid&prefix=t").await, all("", 9));
    assert_eq!(found("plan=free&prefix=t&after=t6").await, all("t7 t8", 2));
    let (ids, read, next) = found("plan=pro&prefix=t&limit=2").await;
    assert_eq!((&*ids, read, &next), ("t0 t3", 4, &json!("t3")));
    assert_eq!(found("plan=pro&prefix=t&limit=2&after=t3").await, all("t6", 5));
    for (query, said) in [
        ("plan=prp", "no plan is called `prp`: did you mean `pro`"),
        ("status=gone", "write active, suspended"),
        ("payment=late", "write good, trialing"),
    ] {
        let (status, problem) = bed.get(&format!("/tenants?{query}")).await;
        assert_eq!(status, 400);
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
}

/// Every route, with a body that it takes.
const ROUTES: [(&str, &str); 30] = [
    ("GET /health", ""),
    ("GET /operator", ""),
    ("GET /operators", ""),
    ("GET /operators/history", ""),
    ("DELETE /operators/k", ""),
    ("GET /plans", ""),
    ("GET /top", ""),
    ("GET /billing", ""),
    ("GET /tenants", ""),
    ("POST /tenants", r#"{"id":"new","reason":"r"}"#),
    ("GET /tenants/acme", ""),
    ("PATCH /tenants/acme", r#"{"plan":"pro","reason":"r"}"#),
    ("GET /tenants/acme/usage", ""),
    ("GET /tenants/acme/usage/history?meter=credits", ""),
    ("GET /tenants/acme/peek?meter=credits&units=3", ""),
    ("GET /tenants/acme/refusals?limit=5", ""),
    ("GET /refusals", ""),
    ("GET /tenants/acme/history", ""),
    ("POST /tenants/acme/grants", r#"{"id":"g","meter":"credits","units":5,"reason":"r"}"#),
    ("DELETE /tenants/acme/grants/g", r#"{"reason":"r"}"#),
    ("POST /tenants/acme/overrides", r#"{"changes":"concurrency = 5","reason":"r"}"#),
    ("DELETE /tenants/acme/overrides/o", r#"{"reason":"r"}"#),
    ("DELETE /tenants/acme/overrides", r#"{"reason":"r"}"#),
    ("POST /tenants/acme/resets", r#"{"limit":"credits/day","reason":"r"}"#),
    ("GET /tenants/acme/keys", ""),
    ("POST /tenants/acme/keys", r#"{"name":"n"}"#),
    ("POST /tenants/acme/keys/k/rotation", r#"{"overlap-seconds":1}"#),
    ("PATCH /tenants/acme/keys/k", r#"{"expires":"2100-01-01"}"#),
    ("DELETE /tenants/acme/keys/k", ""),
    ("DELETE /tenants/acme", r#"{"reason":"r"}"#),
];

/// Each checks what it would do, says what that is, and does nothing.
#[tokio::test]
async fn a_dry_run_of_a_change_says_what_would_be_and_writes_nothing() {
    let bed = bed().await;
    let acme = bed.gate.directory().by("kim").tenant("acme");
    let acme = acme.override_("concurrency = 5", None, "pilot");
    let acme = acme.grant(crate::directory::Grant::new("held", "credits", 5)).save().await.unwrap();
    let exception = acme.record().overrides[0].id();
    let key = acme.new_key("ci").await.unwrap();
    bed.uses("acme", 3).await;
    let of = "/tenants/acme";
    let why = || json!({ "reason": "r" });
    let kim = &bed.gate.directory().operators().await.unwrap()[0].token.id;
    let cases = [
        (format!("DELETE /operators/{kim}"), json!({}), "operator"),
        ("POST /tenants".to_owned(), json!({ "id": "new", "plan": "pro", "reason": "r" }), "edits"),
        (format!("PATCH {of}"), json!({ "plan": "pro", "reason": "r" }), "edits"),
        (
            format!("POST {of}/grants"),
            json!({ "id": "g", "meter": "credits", "units": 5, "source": "shop", "reason": "r" }),
            "edits",
        ),
        (format!("DELETE {of}/grants/held"), why(), "edits"),
        (
            format!("POST {of}/overrides"),
            json!({ "changes": "concurrency = 6", "reason": "r" }),
            "edits",
        ),
        (format!("DELETE {of}/overrides/{exception}"), why(), "edits"),
        (format!("DELETE {of}/overrides"), why(), "edits"),
        (format!("POST {of}/resets"), json!({ "limit": "credits/day", "reason": "r" }), "grant"),
        (format!("POST {of}/keys"), json!({ "name": "n" }), "key"),
        (format!("POST {of}/keys/{}/rotation", key.id), json!({ "overlap-seconds": 1 }), "key"),
        (format!("PATCH {of}/keys/{}", key.id), json!({ "expires": "2100-01-01" }), "key"),
        (format!("DELETE {of}/keys/{}", key.id), Value::Null, "key"),
        (format!("DELETE {of}"), why(), "history"),
    ];
    let stands = |tenant: &Tenant| (tenant.record().clone(), tenant.record().version);
    for (line, body, member) in cases {
        let (status, would) = bed.send(&format!("{line}?dry-run=true"), body.clone()).await;
        assert_eq!((status, &would["dry-run"]), (200, &json!(true)), "{line}: {would}");
        assert!(would.get(member).is_some(), "{line}: {would}");
        if member == "edits" {
            assert!(!would["edits"].as_array().unwrap().is_empty(), "{line}: {would}");
            assert_eq!((&would["actor"], &would["reason"]), (&json!("kim"), &json!("r")));
        }
        let (status, _) = bed.send(&format!("{line}?dry-run=perhaps"), body).await;
        assert_eq!(status, 400, "{line}");
        let now = bed.gate.directory().find("acme").await.unwrap().unwrap();
        assert_eq!(stands(&now), stands(&acme), "{line}");
        let keys = now.keys().await.unwrap();
        assert!(keys.len() == 1 && keys[0].expires.is_none(), "{line}: {keys:?}");
        assert_eq!(now.history().await.unwrap().len(), 2, "{line}");
    }
    assert!(bed.gate.directory().find("new").await.unwrap().is_none());
    // What could not be made is refused as the change itself is.
    for (line, body, status) in [
        ("POST /tenants", json!({ "id": "~x", "reason": "r" }), 422),
        ("PATCH /tenants/acme", json!({ "plan": "gold", "reason": "r" }), 422),
        ("POST /tenants/acme/keys", json!({ "name": "n", "expires": "2001-01-01" }), 422),
        ("PATCH /tenants/acme/keys/k", json!({ "expires": "2100-01-01" }), 404),
        ("DELETE /tenants/acme/keys/k", Value::Null, 404),
        ("POST /tenants/acme/keys/k/rotation", json!({ "overlap-seconds": 1 }), 404),
        ("DELETE /tenants/acme", json!({ "reason": "acme asks" }), 422),
    ] {
        for more in ["", "?dry-run=true"] {
            let (got, answer) = bed.send(&format!("{line}{more}"), body.clone()).await;
            assert_eq!(got, status, "{line}{more}: {answer}");
        }
    }
}

/// What is said is what happens then, and saying it draws nothing.
#[tokio::test]
async fn a_peek_says_what_units_would_get_and_draws_none() {
    let bed = bed_of(
        r#"
        default-plan = "free"
        [meter.credits]
        [meter.seconds]
        [plan.free]
        quota.credits = "10/day"
        rate.default  = "5 credits/min"
        [plan.pro]
        quota.credits = { limit = "10/day", over = "allow", stop = "12" }
        "#,
    )
    .await;
    for plan in ["free", "pro"] {
        bed.gate.directory().tenant(plan).plan(plan).save().await.unwrap();
        let tenant = bed.gate.tenant(plan).await.unwrap();
        for (used, units) in [(0, 3), (0, 6), (4, 2), (4, 1), (0, 8), (8, 9), (0, 99)] {
            let ask = |n| Ask::new(&tenant, "work").cost("credits", n);
            if used > 0 {
                let _ = bed.gate.admit(ask(used)).await.map(crate::Permit::settle);
            }
            let target = format!("/tenants/{plan}/peek?meter=credits&units={units}");
            let (status, said) = bed.get(&target).await;
            assert_eq!((status, bed.get(&target).await.1["limits"] == said["limits"]), (200, true));
            let (verdict, limit) = match bed.gate.admit(ask(units)).await {
                Ok(permit) => {
                    permit.cancel();
                    ("admitted", Value::Null)
                }
                Err(refusal) => ("refused", json!(refusal.limit.map(|limit| limit.name.clone()))),
            };
            assert_eq!((&said["verdict"], &said["limit"]), (&json!(verdict), &limit), "{said}");
            assert_eq!(said["limits"][0]["asked"], units, "{said}");
        }
    }
    for (query, status) in [
        ("meter=credits", 400),
        ("units=1", 400),
        ("meter=credits&units=-1", 400),
        ("meter=credits&units=1&x=1", 400),
        ("meter=credit&units=1", 422),
    ] {
        let (got, answer) = bed.get(&format!("/tenants/free/peek?{query}")).await;
        assert_eq!(got, status, "{query}: {answer}");
    }
    assert_eq!(bed.get("/tenants/nemo/peek?meter=credits&units=1").await.0, 404);
}

/// What an erased tenant has used and was refused is not that of the next one with its id.
#[tokio::test]
async fn the_next_tenant_of_an_id_inherits_nothing_that_is_shown() {
    let bed = bed().await;
    bed.gate.directory().tenant("acme").save().await.unwrap();
    bed.uses("acme", 1_000).await;
    let of_acme = async || {
        let (_, top) = bed.get("/top").await;
        let shown = top["tenants"].as_array().unwrap().iter().filter(|it| it["id"] == "acme");
        let shares: Vec<_> = shown.map(|it| it["share"].as_f64().unwrap()).collect();
        let (_, refused) = bed.get("/tenants/acme/refusals").await;
        (shares, refused["refusals"].as_array().map_or(0, Vec::len))
    };
    let (shares, refusals) = of_acme().await;
    assert!(shares == [1.0] && refusals > 0, "{shares:?}, {refusals}");
    let why = json!({ "reason": "asked for it" });
    assert_eq!(bed.send("DELETE /tenants/acme", why).await.0, 200);
    bed.gate.directory().tenant("acme").save().await.unwrap();
    assert_eq!(of_acme().await, (vec![], 0));
    bed.uses("acme", 1).await;
    let (shares, _) = of_acme().await;
    assert!(shares.len() == 1 && shares[0] < 1.0, "{shares:?}");
}

/// A key ends at an instant, which moves only to an earlier one; and all exceptions at once.
#[tokio::test]
async fn keys_end_at_an_instant_and_exceptions_all_at_once() {
    let bed = bed().await;
    let acme = bed.gate.directory().tenant("acme");
    let acme = acme.override_("concurrency = 5", None, "pilot");
    let acme = acme.override_("concurrency = 6", None, "another").save().await.unwrap();
    let key = acme.new_key("ci").await.unwrap();
    let line = format!("PATCH /tenants/acme/keys/{}", key.id);
    for (asked, is) in [("2100-01-01", "2100"), ("2090-01-01", "2090"), ("2095-01-01", "2090")] {
        let (status, ended) = bed.send(&line, json!({ "expires": asked })).await;
        assert!(status == 200 && ended["expires"].as_str().unwrap().starts_with(is), "{ended}");
        assert!(ended["scheme"].as_str().unwrap().starts_with("hmac-"), "{ended}");
    }
    for wrong in ["soon", "2001-01-01"] {
        assert_eq!(bed.send(&line, json!({ "expires": wrong })).await.0, 422);
    }
    let why = json!({ "reason": "over" });
    let (status, left) = bed.send("DELETE /tenants/acme/overrides", why).await;
    assert_eq!((status, &left["overrides"]), (200, &json!([])));
    assert_eq!(left["surrogate"], acme.record().surrogate.to_string());
    let gift = json!({ "id": "g", "meter": "credits", "units": 5, "source": "shop",
                       "reason": "order 4711" });
    let (_, given) = bed.send("POST /tenants/acme/grants", gift).await;
    assert_eq!(given["grants"][0]["source"], "shop");
}

/// The paths that the code knows. A route that is added there does not compile until it is here.
macro_rules! paths {
    ($($route:ident $path:literal,)*) => {
        fn path_of(route: &Route) -> &'static str {
            match route { $(Route::$route { .. } => $path,)* }
        }
        const PATHS: &[&str] = &[$($path,)*];
    };
}

paths! {
    Billing "/billing",
    Health "/health",
    Operator "/operator",
    Operators "/operators",
    OperatorsHistory "/operators/history",
    Token "/operators/{}",
    Plans "/plans",
    Top "/top",
    Tenants "/tenants",
    Tenant "/tenants/{}",
    Usage "/tenants/{}/usage",
    Peek "/tenants/{}/peek",
    UsageHistory "/tenants/{}/usage/history",
    History "/tenants/{}/history",
    Refusals "/refusals",
    RefusalsOf "/tenants/{}/refusals",
    Grants "/tenants/{}/grants",
    Grant "/tenants/{}/grants/{}",
    Overrides "/tenants/{}/overrides",
    Override "/tenants/{}/overrides/{}",
    Resets "/tenants/{}/resets",
    Keys "/tenants/{}/keys",
    Key "/tenants/{}/keys/{}",
    Rotation "/tenants/{}/keys/{}/rotation",
}

/// A method and a path, with `{}` for each name in it.
type Named = std::collections::BTreeSet<(String, String)>;

fn unnamed(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// The routes of a table in Markdown, without the console's page, which is none of the API.
fn tabled(text: &str) -> Named {
    let cells = text.lines().filter_map(|line| line.trim_start_matches("//! ").strip_prefix("| `"));
    let lines = cells.filter_map(|cell| cell.split('`').next()?.split_once(' '));
    let routes = lines.map(|(method, target)| {
        (method.to_owned(), unnamed(target.split('?').next().unwrap_or_default()))
    });
    routes
        .filter(|(method, path)| method.bytes().all(|c| c.is_ascii_uppercase()) && path != "/")
        .collect()
}

/// The operations of the description, by its indentation: a path, and below it its methods.
fn described(text: &str) -> Named {
    let (mut path, mut all) = (String::new(), Named::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("  ").filter(|it| !it.starts_with(' ')) {
            path = unnamed(name.trim_end_matches(':'));
        }
        let method = line.strip_prefix("    ").and_then(|it| it.strip_suffix(':'));
        let method = method.filter(|it| ["get", "post", "patch", "put", "delete"].contains(it));
        if let (Some(method), Some(path)) = (method, path.strip_prefix("/admin")) {
            all.insert((method.to_uppercase(), path.to_owned()));
        }
    }
    all
}

#[test]
fn the_routes_of_these_tests_are_those_of_the_code_and_of_the_docs() {
    let mut tested = Named::new();
    for (line, _) in ROUTES {
        let (method, target) = line.split_once(' ').unwrap();
        let route = Route::of(target.split('?').next().unwrap()).unwrap();
        assert!(route.methods().split(", ").any(|it| it == method), "{line}");
        tested.insert((method.to_owned(), path_of(&route).to_owned()));
    }
    let mut known = Named::new();
    for path in PATHS {
        let route = Route::of(&path.replace("{}", "x")).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(path_of(&route), *path);
        known.extend(route.methods().split(", ").map(|it| (it.to_owned(), (*path).to_owned())));
    }
    assert_eq!(tested, known, "ROUTES has each route of path.rs");
    assert_eq!(tabled(include_str!("mod.rs")), known, "so has the table in mod.rs");
    assert_eq!(tabled(include_str!("../../docs/admin.md")), known, "and docs/admin.md");
    assert_eq!(described(include_str!("../../docs/openapi.yaml")), known, "and openapi.yaml");
}

#[tokio::test]
async fn without_a_token_nothing_answers_and_a_read_token_changes_nothing() {
    let bed = bed().await;
    let acme = bed.gate.directory().tenant("acme").save().await.unwrap();
    let key = acme.new_key("ci").await.unwrap();
    for (line, body) in ROUTES {
        for not_one in ["", "tgop_x", key.expose(), &bed.write[..40]] {
            let (status, _) = call(&bed.gate, not_one, line, body.as_bytes()).await;
            assert_eq!(status, 401, "{line}");
        }
        let (status, _) = call(&bed.gate, &bed.read, line, body.as_bytes()).await;
        assert_eq!(status, if line.starts_with("GET") { 200 } else { 403 }, "{line}");
    }
    let now = bed.gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(now.record(), acme.record());
    assert_eq!(now.keys().await.unwrap().len(), 1);
    assert!(bed.gate.directory().find("new").await.unwrap().is_none());
}

#[tokio::test]
async fn a_page_of_another_site_gets_403_even_with_a_token() {
    let bed = bed().await;
    let authorization = format!("bearer {}", bed.write);
    for (site, is_known) in
        [("cross-site", false), ("same-site", false), ("same-origin", true), ("none", true)]
    {
        let admin = bed.gate.admin();
        let known = admin.known(Some(authorization.as_bytes()), Some(site.as_bytes())).await;
        assert_eq!(
            known.map(|_| ()).map_err(|reply| reply.status),
            match is_known {
                true => Ok(()),
                false => Err(403),
            }
        );
    }
}

#[tokio::test]
async fn each_route_answers_its_methods_alone_and_says_which() {
    let bed = bed().await;
    bed.gate.directory().tenant("acme").save().await.unwrap();
    for (line, body) in ROUTES {
        let (_, target) = line.split_once(' ').unwrap();
        let path = target.split('?').next().unwrap();
        let allowed = Route::of(path).unwrap().methods();
        for method in ["GET", "POST", "PATCH", "DELETE", "PUT"] {
            let line = format!("{method} {target}");
            let (status, _) = call(&bed.gate, &bed.write, &line, body.as_bytes()).await;
            assert_eq!(status == 405, !allowed.contains(method), "{line}: {status}");
        }
    }
    for path in ["/", "", "/tenants/", "/tenants/acme/keys/", "/tenants/%ff", "/tenants/a/b/c/d/e"]
    {
        assert_eq!(bed.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn mistakes_are_problems_that_say_what_to_write() {
    let bed = bed().await;
    bed.gate.directory().tenant("acme").save().await.unwrap();
    for (line, body, status, says) in [
        ("PATCH /tenants/acme", r#"{"plan":"gold","reason":"r"}"#, 422, "no plan \"gold\""),
        ("PATCH /tenants/acme", r#"{"plan":"pro"}"#, 400, "missing field `reason`"),
        ("PATCH /tenants/acme", r#"{"reason":" "}"#, 422, "Say why"),
        ("PATCH /tenants/acme", r#"{"pln":"pro","reason":"r"}"#, 400, "expected one of"),
        ("PATCH /tenants/acme", "[", 400, "JSON object"),
        ("PATCH /tenants/nemo", r#"{"plan":"pro","reason":"r"}"#, 404, "no such tenant"),
        ("PATCH /tenants/acme", r#"["pro",null,"r"]"#, 400, "expected a JSON object"),
        ("POST /tenants", r#"["arr",null,"r"]"#, 400, "expected a JSON object"),
        ("POST /tenants/acme/keys", r#"["n",null,[]]"#, 400, "expected a JSON object"),
        ("POST /tenants", r#"{"id":"a\nb","reason":"r"}"#, 422, "no control characters"),
        ("POST /tenants", r#"{"id":"~x","reason":"r"}"#, 422, "does not begin with `~`"),
        ("POST /tenants", r#"{"id":"acme","plan":"pro","reason":"r"}"#, 409, "PATCH"),
        (
            "POST /tenants/acme/grants",
            r#"{"id":"g","meter":"credit","units":5,"reason":"r"}"#,
            422,
            "no meter \"credit\"",
        ),
        (
            "POST /tenants/acme/grants",
            r#"{"id":"order/4711","meter":"credits","units":5,"reason":"r"}"#,
            422,
            "letters of ASCII, digits, `_`, `-` and `.`",
        ),
        (
            "POST /tenants/acme/grants",
            r#"{"id":"g","meter":"credits","units":-5,"reason":"r"}"#,
            400,
            "expected u64",
        ),
        (
            "POST /tenants/acme/grants",
            r#"{"id":"g","meter":"credits","units":5,"expires":"soon","reason":"r"}"#,
            422,
            "2026-11-01",
        ),
        ("POST /tenants/acme/overrides", r#"{"changes":"quota.x = 1","reason":"r"}"#, 422, "x"),
        ("POST /tenants/acme/resets", r#"{"limit":"credits","reason":"r"}"#, 404, "credits/day"),
        ("POST /tenants/acme/keys", r#"{"name":"n","expires":"1999-01-01"}"#, 422, "past"),
        ("POST /tenants/acme/keys", r#"{"name":"n","expires":"9999-12-31"}"#, 422, "9999-12-30"),
        ("DELETE /tenants/acme/keys/k7", "", 404, "no key"),
        ("GET /tenants?limit=0", "", 400, "1 to 1000"),
        ("GET /top?limit=0", "", 400, "1 to 100"),
        ("GET /tenants?color=red", "", 400, "prefix, after, limit"),
        ("GET /tenants/acme/refusals?limit=0", "", 400, "1 to 1000"),
        ("GET /refusals?tenant=acme", "", 400, "Only limit"),
        ("GET /tenants/nemo/refusals", "", 404, "no such tenant"),
        ("GET /tenants/acme/usage/history?meter=credit", "", 404, "credits"),
    ] {
        let (answered, problem) = call(&bed.gate, &bed.write, line, body.as_bytes()).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!((answered, detail.contains(says)), (status, true), "{line} {body}: {problem}");
    }
    let long = vec![b' '; MAX_BODY + 1];
    assert_eq!(call(&bed.gate, &bed.write, "POST /tenants", &long).await.0, 413);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_each_route_says_so_or_answers_from_memory() {
    let faulty = Faulty::scripted(Memory::new(), []);
    let (gate, _clock) = crate::testing::gate_with(PLANS, faulty.clone());
    gate.directory().tenant("acme").save().await.unwrap();
    let token = gate.directory().new_operator("kim", Role::Write).await.unwrap();
    let admin = gate.admin();
    let authorization = format!("Bearer {}", token.expose());
    let operator = admin.known(Some(authorization.as_bytes()), None).await.unwrap();
    let status = async |line: &str, body: &str| {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = AdminRequest { method, path, query, body: Some(body.as_bytes()), once: None };
        admin.reply(&operator, request).await.status
    };
    faulty.outage(true);
    // The bed bills nothing, and says so from memory.
    let of_memory = ["/health", "/operator", "/plans", "/top", "/refusals", "/billing"];
    for (line, body) in ROUTES {
        let is_of_memory = line.strip_prefix("GET ").is_some_and(|it| of_memory.contains(&it));
        let expected = if is_of_memory { 200 } else { 503 };
        assert_eq!(status(line, body).await, expected, "{line}");
    }
    let unknown = admin.known(Some(b"Bearer tgop_x"), None).await;
    assert_eq!(unknown.unwrap_err().status, 401, "no read is needed to see that it is none");
    faulty.outage(false);
    let odds = Odds {
        unavailable: 100,
        throttled: 100,
        lose_request: 100,
        lose_reply: 100,
        ..Odds::default()
    };
    faulty.odds(odds);
    for _ in 0..20 {
        for (line, body) in ROUTES {
            let status = status(line, body).await;
            assert!((200..500).contains(&status) || status == 503, "{line}: {status}");
        }
    }
}

#[tokio::test]
async fn a_token_that_was_revoked_since_its_request_began_changes_nothing() {
    let bed = bed().await;
    bed.send("POST /tenants", json!({ "id": "acme", "reason": "signed up" })).await;
    let admin = bed.gate.admin();
    let authorization = format!("Bearer {}", bed.write);
    let operator = admin.known(Some(authorization.as_bytes()), None).await.unwrap();
    for operator in bed.gate.directory().operators().await.unwrap() {
        bed.gate.directory().revoke_operator(&operator.token.id).await.unwrap();
    }
    let (method, path, body) = ("POST", "/tenants/acme/keys", Some(&br#"{"name":"n"}"#[..]));
    let request = AdminRequest { method, path, query: "", body, once: None };
    assert_eq!(admin.reply(&operator, request).await.status, 401);
    let acme = bed.gate.directory().find("acme").await.unwrap().unwrap();
    assert_eq!(acme.keys().await.unwrap(), []);
}

/// Bodies near those that the routes take: their fields, with what may be in them.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let fields = [
        "id",
        "plan",
        "reason",
        "suspended",
        "meter",
        "units",
        "expires",
        "changes",
        "until",
        "limit",
        "name",
        "overlap-seconds",
    ];
    let value = prop_oneof![
        any::<String>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        proptest::sample::select(vec![
            "acme",
            "pro",
            "credits",
            "credits/day",
            "quota.credits = \"7/day\"",
            "2100-01-01",
            "g",
        ])
        .prop_map(Value::from),
    ];
    let object =
        proptest::collection::hash_map(proptest::sample::select(fields.to_vec()), value, 0..6);
    prop_oneof![
        object.prop_map(|object| json!(object).to_string().into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..60),
        proptest::sample::select(ROUTES.to_vec()).prop_map(|(_, body)| body.as_bytes().to_vec()),
    ]
}

/// Paths: of the routes, of other tenants and items, and anything.
fn paths() -> impl Strategy<Value = String> {
    let near =
        "(/(tenants|acme|%[0-9a-f]{2}|keys|grants|resets|usage|history|refusals|top|.{0,6})){0,6}";
    prop_oneof![
        near.prop_map(|path| path.replace('?', "%3f")),
        proptest::sample::select(ROUTES.to_vec())
            .prop_map(|(line, _)| { line.split([' ', '?']).nth(1).unwrap_or_default().to_owned() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is sent gets an answer that is no fault of ours, and without a token nothing but
    /// 401, or 403 to a page of another site; with one that may only look nothing is changed.
    #[test]
    fn whatever_is_sent_gets_an_answer(
        method in "GET|HEAD|POST|PATCH|DELETE|[A-Z]{1,8}",
        path in paths(),
        query in "((limit|prefix|after|meter|[a-z]{0,7})=.{0,9}&?){0,4}",
        body in bodies(),
        whole in proptest::option::of(proptest::sample::select(ROUTES.to_vec())),
        who in 0..3_u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = bed().await;
            let acme = bed.gate.directory().tenant("acme").save().await.unwrap();
            let token = [&*bed.write, &*bed.read, "tgop_nothing"][usize::from(who)];
            let (line, body) = match whole {
                Some((line, body)) => (line.to_owned(), body.as_bytes().to_vec()),
                None => (format!("{method} {path}?{query}"), body),
            };
            let (status, answer) = call(&bed.gate, token, &line, &body).await;
            prop_assert_eq!(status == 401, who == 2);
            prop_assert!((200..500).contains(&status), "{} {}: {}", line, status, answer);
            if who > 0 {
                let all = bed.gate.directory().list("", "", 10).await.unwrap();
                prop_assert_eq!(all.len(), 1);
                prop_assert_eq!(all[0].record(), acme.record());
                prop_assert!(all[0].keys().await.unwrap().is_empty());
            }
            Ok(())
        })?;
    }

    /// Only the one token is one, only as `Bearer`, and only from the console's own site.
    #[test]
    fn nothing_but_a_token_is_taken_for_one(
        scheme in "(Bearer |bearer |BEARER |Basic |Bearer|Bearer\t|)",
        spoilt in proptest::option::of((0..60_usize, any::<u8>())),
        site in proptest::option::of(
            "none|same-origin|same-site|cross-site|[a-z-]{0,12}|SAME-ORIGIN",
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = bed().await;
            let mut token = bed.write.clone().into_bytes();
            if let Some((at, byte)) = spoilt {
                let at = at % token.len();
                token[at] = byte;
            }
            let is_whole = token == bed.write.as_bytes();
            let sent = [scheme.as_bytes(), &*token].concat();
            let is_ours = site.as_deref().is_none_or(|it| it == "none" || it == "same-origin");
            let site = site.as_deref().map(str::as_bytes);
            let known = bed.gate.admin().known(Some(&sent), site).await;
            let expected = match (is_ours, is_whole && scheme.eq_ignore_ascii_case("bearer ")) {
                (false, _) => Err(403),
                (true, false) => Err(401),
                (true, true) => Ok(()),
            };
            prop_assert_eq!(known.map(|_| ()).map_err(|reply| reply.status), expected);
            Ok(())
        })?;
    }
}
