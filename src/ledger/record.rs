//! Rows, and the records that carry them. A record is one item of the log: use rows, which are
//! billed, and pool rows, which are not, packed by tenant, with dictionaries of names and times at
//! its head. About 18 bytes for a row that is new in its log, and 4 for any other (see
//! [`numbers`](super::numbers)), because size is cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::{Surrogate, WriterId};
use crate::ledger::numbers::{Figures, KnownRow, KnownRows, Numbered, NumbersGiven, RowKey};
use crate::quota::pool::PoolId;
use crate::sheets::use_row::RowAtoms;

/// Limit on a record. A slot is one item, and an item above 1 KB costs by size to write; this only
/// keeps a burst after an outage from becoming one huge write.
pub(crate) const MAX_RECORD_BYTES: usize = 64 * 1024;

/// Limit on the rows of a record, by the most bytes that one takes, so that a record stays below
/// its size limit without being encoded twice. The names it carries come on top.
const MAX_ROWS_BYTES: usize = 55_000;
const NEW_ROW: usize = 55;
const KNOWN_ROW: usize = 26;

/// Identifies usage: whose, of which meter, in which period and day, on which account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UseKey {
    pub(crate) tenant: Surrogate,
    pub(crate) part: u32,
    pub(crate) meter: Arc<str>,
    /// Atoms per unit at the time of counting.
    pub(crate) scale: u64,
    pub(crate) period_ms: i64,
    pub(crate) day: u32,
    pub(crate) account: Option<Arc<str>>,
}

/// State of a lease: its usage, and the ceiling until the next record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolRow {
    /// Atoms settled so far.
    pub(crate) total: u64,
    /// The writer serves no more than this, open holds included, until a later record says more; 0
    /// if the record does not set it.
    pub(crate) ceiling: u64,
}

impl PoolRow {
    /// The larger of each.
    pub(crate) fn raise(&mut self, other: PoolRow) {
        self.total = self.total.max(other.total);
        self.ceiling = self.ceiling.max(other.ceiling);
    }
}

/// Rows by the writer that counted them.
pub(crate) type ByWriter = BTreeMap<WriterId, Rows>;

/// Merges rows per writer, keeping the larger total of each.
pub(crate) fn merge(known: &mut ByWriter, rows: ByWriter) {
    for (of, rows) in rows {
        known.entry(of).or_default().merge(rows);
    }
}

/// Newest total of each row. Ordered, so that the same rows are packed into the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) uses: BTreeMap<UseKey, RowAtoms>,
    pub(crate) pools: BTreeMap<PoolId, PoolRow>,
}

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.pools.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.uses.len() + self.pools.len()
    }

    /// Merges rows, keeping the larger total of each.
    pub(crate) fn merge(&mut self, other: Rows) {
        for (key, total) in other.uses {
            self.uses.entry(key).or_default().raise(total);
        }
        for (key, row) in other.pools {
            self.pools.entry(key).or_default().raise(row);
        }
    }

    /// Packs them into records that are each read by themselves, within their limits. `carried`
    /// names the writer of the rows, if it is not the writer of the log.
    pub(crate) fn pack(&self, at_ms: i64, carried: Option<WriterId>) -> Vec<Vec<u8>> {
        let numbers = &mut NumbersGiven::default();
        self.pack_after(at_ms, carried, numbers, &mut NumbersGiven::clear)
    }

    /// The same for the next slots of a log that has given these numbers. `begin` is called before
    /// each record, and may have them begin anew.
    pub(crate) fn pack_after(
        &self,
        at_ms: i64,
        carried: Option<WriterId>,
        numbers: &mut NumbersGiven,
        begin: &mut impl FnMut(&mut NumbersGiven),
    ) -> Vec<Vec<u8>> {
        let (mut records, mut open) = (Vec::new(), None::<Record>);
        let (mut uses, mut pools) = (self.uses.iter().peekable(), self.pools.iter().peekable());
        // Both are ordered by tenant and are merged in step.
        loop {
            let use_first = match (uses.peek(), pools.peek()) {
                (Some((key, _)), Some((pool, _))) => key.tenant <= pool.tenant,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            let mut record = open.take().unwrap_or_else(|| {
                begin(numbers);
                Record::new(at_ms, carried, numbers.begin())
            });
            if use_first {
                let push = |(key, total): (&_, &_)| record.push_use(key, *total, numbers);
                uses.next().into_iter().for_each(push);
            } else {
                let push = |(pool, row): (&_, &_)| record.push_pool(pool, *row, numbers);
                pools.next().into_iter().for_each(push);
            }
            match record.is_full() {
                true => records.push(record.encode()),
                false => open = Some(record),
            }
        }
        records.extend(open.map(Record::encode));
        records
    }

    /// A record without rows, as a sign of life.
    pub(crate) fn pack_nothing(at_ms: i64) -> Vec<u8> {
        Record::new(at_ms, None, 0).encode()
    }

    /// When a record was made, Unix milliseconds: its first field.
    pub(crate) fn made_ms(bytes: &[u8]) -> Option<i64> {
        postcard::take_from_bytes(bytes).ok().map(|(at_ms, _)| at_ms)
    }

    /// Unpacks a record that is read by itself. The writer is `Some` if it carries another writer's
    /// rows.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<(Rows, Option<WriterId>)> {
        match Self::unpack_after(bytes, &mut Numbered::default())? {
            Unpacked::Rows(rows, of) => Some((rows, of)),
            Unpacked::Lacking => None,
        }
    }

    /// The same for a record of a log whose keys have these numbers, as whatever its reader makes
    /// of the rows.
    pub(crate) fn unpack_after<R: FromRows>(
        bytes: &[u8],
        keys: &mut Numbered,
    ) -> Option<Unpacked<R>> {
        let record: Record = postcard::from_bytes(bytes).ok()?;
        record.rows(keys)
    }
}

/// What a reader makes of the rows of a record.
pub(crate) trait FromRows {
    /// The rows so far.
    type List: Default;

    fn add_use(list: &mut Self::List, key: &UseKey, atoms: RowAtoms);

    fn add_pool(list: &mut Self::List, pool: &PoolId, row: PoolRow);

    fn of(list: Self::List) -> Self;
}

/// Lists first: rows come in order, and a tree of those is built at once.
impl FromRows for Rows {
    type List = (Vec<(UseKey, RowAtoms)>, Vec<(PoolId, PoolRow)>);

    fn add_use((uses, _): &mut Self::List, key: &UseKey, atoms: RowAtoms) {
        uses.push((key.clone(), atoms));
    }

    fn add_pool((_, pools): &mut Self::List, pool: &PoolId, row: PoolRow) {
        pools.push((pool.clone(), row));
    }

    fn of((uses, pools): Self::List) -> Self {
        Self { uses: uses.into_iter().collect(), pools: pools.into_iter().collect() }
    }
}

/// A record that was unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unpacked<R = Rows> {
    Rows(R, Option<WriterId>),
    /// Its rows have numbers that were given by earlier records of its log.
    Lacking,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    at_ms: i64,
    carried: Option<WriterId>,
    /// How many keys had numbers before this record.
    numbered: u32,
    known: KnownRows,
    /// Dictionaries for the new rows: meters with their scale, accounts, limits, billing periods
    /// with a day, and window starts.
    meters: Vec<(Arc<str>, u64)>,
    accounts: Vec<Arc<str>>,
    limits: Vec<Arc<str>>,
    days: Vec<(i64, u32)>,
    starts: Vec<i64>,
    tenants: Vec<TenantLines>,
    #[serde(skip)]
    head_bytes: usize,
    #[serde(skip)]
    new_rows: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct TenantLines {
    tenant: [u8; 16],
    uses: SmallVec<[UseLine; 1]>,
    pools: SmallVec<[PoolLine; 1]>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UseLine {
    part: u32,
    meter: u16,
    /// Index + 1; 0 for none.
    account: u16,
    day: u16,
    atoms: RowAtoms,
}

#[derive(Debug, Serialize, Deserialize)]
struct PoolLine {
    limit: u16,
    scope: u128,
    start: u16,
    total: u64,
    ceiling: u64,
}

impl Record {
    fn new(at_ms: i64, carried: Option<WriterId>, numbered: u32) -> Self {
        Self {
            at_ms,
            carried,
            numbered,
            known: KnownRows::default(),
            meters: Vec::new(),
            accounts: Vec::new(),
            limits: Vec::new(),
            days: Vec::new(),
            starts: Vec::new(),
            tenants: Vec::new(),
            head_bytes: 0,
            new_rows: 0,
        }
    }

    fn is_full(&self) -> bool {
        let bytes = NEW_ROW * self.new_rows + KNOWN_ROW * self.known.len();
        bytes >= MAX_ROWS_BYTES || self.head_bytes > MAX_RECORD_BYTES / 4
    }

    fn push_use(&mut self, key: &UseKey, atoms: RowAtoms, numbers: &mut NumbersGiven) {
        if let Some(number) = numbers.of(&(0_u8, key)) {
            return self.known.push(number, Figures::Use(atoms));
        }
        let head = &mut self.head_bytes;
        let meter = intern(&mut self.meters, (key.meter.clone(), key.scale), head);
        let account = key.account.as_ref();
        let account =
            account.map_or(0, |account| intern(&mut self.accounts, account.clone(), head) + 1);
        let day = intern(&mut self.days, (key.period_ms, key.day), head);
        let line = UseLine { part: key.part, meter, account, day, atoms };
        self.lines_of(key.tenant).uses.push(line);
    }

    fn push_pool(&mut self, pool: &PoolId, row: PoolRow, numbers: &mut NumbersGiven) {
        if let Some(number) = numbers.of(&(1_u8, pool)) {
            return self.known.push(number, Figures::Pool(row));
        }
        let head = &mut self.head_bytes;
        let limit = intern(&mut self.limits, pool.limit.clone(), head);
        let start = intern(&mut self.starts, pool.start_ms, head);
        let PoolRow { total, ceiling } = row;
        let line = PoolLine { limit, scope: pool.scope, start, total, ceiling };
        self.lines_of(pool.tenant).pools.push(line);
    }

    /// The lines of the current tenant, with room counted for one more.
    fn lines_of(&mut self, tenant: Surrogate) -> &mut TenantLines {
        self.new_rows += 1;
        let tenant = tenant.to_bytes();
        if self.tenants.last().is_none_or(|last| last.tenant != tenant) {
            self.tenants.push(TenantLines {
                tenant,
                uses: SmallVec::new(),
                pools: SmallVec::new(),
            });
        }
        self.tenants.last_mut().expect("one was pushed if there was none")
    }

    fn encode(mut self) -> Vec<u8> {
        self.known.finish();
        let bytes = postcard::to_stdvec(&self).expect("numbers and text always encode");
        debug_assert!(bytes.len() <= MAX_RECORD_BYTES + MAX_RECORD_BYTES / 4);
        bytes
    }

    /// Its rows, after those of its log that have these numbers; `None`: damaged.
    fn rows<R: FromRows>(self, keys: &mut Numbered) -> Option<Unpacked<R>> {
        let mut list = R::List::default();
        if self.tenants.is_empty() && self.known.is_empty() {
            return Some(Unpacked::Rows(R::of(list), self.carried));
        }
        if !keys.reaches(self.numbered) {
            return Some(Unpacked::Lacking);
        }
        keys.go_on_after(self.numbered);
        self.known.each(keys, |row| match row {
            KnownRow::Use(key, atoms) => R::add_use(&mut list, key, atoms),
            KnownRow::Pool(pool, row) => R::add_pool(&mut list, pool, row),
        })?;
        for TenantLines { tenant, uses, pools } in self.tenants {
            let tenant = Surrogate::from_bytes(tenant);
            for UseLine { part, meter, account, day, atoms } in uses {
                let (meter, scale) = self.meters.get(usize::from(meter))?.clone();
                let account = match account {
                    0 => None,
                    i => Some(self.accounts.get(usize::from(i) - 1)?.clone()),
                };
                let (period_ms, day) = *self.days.get(usize::from(day))?;
                let key = UseKey { tenant, part, meter, scale, period_ms, day, account };
                R::add_use(&mut list, &key, atoms);
                keys.add(RowKey::Use(key));
            }
            for PoolLine { limit, scope, start, total, ceiling } in pools {
                let limit = self.limits.get(usize::from(limit))?.clone();
                let start_ms = *self.starts.get(usize::from(start))?;
                let pool = PoolId { tenant, limit, scope, start_ms };
                R::add_pool(&mut list, &pool, PoolRow { total, ceiling });
                keys.add(RowKey::Pool(pool));
            }
        }
        Some(Unpacked::Rows(R::of(list), self.carried))
    }
}

/// An entry's index in a dictionary, which is short: a record rarely names more than a dozen.
fn intern<T: PartialEq + HeadLen>(names: &mut Vec<T>, name: T, bytes: &mut usize) -> u16 {
    let at = names.iter().rposition(|known| *known == name).unwrap_or_else(|| {
        *bytes += name.head_len();
        names.push(name);
        names.len() - 1
    });
    u16::try_from(at).expect("a record has far fewer rows than 65,536")
}

/// Maximum encoded size of an entry.
trait HeadLen {
    fn head_len(&self) -> usize;
}

impl HeadLen for Arc<str> {
    fn head_len(&self) -> usize {
        self.len() + 2
    }
}

impl HeadLen for (Arc<str>, u64) {
    fn head_len(&self) -> usize {
        self.0.len() + 12
    }
}

impl HeadLen for (i64, u32) {
    fn head_len(&self) -> usize {
        15
    }
}

impl HeadLen for i64 {
    fn head_len(&self) -> usize {
        10
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Atoms;

    fn rows(tenants: u128) -> Rows {
        let mut rows = Rows::default();
        for n in 0..tenants {
            let tenant = Surrogate::test(n << 100 | n);
            for (part, meter) in [(0, "requests"), (7, "tokens")] {
                let key = UseKey {
                    tenant,
                    part,
                    meter: meter.into(),
                    scale: 1_000,
                    period_ms: 1_772_323_200_000,
                    day: 20_260_317 + (n % 2) as u32,
                    account: (n % 3 == 0).then(|| "cus_1".into()),
                };
                rows.uses.insert(
                    key,
                    RowAtoms { used: Atoms(n as u64 * 1_000), over: Atoms(n as u64 % 3) },
                );
            }
            for (limit, scope) in [("requests/month", 0), ("tokens/day", n)] {
                let start_ms = 1_772_323_200_000;
                let pool = PoolId { tenant, limit: limit.into(), scope, start_ms };
                rows.pools.insert(pool, PoolRow { total: 9_000, ceiling: 9_500 });
            }
        }
        // Tenants with rows of one kind only.
        let (only_use, only_pool) = (Surrogate::test(u128::MAX), Surrogate::test(5));
        rows.uses.retain(|key, _| key.tenant != only_pool);
        rows.pools.retain(|pool, _| pool.tenant != only_use);
        rows
    }

    #[test]
    fn what_is_packed_comes_back_in_records_within_their_bounds() {
        for tenants in [0, 1, 7, 249, 250, 251, 3_000] {
            let rows = rows(tenants);
            let mut back = Rows::default();
            for (n, body) in rows.pack(5, Some(WriterId::test(3))).into_iter().enumerate() {
                assert!(body.len() <= MAX_RECORD_BYTES);
                let (some, of) = Rows::unpack(&body).unwrap();
                assert_eq!(of, Some(WriterId::test(3)));
                assert!(some.len() <= MAX_ROWS_BYTES / NEW_ROW && !some.is_empty(), "record {n}");
                back.merge(some);
            }
            assert_eq!(back, rows, "{tenants} tenants");
        }
    }

    #[test]
    fn records_of_a_log_come_back_one_after_the_other() {
        let (mut given, mut keys, mut slot) = (NumbersGiven::default(), Numbered::default(), 0);
        let mut begin = |given: &mut NumbersGiven| {
            // As at the beginning of a run.
            if slot % 16 == 0 {
                given.clear();
            }
            slot += 1;
        };
        let mut sizes = Vec::new();
        let mut last = Vec::new();
        for tenants in [3, 7, 7, 250, 0, 250, 3_000, 3_000, 5] {
            let (rows, mut back) = (rows(tenants), Rows::default());
            let records = rows.pack_after(5, None, &mut given, &mut begin);
            sizes.push(records.iter().map(Vec::len).sum::<usize>());
            for body in &records {
                assert!(body.len() <= MAX_RECORD_BYTES);
                // A record that is read twice says the same, as one does that a retry finds.
                for _ in 0..2 {
                    let read = Rows::unpack_after(body, &mut keys).unwrap();
                    let Unpacked::Rows(some, None) = read else { panic!("{read:?}") };
                    back.merge(some);
                }
            }
            assert_eq!(back, rows, "{tenants} tenants");
            last = records;
        }
        assert!(sizes[2] < sizes[1] / 2 && sizes[5] < sizes[3] / 2, "{sizes:?}");
        let alone =
            last.first().map(|body| Rows::unpack_after::<Rows>(body, &mut Numbered::default()));
        assert_eq!(alone, Some(Some(Unpacked::Lacking)), "not without those before it");
    }

    #[test]
    fn a_busy_tenant_takes_about_36_bytes_at_first_and_8_then() {
        let mut rows = Rows::default();
        for n in 0..400 {
            let tenant = Surrogate::test(n << 100);
            let start_ms = 1_772_323_200_000;
            let key = UseKey {
                tenant,
                part: 3,
                meter: "requests".into(),
                scale: 1,
                period_ms: start_ms,
                day: 20_260_317,
                account: None,
            };
            rows.uses.insert(key, RowAtoms { used: Atoms(100_000), over: Atoms::NONE });
            let pool = PoolId { tenant, limit: "requests/month".into(), scope: 0, start_ms };
            rows.pools.insert(pool, PoolRow { total: 100_000, ceiling: 101_000 });
        }
        let mut given = NumbersGiven::default();
        for most in [36, 10] {
            let bytes = rows.pack_after(0, None, &mut given, &mut |_| ()).remove(0).len();
            assert!(bytes < 400 * most, "{} a tenant", bytes / 400);
        }
    }
}
