//! The table: created once by many, checked before it is used, and its foreign contents.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType, TimeToLiveSpecification,
};
use tallygate::GateBuilder;
use tallygate::store::{
    Change, DynamoDb, Key, Query, Store, StoreErrorKind, Units, Value, WarmThroughput, When, Write,
    Written,
};
use test_support::dynamodb::client;
use test_support::gates::Acme;

use super::proxy::Proxy;
use crate::shared_table::serve;

async fn served() -> (dynoxide::Database, Client) {
    let db = dynoxide::Database::memory().unwrap();
    let endpoint = serve(db.clone()).await.unwrap();
    (db, client(&endpoint))
}

/// A foreign table with these keys.
async fn other_table(client: &Client, name: &str, hash: &str, range: Option<&str>, numbers: bool) {
    let of = if numbers { ScalarAttributeType::N } else { ScalarAttributeType::S };
    let mut call = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [(Some(hash), KeyType::Hash), (range, KeyType::Range)] {
        let Some(name) = name else { continue };
        let attribute = AttributeDefinition::builder().attribute_name(name);
        let key = KeySchemaElement::builder().attribute_name(name).key_type(kind);
        call = call
            .attribute_definitions(attribute.attribute_type(of.clone()).build().unwrap())
            .key_schema(key.build().unwrap());
    }
    call.send().await.unwrap();
}

async fn expire_by(client: &Client, table: &str, attribute: &str) {
    let by = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute);
    let by = by.build().unwrap();
    let call = client.update_time_to_live().table_name(table);
    call.time_to_live_specification(by).send().await.unwrap();
}

fn key(sk: &str) -> Key {
    Key { pk: "p".into(), sk: sk.into() }
}

fn set(name: &'static str, value: Value) -> Change {
    Change::Set(name.into(), value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_make_the_table_at_once() {
    let (_db, client) = served().await;
    let making: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { DynamoDb::create_table(&client, "one", None).await })
        })
        .collect();
    for made in making {
        made.await.unwrap().unwrap();
    }
    let expiry = client.describe_time_to_live().table_name("one").send().await.unwrap();
    let expiry = expiry.time_to_live_description.unwrap();
    assert_eq!(expiry.attribute_name(), Some("ttl"));
    DynamoDb::new(client, "one").check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_made_cannot_be_deleted_by_a_slip() {
    let (_db, client) = served().await;
    DynamoDb::create_table(&client, "kept", None).await.unwrap();
    let deleted = client.delete_table().table_name("kept").send().await;
    assert!(deleted.is_err(), "{deleted:?}");
    DynamoDb::new(client, "kept").check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_made_is_kept_restorable_and_one_that_is_there_is_left_as_it_is() {
    let db = dynoxide::Database::memory().unwrap();
    let proxy = Proxy::before(&serve(db).await.unwrap()).await;
    let client = client(proxy.endpoint());
    for _ in 0..2 {
        DynamoDb::create_table(&client, "kept", None).await.unwrap();
        assert_eq!(proxy.asked_for("UpdateContinuousBackups"), 1);
    }
}

/// Nothing listens at this client's endpoint: the answer is ours.
#[tokio::test]
async fn a_name_that_no_table_can_have_is_refused_before_anything_is_asked() {
    let client = client("http://127.0.0.1:9");
    for name in ["t", "", "a table", "tab\u{eb}le", &"t".repeat(256)] {
        let made = DynamoDb::create_table(&client, name, None).await.unwrap_err();
        let opened = DynamoDb::new(client.clone(), name).check().await.unwrap_err();
        for error in [made, opened] {
            assert_eq!(error.kind, StoreErrorKind::Invalid, "{name}");
            assert!(error.message.contains("3 to 255 characters"), "{error}");
        }
    }
    let asked = DynamoDb::new(client, "tab").check().await.unwrap_err();
    assert_eq!(asked.kind, StoreErrorKind::Unavailable, "this one was asked for: {asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_may_be_made_warm() {
    let (_db, client) = served().await;
    let warm = WarmThroughput { read: 20_000, write: 8_000 };
    DynamoDb::create_table(&client, "warm", Some(warm)).await.unwrap();
    DynamoDb::new(client, "warm").check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_writes_nothing_into_a_table_that_it_refuses() {
    let (_db, client) = served().await;
    other_table(&client, "theirs", "pk", Some("sk"), false).await;
    expire_by(&client, "theirs", "free").await;
    let service = "[[identify]]\nheader = \"x-tenant\"\n[proxy]\ntrust = [\"10.0.0.0/8\"]";
    let gate = GateBuilder::from_text(service)
        .plans("default-plan = \"free\"\n[plan.free]")
        .store(DynamoDb::new(client.clone(), "theirs"));
    let error = gate.open().await.unwrap_err();
    assert!(error.to_string().contains("expires items by `free`"), "{error}");
    let there = client.scan().table_name("theirs").send().await.unwrap();
    assert_eq!(there.items(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_needs_no_pepper_where_the_program_names_its_callers() {
    let (_db, client) = served().await;
    DynamoDb::create_table(&client, "callers", None).await.unwrap();
    let open = |service: &str, by_code: bool| {
        let builder = GateBuilder::from_text(service)
            .plans("default-plan = \"free\"\n[plan.free]")
            .store(DynamoDb::new(client.clone(), "callers"));
        if by_code { builder.identify(Acme) } else { builder }.open()
    };
    assert!(open("", false).await.is_err(), "API keys are the default, and need one");
    open("", true).await.unwrap().close().await.unwrap();
    open("identify = []", false).await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_another_shape_is_refused_with_what_is_wrong() {
    let (_db, client) = served().await;
    other_table(&client, "names", "id", Some("sk"), false).await;
    other_table(&client, "short", "pk", None, false).await;
    other_table(&client, "numbers", "pk", Some("sk"), true).await;
    other_table(&client, "expires", "pk", Some("sk"), false).await;
    expire_by(&client, "expires", "free").await;
    for (table, says) in [
        ("missing", "there is no table `missing`"),
        ("names", "needs a partition key `pk` of type S and has `id` of type S"),
        ("short", "needs a sort key `sk` of type S and has none"),
        ("numbers", "needs a partition key `pk` of type S and has `pk` of type N"),
        ("expires", "expires items by `free`"),
    ] {
        let error = DynamoDb::new(client.clone(), table).check().await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
        assert!(error.message.contains(says), "{error}");
        if table != "missing" {
            let again = DynamoDb::create_table(&client, table, None).await.unwrap_err();
            assert!(again.message.contains(says), "one that is there stays: {again}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_of_another_format_is_named_and_never_written_over() {
    let (_db, client) = served().await;
    DynamoDb::create_table(&client, "formats", None).await.unwrap();
    let store = DynamoDb::new(client.clone(), "formats");
    let text = |text: &str| AttributeValue::S(text.into());
    for (sk, format) in [("newer", Some("2")), ("foreign", None)] {
        let put =
            client.put_item().table_name("formats").item("pk", text("p")).item("sk", text(sk));
        let put = put.item("n", AttributeValue::N("1".into()));
        let format = format.map(|format| AttributeValue::N(format.into()));
        let put = match format {
            Some(format) => put.item("tallygate", format),
            None => put,
        };
        put.send().await.unwrap();
        let says =
            if sk == "newer" { "has format 2, this binary reads 1" } else { "has no format" };
        let write = |when, change| {
            let write = Write { key: key(sk), when, change: vec![change] };
            let store = store.clone();
            async move { store.write(write).await.map(drop) }
        };
        let all = Query { pk: "p".into(), from: sk.into(), until: None, limit: 1 };
        for refused in [
            store.read(key(sk)).await.map(drop),
            store.query(all).await.map(drop),
            write(vec![], set("n", Value::Int(2))).await,
            write(vec![When::Exists], set("n", Value::Int(2))).await,
            write(vec![When::Absent], set("n", Value::Int(2))).await,
            write(vec![], Change::Delete).await,
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.message.contains(says), "{error}");
        }
        let stands = client.get_item().table_name("formats").key("pk", text("p"));
        let stands = stands.key("sk", text(sk)).send().await.unwrap().item.unwrap();
        assert_eq!(stands["n"], AttributeValue::N("1".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_lets_go_of_what_has_expired_and_of_nothing_else() {
    let (db, client) = served().await;
    DynamoDb::create_table(&client, "expiry", None).await.unwrap();
    let store = DynamoDb::new(client, "expiry");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let hour = 3_600;
    for (sk, ttl) in [
        ("past", Some(Value::Int(now - hour))),
        ("future", Some(Value::Int(now + hour))),
        ("text", Some(Value::Text((now - hour).to_string()))),
        ("none", None),
    ] {
        let mut change = vec![set("n", Value::Int(1))];
        change.extend(ttl.map(|ttl| set("ttl", ttl)));
        store.write(Write { key: key(sk), when: vec![], change }).await.unwrap();
    }
    db.sweep_ttl().unwrap();
    let all = Query { pk: "p".into(), from: String::new(), until: None, limit: 9 };
    let left = store.query(all).await.unwrap().items;
    let left: Vec<_> = left.iter().map(|(sk, _)| sk.as_str()).collect();
    assert_eq!(left, ["future", "none", "text"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_counted_as_they_are_charged() {
    let (_db, client) = served().await;
    DynamoDb::create_table(&client, "units", None).await.unwrap();
    let store = DynamoDb::new(client, "units");
    let put = |bytes| Write {
        key: key("s"),
        when: vec![When::Absent],
        change: vec![set("b", Value::Bytes(vec![0; bytes]))],
    };
    assert_eq!(store.units(), Units::default());
    store.write(put(2_500)).await.unwrap();
    assert_eq!(store.units(), Units { read: 0, write: 3 });
    // A failed condition costs the size of the stored item.
    assert!(matches!(store.write(put(1)).await.unwrap(), Written::Refused(Some(_))));
    assert_eq!(store.clone().units(), Units { read: 0, write: 6 });
    store.read(key("s")).await.unwrap();
    store.read(key("none")).await.unwrap();
    assert_eq!(store.units(), Units { read: 2, write: 6 });
}

/// More than a page's bytes: the service cuts it, and nothing is lost between two pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_cut_by_its_bytes_goes_on() {
    let (_db, client) = served().await;
    DynamoDb::create_table(&client, "large", None).await.unwrap();
    let store = DynamoDb::new(client, "large").within(Duration::from_secs(30));
    let wanted: Vec<String> = (0..6).map(|n| format!("{n}")).collect();
    for sk in &wanted {
        let change = vec![set("b", Value::Bytes(vec![1; 300_000]))];
        store.write(Write { key: key(sk), when: vec![], change }).await.unwrap();
    }
    let (mut seen, mut pages, mut next) = (Vec::new(), 0, Some(String::new()));
    while let Some(from) = next {
        let query = Query { pk: "p".into(), from, until: Some("5".into()), limit: 99 };
        let page = store.query(query).await.unwrap();
        seen.extend(page.items.into_iter().map(|(sk, _)| sk));
        (next, pages) = (page.next, pages + 1);
    }
    assert_eq!(seen, wanted[..5]);
    assert!(pages > 1, "the service cuts pages");
}

/// The permissions and retention in the examples' templates.
#[test]
fn templates_grant_no_scan_and_keep_their_table() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for example in ["lambda-http", "lambda-ingest"] {
        let path = root.join("examples").join(example).join("template.yaml");
        let template = std::fs::read_to_string(path).unwrap();
        assert!(!template.contains("CrudPolicy") && !template.contains("Scan"), "{example}");
        assert!(template.contains("dynamodb:UpdateItem"), "{example}");
        if template.contains("AWS::DynamoDB::Table") {
            assert!(template.contains("DeletionProtectionEnabled: true"), "{example}");
            assert!(template.contains("PointInTimeRecoveryEnabled: true"), "{example}");
        }
    }
}
