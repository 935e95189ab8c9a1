//! Store of price names: one item for each price that meant anything here. A lookup key moves from
//! price to price, and customers on the price that lost it go on paying for what it meant.
//!
//! Only keys known to the plan file are kept, with the second in which each was last seen to be the
//! newest. Keys are never removed. Stored beside them are customers seen on the price before it
//! meant anything: noting a key then applies its meaning to them.

use std::collections::{BTreeMap, BTreeSet};

use super::customers::Customers;
use super::item::make;
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, StoreError, StoreErrorKind, Value, When, Write, Written};

/// Format of a price's item.
const FORMAT: i64 = 1;

/// Attempts at a change that meets concurrent ones.
const ATTEMPTS: usize = 32;

/// Most keys kept of one price: the newest.
const MOST_KEYS: usize = 16;

/// Most customers waiting for a price's meaning. Others get it when they are polled, once a day.
const MOST_WAITING: usize = 64;

const KEYS: &str = "keys";
const WAITING: &str = "waiting";
const VERSION: &str = "version";

/// Lookup keys, and when each was seen.
type LookupKeys = BTreeMap<String, i64>;

/// A price as stored in its item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Price {
    keys: LookupKeys,
    /// Customers on this price for whom it means nothing yet.
    waiting: BTreeSet<String>,
    version: i64,
}

impl Customers {
    /// The lookup keys observed on a price, and when. If none of them means anything, `waits` joins
    /// the waiting list, if there is room for it.
    pub(crate) async fn price_keys(
        &self,
        price: &str,
        waits: Option<&str>,
        means: impl Fn(&str) -> bool,
    ) -> Result<LookupKeys, StoreError> {
        let wait = |known: &mut Price| {
            if let Some(customer) = waits
                && known.waiting.len() < MOST_WAITING
                && !known.keys.keys().any(|key| means(key))
            {
                known.waiting.insert(customer.to_owned());
            }
        };
        Ok(self.change_price(price, wait).await?.keys)
    }

    /// Records that a price had this lookup key at this second. Returns the waiting customers,
    /// until they are [`settled`](Self::settled).
    pub(crate) async fn note_price(
        &self,
        price: &str,
        key: &str,
        at_s: i64,
    ) -> Result<BTreeSet<String>, StoreError> {
        let note = |known: &mut Price| {
            if let Some(keys) = with(&known.keys, key, at_s) {
                known.keys = keys;
            }
        };
        Ok(self.change_price(price, note).await?.waiting)
    }

    /// Removes customers that have been updated with this price's meaning.
    pub(crate) async fn settled(
        &self,
        price: &str,
        customers: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let forget = |known: &mut Price| known.waiting.retain(|one| !customers.contains(one));
        self.change_price(price, forget).await.map(|_| ())
    }

    /// Changes the stored facts of a price and returns the result; no change costs no write.
    async fn change_price(
        &self,
        price: &str,
        change: impl Fn(&mut Price),
    ) -> Result<Price, StoreError> {
        let item = self.store.read(self.space.price(price)).await?;
        let mut known = item.as_ref().map(decode).transpose()?.unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let mut next = known.clone();
            change(&mut next);
            if next == known {
                return Ok(known);
            }
            known = match make(&*self.store, self.write_price(price, &next)?).await? {
                Written::Applied(_) => return Ok(next),
                Written::Refused(item) => {
                    item.as_ref().map(decode).transpose()?.unwrap_or_default()
                }
            };
        }
        let message = "concurrent changes to this price: try again";
        Err(StoreError::new(StoreErrorKind::Throttled, message))
    }

    fn write_price(&self, price: &str, next: &Price) -> Result<Write, StoreError> {
        let invalid = |_| StoreError::new(StoreErrorKind::Invalid, "a price does not encode");
        let keys = postcard::to_stdvec(&next.keys).map_err(invalid)?;
        let waiting = postcard::to_stdvec(&next.waiting).map_err(invalid)?;
        let (name, format) = format(FORMAT);
        let when = match next.version {
            0 => When::Absent,
            known => When::Equals(VERSION.into(), Value::Int(known)),
        };
        Ok(Write {
            key: self.space.price(price),
            when: vec![when],
            change: vec![
                Change::Set(name, format),
                Change::Set(VERSION.into(), Value::Int(next.version.saturating_add(1))),
                Change::Set(KEYS.into(), Value::Bytes(keys)),
                Change::Set(WAITING.into(), Value::Bytes(waiting)),
            ],
        })
    }
}

/// The keys with this one added; `None` if it adds nothing new.
fn with(known: &LookupKeys, key: &str, at_s: i64) -> Option<LookupKeys> {
    let newest = known.iter().max_by_key(|(key, seen_s)| (**seen_s, *key));
    if newest.is_some_and(|(newest, _)| newest == key)
        || known.get(key).is_some_and(|seen_s| *seen_s >= at_s)
    {
        return None;
    }
    let mut keys = known.clone();
    keys.insert(key.to_owned(), at_s);
    while keys.len() > MOST_KEYS {
        let oldest = keys.iter().min_by_key(|(key, seen_s)| (**seen_s, *key));
        let oldest = oldest.map(|(key, _)| key.clone())?;
        keys.remove(&oldest);
    }
    (keys != *known).then_some(keys)
}

fn decode(item: &Item) -> Result<Price, StoreError> {
    check_format(item, FORMAT, "a price")?;
    let read = || {
        let keys = postcard::from_bytes(item.bytes(KEYS)?).ok()?;
        let waiting = match item.bytes(WAITING) {
            Some(bytes) => postcard::from_bytes(bytes).ok()?,
            None => BTreeSet::new(),
        };
        Some(Price { keys, waiting, version: item.int(VERSION)? })
    };
    read().ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "a price cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_back_is_the_newest_again_and_an_old_event_changes_nothing() {
        let keys = with(&LookupKeys::new(), "a", 1).unwrap();
        assert_eq!(with(&keys, "a", 9), None, "it is the newest");
        let keys = with(&keys, "b", 5).unwrap();
        assert_eq!(with(&keys, "a", 1), None, "an event of before");
        let keys = with(&keys, "a", 7).unwrap();
        assert_eq!(keys, LookupKeys::from([("a".to_owned(), 7), ("b".to_owned(), 5)]));
        let many =
            (0..40).fold(keys, |keys, n| with(&keys, &format!("k{n}"), 100 + n).unwrap_or(keys));
        assert_eq!((many.len(), many.get("a"), many.get("k39")), (MOST_KEYS, None, Some(&139)));
    }
}
