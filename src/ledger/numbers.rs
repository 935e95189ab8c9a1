//! Rows by number. A log has the key of a row in full once in each run of its slots, and gives it a
//! number there; later records of the run have that number and the row's figures. A key is 16 bytes
//! of a random id and more, of which nothing can be left out otherwise.
//!
//! Numbers follow from the order in which keys are new in the log, so both sides count them alike.
//! A record says how many were given before it: 0 begins anew, as the first of each run does, since
//! a run is folded by itself ([`RUN`](super::compact::RUN)).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::record::{PoolRow, UseKey};
use crate::amount::Atoms;
use crate::quota::pool::PoolId;
use crate::sheets::use_row::RowAtoms;

/// Most keys that have numbers at once: some 12 MB. Past it numbers begin anew.
const MAX_NUMBERS: usize = 262_144;

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowKey {
    Use(UseKey),
    Pool(PoolId),
}

/// A row whose key has a number.
#[derive(Debug)]
pub(super) enum KnownRow<'a> {
    Use(&'a UseKey, RowAtoms),
    Pool(&'a PoolId, PoolRow),
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figures {
    Use(RowAtoms),
    Pool(PoolRow),
}

/// The keys of a log by their numbers, as a reader knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbered(Vec<RowKey>);

impl Numbered {
    /// Whether a record after so many keys can be read.
    pub(super) fn reaches(&self, numbered: u32) -> bool {
        self.0.len() >= numbered as usize
    }

    /// Goes on after so many keys. A record that was read before is read again as it was.
    pub(super) fn go_on_after(&mut self, numbered: u32) {
        self.0.truncate(numbered as usize);
    }

    /// Gives the next key its number.
    pub(super) fn add(&mut self, key: RowKey) {
        self.0.push(key);
    }
}

/// The same for the log's writer: by 128 bits of each key's hash, a sixth of its size. That two
/// keys have the same is less likely than that two tenants are drawn the same id.
#[derive(Debug)]
pub(crate) struct NumbersGiven {
    numbers: HashMap<u128, u32>,
    hasher: SipHasher13,
}

impl Default for NumbersGiven {
    fn default() -> Self {
        Self { numbers: HashMap::new(), hasher: SipHasher13::new() }
    }
}

impl NumbersGiven {
    /// Begins anew, and frees what it took.
    pub(crate) fn clear(&mut self) {
        self.numbers = HashMap::new();
    }

    /// How many keys are numbered, for a record that is begun.
    pub(super) fn begin(&mut self) -> u32 {
        if self.numbers.len() >= MAX_NUMBERS {
            self.clear();
        }
        self.next()
    }

    /// The number of a key; `None`: it is new, and has one from now on.
    pub(super) fn of(&mut self, key: &impl Hash) -> Option<u32> {
        let mut hasher = self.hasher;
        key.hash(&mut hasher);
        let next = self.next();
        match self.numbers.entry(hasher.finish128().as_u128()) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(new) => {
                new.insert(next);
                None
            }
        }
    }

    fn next(&self) -> u32 {
        u32::try_from(self.numbers.len()).expect("they begin anew long before")
    }
}

/// The rows of a record whose keys have numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct KnownRows {
    /// In the order of their numbers: how many numbers were left out, with a bit for a second
    /// figure; and the figures. A pool's total is written as the difference to the use before it,
    /// which most are equal or near to, its ceiling as that to its total.
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(skip)]
    rows: Vec<(u32, Figures)>,
}

impl KnownRows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn push(&mut self, number: u32, figures: Figures) {
        self.rows.push((number, figures));
    }

    /// Packs what was pushed: nothing more is.
    pub(super) fn finish(&mut self) {
        self.rows.sort_unstable_by_key(|(number, _)| *number);
        let (mut next, mut near) = (0, 0);
        for (number, figures) in std::mem::take(&mut self.rows) {
            let left_out = u64::from(number - next);
            if left_out > 0 {
                near = 0;
            }
            next = number + 1;
            match figures {
                Figures::Use(RowAtoms { used, over }) => {
                    let has_over = over > Atoms::NONE;
                    self.put(left_out << 1 | u64::from(has_over));
                    self.put(used.0);
                    if has_over {
                        self.put(over.0);
                    }
                    near = used.0;
                }
                Figures::Pool(PoolRow { total, ceiling }) => {
                    let has_ceiling = ceiling > 0;
                    self.put(left_out << 1 | u64::from(has_ceiling));
                    self.put(difference(near, total));
                    if has_ceiling {
                        self.put(difference(total, ceiling));
                    }
                    near = 0;
                }
            }
        }
    }

    fn put(&mut self, figure: impl Serialize) {
        let mut room = [0; 10]; // the longest number
        let figure = postcard::to_slice(&figure, &mut room).expect("a number has room");
        self.body.extend_from_slice(figure);
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Each row with its key; `None`: damaged.
    pub(super) fn each(&self, keys: &Numbered, mut row: impl FnMut(KnownRow<'_>)) -> Option<()> {
        let mut body = self.body.as_slice();
        let (mut next, mut near) = (0_u64, 0);
        while !body.is_empty() {
            let head: u64 = take(&mut body)?;
            let (left_out, has_second) = (head >> 1, head & 1 == 1);
            if left_out > 0 {
                near = 0;
            }
            let number = next.checked_add(left_out)?;
            next = number + 1;
            match keys.0.get(usize::try_from(number).ok()?)? {
                RowKey::Use(key) => {
                    let used = take(&mut body)?;
                    let over = if has_second { take(&mut body)? } else { 0 };
                    near = used;
                    row(KnownRow::Use(key, RowAtoms { used: Atoms(used), over: Atoms(over) }));
                }
                RowKey::Pool(pool) => {
                    let total = near.wrapping_add_signed(take(&mut body)?);
                    let second = if has_second { Some(take(&mut body)?) } else { None };
                    let ceiling = second.map_or(0, |more| total.wrapping_add_signed(more));
                    near = 0;
                    row(KnownRow::Pool(pool, PoolRow { total, ceiling }));
                }
            }
        }
        Some(())
    }
}

/// Differences wrap, so that every figure has one.
fn difference(near: u64, figure: u64) -> i64 {
    figure.wrapping_sub(near).cast_signed()
}

fn take<T: DeserializeOwned>(body: &mut &[u8]) -> Option<T> {
    let (figure, rest) = postcard::take_from_bytes(body).ok()?;
    *body = rest;
    Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Surrogate;

    fn keys() -> Numbered {
        let tenant = Surrogate::test(1);
        let key = |part| {
            let (meter, scale, period_ms, day, account) = ("requests".into(), 1, 0, 0, None);
            RowKey::Use(UseKey { tenant, part, meter, scale, period_ms, day, account })
        };
        let pool = |scope| {
            RowKey::Pool(PoolId { tenant, limit: "requests/month".into(), scope, start_ms: 0 })
        };
        Numbered(vec![key(1), pool(0), pool(1), key(2), key(3), pool(2)])
    }

    fn packed(rows: &[(u32, Figures)]) -> KnownRows {
        let mut packed = KnownRows::default();
        rows.iter().for_each(|(number, figures)| packed.push(*number, *figures));
        packed.finish();
        packed
    }

    fn used(used: u64, over: u64) -> Figures {
        Figures::Use(RowAtoms { used: Atoms(used), over: Atoms(over) })
    }

    fn pool(total: u64, ceiling: u64) -> Figures {
        Figures::Pool(PoolRow { total, ceiling })
    }

    fn read(rows: &KnownRows, keys: &Numbered) -> Option<Vec<(RowKey, Figures)>> {
        let mut all = Vec::new();
        rows.each(keys, |row| {
            all.push(match row {
                KnownRow::Use(key, atoms) => (RowKey::Use(key.clone()), Figures::Use(atoms)),
                KnownRow::Pool(pool, row) => (RowKey::Pool(pool.clone()), Figures::Pool(row)),
            });
        })?;
        Some(all)
    }

    #[test]
    fn every_figure_comes_back_as_it_was() {
        let most = u64::MAX;
        for rows in [
            vec![],
            vec![(0, used(100_000, 0)), (1, pool(100_000, 100_400))],
            vec![(0, used(most, most)), (1, pool(0, 1)), (2, pool(most, 1)), (3, used(0, 0))],
            vec![(5, pool(1, 0)), (3, used(7, 1)), (1, pool(most, most))],
            vec![(0, used(5, 0)), (2, pool(9, 9)), (4, used(1, 0)), (5, pool(0, most))],
        ] {
            let keys = keys();
            let read = read(&packed(&rows), &keys).unwrap();
            let mut expected = rows.clone();
            expected.sort_by_key(|(number, _)| *number);
            let expected = expected.into_iter();
            let expected: Vec<_> =
                expected.map(|(number, row)| (keys.0[number as usize].clone(), row)).collect();
            assert_eq!(read, expected);
        }
        let usual = packed(&[(0, used(100_000, 0)), (1, pool(100_000, 100_400))]);
        assert_eq!(usual.body.len(), 8, "of a busy tenant");
    }

    #[test]
    fn what_is_cut_short_or_has_no_key_is_damaged() {
        let keys = keys();
        let whole = packed(&[(0, used(100_000, 3)), (1, pool(100_000, 100_400))]);
        for end in [1, 2, 3, 4, 6, 7, 8] {
            let cut = KnownRows { body: whole.body[..end].to_vec(), rows: Vec::new() };
            assert!(read(&cut, &keys).is_none(), "cut at {end}");
        }
        assert!(read(&packed(&[(6, used(1, 0))]), &keys).is_none(), "no such key");
    }
}
