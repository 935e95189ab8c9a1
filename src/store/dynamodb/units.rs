//! Units charged by the service, counted from its answers.
//!
//! A failed condition is charged too, but its answer does not say how much: it is counted by the
//! size of the current item, as the service's documentation specifies. The charge for an unanswered
//! call is unknown and not counted.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::types::ConsumedCapacity;

use super::super::apply::item_bytes;
use super::super::{Item, Key, Units};

/// Bytes per write unit.
const WRITTEN_BYTES: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Counters {
    read: AtomicU64,
    write: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> Units {
        let (read, write) = (&self.read, &self.write);
        Units { read: read.load(Ordering::Relaxed), write: write.load(Ordering::Relaxed) }
    }

    pub(super) fn read(&self, consumed: Option<&ConsumedCapacity>) {
        self.read.fetch_add(whole(consumed), Ordering::Relaxed);
    }

    pub(super) fn written(&self, consumed: Option<&ConsumedCapacity>) {
        self.write.fetch_add(whole(consumed), Ordering::Relaxed);
    }

    /// Counts a write whose condition failed.
    pub(super) fn refused(&self, key: &Key, stands: Option<&Item>) {
        let bytes = stands.map_or(0, |item| item_bytes(key, item));
        let units = bytes.div_ceil(WRITTEN_BYTES).max(1) as u64;
        self.write.fetch_add(units, Ordering::Relaxed);
    }
}

/// Strong reads and plain writes come in whole units; a fraction is rounded up.
fn whole(consumed: Option<&ConsumedCapacity>) -> u64 {
    let units = consumed.and_then(|consumed| consumed.capacity_units).unwrap_or(0.0);
    units.ceil() as u64 // saturates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Value;

    #[test]
    fn a_refusal_costs_the_size_of_what_stands_and_at_least_one() {
        let counters = Counters::default();
        let key = Key { pk: "p".into(), sk: "s".into() };
        counters.refused(&key, None);
        assert_eq!(counters.snapshot(), Units { read: 0, write: 1 });
        let large = Item([("b".into(), Value::Bytes(vec![0; 2_048]))].into());
        counters.refused(&key, Some(&large));
        assert_eq!(counters.snapshot(), Units { read: 0, write: 4 });
    }
}
