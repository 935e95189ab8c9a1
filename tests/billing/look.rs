//! The operator's `GET /billing`: entries by state, page by page, and of one tenant.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tallygate::admin::AdminRequest;
use tallygate::directory::Role;

use crate::bench::{Bench, KEY, SECRET, fault};

/// The status and the body of an operator's look.
async fn look(bench: &Bench, query: &str) -> (u16, Value) {
    let token = bench.gate.directory().new_operator("kim", Role::Read).await.unwrap();
    let admin = bench.gate.admin();
    let bearer = format!("Bearer {}", token.expose());
    let operator = admin.known(Some(bearer.as_bytes()), None).await.unwrap();
    let request = AdminRequest { method: "GET", path: "/billing", query, body: None, once: None };
    let reply = admin.reply(&operator, request).await;
    let text = String::from_utf8(reply.body).unwrap();
    assert!(!text.contains(KEY) && !text.contains(SECRET), "{text}");
    (reply.status, serde_json::from_str(&text).unwrap())
}

/// One entry is refused, one has no answer, one is accepted; a fourth tenant used nothing.
async fn four_entries(bench: &Bench) {
    for id in ["acme", "birch", "cedar", "delta"] {
        bench.customer(id).await;
    }
    let refused = json!({ "status": { "code": 400, "should_retry": false } });
    // The last one without an answer, for the next report would send it again.
    for (tenant, units, fails) in
        [("acme", 5, Some(refused)), ("cedar", 7, None), ("birch", 6, Some(json!("cut")))]
    {
        bench.use_(tenant, "requests", units).await;
        fails.iter().for_each(|kind| fault(bench, 4, kind));
        bench.report().await;
        bench.sim.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_shown_by_state_with_what_waits_for_an_operator() {
    let bench = Bench::new().await;
    let (status, empty) = look(&bench, "").await;
    assert_eq!((status, &empty["stripe"], &empty["items"]), (200, &true.into(), &0.into()));
    assert_eq!((&empty["states"], &empty["last-report"]), (&json!({}), &Value::Null), "{empty}");
    four_entries(&bench).await;

    let (_, all) = look(&bench, "").await;
    let states = all["states"].as_object().unwrap();
    assert_eq!(states["stopped"], 1, "{all}");
    let entries = all["entries"].as_array().unwrap();
    let of = |tenant: &str| entries.iter().find(|entry| entry["tenant"] == tenant);
    let acme = of("acme").unwrap();
    assert_eq!((&acme["state"], &acme["units"]), (&"stopped".into(), &5.into()), "{acme}");
    assert_eq!((&acme["meter"], &acme["retry"]), (&"requests".into(), &true.into()), "{acme}");
    assert!(acme["why"].as_str().unwrap().starts_with("refused: "), "{acme}");
    let uncertain = entries.iter().filter(|entry| entry["state"] == "uncertain").count();
    assert_eq!((uncertain, states.get("uncertain")), (1, Some(&1.into())), "{all}");
    assert_eq!(states["sent"], 1, "accepted, and not listed: {all}");
    assert_eq!(entries.len(), 2, "{all}");
    assert!(all["oldest"].is_string() && all["last-report"].is_string(), "{all}");
    assert!(all["reporter-until"].is_null() || all["reporter-until"].is_string());
    assert_eq!(all["next"], Value::Null);
}

/// Each page has whole tenants; together they have each entry once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_every_entry_once() {
    let bench = Bench::new().await;
    four_entries(&bench).await;
    let (_, all) = look(&bench, "").await;
    let (mut after, mut seen, mut pages, mut items) = (String::new(), Vec::new(), 0, 0);
    loop {
        let (status, page) = look(&bench, &format!("limit=1&after={after}")).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(page["entries"].as_array().unwrap().iter().map(|it| it["entry"].to_string()));
        (pages, items) = (pages + 1, items + page["items"].as_u64().unwrap());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((pages, items), (3, 3));
    let unique: BTreeSet<String> = seen.iter().cloned().collect();
    let once = all["entries"].as_array().unwrap().iter().map(|it| it["entry"].to_string());
    assert_eq!((seen.len(), unique), (2, once.collect()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tenant_has_its_entries_and_its_periods() {
    let bench = Bench::new().await;
    four_entries(&bench).await;
    let (_, acme) = look(&bench, "tenant=acme").await;
    assert_eq!(acme["entries"].as_array().unwrap().len(), 1, "{acme}");
    let [period] = acme["periods"].as_array().unwrap().as_slice() else { panic!("{acme}") };
    assert_eq!((&period["recorded"], &period["owed"]), (&"5".into(), &"5".into()), "{acme}");
    assert_eq!((&period["sent"], &period["event"]), (&0.into(), &"api_requests".into()), "{acme}");
    let (_, delta) = look(&bench, "tenant=delta").await;
    assert_eq!((&delta["items"], &delta["periods"]), (&0.into(), &json!([])), "{delta}");

    for (query, status) in [
        ("tenant=ghost", 404),
        ("after=x", 400),
        ("after=%2B000000000000000000000000000001", 400),
        ("limit=0", 400),
        ("limit=1001", 400),
        ("prefix=a", 400),
    ] {
        assert_eq!(look(&bench, query).await.0, status, "{query}");
    }
}
