//! A backup of the store's file while the gate serves.

use tallygate::store::{Memory, Redb};
use tallygate::{Ask, Gate, GateBuilder, Identified};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "1000/day"
"#;

async fn open(path: &std::path::Path) -> Gate {
    let service = "identify = []\nidentity.unknown = \"create\"\n";
    let builder = GateBuilder::from_text(service).plans(PLANS);
    builder.store(Redb::open(path).unwrap()).open().await.unwrap()
}

async fn use_(gate: &Gate, times: usize) {
    let acme = gate.tenant("acme").await.unwrap();
    for _ in 0..times {
        gate.admit(Ask::new(&acme, "work").cost("requests", 1)).await.unwrap().settle();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_backs_its_file_up_and_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("t.redb"), folder.path().join("b.redb"));
    let gate = open(&path).await;
    use_(&gate, 5).await;
    let (backed_up, ()) = tokio::join!(gate.backup(&copy), use_(&gate, 40));
    assert!(backed_up.unwrap() > 4);
    use_(&gate, 40).await;
    let again = gate.backup(&copy).await.unwrap_err().to_string();
    assert!(again.contains("is left as it is"), "{again}");
    gate.close().await.unwrap();
    assert!(gate.backup(folder.path().join("c.redb")).await.is_err(), "it is closed");

    let gate = open(&copy).await;
    let who = Identified::from(&gate.tenant("acme").await.unwrap());
    let used = gate.usage_report(&who).await.unwrap().meters[0].used;
    assert!((5..=45).any(|n| used == n), "what was used until that instant: {used}");
    gate.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_in_no_file_says_what_to_do() {
    let builder = GateBuilder::from_text("identify = []\n").plans(PLANS).store(Memory::new());
    let gate = builder.open().await.unwrap();
    let refused = gate.backup("b.redb").await.unwrap_err().to_string();
    assert!(refused.contains("point-in-time recovery"), "{refused}");
}
