//! Power cuts under a whole gate: what it served, answered and recorded over several lives on the
//! [`Disk`] of `power_cut.rs`.
//!
//! Requests are admitted and settled while the disk is cut at a random operation, at times while
//! the gate opens. The machine comes back with what the disk kept. Over all lives: no more is
//! admitted than the quota, no more is recorded than was admitted, and everything flushed with an
//! answer (in `durable`: everything answered) is recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Redb;
use super::power_cut::{Disk, Random};
use crate::ids::WriterId;
use crate::ledger::totals::Ledger;
use crate::quota::lease::Writer;
use crate::store::Store;
use crate::store::layout::Space;
use crate::testing::START_MS;
use crate::{Ask, Gate, GateBuilder, ManualClock};

const MACHINES: u64 = 8;
const LIMIT: u64 = 600;
const LIVES: u64 = 5;
const CLIENTS: u64 = 4;
/// Most operations of the disk until the cut, and milliseconds after which it comes anyway.
const OPERATIONS: u64 = 240;
const LONGEST: u64 = 200;

/// Sums over all lives of a machine.
#[derive(Debug, Default)]
struct Counts {
    admitted: AtomicU64,
    answered: AtomicU64,
    /// Recorded when this life began, and answered by then.
    before: AtomicU64,
    answered_before: AtomicU64,
    /// Minimum on record: the above, and what was answered before a successful flush.
    flushed: AtomicU64,
}

struct Machine {
    disk: Disk,
    clock: ManualClock,
    mode: &'static str,
    random: Random,
    counts: Arc<Counts>,
}

impl Machine {
    fn new(mode: &'static str, seed: u64) -> Self {
        let clock = ManualClock::at_unix_ms(START_MS);
        let (disk, random) = (Disk::new(seed), Random(!seed));
        Self { disk, clock, mode, random, counts: Arc::default() }
    }

    async fn gate(&self, store: &Redb) -> Result<Gate, crate::Error> {
        let service = format!(
            "[store]\nkind = \"memory\"\n[[identify]]\nheader = \"x-tenant\"\n\
             [identity]\nunknown = \"create\"\n[proxy]\ntrust = [\"127.0.0.0/8\"]\n\
             [flush]\nmode = \"{}\"\nevery = \"50ms\"\n",
            self.mode
        );
        let plans =
            format!("default-plan = \"free\"\n[plan.free]\nquota.requests = \"{LIMIT}/day\"");
        let builder = GateBuilder::from_text(&service).plans(&plans);
        builder.store(store.clone()).clock(self.clock.clone()).open().await
    }

    /// Runs until the power is cut.
    async fn live(&mut self, life: u64) {
        self.disk.power_on(None);
        let store = self.disk.open();
        let cut = self.random.below(OPERATIONS) as u32;
        self.begin(recorded(&store).await);
        if life % 3 == 2 {
            self.disk.cut_after(cut / 8); // while the gate opens
        }
        let opened = self.gate(&store).await;
        if let Err(error) = &opened {
            assert!(self.disk.is_cut(), "it opens while there is power: {error}");
        }
        if let Ok(gate) = opened {
            if life % 3 != 2 {
                self.disk.cut_after(cut);
            }
            let mut clients = JoinSet::new();
            for _ in 0..CLIENTS {
                let is_durable = self.mode == "durable";
                clients.spawn(client(gate.clone(), self.counts.clone(), is_durable));
            }
            for ms in 0.. {
                if self.disk.is_cut() || ms == LONGEST {
                    break;
                }
                if self.random.below(16) == 0 {
                    self.flush(&gate).await;
                }
                self.clock.advance(Duration::from_millis(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            clients.shutdown().await;
        }
        if !self.disk.is_cut() {
            self.disk.cut_now();
        }
        // Its threads end: they may not write to the disk that comes back.
        store.close().await.unwrap();
    }

    async fn flush(&self, gate: &Gate) {
        let counts = &self.counts;
        let here = counts.answered.load(Relaxed) - counts.answered_before.load(Relaxed);
        if gate.flush_now().await.is_ok() {
            counts.flushed.store(counts.before.load(Relaxed) + here, Relaxed);
        }
    }

    fn begin(&self, recorded: u64) {
        self.check(recorded);
        let counts = &self.counts;
        counts.before.store(recorded, Relaxed);
        counts.flushed.store(recorded, Relaxed);
        counts.answered_before.store(counts.answered.load(Relaxed), Relaxed);
    }

    /// Checks the invariants of the recorded number.
    fn check(&self, recorded: u64) {
        let (counts, mode) = (&self.counts, self.mode);
        let [admitted, answered, flushed] =
            [&counts.admitted, &counts.answered, &counts.flushed].map(|n| n.load(Relaxed));
        assert!(admitted <= LIMIT, "{mode}: {admitted} of {LIMIT} admitted");
        assert!(recorded <= admitted, "{mode}: {recorded} recorded of {admitted}");
        assert!(recorded >= flushed, "{mode}: {recorded} recorded, {flushed} flushed");
        let is_kept = mode != "durable" || recorded >= answered;
        assert!(is_kept, "{mode}: {recorded} recorded, {answered} answered");
    }

    /// The last life, undisturbed: serves the rest, reclaims what it can, and closes.
    async fn end(&self) -> u64 {
        self.disk.power_on(None);
        let store = self.disk.open();
        self.begin(recorded(&store).await);
        let gate = self.gate(&store).await.unwrap();
        let acme = gate.tenant("acme").await.unwrap();
        let mut refused = 0;
        while refused < 12 {
            match gate.admit(Ask::new(&acme, "job").cost("requests", 1)).await {
                Ok(permit) => {
                    self.counts.admitted.fetch_add(1, Relaxed);
                    permit.settle();
                    refused = 0;
                }
                Err(_) => refused += 1,
            }
            if refused > 0 {
                self.clock.advance(Duration::from_secs(5));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        gate.close().await.unwrap();
        let store = self.disk.open();
        let recorded = recorded(&store).await;
        self.check(recorded);
        store.close().await.unwrap();
        recorded
    }
}

/// Asks, settles and is answered, one request after the other.
async fn client(gate: Gate, counts: Arc<Counts>, is_durable: bool) {
    let Ok(acme) = gate.tenant("acme").await else { return };
    loop {
        if let Ok(permit) = gate.admit(Ask::new(&acme, "job").cost("requests", 1)).await {
            counts.admitted.fetch_add(1, Relaxed);
            permit.settle();
            if is_durable {
                gate.recorded().await;
            }
            counts.answered.fetch_add(1, Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Units recorded over all lives.
async fn recorded(store: &Redb) -> u64 {
    let writer = Writer { space: Space::new("default"), incarnation: WriterId::NONE };
    let ledger = Ledger::new(Arc::new(store.clone()), writer);
    ledger
        .by_period(START_MS)
        .await
        .unwrap()
        .iter()
        .map(|row| row.atoms.used.parts(row.scale))
        .sum()
}

/// Runs one machine and returns its counts.
async fn run(mode: &'static str, seed: u64) -> [u64; 4] {
    let mut machine = Machine::new(mode, seed);
    for life in 0..LIVES {
        machine.live(life).await;
    }
    let counts = machine.counts.clone();
    let [in_lives, answered] = [&counts.admitted, &counts.answered].map(|n| n.load(Relaxed));
    let recorded = machine.end().await;
    [in_lives, answered, counts.admitted.load(Relaxed), recorded]
}

/// Runs several machines at once, because most of a life is waiting.
async fn machines(mode: &'static str) {
    let runs = (0..MACHINES).map(|seed| tokio::spawn(run(mode, seed)));
    let (runs, mut sums) = (runs.collect::<Vec<_>>(), [0; 4]);
    for (seed, run) in runs.into_iter().enumerate() {
        let Ok(figures) = run.await else { panic!("failed with seed {seed}") };
        sums.iter_mut().zip(figures).for_each(|(sum, n)| *sum += n);
    }
    let ([in_lives, answered, admitted, recorded], limits) = (sums, MACHINES * LIMIT);
    println!(
        "{mode}: {MACHINES} machines, {LIVES} cuts each: {in_lives} admitted and {answered} \
         answered before the last cut; of {limits} units {admitted} admitted in all, {recorded} \
         recorded, {} stranded",
        limits - admitted
    );
    assert!(answered > MACHINES * LIVES, "the cuts leave requests to be answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_in_durable_survives_every_power_cut() {
    machines("durable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_flushed_survives_every_power_cut() {
    machines("fast").await;
}
