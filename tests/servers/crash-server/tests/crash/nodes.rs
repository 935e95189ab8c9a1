//! One hard limit over four real processes on one DynamoDB table, at full load, two of them killed
//! with SIGKILL and replaced; beside it plain periodic synchronisation, under the same script.
//!
//! A run: four processes serve eight clients each, which call as fast as they may. One process is
//! killed when a quarter of the limit is answered, another at a half; new ones take their places.
//! After [`seconds`] all are ended with SIGTERM, a fresh process serves until it refuses, and
//! another one says what is on record.
//!
//! For tollgate, whatever the timing: answers 200 are never more than the limit, nor is the record;
//! in `durable` every answer is on record. What the dead held stays out of reach and is printed.
//!
//! `NODES_SECONDS` says how long the load lasts, 8 s without it. Not timed: nothing fails because
//! the machine is slow, a slow one only takes longer.

use std::time::{Duration, Instant};

use dynamodb_local::Server as DynamoDbLocal;
use tollgate::store::DynamoDb;

use crate::TURN;
use crate::load::{Load, Seen, Until};
use crate::server::{Files, Server};

const NODES: usize = 4;

/// Units of the limit for each second of load: what four busy nodes in `durable` serve on two busy
/// cores, so that the end of the quota falls into the load.
const LIMIT_PER_SECOND: u64 = 1_000;

/// Processes that are killed, when a quarter of the limit is answered and again at the half.
const KILLS: u64 = 2;

/// Most of the limit that may stay unserved, in thousandths: a lease is at most 5 % of what is
/// free, and that of a dead process is forfeited.
const STRANDED_PER_MILLE: u64 = 50 * KILLS;

/// Between two looks at how far the load is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    load_lasted: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_never_pass_the_limit_that_periodic_counters_pass() {
    let _turn = TURN.lock().await;
    let Some(dynamo) = dynamo() else { return };
    let limit = seconds() * LIMIT_PER_SECOND;
    let client = crash_server::client(dynamo.endpoint());
    for table in ["durable", "journal", "periodic"] {
        DynamoDb::create_table(&client, table, None).await.unwrap();
    }
    let ours = |table, flush| Files::on_table(dynamo.endpoint(), table, flush, limit);
    let durable = run(&ours("durable", "mode = \"durable\""), limit).await;
    let journal = run(&ours("journal", "mode = \"journal\""), limit).await;
    let periodic = run(&Files::periodic(dynamo.endpoint(), "periodic", limit), limit).await;

    println!("nodes: {NODES} processes, {KILLS} killed, limit {limit}");
    println!("nodes: {}", Outcome::HEAD);
    for (name, outcome) in
        [("tollgate, durable", &durable), ("tollgate, journal", &journal), ("periodic", &periodic)]
    {
        println!("nodes: {}", outcome.row(name));
    }
    for ours in [&durable, &journal] {
        assert!(ours.served() <= limit, "never above the limit");
        assert!(ours.recorded <= limit);
        assert!(ours.seen.refused > 0, "the quota refuses in the end");
        assert!(ours.unserved() * 1_000 <= limit * STRANDED_PER_MILLE);
    }
    assert!(durable.served() <= durable.recorded, "what was answered is on record");
    assert!(periodic.overshoot() > 0, "a load that would show it");
}

impl Outcome {
    const HEAD: &str =
        "                   | answered 200 | on record | refused | overshoot | unserved | load";

    fn served(&self) -> u64 {
        self.seen.served.len() as u64
    }

    fn overshoot(&self) -> u64 {
        self.served().saturating_sub(self.limit)
    }

    fn unserved(&self) -> u64 {
        self.limit.saturating_sub(self.served())
    }

    fn row(&self, name: &str) -> String {
        let percent = |n: u64| n as f64 * 100.0 / self.limit as f64;
        format!(
            "{name:<18} | {:>12} | {:>9} | {:>7} | {:>7.1} % | {:>6.2} % | {:.1} s",
            self.served(),
            self.recorded,
            self.seen.refused,
            percent(self.overshoot()),
            percent(self.unserved()),
            self.load_lasted.as_secs_f64(),
        )
    }
}

/// The script: see the [module](self).
async fn run(files: &Files, limit: u64) -> Outcome {
    let mut seen = Seen::default();
    let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::start(files)).collect();
    let begun = Instant::now();
    for kill in 1..=KILLS {
        let answered = |nodes: &[Node]| nodes.iter().map(|node| node.load.served()).sum::<u64>();
        while seen.served.len() as u64 + answered(&nodes) < limit * kill / 4 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let Node { server, load } = nodes.remove(0);
        server.kill();
        seen.add(load.stop().await);
        nodes.push(tokio::task::block_in_place(|| Node::start(files)));
    }
    tokio::time::sleep(Duration::from_secs(seconds()).saturating_sub(begun.elapsed())).await;
    let load_lasted = begun.elapsed();
    for Node { server, load } in nodes {
        seen.add(load.stop().await);
        server.terminate().await;
    }
    // What the living gave back is served to its last unit.
    let last = Server::start(files);
    seen.add(Load::start(last.address, Until::Refused).end().await);
    last.terminate().await;
    let recorded = Server::start(files).recorded().await.requests;
    Outcome { limit, seen, recorded, load_lasted }
}

impl Node {
    fn start(files: &Files) -> Self {
        let server = Server::start(files);
        let load = Load::start(server.address, Until::Stopped(Duration::ZERO));
        Self { server, load }
    }
}

/// How long the load lasts, in seconds.
fn seconds() -> u64 {
    let given = std::env::var("NODES_SECONDS").ok();
    given.map_or(8, |given| given.parse().expect("NODES_SECONDS is a number"))
}

/// A server, unless it cannot be had.
fn dynamo() -> Option<DynamoDbLocal> {
    match dynamodb_local::start(None) {
        Ok(server) => Some(server),
        Err(why) => {
            println!("skipped: nodes (DynamoDB Local: {why})");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI runs every test");
            None
        }
    }
}
