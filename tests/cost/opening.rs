//! Time of `Gate::open` on a redb file with many tenants: all of the file is read once.
//!
//!     TALLYGATE_TENANTS=1000000 cargo test --release --features testing --test cost opening -- \
//!         --nocapture

use std::time::Duration;

use tallygate::{Gate, GateBuilder};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Tenants that are made at once: many share a sync.
const AT_ONCE: u32 = 512;

/// The longest that opening may take for a tenant: a second for 20,000, on a slow disk and without
/// optimisation.
const MOST_EACH: Duration = Duration::from_micros(500);

async fn open(service: &str) -> Gate {
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"200/month\"";
    GateBuilder::from_text(service).plans(plans).open().await.unwrap()
}

#[tokio::test]
async fn a_gate_opens_on_a_file_with_many_tenants() {
    let tenants = std::env::var("TALLYGATE_TENANTS").map_or(2_000, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let service = format!(
        "identify = []\n[store]\nkind = \"redb\"\npath = \"{}\"\n[flush]\nmode = \"fast\"\n",
        path.display()
    );
    let gate = open(&service).await;
    let mut makers = JoinSet::new();
    for first in 0..AT_ONCE {
        let directory = gate.directory().clone();
        makers.spawn(async move {
            for i in (first..tenants).step_by(AT_ONCE as usize) {
                directory.tenant(&format!("tenant-{i}")).save().await.unwrap();
            }
        });
    }
    makers.join_all().await;
    gate.close().await.unwrap();

    let bytes = std::fs::metadata(&path).unwrap().len();
    let begun = Instant::now();
    let gate = open(&service).await;
    let took = begun.elapsed();
    println!("cost: {tenants} tenants, {} MB: opened in {took:?}", bytes >> 20);
    assert!(took < Duration::from_millis(500) + MOST_EACH * tenants, "{took:?}");
    let last = gate.directory().find(&format!("tenant-{}", tenants - 1)).await.unwrap();
    assert!(last.is_some(), "what was made is there");
    gate.close().await.unwrap();
}
