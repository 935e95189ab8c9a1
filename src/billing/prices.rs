//! What prices were called, in the store: one item for each price that meant anything here. A
//! lookup key moves from price to price, and whoever holds the price that lost it goes on paying
//! for what it meant.
//!
//! Only keys that the plan file knew are kept, with the second in which each was last seen to be
//! the newest. Nothing is taken back.

use std::collections::BTreeMap;

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

const KEYS: &str = "keys";
const VERSION: &str = "version";

/// Lookup keys, and when each was seen.
type Keys = BTreeMap<String, i64>;

impl Customers {
    /// The lookup keys that a price was seen to have, and when.
    pub(crate) async fn price_keys(&self, price: &str) -> Result<Keys, StoreError> {
        let item = self.store.read(self.space.price(price)).await?;
        Ok(item.as_ref().map(decode).transpose()?.unwrap_or_default().0)
    }

    /// Notes that a price had this lookup key at this second.
    pub(crate) async fn note_price(
        &self,
        price: &str,
        key: &str,
        at_s: i64,
    ) -> Result<(), StoreError> {
        let item = self.store.read(self.space.price(price)).await?;
        let mut known = item.as_ref().map(decode).transpose()?.unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let Some(keys) = with(&known.0, key, at_s) else { return Ok(()) };
            known = match make(&*self.store, self.write_price(price, &keys, known.1)?).await? {
                Written::Applied(_) => return Ok(()),
                Written::Refused(item) => {
                    item.as_ref().map(decode).transpose()?.unwrap_or_default()
                }
            };
        }
        let message = "others keep changing this price: try again";
        Err(StoreError::new(StoreErrorKind::Throttled, message))
    }

    fn write_price(&self, price: &str, keys: &Keys, version: i64) -> Result<Write, StoreError> {
        let body = postcard::to_stdvec(keys).map_err(|_| {
            StoreError::new(StoreErrorKind::Invalid, "a price's keys do not encode")
        })?;
        let (name, format) = format(FORMAT);
        let when = match version {
            0 => When::Absent,
            known => When::Equals(VERSION.into(), Value::Int(known)),
        };
        Ok(Write {
            key: self.space.price(price),
            when: vec![when],
            change: vec![
                Change::Set(name, format),
                Change::Set(VERSION.into(), Value::Int(version.saturating_add(1))),
                Change::Set(KEYS.into(), Value::Bytes(body)),
            ],
        })
    }
}

/// With this key; `None` if that says nothing new.
fn with(known: &Keys, key: &str, at_s: i64) -> Option<Keys> {
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

fn decode(item: &Item) -> Result<(Keys, i64), StoreError> {
    check_format(item, FORMAT, "a price")?;
    let keys = item.bytes(KEYS).and_then(|bytes| postcard::from_bytes(bytes).ok());
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a price's keys cannot be read");
    keys.zip(item.int(VERSION)).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_back_is_the_newest_again_and_an_old_event_changes_nothing() {
        let keys = with(&Keys::new(), "a", 1).unwrap();
        assert_eq!(with(&keys, "a", 9), None, "it is the newest");
        let keys = with(&keys, "b", 5).unwrap();
        assert_eq!(with(&keys, "a", 1), None, "an event of before");
        let keys = with(&keys, "a", 7).unwrap();
        assert_eq!(keys, Keys::from([("a".to_owned(), 7), ("b".to_owned(), 5)]));
        let many =
            (0..40).fold(keys, |keys, n| with(&keys, &format!("k{n}"), 100 + n).unwrap_or(keys));
        assert_eq!((many.len(), many.get("a"), many.get("k39")), (MOST_KEYS, None, Some(&139)));
    }
}
