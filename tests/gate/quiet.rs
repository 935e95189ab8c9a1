//! Leases that fall quiet on a store of one process: a killed process loses no units of note with
//! them. In real time, because a redb file has threads of its own.

use std::time::Duration;

use tallygate::testing;
use tallygate::{Ask, Gate, GateBuilder, Identified, ManualClock};
use test_support::lives::copy_at_one_moment;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    [meter.credits]
    [meter.calls]
    [plan.free]
    quota.tokens  = "200/day"
    quota.credits = "100000"
    quota.calls   = "100000/day"
"#;

struct Bed {
    clock: ManualClock,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let clock = ManualClock::at_unix_ms(testing::START_MS);
        let bed = Self { clock, folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(bed.folder.path().join("first")).unwrap();
        bed
    }

    async fn open(&self, life: &str) -> Gate {
        let path = self.folder.path().join(life).join("store.redb");
        let service = format!(
            "[store]\nkind = \"redb\"\npath = {path:?}\n[flush]\nevery = \"50ms\"\n\
             [identity]\nunknown = \"create\"\n"
        );
        let builder = GateBuilder::from_text(&service).plans(PLANS).work_only();
        builder.clock(self.clock.clone()).open().await.unwrap()
    }

    /// What a process that is killed now leaves: its files as they stand.
    fn killed(&self, life: &str) {
        let lives = self.folder.path().join(life);
        copy_at_one_moment(&self.folder.path().join("first"), &lives);
    }

    /// The clock passes this much while tasks run.
    async fn passes(&self, time: Duration) {
        for _ in 0..40 {
            self.clock.advance(time / 40);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

async fn ask(gate: &Gate, meter: &str, units: u64) -> Ask {
    Ask::new(&gate.tenant("acme").await.unwrap(), "work").cost(meter, units)
}

/// What a meter's first limit, or first grant, has used.
async fn used(gate: &Gate, meter: &str) -> u64 {
    let who = Identified::from(&gate.tenant("acme").await.unwrap());
    let report = gate.usage_report(&who).await.unwrap();
    let meter = report.meters.into_iter().find(|it| &*it.name == meter).unwrap();
    let limit = meter.limits.first().map(|limit| limit.used.whole());
    limit.unwrap_or_else(|| meter.grants[0].used.whole())
}

#[tokio::test]
async fn a_process_killed_in_quiet_strands_no_units_of_note() {
    let bed = Bed::new();
    let gate = bed.open("first").await;
    let tokens = gate.admit(ask(&gate, "tokens", 100).await).await.unwrap();
    tokens.settle_with("tokens", 5);
    for meter in ["credits", "calls"] {
        gate.admit(ask(&gate, meter, 3).await).await.unwrap().settle();
    }
    gate.flush_now().await.unwrap();
    bed.passes(Duration::from_secs(4)).await;
    // What is small beside its limit stays in memory: no call waits for the store.
    assert!(gate.try_admit_now(&ask(&gate, "calls", 3).await).is_some());
    assert!(gate.try_admit_now(&ask(&gate, "credits", 3).await).is_none(), "it was given back");
    bed.killed("second");

    let next = bed.open("second").await;
    assert_eq!((used(&next, "tokens").await, used(&next, "credits").await), (5, 3));
    let mut served = 0;
    while let Ok(permit) = next.admit(ask(&next, "tokens", 5).await).await {
        permit.settle();
        served += 5;
    }
    assert_eq!(served, 195, "all that is left of 200");
    next.close().await.unwrap();
    gate.close().await.unwrap();
}

/// Callers who come every few seconds lease anew each time, and no more than the first time.
#[tokio::test]
async fn leases_of_sparse_callers_do_not_grow() {
    let bed = Bed::new();
    let gate = bed.open("first").await;
    for n in 1..=6 {
        gate.admit(ask(&gate, "credits", 1).await).await.unwrap().settle();
        gate.flush_now().await.unwrap();
        bed.killed(&n.to_string());
        let killed = bed.open(&n.to_string()).await;
        let stranded = used(&killed, "credits").await - n;
        assert!(stranded <= 8, "{stranded} of the {n}th call: as of a first lease");
        killed.close().await.unwrap();
        bed.passes(Duration::from_secs(3)).await;
    }
    gate.close().await.unwrap();
}
