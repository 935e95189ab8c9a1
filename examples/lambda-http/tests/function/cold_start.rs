//! A fresh sandbox that an event waits for; and what the gate adds to a function's size and cold
//! start, where `benches/lambda/run` has built two binaries for that and names them in
//! `BOOTSTRAP_BARE` and `BOOTSTRAP_GATED`.
//!
//! By turns each is started anew, and timed from the start of its process until it asks for its
//! first event, which Lambda reports as `Init Duration` (its cold start), and until the answer to
//! that has been posted. The gated one opens its gate on a table in DynamoDB Local, and knows
//! neither caller nor tenant; the bare one answers one word. `LATE_MS` makes the table answer later
//! by so much: how often it is waited for, whatever else the machine does.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says where; a clock is what it is for"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use test_support::skips;

use crate::support::runtime_api::RuntimeApi;
use crate::support::{PROGRAM, Table};

const REST: &str = include_str!("../../events/rest-api.json");

/// Starts of each, unless `STARTS` says otherwise; at least 10 make a median.
const STARTS: usize = 20;

/// Starts of each before those that count: the table's server is slow to begin with.
const WARM_UP: usize = 3;

/// What the gate may add to a cold start.
const MOST_BYTES: u64 = 6_000_000;
const MOST_TIME: Duration = Duration::from_millis(30);

/// A start of each takes no less: the tenant's plan allows 10 requests a second.
const PAIR: Duration = Duration::from_millis(150);

/// One start.
struct Start {
    init: Duration,
    answer: Duration,
}

/// A process that is ended when dropped, as Lambda ends it: its units go back, and the next one
/// finds the table as this one did.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

#[test]
fn a_fresh_sandbox_answers_the_event_that_waits_for_it() {
    let Some(table) = skips::needed("cold start", Table::new(&[])) else { return };
    let path = |name| std::env::var(name).ok().map(PathBuf::from);
    match (path("BOOTSTRAP_BARE"), path("BOOTSTRAP_GATED")) {
        (Some(bare), Some(gated)) => measure(&table, &bare, &gated),
        _ => {
            let answered = (0..20).find_map(|_| start(&table, Path::new(PROGRAM)));
            let Start { init, answer } = answered.expect("a table that answers in time");
            assert!(init <= answer);
        }
    }
}

fn measure(table: &Table, bare: &Path, gated: &Path) {
    let late = std::env::var("LATE_MS");
    if let Ok(late) = &late {
        table.delay(Duration::from_millis(late.parse().unwrap()));
    }
    let starts = std::env::var("STARTS").map_or(STARTS, |n| n.parse().unwrap()).max(10);
    let (mut of_bare, mut of_gated) = (Vec::new(), Vec::new());
    let mut refused = 0;
    for at in 0.. {
        let begun = Instant::now();
        let pair = (start(table, bare), start(table, gated));
        std::thread::sleep(PAIR.saturating_sub(begun.elapsed()));
        match pair {
            _ if at < WARM_UP => {}
            (Some(bare), Some(gated)) => {
                of_bare.push(bare);
                of_gated.push(gated);
            }
            _ => refused += 1,
        }
        if of_gated.len() == starts {
            break;
        }
        assert!(refused < starts, "a table that answers in time");
    }
    if refused > 0 {
        println!("the gate: {refused} starts more were answered with 503, for a table too slow");
    }
    let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
    let (small, large) = (bytes(bare), bytes(gated));
    let (fast, slow) = (print("bare", small, &of_bare), print("gated", large, &of_gated));
    let bytes = large.saturating_sub(small);
    let init = slow.init.saturating_sub(fast.init);
    let word = |is_met| if is_met { "met" } else { "MISSED" };
    let of_time = match late {
        Ok(_) => "with a late table: not compared",
        Err(_) => word(init <= MOST_TIME),
    };
    println!(
        "the gate adds {:.2} MB (at most 6: {}), {:.1} ms to the cold start (at most 30: \
         {of_time}), and {:.1} ms until the first answer",
        megabytes(bytes),
        word(bytes <= MOST_BYTES),
        millis(init),
        millis(slow.answer.saturating_sub(fast.answer)),
    );
}

/// Starts a binary with an event that waits for it; `None` if the table did not answer in time.
fn start(table: &Table, program: &Path) -> Option<Start> {
    let api = RuntimeApi::sandbox();
    let id = api.invoke(REST);
    let begun = Instant::now();
    let process = table
        .command(program.to_str().unwrap())
        .env("AWS_LAMBDA_RUNTIME_API", api.address())
        .env("AWS_LAMBDA_FUNCTION_NAME", "cold")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let process = Ended(process);
    let answer = api.answer(&id);
    let answered = begun.elapsed();
    drop(process);
    if answer["statusCode"] == 503 {
        return None;
    }
    assert_eq!(answer["statusCode"], 200, "{answer}");
    Some(Start { init: api.first_poll().duration_since(begun), answer: answered })
}

/// Prints a line, and returns the medians.
fn print(name: &str, bytes: u64, starts: &[Start]) -> Start {
    let of = |time: fn(&Start) -> Duration| {
        let mut times: Vec<Duration> = starts.iter().map(time).collect();
        times.sort_unstable();
        (times[0], times[times.len() / 2])
    };
    let (init, answer) = (of(|start| start.init), of(|start| start.answer));
    println!(
        "{name}: {:.2} MB; init {:.1} ms (least {:.1}); first answer {:.1} ms (least {:.1}); \
         median of {} starts",
        megabytes(bytes),
        millis(init.1),
        millis(init.0),
        millis(answer.1),
        millis(answer.0),
        starts.len(),
    );
    Start { init: init.1, answer: answer.1 }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
