//! The routes over a gate in memory, as callers with keys of their own use them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::store::{Item, Key, Memory, Page, Promise, Query, Store, StoreFuture, Write, Written};
use crate::testing::{Faulty, Odds};
use crate::{GateBuilder, ManualClock, testing};

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\n";

/// The first key of `acme`, that may read and write, and what it may be asked with.
struct Bed {
    gate: Gate,
    acme: Tenant,
    first: crate::directory::NewKey,
}

async fn bed() -> Bed {
    bed_of("").await
}

/// The same, with more in the service file.
async fn bed_of(more: &str) -> Bed {
    opened(GateBuilder::from_text(&service(more))).await
}

fn service(more: &str) -> String {
    format!("store.kind = \"memory\"\nflush.mode = \"fast\"\n{more}")
}

async fn opened(builder: GateBuilder) -> Bed {
    let clock = ManualClock::at_unix_ms(testing::START_MS);
    let gate = builder.plans(PLANS).clock(clock).open().await.unwrap(); // a pepper is drawn
    let acme = gate.directory().tenant("acme").note("new").save().await.unwrap();
    let options = KeyOptions::new("first").permission("read").permission("write");
    let first = acme.new_key(options).await.unwrap();
    Bed { gate, acme, first }
}

fn request<'a>(method: &'a str, key: Option<&'a str>, body: &'a [u8]) -> KeysRequest<'a> {
    let (query, content_type) = ("", Some(&b"application/json; charset=utf-8"[..]));
    KeysRequest { method, key, query, content_type, site: None, once: None, body: Some(body) }
}

impl Bed {
    async fn ask(&self, key: &str, request: KeysRequest<'_>) -> (u16, Value) {
        let authorization = format!("Bearer {key}");
        let who = testing::identified_by(&self.gate, &[("authorization", &authorization)]).await;
        let reply = self.gate.keys_reply(&who, request).await;
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    async fn by_first(&self, request: KeysRequest<'_>) -> (u16, Value) {
        self.ask(self.first.expose(), request).await
    }

    async fn make(&self, body: Value) -> (u16, Value) {
        self.by_first(request("POST", None, body.to_string().as_bytes())).await
    }
}

#[tokio::test]
async fn a_key_is_made_listed_used_and_revoked_by_its_tenant() {
    let bed = bed().await;
    let (status, made) = bed.make(json!({ "name": "ci", "permissions": ["read"] })).await;
    assert_eq!(status, 201, "{made}");
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let (status, listed) = bed.ask(key, request("GET", None, b"")).await;
    assert_eq!((status, &listed["own"]), (200, &made["id"]));
    assert_eq!(listed["permissions"], json!(["read"]));
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(key), "it is not shown again");
    assert_eq!(bed.by_first(request("DELETE", Some(id), b"")).await.0, 200);
    let states = bed.acme.keys().await.unwrap();
    assert_eq!(states.iter().find(|it| it.id == id).unwrap().state, KeyState::Revoked);
    let history = bed.acme.history().await.unwrap();
    let actor = format!("key {}", bed.first.id);
    // In no order: they are of one instant.
    let by_first = history.iter().filter(|entry| entry.actor.as_deref() == Some(&*actor));
    assert_eq!(by_first.count(), 2, "one made, one revoked");
    let other = bed.gate.directory().tenant("other").note("new").save().await.unwrap();
    let theirs = other.new_key("theirs").await.unwrap();
    let (status, _) = bed.by_first(request("DELETE", Some(&theirs.id), b"")).await;
    assert_eq!(status, 404, "another tenant's key");
}

#[tokio::test]
async fn a_key_gives_no_more_than_it_has_and_just_that_by_default() {
    let bed = bed().await;
    let (status, problem) = bed.make(json!({ "name": "x", "permissions": ["admin"] })).await;
    assert_eq!(status, 403);
    assert!(problem["detail"].as_str().unwrap().contains("admin"), "{problem}");
    for (asked, given) in [
        (json!({ "name": "all" }), &["read", "write"][..]),
        (json!({ "name": "one", "permissions": ["write"] }), &["write"]),
        (json!({ "name": "none", "permissions": [] }), &[]),
    ] {
        let (status, made) = bed.make(asked).await;
        assert_eq!(status, 201, "{made}");
        let keys = bed.acme.keys().await.unwrap();
        let key = keys.iter().find(|key| made["id"] == *key.id).unwrap();
        assert_eq!(key.permissions, given);
    }
}

#[tokio::test]
async fn a_key_with_an_end_makes_none_that_works_longer() {
    let bed = bed().await;
    let start = std::time::UNIX_EPOCH + Duration::from_millis(testing::START_MS.unsigned_abs());
    let end = start + Duration::from_secs(86_400);
    let ending = bed.acme.new_key(KeyOptions::new("ending").expires(end)).await.unwrap();
    let make = async |body: Value| {
        let body = body.to_string();
        bed.ask(ending.expose(), request("POST", None, body.as_bytes())).await
    };
    let (status, problem) = make(json!({ "name": "x", "expires": "2100-01-01" })).await;
    assert_eq!((status, &problem["title"]), (403, &json!("Beyond the key's end")));
    let (status, made) = make(json!({ "name": "x" })).await;
    assert_eq!(status, 201, "{made}");
    let keys = bed.acme.keys().await.unwrap();
    assert_eq!(keys.iter().find(|key| made["id"] == *key.id).unwrap().expires, Some(end));
    assert_eq!(bed.make(json!({ "name": "x", "expires": "2100-01-01" })).await.0, 201);
}

#[tokio::test]
async fn a_key_revokes_none_that_may_do_more() {
    let bed = bed().await;
    let reader = bed.acme.new_key(KeyOptions::new("reader").permission("read")).await.unwrap();
    let by_reader = |id| bed.ask(reader.expose(), request("DELETE", Some(id), b""));
    let (status, problem) = by_reader(&bed.first.id).await;
    assert_eq!(status, 403);
    assert!(problem["detail"].as_str().unwrap().contains("write"), "{problem}");
    assert_eq!(bed.by_first(request("DELETE", Some(&reader.id), b"")).await.0, 200);
}

#[tokio::test]
async fn a_key_revokes_none_that_has_more_by_the_service_file() {
    let bed =
        bed_of("[[identify]]\napi-key = \"x-api-key\"\npermissions = [\"read\", \"write\"]").await;
    let plain = bed.acme.new_key("plain").await.unwrap();
    let reader = bed.acme.new_key(KeyOptions::new("reader").permission("read")).await.unwrap();
    let who = testing::identified_by(&bed.gate, &[("x-api-key", reader.expose())]).await;
    let reply = bed.gate.keys_reply(&who, request("DELETE", Some(&plain.id), b"")).await;
    assert_eq!(reply.status, 403);
    let keys = bed.acme.keys().await.unwrap();
    let plain = keys.iter().find(|key| key.id == plain.id).unwrap();
    assert_eq!((plain.state, &*plain.permissions.join(" ")), (KeyState::Active, "read write"));
}

#[tokio::test]
async fn a_key_that_was_revoked_since_its_request_began_does_nothing() {
    let bed = bed().await;
    let authorization = format!("Bearer {}", bed.first.expose());
    let who = testing::identified_by(&bed.gate, &[("authorization", &authorization)]).await;
    let other = bed.acme.new_key("other").await.unwrap();
    bed.acme.revoke_key(&bed.first.id).await.unwrap();
    for (method, key) in [("GET", None), ("POST", None), ("DELETE", Some(&*other.id))] {
        let reply = bed.gate.keys_reply(&who, request(method, key, br#"{"name":"x"}"#)).await;
        assert_eq!(reply.status, 401, "{method}");
    }
    let keys = bed.acme.keys().await.unwrap();
    let working = keys.iter().filter(|key| key.state == KeyState::Active);
    assert_eq!(working.map(|key| &*key.name).collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn a_suspended_tenant_makes_no_key_and_may_revoke_one() {
    let bed = bed().await;
    let other = bed.acme.new_key("other").await.unwrap();
    bed.gate.directory().tenant("acme").suspend().note("unpaid").save().await.unwrap();
    assert_eq!(bed.make(json!({ "name": "x" })).await.0, 403);
    assert_eq!(bed.by_first(request("DELETE", Some(&other.id), b"")).await.0, 200);
}

#[tokio::test]
async fn a_key_revokes_itself_only_where_that_is_said() {
    let bed = bed().await;
    let own = || request("DELETE", Some(&bed.first.id), b"");
    assert_eq!(bed.by_first(own()).await.0, 409);
    assert_eq!(bed.by_first(KeysRequest { query: "itself=no", ..own() }).await.0, 409);
    assert_eq!(bed.acme.keys().await.unwrap()[0].state, KeyState::Active);
    assert_eq!(bed.by_first(KeysRequest { query: "itself=yes", ..own() }).await.0, 200);
    assert_eq!(bed.acme.keys().await.unwrap()[0].state, KeyState::Revoked);
}

#[tokio::test]
async fn a_page_of_another_site_and_a_form_make_and_revoke_nothing() {
    let bed = bed().await;
    let make = || request("POST", None, br#"{"name":"x"}"#);
    for site in ["cross-site", "same-site"] {
        let forged = KeysRequest { site: Some(site.as_bytes()), ..make() };
        assert_eq!(bed.by_first(forged).await.0, 403, "{site}");
        let forged = request("DELETE", Some(&bed.first.id), b"");
        let forged = KeysRequest { site: Some(site.as_bytes()), query: "itself=yes", ..forged };
        assert_eq!(bed.by_first(forged).await.0, 403, "{site}");
    }
    for kind in [None, Some(&b"text/plain"[..]), Some(b"application/x-www-form-urlencoded")] {
        assert_eq!(bed.by_first(KeysRequest { content_type: kind, ..make() }).await.0, 415);
    }
    assert_eq!(bed.acme.keys().await.unwrap().len(), 1);
    for site in ["same-origin", "none"] {
        let own = KeysRequest { site: Some(site.as_bytes()), ..make() };
        assert_eq!(bed.by_first(own).await.0, 201, "{site}");
    }
}

#[tokio::test]
async fn a_repeated_request_makes_no_second_key() {
    let bed = bed().await;
    let make = || KeysRequest { once: Some(b"r-1"), ..request("POST", None, br#"{"name":"x"}"#) };
    let (status, made) = bed.by_first(make()).await;
    assert_eq!(status, 201);
    let (status, again) = bed.by_first(make()).await;
    assert_eq!((status, &again["key"]), (409, &made["id"]));
    assert_eq!(bed.acme.keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_tenant_makes_no_more_keys_than_the_bound() {
    let bed = bed().await;
    for n in 1..MOST_WORKING {
        bed.acme.new_key(format!("k{n}")).await.unwrap();
    }
    let (status, problem) = bed.make(json!({ "name": "one too many" })).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("100 keys"), "{problem}");
}

/// Requests at once each read how many keys there are before the others have made theirs.
#[tokio::test(start_paused = true)]
async fn requests_at_once_make_no_more_keys_than_the_bound() {
    let store = Faulty::scripted(Memory::new(), []);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "p".repeat(32)).unwrap();
    let pepper = format!("pepper = [{{ id = \"1\", file = {:?} }}]", secret.path());
    let service = service(&format!("[[identify]]\napi-key = \"authorization\"\n{pepper}"));
    let bed = opened(GateBuilder::from_text(&service).store(store.clone())).await;
    for n in 1..MOST_WORKING - 3 {
        bed.acme.new_key(format!("k{n}")).await.unwrap();
    }
    store.odds(Odds { delay: 1_000, ..Odds::default() });
    let bed = Arc::new(bed);
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..20 {
        let bed = bed.clone();
        asked.spawn(async move { bed.make(json!({ "name": format!("at once {n}") })).await.0 });
    }
    let mut answers = asked.join_all().await;
    answers.sort_unstable();
    assert_eq!(answers, [vec![201; 3], vec![409; 17]].concat());
    let count = bed.acme.count_keys().await.unwrap();
    assert_eq!(count.working, MOST_WORKING);
}

/// What a tenant calls its request is nothing to the operator's requests for it.
#[tokio::test]
async fn a_tenant_and_its_operator_do_not_meet_at_an_idempotency_key() {
    let bed = bed().await;
    let by_operator = bed.acme.new_key(KeyOptions::new("theirs").once("r-1")).await.unwrap();
    let make = || KeysRequest { once: Some(b"r-1"), ..request("POST", None, br#"{"name":"x"}"#) };
    let (status, made) = bed.by_first(make()).await;
    assert_eq!(status, 201, "{made}");
    assert_ne!(made["id"], *by_operator.id);
    assert_eq!(bed.by_first(make()).await.1["key"], made["id"]);
    let again = bed.acme.new_key(KeyOptions::new("theirs").once("r-1")).await.unwrap_err();
    assert!(matches!(again, DirectoryError::MadeAlready(id) if id == by_operator.id));
}

#[tokio::test]
async fn a_repeated_request_for_the_last_key_gets_its_id() {
    let bed = bed().await;
    for n in 2..MOST_WORKING {
        bed.acme.new_key(format!("k{n}")).await.unwrap();
    }
    let make = || KeysRequest { once: Some(b"r-1"), ..request("POST", None, br#"{"name":"x"}"#) };
    let (status, made) = bed.by_first(make()).await;
    assert_eq!(status, 201);
    let (status, again) = bed.by_first(make()).await;
    assert_eq!((status, &again["key"]), (409, &made["id"]));
}

#[tokio::test]
async fn what_cannot_be_is_a_problem_that_says_what_to_write() {
    let bed = bed().await;
    for (body, status, words) in [
        ("", 400, "The body"),
        (r#"["x",null,[]]"#, 400, "expected a JSON object"),
        (r#"{"name":"x","role":"write"}"#, 400, "role"),
        (r#"{"name":""}"#, 422, "name"),
        (r#"{"name":"a\nb"}"#, 422, "control"),
        (r#"{"name":"x","expires":"soon"}"#, 400, "2026-11-01"),
        (r#"{"name":"x","expires":"1999-01-01"}"#, 422, "past"),
        (r#"{"name":"x","expires":"9999-12-31"}"#, 400, "9999-12-30"),
        (r#"{"name":"x","expires":"9999-12-31T23:59:59Z"}"#, 400, "9999-12-30"),
    ] {
        let (answered, problem) = bed.by_first(request("POST", None, body.as_bytes())).await;
        assert_eq!(answered, status, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let long = KeysRequest { body: None, ..request("POST", None, b"") };
    assert_eq!(bed.by_first(long).await.0, 413);
    assert_eq!(bed.by_first(request("PATCH", None, b"")).await.0, 405);
    assert_eq!(bed.by_first(request("GET", Some("k1"), b"")).await.0, 405);
}

/// The caller was identified before its body came: meanwhile its tenant was erased, and another one
/// took the id.
#[tokio::test]
async fn a_request_of_an_erased_tenant_does_nothing_to_the_next_of_its_id() {
    let bed = bed().await;
    let authorization = format!("Bearer {}", bed.first.expose());
    let who = testing::identified_by(&bed.gate, &[("authorization", &authorization)]).await;
    let directory = bed.gate.directory();
    let gone = [("GET", None), ("POST", None)];
    let status = async |(method, key)| {
        bed.gate.keys_reply(&who, request(method, key, b"{\"name\": \"mine\"}")).await.status
    };
    directory.by("kim").erase("acme", "asked for it").await.unwrap();
    for asked in gone {
        assert_eq!(status(asked).await, 401, "{asked:?}");
    }
    let next = directory.tenant("acme").note("another customer").save().await.unwrap();
    let theirs = next.new_key("theirs").await.unwrap();
    for asked in [gone[0], gone[1], ("DELETE", Some(&*theirs.id))] {
        assert_eq!(status(asked).await, 401, "{asked:?}");
    }
    let keys = next.keys().await.unwrap();
    assert_eq!(keys.iter().map(|it| it.state).collect::<Vec<_>>(), [KeyState::Active]);
}

/// A store that takes a while, and counts the calls that it has at once.
#[derive(Default)]
struct Slow {
    store: Memory,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Slow {
    fn while_called<T: Send + 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        let (now, most) = (self.now.clone(), self.most.clone());
        Box::pin(async move {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::Relaxed);
            call.await
        })
    }
}

impl Store for Slow {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.while_called(self.store.read(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.while_called(self.store.write(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.while_called(self.store.query(query))
    }

    fn promise(&self) -> Promise {
        self.store.promise()
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_looks_at_its_keys_a_thousand_times_at_once_has_a_part_of_the_store() {
    let store = Slow::default();
    let most = store.most.clone();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secret, "a secret of at least sixteen bytes").unwrap();
    let pepper = format!("pepper = [{{ id = \"1\", file = {:?} }}]", secret.path());
    let service = service(&format!("[[identify]]\napi-key = \"authorization\"\n{pepper}"));
    let bed = opened(GateBuilder::from_text(&service).store(store)).await;
    for n in 0..9 {
        bed.acme.new_key(format!("{n}").as_str()).await.unwrap();
    }
    let authorization = format!("Bearer {}", bed.first.expose());
    for (method, key) in [("GET", None), ("POST", None), ("DELETE", Some("k0"))] {
        most.store(0, Ordering::Relaxed);
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let (gate, authorization) = (bed.gate.clone(), authorization.clone());
            asked.spawn(async move {
                let who = testing::identified_by(&gate, &[("authorization", &authorization)]).await;
                gate.keys_reply(&who, request(method, key, b"{\"name\": \"mine\"}")).await.status
            });
        }
        asked.join_all().await;
        let most = most.load(Ordering::Relaxed);
        // Half of the places for look-ups, and what the gate itself does.
        assert!((1..=64 + 8).contains(&most), "{method}: {most} calls at once");
    }
}
