//! Simulation support beyond what a host needs: a seed for all randomness, requests split into
//! their steps, and access to stored items. It observes and seeds; it decides nothing, so that the
//! code under test is the code that ships.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::admission::claim;
use crate::clock;
use crate::decision::Outcome;
use crate::decision::Refusal;
use crate::gate::{Admitted, Answer, Gate, GateBuilder, Step, TenantHandle, Usage, Waited};
use crate::identity::RequestView;
use crate::ids::WriterId;
use crate::ledger::journal::Journal;
use crate::ledger::numbers::Numbered;
use crate::ledger::record::{PoolRow, Rows, Unpacked};
use crate::ledger::slots;
use crate::overrides::in_thread;
use crate::quota::pool::{self, PoolId};
use crate::quota::subpool::{self, Fed, Sub};
use crate::store::layout::{self, Space};
use crate::store::{Item, Key};

/// The time at these Unix milliseconds.
pub fn time_at(unix_ms: i64) -> SystemTime {
    clock::time_at(unix_ms)
}

/// Unix milliseconds of a time.
pub fn unix_ms(time: SystemTime) -> i64 {
    clock::unix_ms(time)
}

/// Seeds all of this thread's randomness; `None` returns it to the system's.
pub fn seed_this_thread(seed: Option<u64>) {
    crate::random::seeded::seed(seed);
}

/// Makes gates on this thread seal writers after this silence, in milliseconds; `None` restores the
/// usual one.
pub fn have_patience(ms: Option<u64>) {
    in_thread::PATIENCE.set(ms);
}

/// Makes gates on this thread split a pool with this many writers into this many sub-pools; `None`
/// restores the usual numbers.
pub fn split_pools(at: Option<(usize, u16)>) {
    in_thread::SPLIT.set(at);
}

/// A plan file in memory, which a running gate reloads like one on disk.
#[derive(Clone, Debug)]
pub struct Plans(pub(crate) Arc<Mutex<Arc<str>>>);

impl Plans {
    /// A file with this text.
    pub fn new(text: &str) -> Self {
        Self(Arc::new(Mutex::new(text.into())))
    }

    /// Replaces the text.
    pub fn set(&self, text: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// Makes a gate read this file.
    pub fn read_by(&self, gate: GateBuilder) -> GateBuilder {
        gate.shared_plans(self.0.clone())
    }
}

/// The writer that this text names in a key.
pub fn writer(text: &str) -> Option<WriterId> {
    layout::writer(text)
}

/// The incarnation under which a gate currently leases and records.
pub fn incarnation(gate: &Gate) -> WriterId {
    gate.inner.hub.incarnation.current()
}

/// Atoms of all quotas of a tenant that requests in flight hold in this process and have not used
/// yet. Limits of its keys, users and addresses are not among them.
pub fn held(tenant: &TenantHandle) -> u64 {
    tenant.0.core.leases().iter().map(|lease| lease.open_holds()).sum()
}

/// An admitted request that has not ended.
#[derive(Debug)]
pub struct OpenRequest {
    admitted: Admitted,
}

/// Units that a request took from a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The pool's item.
    pub pool: Key,
    /// The incarnation that owned the lease.
    pub writer: WriterId,
    /// Atoms of it that the request holds.
    pub atoms: u64,
    /// Atoms left in the lease now; negative is a debt.
    pub left: i64,
}

impl OpenRequest {
    /// Asks, and waits if memory has no answer. Fails with `None` instead of a refusal if the route
    /// admits every caller.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub async fn admit<V: RequestView + Sync>(
        gate: &Gate,
        view: &V,
    ) -> Result<Self, Option<Refusal>> {
        let mut waited = Waited::default();
        loop {
            match gate.admit_request(view, waited) {
                Step::Wait(pending) => waited = pending.await,
                Step::Done(Answer::Admit(running)) => {
                    return Ok(Self { admitted: Admitted::new(gate.clone(), running) });
                }
                Step::Done(Answer::Pass) => return Err(None),
                Step::Done(Answer::Refuse(refusal)) => return Err(Some(*refusal)),
            }
        }
    }

    /// Its holds by pool and writer, in order of use. Overage belongs to the last hold of a limit.
    pub fn drawn(&self) -> Vec<Drawn> {
        let gate = self.admitted.gate();
        let mut hold = self.admitted.hold();
        // As the next report would.
        gate.keep_up(&mut hold, gate.inner.clock.now());
        let mut drawn = Vec::<Drawn>::new();
        for (lease, atoms) in hold.seen() {
            let (pool, writer) =
                (lease.pool().key(&gate.inner.leasing.writer.space), lease.incarnation());
            let known = drawn.iter().position(|it| (&it.pool, it.writer) == (&pool, writer));
            match known {
                Some(known) => drawn[known].atoms += atoms,
                None => drawn.push(Drawn { pool, writer, atoms, left: lease.left() }),
            }
        }
        drawn
    }

    /// The claim that it tries to settle at its end, if it is idempotent: the claim's item, and the
    /// name under which this request came.
    pub fn claim(&self) -> Option<(Key, u128)> {
        let hold = self.admitted.hold();
        let (name, key) = hold.open_claim()?.names();
        Some((key.clone(), name))
    }

    /// Whether another request with its key was charged instead of this one.
    pub fn is_replay(&self) -> bool {
        self.admitted.hold().is_replay()
    }

    /// Its handler's view.
    pub fn usage(&self) -> Usage {
        self.admitted.usage()
    }

    /// Begins its response with this status, which decides the costs.
    pub fn head(&self, status: u16) {
        let mut hold = self.admitted.hold();
        let (charged, now) = (hold.of.rules().charges(Outcome::Complete { status }), hold.now());
        hold.charge(charged, now);
    }

    /// Ends it.
    pub fn end(self, outcome: Outcome) {
        let mut hold = self.admitted.hold();
        let now = hold.now();
        hold.end(outcome, now);
    }

    /// Switches its connection to another protocol, until the last handle on it is dropped.
    pub fn upgrade(self, status: u16) {
        let mut hold = self.admitted.hold();
        let now = hold.now();
        hold.upgrade(Outcome::Complete { status }, now);
    }

    /// Ends it, and returns once it may be answered. Returns false if it will not be, because the
    /// gate was closed before its claim was settled.
    pub async fn answered(self, outcome: Outcome) -> bool {
        let told = {
            let mut hold = self.admitted.hold();
            let now = hold.now();
            hold.end(outcome, now);
            hold.settling()
        };
        match told {
            Some(told) => told.await.is_ok(),
            None => true,
        }
    }
}

/// A stored claim on an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimItem {
    /// The charged request, by the name under which it came.
    pub by: Option<u128>,
    /// Atoms charged on each meter.
    pub used: BTreeMap<String, u64>,
    /// The names of all requests that came.
    pub came: Vec<u128>,
}

impl ClaimItem {
    /// Reads a claim; `None` if the item is not one.
    pub fn read(item: &Item) -> Option<Self> {
        let used = claim::used(item).ok()?;
        let name = |bytes: &[u8]| bytes.try_into().ok().map(u128::from_be_bytes);
        let rows = used.iter().flat_map(|used| &used.rows);
        Some(Self {
            by: used.as_ref().and_then(|_| name(item.bytes("by")?)),
            used: rows.map(|(meter, _, atoms)| (meter.to_string(), atoms.used.0)).collect(),
            came: item.bytes("came")?.chunks(16).filter_map(name).collect(),
        })
    }
}

/// A stored pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the attributes")]
pub struct PoolItem {
    pub limit: i64,
    pub rev: i64,
    pub free: i64,
    pub spent: i64,
    pub generation: i64,
    pub entries: BTreeMap<WriterId, PoolEntry>,
    /// For a split pool: the units credited to each sub-pool, returned by it, and owed for it.
    pub feeds: BTreeMap<u16, (u64, u64, u64)>,
    /// For a sub-pool: the same totals.
    pub fed: Option<(u64, u64, u64)>,
}

/// A writer's entry in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the attributes")]
pub struct PoolEntry {
    pub op: u64,
    pub held: u64,
    pub preauthorised: u64,
    pub closed: bool,
}

impl PoolItem {
    /// Reads a pool; `None` if the item is not one.
    pub fn read(item: &Item) -> Option<Self> {
        let view = pool::View::read(item, WriterId::NONE).ok()?;
        let entries = pool::entries(item).ok()?.into_iter().map(|(writer, entry)| {
            let (closed, pool::Entry { op, held, preauthorised }) = (entry.is_closed(), entry);
            (writer, PoolEntry { op, held, preauthorised, closed })
        });
        let fed = |fed: Fed| (fed.credited, fed.returned, fed.owed);
        let feeds =
            subpool::feeds(item).ok()?.into_iter().map(|(shard, it)| (shard.number(), fed(it)));
        Some(Self {
            limit: item.int("limit")?,
            rev: view.terms.rev,
            free: view.free,
            spent: item.int("spent")?,
            generation: view.generation,
            entries: entries.collect(),
            feeds: feeds.collect(),
            fed: Sub::read(item).ok().map(|sub| (sub.credited, sub.returned, sub.owed)),
        })
    }
}

/// The rows of a usage log by number, after the records that were read.
#[derive(Debug, Default)]
pub struct LogKeys(Numbered);

/// A record of a usage log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogItem {
    /// The writer of these rows, if it is not the log's writer.
    pub of: Option<WriterId>,
    /// A seal instead of a record: it ends the log.
    pub seal: bool,
    /// Totals and ceilings by pool.
    pub pools: BTreeMap<Key, (u64, u64)>,
    /// Totals by meter, and by the rest of the row's key.
    pub uses: BTreeMap<(String, String), u64>,
}

impl LogItem {
    /// Reads a record; `None` if the item is not one.
    pub fn read(space: &str, item: &Item, after: &mut LogKeys) -> Option<Self> {
        let Unpacked::Rows(rows, of) = slots::decode(item, &mut after.0).ok()? else { return None };
        let seal = slots::is_seal(item);
        Some(Self { seal, ..Self::of(space, rows, of) })
    }

    /// The contents of a journal on disk, by writer.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn journal(space: &str, path: &Path) -> std::io::Result<Vec<(WriterId, Self)>> {
        let left = Journal::recover(path)?;
        Ok(left.into_iter().map(|(of, rows)| (of, Self::of(space, rows, Some(of)))).collect())
    }

    fn of(space: &str, rows: Rows, of: Option<WriterId>) -> Self {
        let space = Space::new(space);
        let pool = |(pool, row): (PoolId, PoolRow)| (pool.key(&space), (row.total, row.ceiling));
        let pools = rows.pools.into_iter().map(pool).collect();
        let uses = rows.uses.into_iter().map(|(key, total)| {
            let rest = format!("{} {} {} {:?}", key.tenant, key.part, key.day, key.period_ms);
            ((key.meter.to_string(), rest), total.used.0)
        });
        Self { of, seal: false, pools, uses: uses.collect() }
    }
}
