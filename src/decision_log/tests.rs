//! The log against a naive model: what was decided is in it, within its bounds, whatever happens
//! to disk and process.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::decision::{Reason, Refusal};

fn config(folder: &Path, admissions: u32, max_bytes: u64) -> DecisionsConfig {
    DecisionsConfig { file: folder.join("decisions.ndjson"), admissions, max_bytes }
}

fn parts(tenant: &str, n: i64) -> DecisionParts {
    DecisionParts {
        at_ms: n,
        kind: kind::REQUEST,
        tenant: (!tenant.is_empty()).then(|| tenant.into()),
        ..DecisionParts::default()
    }
}

fn refused(tenant: &str, n: i64) -> DecisionRecord {
    DecisionRecord::refused(parts(tenant, n), &Refusal::new(Reason::Exhausted))
}

/// An admission that is drawn for the log.
#[derive(Debug)]
struct Sample(DecisionRecord);

impl SampledDecision for Sample {
    fn record(&self) -> DecisionRecord {
        self.0.clone()
    }
}

/// The lines of these files, the oldest first; and their bytes. Panics on a line that is torn.
fn lines(folder: &Path, name: &str) -> (Vec<DecisionRecord>, u64) {
    let names = [format!("{name}.3"), format!("{name}.2"), format!("{name}.1"), name.to_owned()];
    let (mut found, mut bytes) = (Vec::new(), 0);
    for text in names.iter().filter_map(|name| std::fs::read_to_string(folder.join(name)).ok()) {
        assert!(text.is_empty() || text.ends_with('\n'));
        bytes += text.len() as u64;
        found.extend(text.lines().map(|line| {
            serde_json::from_str::<DecisionRecord>(line).unwrap_or_else(|e| panic!("{line}: {e}"))
        }));
    }
    (found, bytes)
}

fn line(record: &DecisionRecord) -> String {
    serde_json::to_string(record).unwrap() + "\n"
}

async fn close(log: &DecisionLog) {
    let now = Instant::now();
    log.close(now + Duration::from_secs(10), now).await;
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Some processes one after the other, each with some decisions.
    #[test]
    fn every_refusal_is_there_and_one_in_n_admissions(
        every in 0_u32..5,
        processes in proptest::collection::vec(
            proptest::collection::vec((any::<bool>(), "[a-c]?"), 0..80), 1..4,
        ),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut model, mut n) = (Vec::new(), 0);
        for decisions in &processes {
            run(async {
                let log = DecisionLog::open(Some(&config(folder.path(), every, 1 << 30))).await;
                let log = log.unwrap();
                let mut admissions = 0;
                for (is_refused, tenant) in decisions {
                    n += 1;
                    if *is_refused {
                        model.push((true, n));
                        log.take(refused(tenant, n));
                        continue;
                    }
                    if every > 0 && admissions % every == 0 {
                        model.push((false, n));
                    }
                    admissions += 1;
                    if log.takes_admission() {
                        let admitted = DecisionRecord::admitted(parts(tenant, n), every);
                        log.take(Unwritten::Sampled(Box::new(Sample(admitted))));
                    }
                }
                close(&log).await;
            });
        }
        let (found, _) = lines(folder.path(), "decisions.ndjson");
        let found: Vec<_> = found.iter().map(|it| (it.is_refusal(), it.at_ms)).collect();
        prop_assert_eq!(found, model);
    }

    /// Lines of any length, in any batches: the newest are there, and no more bytes than allowed.
    #[test]
    fn files_rotate_within_their_bytes(
        lengths in proptest::collection::vec(0_usize..400, 1..300),
        batch in 1_usize..50,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (path, most) = (folder.path().join("x.ndjson"), 8_000);
        let files = file::LogFiles::open(&path, most).unwrap();
        let record = |(n, len): (usize, &usize)| refused(&"t".repeat(*len), n as i64);
        let records: Vec<_> = lengths.iter().enumerate().map(record).collect();
        for batch in records.chunks(batch) {
            let text: String = batch.iter().map(line).collect();
            files.append(text.as_bytes()).unwrap();
        }
        let (found, bytes) = lines(folder.path(), "x.ndjson");
        prop_assert!(bytes <= most);
        prop_assert_eq!(&records[records.len() - found.len()..], &found[..]);
        let all: usize = records.iter().map(|it| line(it).len()).sum();
        // Three full files less a line that did not fit into each.
        prop_assert!(bytes as usize >= all.min(3 * (2_000 - 700)), "{bytes} of {all}");
    }

    /// Memory has what a model that sorts through all of them has.
    #[test]
    fn memory_has_the_last_of_each(
        tenants in proptest::collection::vec((0_usize..40, 1_usize..400), 1..40),
    ) {
        let (recent, mut model, mut n) = (RecentDecisions::default(), Vec::new(), 0);
        for (tenant, times) in tenants {
            let tenant = if tenant == 0 { String::new() } else { format!("t{tenant}") };
            for _ in 0..times {
                n += 1;
                recent.note(Arc::new(refused(&tenant, n)));
                model.push((tenant.clone(), n));
                let own = model.iter().filter(|it| it.0 == tenant).count();
                let oldest = match own > recent::MOST_EACH {
                    true => model.iter().position(|it| it.0 == tenant),
                    false => (model.len() > recent::MOST).then_some(0),
                };
                oldest.map(|at| model.remove(at));
            }
        }
        let at = |found: Vec<Arc<DecisionRecord>>| -> Vec<i64> {
            found.iter().map(|it| it.at_ms).collect()
        };
        let all: Vec<i64> = model.iter().rev().map(|it| it.1).collect();
        prop_assert_eq!(at(recent.last(None, usize::MAX)), all);
        for tenant in [None, Some("t1"), Some("t2")] {
            let own = model.iter().rev().filter(|it| it.0 == tenant.unwrap_or_default());
            let own: Vec<i64> = own.map(|it| it.1).take(7).collect();
            prop_assert_eq!(at(recent.last(Some(tenant), 7)), own);
        }
    }
}

#[tokio::test]
async fn what_a_full_queue_does_not_take_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(Some(&config(folder.path(), 1, 1 << 30))).await.unwrap();
    // The task has no turn meanwhile.
    (0..QUEUE as i64 + 7).for_each(|n| log.take(refused("acme", n)));
    assert_eq!(lost(&log), 7);
    close(&log).await;
    let (found, _) = lines(folder.path(), "decisions.ndjson");
    let at: Vec<_> = found.iter().map(|it| it.at_ms).collect();
    assert_eq!(at, (0..QUEUE as i64).collect::<Vec<_>>());
    let newest = &log.refusals(Some(Some("acme")), 1)[0];
    assert_eq!(newest.at_ms, QUEUE as i64 + 6, "memory has those that the file lacks");
}

#[tokio::test]
async fn what_a_close_cannot_write_in_time_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(Some(&config(folder.path(), 1, 1 << 30))).await.unwrap();
    (0..5).for_each(|n| log.take(refused("acme", n)));
    let now = Instant::now();
    log.close(now - Duration::from_secs(1), now).await; // the task has had no turn
    assert_eq!(lost(&log), 5);
    tokio::task::yield_now().await; // it is aborted here
    log.take(refused("acme", 6));
    assert_eq!(lost(&log), 6, "nor what comes after it");
}

#[tokio::test]
async fn what_a_log_without_a_close_has_in_hand_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(Some(&config(folder.path(), 1, 1 << 30))).await.unwrap();
    (0..5).for_each(|n| log.take(refused("acme", n)));
    let losing = log.on.as_ref().unwrap().losing.clone();
    drop(log);
    assert_eq!(losing.lines.load(Ordering::Relaxed), 5);
}

fn lost(log: &DecisionLog) -> u64 {
    log.on.as_ref().unwrap().losing.lines.load(Ordering::Relaxed)
}

/// Takes a record, and lets the task write it.
async fn taken(log: &DecisionLog, n: i64) {
    log.take(refused("acme", n));
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let on = log.on.as_ref().unwrap();
        if on.queue.capacity() == QUEUE && on.losing.is.load(Ordering::Relaxed) == (n == 2) {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
}

#[tokio::test]
async fn a_disk_that_fails_loses_lines_and_says_so_until_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let log = DecisionLog::open(Some(&config(&logs, 1, 1 << 30))).await.unwrap();
    taken(&log, 1).await;
    assert_eq!(lines(&logs, "decisions.ndjson").0.len(), 1);
    std::fs::remove_dir_all(&logs).unwrap();
    taken(&log, 2).await;
    assert_eq!(lost(&log), 1);
    std::fs::create_dir(&logs).unwrap();
    taken(&log, 3).await;
    close(&log).await;
    assert_eq!(log.refusals(Some(Some("acme")), 9).len(), 3, "memory has them all");
    let (found, _) = lines(&logs, "decisions.ndjson");
    assert_eq!(found.iter().map(|it| it.at_ms).collect::<Vec<_>>(), [3]);
    assert_eq!(lost(&log), 1);
}

#[tokio::test]
async fn a_line_that_a_kill_has_torn_is_ended_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1, 1 << 30);
    let log = DecisionLog::open(Some(&config)).await.unwrap();
    log.take(refused("acme", 1));
    log.take(refused("acme", 2));
    close(&log).await;
    drop(log);
    let text = std::fs::read(&config.file).unwrap();
    std::fs::write(&config.file, &text[..text.len() - 9]).unwrap();

    let log = DecisionLog::open(Some(&config)).await.unwrap();
    let kept = log.refusals(None, 9);
    assert_eq!(kept.iter().map(|it| it.at_ms).collect::<Vec<_>>(), [1], "from the file's end");
    log.take(refused("acme", 3));
    close(&log).await;
    let text = std::fs::read_to_string(&config.file).unwrap();
    let at = text.lines().map(|line| serde_json::from_str(line).ok());
    let at: Vec<_> = at.map(|it: Option<DecisionRecord>| it.map(|it| it.at_ms)).collect();
    assert_eq!(at, [Some(1), None, Some(3)]);
}

#[test]
fn threads_and_processes_write_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = config(folder.path(), 1, 1 << 30);
        // Two processes, as far as a file's lock can tell.
        let first = DecisionLog::open(Some(&config)).await.unwrap();
        let second = DecisionLog::open(Some(&config)).await.unwrap();
        std::thread::scope(|scope| {
            for log in [&first, &second] {
                for thread in 0..4 {
                    scope.spawn(move || {
                        (0..500).for_each(|n| log.take(refused(&format!("{thread}"), n)))
                    });
                }
            }
        });
        close(&first).await;
        close(&second).await;
    });
    for name in ["decisions.ndjson", "decisions-2.ndjson"] {
        let (found, _) = lines(folder.path(), name);
        for thread in 0..4 {
            let own = found.iter().filter(|it| it.tenant.as_deref() == Some(&*thread.to_string()));
            let at: Vec<_> = own.map(|it| it.at_ms).collect();
            assert_eq!(at, (0..500).collect::<Vec<_>>(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for file in [PathBuf::from("/dev/full"), folder.path().to_owned(), folder.path().join("a/b")] {
        let config = DecisionsConfig { file, admissions: 1, max_bytes: 1 << 20 };
        assert!(DecisionLog::open(Some(&config)).await.is_err(), "{config:?}");
    }
}

#[test]
fn a_record_is_read_back_as_it_was_and_has_no_more_than_ids() {
    let record = refused("acme", 1_795_256_636_250);
    let line = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<DecisionRecord>(&line).unwrap(), record);
    assert_eq!(
        line,
        r#"{"at":"2026-11-21T10:23:56.25Z","kind":"request","verdict":"refused","tenant":"acme","#
            .to_owned()
            + r#""user":null,"key":null,"route":null,"plan":null,"revision":0,"#
            + r#""reason":"quota-exceeded","limit":null,"status":429,"retry_after_seconds":1}"#
    );
}

#[test]
fn each_reason_has_a_word_of_its_own() {
    let payment = crate::decision::Payment::Unpaid;
    let words = [
        (Reason::Unidentified, "unidentified"),
        (Reason::Exhausted, "quota-exceeded"),
        (Reason::Concurrency, "concurrency-exceeded"),
        (Reason::PaymentRequired(payment), "payment-required"),
        (Reason::FeatureMissing("x".into()), "feature-not-in-plan"),
        (Reason::PermissionMissing("x".into()), "permission-missing"),
        (Reason::ScopeMissing("user".into()), "scope-missing"),
        (Reason::Suspended, "suspended"),
        (Reason::Unavailable, "temporary-reduced-capacity"),
        (Reason::LengthRequired, "length-required"),
        (Reason::IdempotencyConflict, "idempotency-conflict"),
        (Reason::NotMetered("x".into()), "not-metered"),
    ];
    for (reason, word) in words {
        let record = DecisionRecord::refused(DecisionParts::default(), &Refusal::new(reason));
        assert_eq!(record.reason.as_deref(), Some(word));
    }
}
