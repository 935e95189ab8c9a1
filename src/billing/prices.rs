//! What prices were called, in the store: one item for each price that meant anything here. A
//! lookup key moves from price to price, and whoever holds the price that lost it goes on paying
//! for what it meant.
//!
//! Only keys that the plan file knew are kept, with the second in which each was last seen to be
//! the newest. Nothing is taken back. Beside them stand the customers that hold the price and were
//! heard of first: whoever notes a key puts into force what it means for them.

use std::collections::{BTreeMap, BTreeSet};

use super::customers::Customers;
use super::item::make;
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, StoreError, StoreErrorKind, Value, When, Write, Written};

/// Format of a price's item.
const FORMAT: i64 = 1;

/// How often a change starts over because another came in between.
const ATTEMPTS: usize = 32;

/// Most keys that are kept of one price: the newest.
const MOST_KEYS: usize = 16;

/// Most customers that wait for what a price means. Others learn it as they are asked about, once a
/// day.
const MOST_WAITING: usize = 64;

const KEYS: &str = "keys";
const WAITING: &str = "waiting";
const VERSION: &str = "version";

/// Lookup keys, and when each was seen.
type LookupKeys = BTreeMap<String, i64>;

/// A price as its item has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Price {
    keys: LookupKeys,
    /// Customers that hold it, and to whom it means nothing yet.
    waiting: BTreeSet<String>,
    version: i64,
}

impl Customers {
    /// The lookup keys that a price was seen to have, and when. Where none of them means anything,
    /// `waits` is settled once one does, if there is room for it.
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

    /// Notes that a price had this lookup key at this second. Who waits for it comes back, until
    /// they are [`settled`](Self::settled).
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

    /// These customers know by now what this price means.
    pub(crate) async fn settled(
        &self,
        price: &str,
        customers: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let forget = |known: &mut Price| known.waiting.retain(|one| !customers.contains(one));
        self.change_price(price, forget).await.map(|_| ())
    }

    /// Changes what is known of a price and says it; what stays as it is costs no write.
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
        let message = "others keep changing this price: try again";
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

/// With this key; `None` if that says nothing new.
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
