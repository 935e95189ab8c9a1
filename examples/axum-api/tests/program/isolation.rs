//! No tenant can read, spend or slow down another: everything that a request could forge, tried
//! over real HTTP against the program as it is shipped, and what is in its file before and after.

use std::collections::BTreeMap;

use crate::support::{Api, Home};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use tallygate::GateBuilder;

const ACME: &str = "tg_demo_acme";
const SOLO: &str = "tg_demo_solo";

/// All that `/usage` tells a tenant, without the instants that pass by themselves.
fn standing(api: &Api, key: &str) -> serde_json::Value {
    let usage = api.send("GET", "/usage", key);
    assert_eq!(usage.status, 200, "{usage:?}");
    let usage: serde_json::Value = serde_json::from_str(&usage.body).unwrap();
    let meters = usage["meters"].as_array().unwrap().iter().map(|meter| {
        let names = ["name", "used", "over", "held", "limits", "grants"];
        names.map(|name| meter[name].clone())
    });
    serde_json::json!({ "plan": usage["plan"], "meters": meters.collect::<Vec<_>>() })
}

/// Runs something and returns what it spent of `acme`'s requests and of `solo`'s.
fn spent(api: &Api, run: impl FnOnce(&Api)) -> (u64, u64) {
    let used = |key| api.used("requests", key);
    let before = (used(ACME), used(SOLO));
    run(api);
    (used(ACME) - before.0, used(SOLO) - before.1)
}

#[test]
fn only_the_key_says_who_is_calling() {
    let home = Home::new();
    let api = home.start();
    assert_eq!(api.send("GET", "/v1/search", ACME).status, 200);
    let acme = standing(&api, ACME);

    let forged = [
        ("x-tenant", "acme"),
        ("x-tenant-id", "acme"),
        ("x-user", "acme"),
        ("x-gateway-tenant", "acme"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("x-forwarded-user", "acme"),
        ("x-original-url", "/healthz"),
        ("x-rewrite-url", "/healthz"),
        ("x-http-method-override", "GET"),
        ("cookie", "x-api-key=tg_demo_acme"),
    ];
    for (name, value) in forged {
        let (of_acme, of_solo) = spent(&api, |api| {
            let headers = [("x-api-key", SOLO), (name, value)];
            let answer =
                api.raw("GET", "/v1/search?tenant=acme&x-api-key=tg_demo_acme", &headers, "");
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert!(answer.body.contains("\"tenant\":\"solo\""), "{name}: {answer:?}");
            let alone = api.raw("GET", "/v1/search?x-api-key=tg_demo_acme", &[(name, value)], "");
            assert_eq!(alone.status, 401, "{name} is no credential");
        });
        assert_eq!((of_acme, of_solo), (0, 1), "{name}");
    }
    assert_eq!(standing(&api, ACME), acme);
}

#[test]
fn two_keys_are_nobody() {
    let home = Home::new();
    let api = home.start();
    let both: [&[(&str, &str)]; 3] = [
        &[("x-api-key", SOLO), ("authorization", "Bearer tg_demo_acme")],
        &[("x-api-key", SOLO), ("x-api-key", ACME)],
        &[("authorization", "Bearer tg_demo_solo"), ("authorization", "Bearer tg_demo_acme")],
    ];
    for headers in both {
        let unspent = spent(&api, |api| {
            assert_eq!(api.raw("GET", "/v1/search", headers, "").status, 401, "{headers:?}");
            assert_eq!(api.raw("GET", "/usage", headers, "").status, 401, "{headers:?}");
        });
        assert_eq!(unspent, (0, 0));
    }
}

#[test]
fn a_key_is_taken_to_the_letter() {
    let home = Home::new();
    let api = home.start();
    let keys = [
        "TG_DEMO_ACME",
        "tg_demo_acme2",
        "tg_demo_acm",
        "tg_demo_acme, tg_demo_solo",
        "tg_demo_acme#b",
        "tg_demo_acme\0",
        "acme",
        "demo",
        "",
    ];
    for key in keys {
        let answer = api.send("GET", "/usage", key);
        assert!([400, 401].contains(&answer.status), "{key:?}: {answer:?}");
    }
}

#[test]
fn a_path_in_disguise_costs_what_the_path_costs() {
    let home = Home::new();
    let api = home.start();
    let disguised = [
        ("GET", "/v1/search?x=/healthz", 200, 1),
        ("POST", "/v1/accounts/a%2Fb/exports", 202, 25),
        ("POST", "/v1/accounts/a%23b/exports", 202, 25),
        ("POST", "/v1/accounts/%68ealthz/exports", 202, 25),
        ("POST", "/v1/accounts/solo/exports", 202, 25),
    ];
    for (method, path, status, cost) in disguised {
        let spends = spent(&api, |api| {
            let answer = api.send(method, path, ACME);
            assert_eq!(answer.status, status, "{path}: {answer:?}");
        });
        assert_eq!(spends, (cost, 0), "{path}");
        // What the plan lacks is not had by spelling it otherwise.
        if cost == 25 {
            assert_eq!(api.send(method, path, SOLO).status, 403, "{path}");
        }
    }
}

#[test]
fn one_tenant_at_its_limit_slows_no_other() {
    let home = Home::new();
    home.edit_plans("\"30/min\"", "\"3/min\"");
    let api = home.start();
    let acme = standing(&api, ACME);
    let statuses: Vec<u16> = (0..6).map(|_| api.send("GET", "/v1/search", SOLO).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    assert_eq!(standing(&api, ACME), acme);
    let found = api.send("GET", "/v1/search", ACME);
    assert_eq!(found.status, 200);
    assert!(found.header("ratelimit").contains("\"search\";r=9;"), "{found:?}");
}

#[test]
fn no_refusal_or_log_shows_a_key() {
    let home = Home::new();
    let api = home.start_with(&[("RUST_LOG", "trace")]);
    for key in [ACME, SOLO, "tg_demo_late", "tg_demo_wrong"] {
        for path in ["/v1/search", "/usage", "/usage/history?meter=nothing"] {
            let answer = api.send("GET", path, key);
            assert!(!format!("{answer:?}").contains("tg_demo"), "{answer:?}");
        }
    }
    assert!(!api.stderr().contains("tg_demo"), "{}", api.stderr());
}

/// Outer ids that look alike, to a key of the store that were made of them and to a URL.
const ALIKE: [&str; 7] = ["a", "a#b", "a/b", "a%23b", "a%2Fb", "A", "a#"];

/// The program's store: `actix-api` includes this file.
const STORE: &str = concat!(env!("CARGO_PKG_NAME"), ".redb");

/// A tenant each, with a key drawn as everybody's are, in the file the program will open.
async fn enrol(home: &Home, ids: &[&str]) -> BTreeMap<String, String> {
    let mut service = home.read("tallygate.toml");
    for file in [STORE, "plans.toml"] {
        let here = format!("{:?}", home.path(file));
        service = service.replace(&format!("{file:?}"), &here);
    }
    let gate = GateBuilder::from_text(&service).open().await.unwrap();
    let mut keys = BTreeMap::new();
    for id in ids {
        let tenant = gate.directory().tenant(id).note("test").save().await.unwrap();
        let key = tenant.new_key("ci").await.unwrap().expose().to_owned();
        keys.insert((*id).to_owned(), key);
    }
    gate.close().await.unwrap();
    keys
}

#[tokio::test]
async fn ids_that_look_alike_are_strangers() {
    let home = Home::new();
    let keys = enrol(&home, &ALIKE).await;
    let api = home.start();
    let calls = |id: &str| 1 + ALIKE.iter().position(|alike| *alike == id).unwrap();
    for (id, key) in &keys {
        for _ in 0..calls(id) {
            let found = api.send("GET", "/v1/search", key);
            let found: serde_json::Value = serde_json::from_str(&found.body).unwrap();
            assert_eq!(found["tenant"], **id);
        }
    }
    let history = "/usage/history?meter=requests";
    for (id, key) in &keys {
        assert_eq!(api.used("requests", key), calls(id) as u64, "{id}");
        let days: serde_json::Value =
            serde_json::from_str(&api.send("GET", history, key).body).unwrap();
        let days = days["rows"].as_array().unwrap().iter();
        let used: u64 = days.map(|day| day["used"].as_u64().unwrap()).sum();
        assert_eq!(used, calls(id) as u64, "{id}");
        // A tenant's id is no credential, and names nothing that is asked for.
        assert_eq!(api.send("GET", "/usage", id).status, 401, "{id}");
    }
}

/// The file of a program that has ended: partition and sort key, and an item as it is encoded.
type Items = BTreeMap<(String, String), Vec<u8>>;

fn items(home: &Home) -> Items {
    let table = TableDefinition::<(&str, &str), &[u8]>::new("items-2");
    let file = redb::Database::open(home.path(STORE)).unwrap();
    let table = file.begin_read().unwrap().open_table(table).unwrap();
    let items = table.iter().unwrap().map(|item| {
        let (key, item) = item.unwrap();
        let (pk, sk) = key.value();
        ((pk.to_owned(), sk.to_owned()), item.value().to_vec())
    });
    items.collect()
}

/// The 32 hex digits that stand for a tenant in the store: its name's item holds them.
fn surrogate(items: &Items, id: &str) -> String {
    use sha2::Digest;
    let name: String = sha2::Sha256::digest(id).iter().map(|b| format!("{b:02x}")).collect();
    let item = &items[&(format!("1#default#N#{name}"), "-".to_owned())];
    let text = String::from_utf8_lossy(item);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let found = (0..text.len()).find_map(|at| text.get(at..at + 32).filter(|part| digits(part)));
    found.unwrap().to_owned()
}

/// Whether an item is part of the log of use: rows of all tenants in one item, and the list of who
/// writes. The only items that more than one tenant has a part in.
fn is_log((pk, _): &(String, String)) -> bool {
    ["L#", "F#", "R#"].iter().any(|kind| pk.starts_with(&format!("1#default#{kind}")))
}

/// What there is of a tenant: its rows of the log, and everything else that names it.
fn of_tenant(items: &Items, surrogate: &str) -> (Items, Items) {
    // Text has the digits, a row of the log the bytes.
    let bytes = u128::from_str_radix(surrogate, 16).unwrap().to_be_bytes();
    let names = |part: &[u8]| {
        part.windows(32).any(|w| w == surrogate.as_bytes()) || part.windows(16).any(|w| w == bytes)
    };
    let named = items
        .iter()
        .filter(|((pk, sk), item)| names(pk.as_bytes()) || names(sk.as_bytes()) || names(item));
    named.map(|(key, item)| (key.clone(), item.clone())).partition(|(key, _)| is_log(key))
}

/// All that a caller may try, up to the end of its quota.
fn traffic(api: &Api, key: &str, other: &str, other_surrogate: &str) {
    for (method, path) in [
        ("GET", "/v1/search"),
        ("POST", "/v1/accounts/a%23b/exports"),
        ("POST", "/v1/accounts/a%2Fb/exports"),
        ("POST", "/v1/accounts/..%2F..%2Fa%23b/exports"),
        ("POST", "/v1/upload"),
        ("GET", "/v1/stream?chunks=200"),
        ("GET", "/usage?tenant=a%23b"),
        ("GET", "/usage/history?meter=requests&tenant=a%23b"),
        ("GET", "/v1/nowhere"),
    ] {
        for forged in [other, other_surrogate] {
            let headers = [("x-api-key", key), ("x-tenant", forged), ("x-tenant-id", forged)];
            assert_ne!(api.raw(method, path, &headers, "some bytes").status, 429, "{path}");
        }
    }
    let (other_key, long) = (format!("{key}#b"), "k".repeat(300));
    for wrong in [other, other_surrogate, &other_key, &long] {
        assert_eq!(api.send("GET", "/v1/search", wrong).status, 401);
    }
    api.until("its quota is used up", |api| {
        let answer = api.send("GET", "/v1/search", key);
        answer.status == 429 && answer.body.contains("requests/month")
    });
}

#[tokio::test]
async fn nothing_of_one_is_changed_by_the_traffic_of_another() {
    let home = Home::new();
    home.edit_plans("\"10k/month\"", "\"40/month\"");
    home.edit_plans("\"30/min\"", "\"1k/s\"");
    home.edit_plans("\"5/s burst 10\"", "\"1k/s\"");
    let keys = enrol(&home, &ALIKE).await;
    let (a, others) = (&keys["a"], &ALIKE[1..]);

    let run = |run: &dyn Fn(&Api)| {
        let api = home.start();
        run(&api);
        api.terminate();
        assert!(api.ends_well());
        items(&home)
    };
    let before = run(&|api| {
        for id in others {
            for path in ["/v1/search", "/v1/stream?chunks=3", "/usage"] {
                assert_eq!(api.send("GET", path, &keys[*id]).status, 200);
            }
        }
    });
    let after = run(&|api| traffic(api, a, "a#b", &surrogate(&before, "a#b")));

    for id in others {
        let surrogate = surrogate(&before, id);
        let (log, own) = of_tenant(&before, &surrogate);
        let kinds = ["N#", "T#", "C#", "H#", "Q#"];
        let has = |kind: &&str| own.keys().any(|(pk, _)| pk.contains(*kind));
        assert!(kinds.iter().all(has) && !log.is_empty(), "{id}: {:?}", own.keys());
        // Slots of the log are written once: none was changed, and no new one has a row of theirs.
        assert_eq!(of_tenant(&after, &surrogate), (log, own), "{id}");
    }
    let a = surrogate(&before, "a");
    assert_ne!(of_tenant(&after, &a), of_tenant(&before, &a), "the traffic was a's");
}
