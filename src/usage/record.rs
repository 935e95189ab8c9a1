//! Rows and the records that carry them. A record is one item of the log: use rows, which are
//! billed, and pool rows, which are not, packed with a dictionary of names at its head.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admission::pool::PoolId;
use crate::directory::Surrogate;

/// Largest record. A slot is one item, and an item above 1 KB costs its size to write; this only
/// keeps a burst after an outage from being one huge write.
pub(crate) const MAX_RECORD_BYTES: usize = 64 * 1024;

/// Rows per record at most: about 40 bytes each, so that a record stays below its bound without
/// being encoded twice. The record carries its names beside them.
const MAX_ROWS: usize = 1_000;

/// Whose use of what, in which period and day, on whose account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UseKey {
    pub(crate) tenant: Surrogate,
    pub(crate) part: u32,
    pub(crate) meter: Arc<str>,
    /// Atoms to the unit when it was counted.
    pub(crate) scale: u64,
    pub(crate) period_ms: i64,
    pub(crate) day: u32,
    pub(crate) account: Option<Arc<str>>,
}

/// How a lease stands: what was used, and where it stops until the next record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolRow {
    /// Atoms settled so far.
    pub(crate) total: u64,
    /// The writer serves no more than this, open holds included, before a later record says more;
    /// 0 where the record says nothing of it.
    pub(crate) ceiling: u64,
}

impl PoolRow {
    /// The larger of each.
    pub(crate) fn raise(&mut self, other: PoolRow) {
        self.total = self.total.max(other.total);
        self.ceiling = self.ceiling.max(other.ceiling);
    }
}

/// Rows by the writer whose they are.
pub(crate) type ByWriter = BTreeMap<u128, Rows>;

/// Totals by row: the newest of each. In order, so that the same rows are packed into the same
/// bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) uses: BTreeMap<UseKey, u64>,
    pub(crate) pools: BTreeMap<PoolId, PoolRow>,
}

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.pools.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.uses.len() + self.pools.len()
    }

    /// Takes over rows, the larger total of each.
    pub(crate) fn merge(&mut self, other: Rows) {
        for (key, total) in other.uses {
            let known = self.uses.entry(key).or_default();
            *known = total.max(*known);
        }
        for (key, row) in other.pools {
            self.pools.entry(key).or_default().raise(row);
        }
    }

    /// Packs them into records, each within its bound. `carried` names the writer whose rows they
    /// are, where it is not the writer of the log.
    pub(crate) fn pack(&self, at_ms: i64, carried: Option<u128>) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let mut record = Record::new(at_ms, carried);
        for (key, total) in &self.uses {
            record.push_use(key, *total);
            record.spill(&mut records);
        }
        for (pool, row) in &self.pools {
            record.push_pool(pool, *row);
            record.spill(&mut records);
        }
        if record.len() > 0 {
            records.push(record.encode());
        }
        records
    }

    /// A record without rows: its writer is still here.
    pub(crate) fn pack_nothing(at_ms: i64) -> Vec<u8> {
        Record::new(at_ms, None).encode()
    }

    /// Unpacks a record. The writer is `Some` where it carries another writer's rows.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<(Rows, Option<u128>)> {
        let record: Record = postcard::from_bytes(bytes).ok()?;
        record.rows()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    at_ms: i64,
    carried: Option<u128>,
    /// Meters with their scale, accounts and limits that the rows point into.
    meters: Vec<(Arc<str>, u64)>,
    accounts: Vec<Arc<str>>,
    limits: Vec<Arc<str>>,
    uses: Vec<UseLine>,
    pools: Vec<PoolLine>,
    #[serde(skip)]
    name_bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct UseLine {
    tenant: Surrogate,
    part: u32,
    meter: u16,
    /// Index + 1; 0 for none.
    account: u16,
    period_ms: i64,
    day: u32,
    total: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct PoolLine {
    tenant: Surrogate,
    limit: u16,
    scope: u128,
    start_ms: i64,
    total: u64,
    ceiling: u64,
}

impl Record {
    fn new(at_ms: i64, carried: Option<u128>) -> Self {
        Self {
            at_ms,
            carried,
            meters: Vec::new(),
            accounts: Vec::new(),
            limits: Vec::new(),
            uses: Vec::new(),
            pools: Vec::new(),
            name_bytes: 0,
        }
    }

    fn len(&self) -> usize {
        self.uses.len() + self.pools.len()
    }

    /// Ends this record and begins the next once it is full.
    fn spill(&mut self, done: &mut Vec<Vec<u8>>) {
        if self.len() >= MAX_ROWS || self.name_bytes > MAX_RECORD_BYTES / 4 {
            let next = Record::new(self.at_ms, self.carried);
            done.push(std::mem::replace(self, next).encode());
        }
    }

    fn push_use(&mut self, key: &UseKey, total: u64) {
        let meter = intern(&mut self.meters, (key.meter.clone(), key.scale), &mut self.name_bytes);
        let account = key.account.as_ref().map_or(0, |account| {
            intern(&mut self.accounts, account.clone(), &mut self.name_bytes) + 1
        });
        let UseKey { tenant, part, period_ms, day, .. } = *key;
        self.uses.push(UseLine { tenant, part, meter, account, period_ms, day, total });
    }

    fn push_pool(&mut self, pool: &PoolId, row: PoolRow) {
        let limit = intern(&mut self.limits, pool.limit.clone(), &mut self.name_bytes);
        let PoolId { tenant, scope, start_ms, .. } = *pool;
        let PoolRow { total, ceiling } = row;
        self.pools.push(PoolLine { tenant, limit, scope, start_ms, total, ceiling });
    }

    fn encode(&self) -> Vec<u8> {
        let bytes = postcard::to_stdvec(self).expect("numbers and text always encode");
        debug_assert!(bytes.len() <= MAX_RECORD_BYTES + MAX_RECORD_BYTES / 4);
        bytes
    }

    fn rows(self) -> Option<(Rows, Option<u128>)> {
        let mut rows = Rows::default();
        for line in self.uses {
            let (meter, scale) = self.meters.get(usize::from(line.meter))?.clone();
            let account = match line.account {
                0 => None,
                i => Some(self.accounts.get(usize::from(i) - 1)?.clone()),
            };
            let UseLine { tenant, part, period_ms, day, total, .. } = line;
            let key = UseKey { tenant, part, meter, scale, period_ms, day, account };
            rows.uses.insert(key, total);
        }
        for line in self.pools {
            let limit = self.limits.get(usize::from(line.limit))?.clone();
            let PoolLine { tenant, scope, start_ms, total, ceiling, .. } = line;
            let pool = PoolId { tenant, limit, scope, start_ms };
            rows.pools.insert(pool, PoolRow { total, ceiling });
        }
        Some((rows, self.carried))
    }
}

/// A name's place in a dictionary, which is short: a record rarely names more than a dozen.
fn intern<T: PartialEq + NameLen>(names: &mut Vec<T>, name: T, bytes: &mut usize) -> u16 {
    let at = names.iter().rposition(|known| *known == name).unwrap_or_else(|| {
        *bytes += name.name_len();
        names.push(name);
        names.len() - 1
    });
    u16::try_from(at).expect("a record has far fewer rows than 65,536")
}

trait NameLen {
    fn name_len(&self) -> usize;
}

impl NameLen for Arc<str> {
    fn name_len(&self) -> usize {
        self.len() + 2
    }
}

impl NameLen for (Arc<str>, u64) {
    fn name_len(&self) -> usize {
        self.0.len() + 12
    }
}
