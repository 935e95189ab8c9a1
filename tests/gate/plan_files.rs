//! Plan files that several processes of one store read, each at its own time.

use std::time::Duration;

use tallygate::store::Memory;
use tallygate::testing::{self, Plans};
use tallygate::{Ask, Gate};
use test_support::clocks::Paused;
use test_support::stores::Shared;

fn plans(daily: u32) -> String {
    format!(
        "default-plan = \"free\"
        [meter.jobs]
        [plan.free]
        quota.jobs = \"{daily}/day\""
    )
}

/// Asks until refused. Returns the number admitted.
async fn serve(gate: &Gate) -> u32 {
    let (acme, mut served) = (gate.tenant("acme").await.unwrap(), 0);
    while let Ok(permit) = gate.admit(Ask::new(&acme, "job").cost("jobs", 1)).await {
        permit.settle();
        served += 1;
    }
    served
}

/// A mistake reaches one process and is taken back before the other has seen it. The first has
/// lowered the pool meanwhile, and gets no more calls of this tenant.
#[tokio::test(start_paused = true)]
async fn a_limit_that_was_lowered_elsewhere_for_a_while_is_whole_again_where_it_never_was() {
    for stays_open in [true, false] {
        let (store, clock) = (Memory::new(), Paused::now());
        let files = [Plans::new(&plans(100)), Plans::new(&plans(100))];
        let open = async |file: &Plans| {
            let builder = file.read_by(testing::builder("")).store(Shared(store.clone()));
            builder.clock(clock).open().await.unwrap()
        };
        let (one, two) = (open(&files[0]).await, open(&files[1]).await);
        two.tenant("acme").await.unwrap();

        files[0].set(&plans(10));
        assert!(one.reload().await.unwrap());
        assert_eq!(serve(&one).await, 10);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(serve(&two).await, 0, "by the newer file, which may be on its way here");
        files[0].set(&plans(100));
        assert!(one.reload().await.unwrap());
        if !stays_open {
            one.close().await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(serve(&two).await, 90, "stays open: {stays_open}");
        let who = testing::identified(&two, "acme").await;
        let report = two.usage_report(&who).await.unwrap();
        let jobs = report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap();
        assert_eq!((jobs.used.whole(), jobs.limits[0].used.whole()), (100, 100));
    }
}
