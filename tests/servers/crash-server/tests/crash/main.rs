//! A real process, killed with SIGKILL while it serves, started again on the same files.
//!
//! For each recording mode, after every death: the ledger shows no more than was sent; what is
//! missing was answered within the loss that the mode states; and over all lives no more is served
//! than the quota has. A SIGTERM in between loses nothing. The figures are printed.
//!
//! The seed is printed, and taken from `CRASH_SEED`; the load itself is real and does not repeat.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed; this one measures real time"
)]

mod load;
mod nodes;
mod outage;
mod server;

use std::time::{Duration, Instant, SystemTime};

use load::{Load, Seen, Until};
use server::{Files, LIMIT, Recorded, Server};
use tokio::sync::Mutex;

/// What each request reports, besides the one request it costs.
const TOKENS: u64 = 3;

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
    let load = Load::start(server.address, Until::Refused).end().await;
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
    let mut before = server.recorded().await;
    let mut served = 0;
    for kill in 1..=KILLS {
        let load = Load::start(server.address, Until::Stopped(PAUSE));
        tokio::time::sleep(Duration::from_millis(100 + split_mix(&mut random) % 300)).await;
        let killed = Instant::now();
        server.kill();
        let seen = load.stop().await;
        server = Server::start(&files);
        let after = server.recorded().await;
        let lost = check(before, after, &seen, killed, loss);
        println!("{mode}: kill {kill}: {lost}");
        served += seen.served.len() as u64;

        // Once in between, a drained end.
        if kill == KILLS / 2 {
            let load = Load::start(server.address, Until::Stopped(PAUSE));
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.terminate().await;
            let seen = load.stop().await;
            server = Server::start(&files);
            let drained = server.recorded().await;
            let lost = check(after, drained, &seen, Instant::now(), Duration::ZERO);
            println!("{mode}: drained: {lost}");
            served += seen.served.len() as u64;
        }
        before = server.recorded().await;
    }
    let rest = Load::start(server.address, Until::Refused).end().await;
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

/// What one life left in the ledger, held against what its clients saw.
fn check(
    before: Recorded,
    after: Recorded,
    seen: &Seen,
    killed: Instant,
    loss: Duration,
) -> String {
    let served = seen.served.len() as u64;
    let recorded = after.requests - before.requests;
    let tokens = after.tokens - before.tokens;
    assert!(recorded <= seen.sent, "{recorded} recorded, {} sent", seen.sent);
    assert!(tokens <= seen.sent * TOKENS);

    // Receipts come after answers: what was answered within `loss` before the death was received
    // after its beginning.
    let recent = seen.served.iter().filter(|at| **at + loss >= killed).count() as u64;
    let allowed = if loss.is_zero() { 0 } else { recent };
    let lost = served.saturating_sub(recorded);
    let oldest = seen.served.get(recorded as usize).filter(|_| lost > 0);
    let age = oldest.map_or(Duration::ZERO, |at| killed.saturating_duration_since(*at));
    assert!(
        lost <= allowed,
        "{lost} answers are not recorded, the oldest from {age:?} before the death"
    );
    assert!((served * TOKENS).saturating_sub(tokens) <= allowed * TOKENS);
    format!("{served} answered, {recorded} recorded, {lost} lost, answered at most {age:?} before")
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
