//! Every block of TOML in a page is a plan file, a service file, or dependencies, and is read as
//! that.

use std::path::Path;

use tallygate::{GateBuilder, testing};

use crate::support::{blocks, page};

/// Tables and keys of a service file, which no plan file has.
const OF_SERVICES: [&str; 14] = [
    "store",
    "plans",
    "identify",
    "identity",
    "proxy",
    "http",
    "stripe",
    "flush",
    "ingest",
    "ledger",
    "log",
    "capacity",
    "decisions",
    "notify",
];

/// Parts of plan files that stand on others: the page, what the block contains, and what to put
/// around it.
const AROUND: [(&str, &str, &str); 1] = [(
    "docs/billing.md",
    "on-payment-method",
    "[meter.requests]\nstripe = { event = \"r\", send = \"all\" }\n[plan.payg]\n\
     stripe = { price = \"p\" }\nquota.requests = \"unlimited\"\n",
)];

fn pages() -> Vec<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let listed = std::fs::read_dir(docs).unwrap().map(|it| it.unwrap().file_name());
    let names = listed.map(|it| format!("docs/{}", it.to_str().unwrap()));
    let mut pages: Vec<_> = names.filter(|it| it.ends_with(".md")).collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

/// What is wrong with a block.
async fn fault(path: &str, text: &str) -> Result<(), String> {
    let table: toml::Table = text.parse().map_err(|error| format!("no TOML: {error}"))?;
    let is_manifest = ["dependencies", "dev-dependencies"].iter().any(|it| table.contains_key(*it));
    if is_manifest || table.values().all(is_dependency) {
        return Ok(());
    }
    if table.keys().any(|key| OF_SERVICES.contains(&&**key)) {
        return GateBuilder::from_text(text)
            .dynamodb_table()
            .map(drop)
            .map_err(|it| it.to_string());
    }
    let (mut plans, mut after) = (String::new(), String::new());
    if !table.contains_key("default-plan") {
        plans.push_str("default-plan = \"free\"\n");
    }
    let has_free = table.get("plan").is_some_and(|it| it.get("free").is_some());
    if !has_free && !table.contains_key("default-plan") {
        after.push_str("\n[plan.free]\n");
    }
    for (_, _, around) in AROUND.iter().filter(|(page, of, _)| *page == path && text.contains(of)) {
        after.push_str(around);
    }
    let plans = plans + text + &after;
    testing::builder(&plans).open().await.map(drop).map_err(|error| error.to_string())
}

/// A line of `[dependencies]`.
fn is_dependency(value: &toml::Value) -> bool {
    value.is_str() || value.get("version").is_some()
}

#[tokio::test]
async fn every_block_of_toml_is_read_as_what_it_is() {
    let (mut faults, mut seen) = (Vec::new(), 0);
    for path in pages() {
        for (at, text) in blocks(&page(&path), "toml") {
            seen += 1;
            if let Err(what) = fault(&path, &text).await {
                faults.push(format!("{path}:{at}: {what}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(seen > 15, "only {seen} blocks were found");
}

#[tokio::test]
async fn blocks_that_cannot_be_read_are_found() {
    let page = "docs/plans.md";
    assert!(fault(page, "[plan.free]\nquota.requests = \"5/moon\"").await.is_err());
    assert!(fault(page, "[store]\npth = \"a\"").await.is_err());
    assert!(fault(page, "[plan.free").await.is_err());
    assert_eq!(fault(page, "[plan.free]\nquota.requests = \"5/month\"").await, Ok(()));
    assert_eq!(fault(page, "axum = \"0.8\"").await, Ok(()));
}
