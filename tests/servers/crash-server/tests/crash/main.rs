//! A real process, killed with SIGKILL while it serves, started again on the same files.
//!
//! For each recording mode, after every death and for each tenant: the ledger shows no more than
//! was sent; what is missing was answered within the loss that the mode states. And over all lives
//! no more is served than the quota has. A SIGTERM in between loses nothing. The figures are
//! printed.
//!
//! A request that is on record and has no answer yet makes up in the sums for one that was answered
//! and is not on record. So some clients are tenants of their own, which have one request at a time
//! and no second one to hide; the others share one tenant, whose quota is used up in the end.
//!
//! The seed is printed, and taken from `CRASH_SEED`; the load itself is real and does not repeat.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed; this one measures real time"
)]

mod alerts;
mod journals;
mod load;
mod nodes;
mod outage;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use load::{Load, SHARED, Seen, Until};
use server::{Files, LIMIT, Recorded, Server};
use tokio::sync::Mutex;

/// What each request reports, besides the one request it costs.
const TOKENS: u64 = 3;

/// Tenants, and how many clients each has.
const TENANTS: [(&str, usize); 5] = [("ann", 1), ("ben", 1), ("cem", 1), ("dot", 1), (SHARED, 4)];

const KILLS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

/// How long the write under way may take: `fast` loses one interval and what that write carries.
const WRITE: Duration = Duration::from_millis(50);

const FAST_EVERY: Duration = Duration::from_millis(200);

/// One machine, one load: the modes take turns.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn durable_loses_nothing_that_was_answered() {
    crashes("durable", "mode = \"durable\"", Duration::ZERO).await;
}

#[tokio::test]
async fn journal_loses_at_most_50_ms() {
    let flush = "mode = \"journal\"\nevery = \"1s\"";
    crashes("journal", flush, Duration::from_millis(50)).await;
}

#[tokio::test]
async fn fast_loses_at_most_one_interval() {
    let flush = "mode = \"fast\"\nevery = \"200ms\"";
    crashes("fast", flush, FAST_EVERY + WRITE).await;
}

/// Only drained ends: not a unit is lost or stranded, so that the quota is served to its last one.
#[tokio::test]
async fn a_drained_end_loses_nothing_and_gives_leases_back() {
    let _turn = TURN.lock().await;
    let files = Files::new("mode = \"fast\"\nevery = \"5s\"");
    let mut served = 0;
    for _ in 0..3 {
        let server = Server::start(&files);
        assert_eq!(server.recorded().await.requests, served);
        let load = Load::start(server.address, Until::Stopped(PAUSE));
        tokio::time::sleep(Duration::from_millis(200)).await;
        served += load.stop().await.served.len() as u64;
        server.terminate().await;
    }
    let server = Server::start(&files);
    let load = rest(&server).await;
    served += load.served.len() as u64;
    server.terminate().await;
    assert_eq!(served, LIMIT);
    assert_eq!(Server::start(&files).recorded().await.requests, LIMIT);
    println!("drained: 3 restarts, {served} of {LIMIT} served, 0 lost, 0 stranded");
}

/// Kills a server under load, again and again, and checks what the next one finds.
async fn crashes(mode: &str, flush: &str, loss: Duration) {
    let _turn = TURN.lock().await;
    let seed = seed();
    println!("{mode}: CRASH_SEED={seed}");
    let mut random = seed;
    let files = Files::new(flush);
    let mut server = Server::start(&files);
    let mut before = ledger(&server).await;
    let mut served = 0;
    for kill in 1..=KILLS {
        let crowd = Crowd::start(server.address);
        tokio::time::sleep(Duration::from_millis(100 + split_mix(&mut random) % 300)).await;
        let killed = Instant::now();
        server.kill();
        let seen = crowd.stop().await;
        server = Server::start(&files);
        let after = ledger(&server).await;
        println!("{mode}: kill {kill}: {}", check(&before, &after, &seen, killed, loss));
        served += seen[SHARED].served.len() as u64;
        before = after;

        // Once in between, a drained end.
        if kill == KILLS / 2 {
            let crowd = Crowd::start(server.address);
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.terminate().await;
            let seen = crowd.stop().await;
            server = Server::start(&files);
            let after = ledger(&server).await;
            let life = check(&before, &after, &seen, Instant::now(), Duration::ZERO);
            println!("{mode}: drained: {life}");
            served += seen[SHARED].served.len() as u64;
            before = after;
        }
    }
    let rest = rest(&server).await;
    assert!(rest.refused > 0, "the quota refuses in the end");
    served += rest.served.len() as u64;
    server.terminate().await;
    let recorded = Server::start(&files).recorded().await.requests;
    assert!(served <= LIMIT, "{served} of {LIMIT} were served");
    assert!(recorded <= LIMIT, "{recorded} of {LIMIT} are recorded");
    let stranded = LIMIT - served;
    // A lease is at most 5 % of what is free, so each death strands no more than that.
    assert!(stranded <= LIMIT / 20 * u64::from(KILLS));
    let share = stranded as f64 * 100.0 / LIMIT as f64;
    println!(
        "{mode}: {KILLS} kills, {served} of {LIMIT} served, {stranded} stranded ({share:.1} %)"
    );
}

/// Uses up what is left of the quota. Many at once: in mode `durable` they share each write that
/// they wait for.
async fn rest(server: &Server) -> Seen {
    Load::of(SHARED, 64, server.address, Until::Refused).end().await
}

/// The clients of one life, by their tenant.
struct Crowd(Vec<(&'static str, Load)>);

impl Crowd {
    fn start(address: SocketAddr) -> Self {
        let load =
            |(tenant, clients)| (tenant, Load::of(tenant, clients, address, Until::Stopped(PAUSE)));
        Self(TENANTS.map(load).into())
    }

    async fn stop(self) -> BTreeMap<&'static str, Seen> {
        let mut seen = BTreeMap::new();
        for (tenant, load) in self.0 {
            seen.insert(tenant, load.stop().await);
        }
        seen
    }
}

/// What is on record of every tenant.
async fn ledger(server: &Server) -> BTreeMap<&'static str, Recorded> {
    let mut recorded = BTreeMap::new();
    for (tenant, _) in TENANTS {
        recorded.insert(tenant, server.recorded_of(tenant).await);
    }
    recorded
}

/// What one life left in the ledger, held against what its clients saw, tenant by tenant.
fn check(
    before: &BTreeMap<&str, Recorded>,
    after: &BTreeMap<&str, Recorded>,
    seen: &BTreeMap<&str, Seen>,
    killed: Instant,
    loss: Duration,
) -> String {
    let mut life = Life::default();
    for (tenant, seen) in seen {
        let requests = after[tenant].requests - before[tenant].requests;
        let tokens = after[tenant].tokens - before[tenant].tokens;
        life.add(tenant, seen, Recorded { requests, tokens }, killed, loss);
    }
    let Life { served, recorded, lost, oldest } = life;
    format!(
        "{served} answered, {recorded} recorded, {lost} lost, answered at most {oldest:?} before"
    )
}

/// The sums of one life over its tenants.
#[derive(Default)]
struct Life {
    served: u64,
    recorded: u64,
    lost: u64,
    oldest: Duration,
}

impl Life {
    fn add(&mut self, tenant: &str, seen: &Seen, of: Recorded, killed: Instant, loss: Duration) {
        let served = seen.served.len() as u64;
        assert!(of.requests <= seen.sent, "{tenant}: {of:?}, {} sent", seen.sent);
        assert!(of.tokens <= seen.sent * TOKENS, "{tenant}: {of:?}, {} sent", seen.sent);

        // Receipts come after answers: what was answered within `loss` before the death was
        // received after its beginning.
        let recent = seen.served.iter().filter(|at| **at + loss >= killed).count() as u64;
        let allowed = if loss.is_zero() { 0 } else { recent };
        let lost = served.saturating_sub(of.requests);
        let oldest = seen.served.get(of.requests as usize).filter(|_| lost > 0);
        let age = oldest.map_or(Duration::ZERO, |at| killed.saturating_duration_since(*at));
        assert!(
            lost <= allowed,
            "{tenant}: {lost} answers are not recorded, the oldest from {age:?} before the death"
        );
        assert!((served * TOKENS).saturating_sub(of.tokens) <= allowed * TOKENS);
        self.served += served;
        self.recorded += of.requests;
        self.lost += lost;
        self.oldest = self.oldest.max(age);
    }
}

fn seed() -> u64 {
    let given = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_nanos() as u64
    })
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
