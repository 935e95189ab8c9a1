//! `dlq`: letters that a service has kept.

use tallygate::GateBuilder;

use crate::home::Home;

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"9/day\"\n";

/// What a service's consumer of a queue does.
async fn keep(home: &Home, messages: &[&str]) {
    let store = home.path("tallygate.redb");
    let text = format!("identify = []\n[store]\npath = {:?}\n", store.to_str().unwrap());
    let gate = GateBuilder::from_text(&text).plans(PLANS).open().await.unwrap();
    assert!(gate.ingest().messages(messages).await.iter().all(Result::is_err));
    gate.close().await.unwrap();
}

#[tokio::test]
async fn a_letter_is_listed_shown_replayed_and_dropped() {
    let home = Home::empty();
    home.write("plans.toml", PLANS);
    home.run(&["tenant", "create", "acme"]).ok();
    assert!(home.run(&["dlq", "list"]).stderr.contains("no letter is kept"));
    let scan = r#"{"id":"e1","TenantID":"acme","ProductCode":"scan-9","Quantity":3}"#;
    keep(&home, &[scan, "no JSON\u{1b}[2J"]).await;

    let list = home.run(&["dlq", "list", "--json"]).ok();
    let read = |line: &str| {
        let it: serde_json::Value = serde_json::from_str(line).unwrap();
        (it["id"].as_str().unwrap().to_owned(), it["why"].as_str().unwrap().to_owned())
    };
    let ids: Vec<_> = list.lines().map(read).collect();
    let (broken, scan): (Vec<_>, Vec<_>) = ids.iter().partition(|it| it.1.contains("not JSON"));
    let (broken, scan) = (&broken[0].0, &scan[0].0);
    let first = home.run(&["dlq", "list", "--limit", "1"]);
    assert!(first.stderr.contains(&format!("--after {}", ids[0].0)), "{}", first.stderr);
    let rest = home.run(&["dlq", "list", "--after", &ids[0].0, "--json"]).json();
    assert_eq!(rest["id"], *ids[1].0);
    let shown = home.run(&["dlq", "show", broken]).ok();
    assert!(shown.contains("no JSON\\u{1b}[2J"), "{shown}");
    assert!(home.run(&["dlq", "show", scan]).ok().contains("scan-9"));

    // It counts once the service file knows its product.
    assert!(!home.run(&["dlq", "replay", scan]).fails(2).is_empty());
    home.write(
        "tallygate.toml",
        "[ingest]\ntoken = { env = \"NONE\" }\nproducts = { scan-9 = \"requests\" }\n",
    );
    home.run(&["dlq", "replay", scan, "--dry-run"]).ok();
    assert_eq!(home.run(&["dlq", "replay", scan]).ok(), format!("{scan}: counted\n"));
    let usage = home.run(&["usage", "show", "acme", "--json"]).json();
    assert_eq!(usage["meters"][0]["used"], 3, "{usage}");
    home.run(&["dlq", "replay", scan]).fails(4);
    home.run(&["dlq", "drop", broken]).fails(5);
    home.run(&["dlq", "drop", broken, "--dry-run"]).ok();
    assert_eq!(home.run(&["dlq", "drop", broken, "--yes"]).ok(), format!("{broken}\n"));
    assert!(home.run(&["dlq", "list"]).stderr.contains("no letter is kept"));
}
