//! One hard limit over four real processes on one DynamoDB table, at full load, two of them killed
//! with SIGKILL and replaced; beside it plain periodic synchronisation, under the same script, with
//! clients that ask as often as ours were answered, and again at full load.
//!
//! A run: four processes serve eight clients each, which call as fast as they may. One process is
//! killed when a quarter of the limit is answered, another at a half; new ones take their places.
//! After [`seconds`] all are ended with SIGTERM. Then one process serves what is left, until that
//! is within [`STRANDED_PER_MILLE`]: it takes back what the dead provably did not serve, which it
//! does after 15 s of their silence. A fresh process says what is on record.
//!
//! For tallygate in mode `durable`, whatever the timing: answers 200 <= the record <= the limit.
//! The figures are printed, in one table.
//!
//!     cargo test -p crash-server nodes -- --nocapture
//!     NODES_SECONDS=30 cargo test -p crash-server nodes -- --nocapture
//!
//! `NODES_SECONDS` says how long the load lasts, 5 s without it. Nothing fails because the machine
//! is slow: a slow one only takes longer.

use std::time::{Duration, Instant};

use tallygate::store::DynamoDb;
use test_support::dynamodb::{Server as DynamoDbLocal, client};
use test_support::skips;

use crate::TURN;
use crate::load::{CLIENTS, Load, SHARED, Seen, Until};
use crate::server::{Files, Server, plans};

const NODES: usize = 4;

/// How long the load lasts, unless `NODES_SECONDS` says it. In 3 s, 76 of 1,500 units were out of
/// reach beside a compiler: what the dead had announced is the same of a longer run.
const SECONDS: u64 = 5;

/// Units of the limit for each second of load: less than four busy nodes in `durable` serve on two
/// busy cores, so that the end of the quota falls into the load.
const LIMIT_PER_SECOND: u64 = 500;

/// Records are not held back: what is shown is the limit at full load, not the pace.
const FLUSH: &str = "mode = \"durable\"\nmax-write-units = 10000";

/// Processes that are killed, when a quarter of the limit is answered and again at the half.
const KILLS: u64 = 2;

/// Most of the limit that may stay unserved. What the dead had announced to serve stays out of
/// reach: some tenths of a second of their load, which of a short run is a larger part.
const STRANDED_PER_MILLE: u64 = 10;
const STRANDED_PER_MILLE_OF_A_SHORT_RUN: u64 = 50;
const SHORT_RUN_SECONDS: u64 = 30;

/// How long the last process may take once it refuses: twice the silence after which it takes
/// back what the dead held.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// A long run goes on with the drain for so long, to see how little remains: each pool is looked
/// through every 2 s.
const SEE_ALL: Duration = Duration::from_secs(5);

/// Between two looks at how far the load is, and between two requests of a drain.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const DRAIN_EVERY: Duration = Duration::from_millis(20);

/// A process under load.
struct Node {
    server: Server,
    load: Load,
}

/// What came of a run.
struct Outcome {
    limit: u64,
    seen: Seen,
    recorded: u64,
    /// When half of the limit was answered.
    half_after: Duration,
    load_lasted: Duration,
    drain_lasted: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_never_pass_the_limit_that_periodic_counters_pass() {
    let _turn = TURN.lock().await;
    let Some(dynamo) = dynamo("nodes") else { return };
    let limit = seconds() * LIMIT_PER_SECOND;
    let client = client(dynamo.endpoint());
    for table in ["durable", "same-pace", "full-load"] {
        DynamoDb::create_table(&client, table, None).await.unwrap();
    }
    let plans = plans(&format!("quota.requests = \"{limit}/month\""));
    let ours = Files::on_table(dynamo.endpoint(), "durable", FLUSH, &plans);
    let theirs = |table| Files::periodic(dynamo.endpoint(), table, limit);

    let mut durable = load(&ours, limit, Duration::ZERO).await;
    let pause = durable.pause_of_a_client();
    let others = async {
        let same_pace = load(&theirs("same-pace"), limit, pause).await;
        (same_pace, load(&theirs("full-load"), limit, Duration::ZERO).await)
    };
    // A drain mostly waits: the others' load may go on beside it.
    let ((), (same_pace, full_load)) = tokio::join!(durable.drain(&ours), others);

    println!("nodes: {NODES} processes, {KILLS} killed, limit {limit}");
    println!("nodes: {}", Outcome::HEAD);
    println!("nodes: {}", durable.row("tallygate, durable"));
    println!("nodes: {}", same_pace.row("periodic, our pace"));
    println!("nodes: {}", full_load.row("periodic, full load"));
    assert!(durable.served() <= durable.recorded, "what was answered is on record");
    assert!(durable.recorded <= limit, "never above the limit");
    assert!(durable.seen.refused > 0, "the quota refuses in the end");
    let stranded = durable.unserved() * 1_000;
    assert!(stranded <= limit * stranded_per_mille(), "{} unserved", durable.unserved());
    assert!(full_load.overshoot() > 0, "a load that would show it");
}

impl Outcome {
    const HEAD: &str = "                    | answered 200 | on record | refused | 503 | \
                        overshoot | unserved | load   | drained after";

    fn served(&self) -> u64 {
        self.seen.served.len() as u64
    }

    fn overshoot(&self) -> u64 {
        self.served().saturating_sub(self.limit)
    }

    fn unserved(&self) -> u64 {
        self.limit.saturating_sub(self.served())
    }

    /// By which a client that is answered at once asks as often as these were answered.
    fn pause_of_a_client(&self) -> Duration {
        let asked_by_each = self.limit / 2 / (NODES * CLIENTS) as u64;
        self.half_after / u32::try_from(asked_by_each).unwrap().max(1)
    }

    fn row(&self, name: &str) -> String {
        let percent = |n: u64| n as f64 * 100.0 / self.limit as f64;
        format!(
            "{name:<19} | {:>12} | {:>9} | {:>7} | {:>3} | {:>7.2} % | {:>6.2} % | {:>4.1} s | \
             {:.1} s",
            self.served(),
            self.recorded,
            self.seen.refused,
            self.seen.unavailable,
            percent(self.overshoot()),
            percent(self.unserved()),
            self.load_lasted.as_secs_f64(),
            self.drain_lasted.as_secs_f64(),
        )
    }

    /// Serves what is left: see the [module](self).
    async fn drain(&mut self, files: &Files) {
        let begun = Instant::now();
        let last = Server::start(files);
        self.seen.add(Load::start(last.address, Until::Refused).end().await);
        let refused = Instant::now();
        let load = Load::of(SHARED, 1, last.address, Until::Stopped(DRAIN_EVERY));
        let enough = self.limit - self.limit * stranded_per_mille() / 1_000;
        while self.served() + load.served() < enough && refused.elapsed() < DRAINED_WITHIN {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if !is_short() {
            tokio::time::sleep(SEE_ALL).await;
        }
        self.drain_lasted = begun.elapsed();
        self.seen.add(load.stop().await);
        last.terminate().await;
        self.recorded = Server::start(files).recorded().await.requests;
    }
}

/// The load, and the record after it: see the [module](self).
async fn load(files: &Files, limit: u64, pause: Duration) -> Outcome {
    let mut seen = Seen::default();
    let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::start(files, pause)).collect();
    let begun = Instant::now();
    let mut half_after = Duration::ZERO;
    for kill in 1..=KILLS {
        let answered = |nodes: &[Node]| nodes.iter().map(|node| node.load.served()).sum::<u64>();
        while seen.served.len() as u64 + answered(&nodes) < limit * kill / 4 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let Node { server, load } = nodes.remove(0);
        server.kill();
        seen.add(load.stop().await);
        half_after = begun.elapsed();
        nodes.push(tokio::task::block_in_place(|| Node::start(files, pause)));
    }
    tokio::time::sleep(Duration::from_secs(seconds()).saturating_sub(begun.elapsed())).await;
    let load_lasted = begun.elapsed();
    for Node { server, load } in nodes {
        seen.add(load.stop().await);
        server.terminate().await;
    }
    let recorded = Server::start(files).recorded().await.requests;
    let drain_lasted = Duration::ZERO;
    Outcome { limit, seen, recorded, half_after, load_lasted, drain_lasted }
}

impl Node {
    fn start(files: &Files, pause: Duration) -> Self {
        let server = Server::start(files);
        let load = Load::start(server.address, Until::Stopped(pause));
        Self { server, load }
    }
}

/// How long the load lasts.
fn seconds() -> u64 {
    let given = std::env::var("NODES_SECONDS").ok();
    given.map_or(SECONDS, |given| given.parse().expect("NODES_SECONDS is a number"))
}

fn stranded_per_mille() -> u64 {
    if is_short() { STRANDED_PER_MILLE_OF_A_SHORT_RUN } else { STRANDED_PER_MILLE }
}

fn is_short() -> bool {
    seconds() < SHORT_RUN_SECONDS
}

/// A server, unless it cannot be had.
pub(crate) fn dynamo(test: &str) -> Option<DynamoDbLocal> {
    skips::needed(test, dynamodb_local::start(None))
}
