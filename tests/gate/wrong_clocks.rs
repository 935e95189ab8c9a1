//! Processes whose clocks are wrong for a while: what they count is found, once, by every other
//! process and after their end.

use std::time::Duration;

use serde_json::Value;
use tallygate::ingest::{Counted, UsageEvent};
use tallygate::store::Memory;
use tallygate::testing::{self, START_MS};
use tallygate::{Ask, Clock, Gate, ManualClock};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.jobs]
    [plan.free]
    quota.jobs = "1000/month"
"#;

const DAY_MS: i64 = 86_400_000;

/// How wrong a clock is: at the epoch as after a boot, months behind, and in a later month.
const WRONG_MS: [i64; 4] = [-START_MS, -120 * DAY_MS, 31 * DAY_MS, 300 * DAY_MS];

struct Process {
    gate: Gate,
    clock: ManualClock,
}

impl Process {
    async fn start(store: &Memory, wrong_ms: i64) -> Self {
        let clock = ManualClock::at_unix_ms(START_MS + wrong_ms);
        let builder = testing::builder(PLANS).store(store.clone()).clock(clock.clone());
        Self { gate: builder.open().await.unwrap(), clock }
    }

    async fn uses(&self, units: u64) {
        let acme = self.gate.tenant("acme").await.unwrap();
        self.gate.admit(Ask::new(&acme, "job").cost("jobs", units)).await.unwrap().settle();
        self.gate.flush_now().await.unwrap();
    }

    async fn ingests(&self, id: &str, units: u64) {
        let event = UsageEvent::new(id, "acme", "jobs", units);
        assert_eq!(self.gate.ingest().events(vec![event]).await, [Ok(Counted::Now)], "{id}");
    }

    /// What the tenant's history says of all time.
    async fn history(&self) -> u64 {
        // What was read a moment ago is not read again.
        self.clock.advance(Duration::from_secs(2));
        let who = testing::identified(&self.gate, "acme").await;
        // As far ahead as a history goes.
        let is_late = self.clock.now().wall_ms > START_MS + 366 * DAY_MS;
        let to = if is_late { "2027-12-01" } else { "2027-03-01" };
        let mut used = 0;
        for span in ["from=1970-01-01&to=1970-01-03", &format!("from=2025-01-01&to={to}")] {
            let reply = self.gate.history_reply(&who, &format!("meter=jobs&{span}")).await;
            let said: Value = serde_json::from_slice(&reply.body).unwrap();
            let rows = said["rows"].as_array().unwrap_or_else(|| panic!("{said}"));
            used += rows.iter().map(|row| row["used"].as_u64().unwrap()).sum::<u64>();
        }
        used
    }

    /// What the tenant's report says of this month.
    async fn report(&self) -> u64 {
        self.clock.advance(Duration::from_secs(2));
        let who = testing::identified(&self.gate, "acme").await;
        let report = self.gate.usage_report(&who).await.unwrap();
        report.meters.iter().find(|meter| &*meter.name == "jobs").unwrap().used.whole()
    }

    async fn close(self) {
        self.gate.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_process_counts_is_found_once_however_wrong_its_clock_was_when_it_started() {
    for wrong_ms in WRONG_MS {
        let store = Memory::new();
        let other = Process::start(&store, 0).await;
        other.uses(2).await;
        assert_eq!((other.report().await, other.history().await), (2, 2));

        let process = Process::start(&store, wrong_ms).await;
        process.uses(3).await;
        process.clock.step_wall(-wrong_ms);
        process.uses(4).await;
        process.uses(1).await;
        for seen_by in [&other, &process] {
            let seen = (seen_by.report().await, seen_by.history().await);
            assert_eq!(seen, (7, 10), "{wrong_ms} ms");
        }
        process.close().await;
        let later = Process::start(&store, 0).await;
        for seen_by in [&other, &later] {
            let seen = (seen_by.report().await, seen_by.history().await);
            assert_eq!(seen, (7, 10), "after its end, {wrong_ms} ms");
        }
    }
}

#[tokio::test]
async fn a_process_that_dies_while_its_clock_is_wrong_is_found_by_those_that_run_and_by_the_next() {
    for wrong_ms in WRONG_MS {
        let store = Memory::new();
        let other = Process::start(&store, 0).await;
        assert_eq!(other.history().await, 0);
        let process = Process::start(&store, wrong_ms).await;
        process.uses(3).await;
        drop(process);
        other.clock.advance(Duration::from_secs(60));
        assert_eq!(other.history().await, 3, "{wrong_ms} ms");
        assert_eq!(Process::start(&store, 0).await.history().await, 3, "{wrong_ms} ms");
    }
}

#[tokio::test]
async fn a_store_that_was_made_while_the_clock_was_wrong_shows_all_that_was_used_since() {
    for wrong_ms in WRONG_MS {
        let store = Memory::new();
        Process::start(&store, wrong_ms).await.close().await;
        for n in 0..3 {
            let process = Process::start(&store, 0).await;
            assert_eq!((process.report().await, process.history().await), (5 * n, 5 * n));
            process.uses(5).await;
            process.close().await;
        }
        // The clock passes the date of the store's making.
        let later = Process::start(&store, wrong_ms.max(0) + DAY_MS).await;
        assert_eq!(later.history().await, 15, "{wrong_ms} ms");
    }
}

/// Events have a log of their own.
#[tokio::test]
async fn what_a_process_ingests_is_found_once_however_wrong_its_clock_was_when_it_started() {
    for wrong_ms in WRONG_MS {
        let store = Memory::new();
        let other = Process::start(&store, 0).await;
        other.uses(2).await;
        let process = Process::start(&store, wrong_ms).await;
        process.ingests("a", 3).await;
        process.clock.step_wall(-wrong_ms);
        process.ingests("b", 4).await;
        assert_eq!((other.report().await, other.history().await), (6, 9), "{wrong_ms} ms");
        drop(process);
        let later = Process::start(&store, 0).await;
        assert_eq!((later.report().await, later.history().await), (6, 9), "{wrong_ms} ms");
    }
}

/// A reader's own clock.
#[tokio::test]
async fn a_process_whose_clock_is_set_finds_those_that_had_the_time() {
    for wrong_ms in WRONG_MS {
        let store = Memory::new();
        let other = Process::start(&store, 0).await;
        other.uses(2).await;
        let process = Process::start(&store, wrong_ms).await;
        process.report().await;
        other.close().await;
        let another = Process::start(&store, 0).await;
        another.uses(5).await;
        process.clock.step_wall(-wrong_ms);
        assert_eq!((process.report().await, process.history().await), (7, 7), "{wrong_ms} ms");
    }
}

#[tokio::test]
async fn a_process_that_runs_for_years_is_found_after_its_end() {
    let store = Memory::new();
    let process = Process::start(&store, 0).await;
    process.uses(2).await;
    process.clock.advance(Duration::from_secs(600 * 86_400));
    process.uses(3).await;
    process.close().await;
    let later = Process::start(&store, 610 * DAY_MS).await;
    assert_eq!(later.history().await, 5);
}
