//! The store is away for a while under load: DynamoDB Local is stopped (SIGSTOP) and let go on.
//!
//! Two processes in mode `journal` and one in `durable` serve four tenants at a steady pace:
//! `denied` and `allowed` differ in `on-lease-error`, `spent` has used up its quota, `steady` calls
//! seldom and is what others could slow down. The figures are printed:
//!
//! - with `deny` a lease is served to its ceiling, and then the answer is 503; with `allow` so much
//!   of the limit more for each process; in `durable` nobody gets a 200 before its record;
//! - afterwards everybody is served again, and when the processes have drained the record is what
//!   was answered, to the unit, and within the limit;
//! - the tenant that has nothing left slows no other.
//!
//! ```text
//! cargo test -p crash-server outage -- --nocapture
//! OUTAGE_SECONDS=60 cargo test -p crash-server outage -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tallygate::LEASE_WAIT;
use tallygate::store::DynamoDb;
use test_support::dynamodb;
use test_support::processes::signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::TURN;
use crate::load::Connection;
use crate::nodes::dynamo;
use crate::server::{Files, Server, plans};

/// The limit of `spent`; that of the others is more than they use.
const SPENT: u64 = 50;

const PLANS: &str = r#"quota.requests = "25000/month"
[plan.generous]
quota.requests = "25000/month"
on-lease-error = { allow = "1%" }
[plan.small]
quota.requests = "50/month"
[tenant.allowed]
plan = "generous"
note = "on-lease-error"
[tenant.spent]
plan = "small"
note = "to be used up""#;

/// A phase, but for the outage and what comes after it.
const STRETCH: Duration = Duration::from_secs(2);

/// Who calls each process, how many at once, and how long each waits after an answer.
const CLIENTS: [(&str, usize, Duration); 4] = [
    ("denied", 2, Duration::from_millis(10)),
    ("allowed", 2, Duration::from_millis(10)),
    ("spent", 8, Duration::from_millis(10)),
    ("steady", 1, Duration::from_millis(50)),
];

/// A stretch of the test. `spent` calls from `Crowded` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Warm,
    Quiet,
    Crowded,
    Away,
    After,
    Over,
}

/// An answer that a client got: in the phase in which it came.
struct Answer {
    tenant: &'static str,
    phase: Phase,
    status: u16,
    took: Duration,
}

/// A process with its clients.
struct Node {
    server: Server,
    clients: JoinSet<Vec<Answer>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_loses_nothing_and_ends_as_each_plan_says() {
    let _turn = TURN.lock().await;
    let Some(dynamo) = dynamo("outage") else { return };
    let client = dynamodb::client(dynamo.endpoint());
    let mut services = Vec::new();
    for (mode, nodes) in [("journal", 2), ("durable", 1)] {
        DynamoDb::create_table(&client, mode, None).await.unwrap();
        let flush = format!("mode = \"{mode}\"\nmax-write-units = 10000");
        services.push((
            mode,
            Files::on_table(dynamo.endpoint(), mode, &flush, &plans(PLANS)),
            nodes,
        ));
    }
    let (phase, seen) = watch::channel(Phase::Warm);
    let mut nodes: Vec<(&str, Node)> = Vec::new();
    for (mode, files, n) in &services {
        nodes.extend((0..*n).map(|_| (*mode, Node::start(files, &seen))));
    }
    for next in [Phase::Quiet, Phase::Crowded] {
        tokio::time::sleep(STRETCH).await;
        phase.send_replace(next);
    }
    tokio::time::sleep(STRETCH).await;
    signal(dynamo.pid(), "-STOP");
    phase.send_replace(Phase::Away);
    tokio::time::sleep(away()).await;
    signal(dynamo.pid(), "-CONT");
    phase.send_replace(Phase::After);
    tokio::time::sleep(2 * STRETCH).await;
    phase.send_replace(Phase::Over);

    let mut answers = BTreeMap::<&str, Vec<Answer>>::new();
    for (mode, mut node) in nodes {
        while let Some(seen) = node.clients.join_next().await {
            answers.entry(mode).or_default().extend(seen.unwrap());
        }
        node.server.terminate().await;
    }
    for (mode, files, n) in &services {
        check(mode, *n, &answers[mode], &Server::start(files)).await;
    }
}

/// Holds what the clients of one mode saw against the record.
async fn check(mode: &str, nodes: u64, answers: &[Answer], fresh: &Server) {
    println!("outage: mode {mode}, {nodes} processes, the store is away for {:?}", away());
    println!("outage: tenant  | phase   |   200 |   429 |   503 | half of the 200s, 99 % within");
    for (tenant, ..) in CLIENTS {
        let of = |phase| Stretch::of(answers, tenant, phase);
        for phase in [Phase::Quiet, Phase::Crowded, Phase::Away, Phase::After] {
            println!("outage: {tenant:<7} | {:<7} | {}", format!("{phase:?}"), of(phase).row());
        }
        let all = [Phase::Warm, Phase::Quiet, Phase::Crowded, Phase::Away, Phase::After];
        let served: usize = all.map(|phase| of(phase).served.len()).iter().sum();
        let served = served as u64 + of(Phase::Over).served.len() as u64;
        let recorded = fresh.recorded_of(tenant).await.requests;
        println!("outage: {tenant:<7} | in all  | {served:>5} answered 200, {recorded} on record");
        assert_eq!(recorded, served, "{tenant}: nothing is lost, nothing invented");
        let (away, after) = (of(Phase::Away), of(Phase::After));
        match tenant {
            "spent" => {
                assert_eq!(served, SPENT, "to its last unit and no further");
                assert!(after.refused > 0, "and it is told so again");
            }
            "denied" if mode == "journal" => assert!(away.unavailable > 0, "a lease has an end"),
            "allowed" if mode == "journal" => {
                let denied = Stretch::of(answers, "denied", Phase::Away);
                assert!(away.unavailable < denied.unavailable, "so much more is let through");
            }
            _ => {}
        }
        assert!(tenant == "spent" || !after.served.is_empty(), "{tenant} is served again");
    }
    let crowded = Stretch::of(answers, "steady", Phase::Crowded);
    assert_eq!(crowded.unavailable, 0, "one that has nothing left slows no other");
    assert!(crowded.within(50) < LEASE_WAIT, "nor does anybody wait for it");
}

/// What a tenant saw in a phase.
struct Stretch {
    /// How long each 200 took, ascending.
    served: Vec<Duration>,
    refused: usize,
    unavailable: usize,
}

impl Stretch {
    fn of(answers: &[Answer], tenant: &str, phase: Phase) -> Self {
        let own = answers.iter().filter(|a| a.tenant == tenant && a.phase == phase);
        let took = |status| own.clone().filter(move |a| a.status == status).map(|a| a.took);
        let mut served: Vec<Duration> = took(200).collect();
        served.sort();
        Self { served, refused: took(429).count(), unavailable: took(503).count() }
    }

    /// Within how long so many percent of the 200s came.
    fn within(&self, percent: usize) -> Duration {
        let last = self.served.len().saturating_sub(1);
        self.served.get(last * percent / 100).copied().unwrap_or_default()
    }

    fn row(&self) -> String {
        let Self { served, refused, unavailable } = self;
        let (half, most) = (self.within(50).as_millis(), self.within(99).as_millis());
        let served = served.len();
        format!("{served:>5} | {refused:>5} | {unavailable:>5} | {half:>6} ms, {most:>6} ms")
    }
}

impl Node {
    fn start(files: &Files, phase: &watch::Receiver<Phase>) -> Self {
        let server = Server::start(files);
        let mut clients = JoinSet::new();
        for (tenant, n, pause) in CLIENTS {
            for _ in 0..n {
                clients.spawn(client(server.address, tenant, pause, phase.clone()));
            }
        }
        Self { server, clients }
    }
}

/// Calls until it is over.
async fn client(
    address: SocketAddr,
    tenant: &'static str,
    pause: Duration,
    phase: watch::Receiver<Phase>,
) -> Vec<Answer> {
    let mut connection = Connection::open(address).await.unwrap().of(tenant);
    let now_in = || *phase.borrow();
    let mut answers = Vec::new();
    while tenant == "spent" && now_in() < Phase::Crowded {
        tokio::time::sleep(pause).await;
    }
    while now_in() != Phase::Over {
        let asked = Instant::now();
        let (status, _) = connection.call("POST", "/work").await.unwrap();
        assert!(matches!(status, 200 | 429 | 503), "{status}");
        answers.push(Answer { tenant, phase: now_in(), status, took: asked.elapsed() });
        tokio::time::sleep(pause).await;
    }
    answers
}

/// How long the store is away.
fn away() -> Duration {
    let given = std::env::var("OUTAGE_SECONDS").ok();
    Duration::from_secs(given.map_or(8, |given| given.parse().expect("it is a number")))
}
