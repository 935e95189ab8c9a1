//! What keys may do, in a table: with no, one and several permissions, with as many and as long
//! ones as there may be, and with a set that was emptied. Made by one gate, read by another that
//! has a client of its own.

use std::path::Path;

use serde_json::{Value, json};
use tallygate::directory::{KeyOptions, KeyState};
use tallygate::own_keys::KeysRequest;
use tallygate::store::DynamoDb;
use tallygate::{Gate, GateBuilder, testing};
use test_support::dynamodb::client;
use test_support::skips;

use crate::shared_table::serve;

/// What the service file gives to keys without any.
const UNLISTED: &str = "items:list";

async fn open(endpoint: &str, table: &str, pepper: &Path) -> Gate {
    let service = format!(
        "[store]\nkind = \"memory\" # stands back behind the one that is handed in\n\
         [[identify]]\napi-key = \"authorization\"\npermissions = [{UNLISTED:?}]\n\
         pepper = [{{ id = \"1\", file = {pepper:?} }}]\n[flush]\nmode = \"fast\"\n"
    );
    let store = DynamoDb::new(client(endpoint), table);
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"1k/month\"\n";
    GateBuilder::from_text(&service).plans(plans).store(store).open().await.unwrap()
}

/// The answer to a request of the caller with this key for its own keys.
async fn ask(gate: &Gate, key: &str, method: &str, id: Option<&str>, body: &str) -> (u16, Value) {
    let who = testing::identified_by(gate, &[("authorization", &format!("Bearer {key}"))]).await;
    let request = KeysRequest {
        method,
        key: id,
        query: "",
        content_type: Some(b"application/json"),
        site: None,
        once: None,
        body: Some(body.as_bytes()),
    };
    let reply = gate.keys_reply(&who, request).await;
    (reply.status, serde_json::from_slice(&reply.body).unwrap())
}

/// Names of 64 characters, as many as a key may have.
fn longest() -> Vec<String> {
    (0..32).map(|n| format!("{n:02}{}", "p".repeat(62))).collect()
}

async fn keys_keep_what_they_may_do(endpoint: &str) {
    let table = format!("permissions-{}", std::process::id());
    DynamoDb::create_table(&client(endpoint), &table, None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    std::fs::write(&pepper, "p".repeat(32)).unwrap();
    let first = open(endpoint, &table, &pepper).await;
    let second = open(endpoint, &table, &pepper).await;

    // The operator's, and those that the tenant makes with the first of them.
    let acme = first.directory().tenant("acme").note("new").save().await.unwrap();
    let with = |name: &str, of: &[String]| {
        of.iter().fold(KeyOptions::new(name), |key, it| key.permission(it))
    };
    let few = ["items:read", "items:write"].map(str::to_owned);
    let mut made = Vec::new();
    for (name, given, wanted) in [
        ("several", &few[..], &few[..]),
        ("unlisted", &[], &[UNLISTED.to_owned()]),
        ("one", &few[..1], &few[..1]),
        ("longest", &longest(), &longest()),
    ] {
        let key = acme.new_key(with(name, given)).await.unwrap();
        made.push((name.to_owned(), key.id.clone(), key.expose().to_owned(), wanted.to_vec()));
    }
    for (name, asked, wanted) in [
        ("own", json!({ "name": "own" }), &few[..]),
        ("own-one", json!({ "name": "own-one", "permissions": ["items:write"] }), &few[1..]),
        ("own-emptied", json!({ "name": "own-emptied", "permissions": [] }), &[]),
    ] {
        let (status, key) = ask(&first, &made[0].2, "POST", None, &asked.to_string()).await;
        assert_eq!(status, 201, "{key}");
        let text = |of: &str| key[of].as_str().unwrap().to_owned();
        made.push((name.to_owned(), text("id"), text("key"), wanted.to_vec()));
    }
    // One that is made by a key whose permissions were emptied has none either.
    let emptied = made.last().unwrap().2.clone();
    let (status, key) = ask(&first, &emptied, "POST", None, r#"{"name":"of-emptied"}"#).await;
    assert_eq!(status, 201, "{key}");
    let text = |of: &str| key[of].as_str().unwrap().to_owned();
    made.push(("of-emptied".to_owned(), text("id"), text("key"), Vec::new()));
    // The same after it was replaced by another.
    for name in ["longest", "own-emptied"] {
        let (_, id, _, wanted) = made.iter().find(|it| it.0 == name).unwrap().clone();
        let key = acme.rotate_key(&id, std::time::Duration::from_secs(600)).await.unwrap();
        made.push((name.to_owned(), key.id.clone(), key.expose().to_owned(), wanted));
    }
    first.close().await.unwrap();

    let listed = second.directory().find("acme").await.unwrap().unwrap().keys().await.unwrap();
    assert_eq!(listed.len(), made.len());
    for (name, id, key, wanted) in &made {
        let info = listed.iter().find(|it| it.id == *id).unwrap();
        assert_eq!((&info.name, info.state), (name, KeyState::Active));
        assert_eq!(info.permissions, *wanted, "{name} in the list");
        let (status, own) = ask(&second, key, "GET", None, "").await;
        assert_eq!((status, &own["own"]), (200, &json!(id)), "{own}");
        assert_eq!(own["permissions"], json!(wanted), "{name} as a caller");
    }
    // And what each lacks, it gives and revokes to none.
    let with_more = made[0].1.as_str();
    let (status, refused) = ask(&second, &emptied, "DELETE", Some(with_more), "").await;
    assert_eq!(status, 403, "{refused}");
    let asked = json!({ "name": "x", "permissions": [UNLISTED] }).to_string();
    assert_eq!(ask(&second, &emptied, "POST", None, &asked).await.0, 403);
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_keep_what_they_may_do_in_a_table() {
    let endpoint = serve(dynoxide::Database::memory().unwrap()).await.unwrap();
    keys_keep_what_they_may_do(&endpoint).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_keep_what_they_may_do_in_a_table_of_dynamodb_local() {
    let server = tokio::task::spawn_blocking(dynamodb_local::shared).await.unwrap();
    let Some(server) = skips::needed("permissions on DynamoDB Local", server) else { return };
    keys_keep_what_they_may_do(server.endpoint()).await;
}
