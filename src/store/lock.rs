//! A lock in the store: one process at a time does a thing, to save work.
//!
//! No lock is needed for safety. Whatever is done under one is harmless if two processes do it, or
//! one goes on after its lock has run out: reports to the billing service are written under the
//! version they were read at (`billing/report.rs`), and alerts are sent under an id of their own
//! (`notify/`). So it is held by the wall clock, and clock differences cost some work too much or
//! too little, never a unit. It has no epoch either: one would refuse the writes of a process that
//! works without the lock (an operator, `Gate::report_now`), and nothing that a version lets pass.

use std::sync::Arc;
use std::time::Duration;

use super::layout::{check_format, format};
use super::until_known_at_once;
use super::{Change, Item, Key, Store, StoreError, StoreErrorKind, Value, When, Write, Written};

/// Format of the lock's item.
const FORMAT: i64 = 1;

const OWNER: &str = "owner";
const UNTIL: &str = "until_ms";

/// This process's handle on the lock.
pub(crate) struct Lock {
    store: Arc<dyn Store>,
    key: Key,
    /// Random: tells processes apart.
    owner: i64,
}

impl Lock {
    /// The lock at this key.
    pub(crate) fn new(store: Arc<dyn Store>, key: Key) -> Result<Self, StoreError> {
        let owner = crate::random::u64().map_err(|error| {
            StoreError::new(StoreErrorKind::Unavailable, format!("no random bytes: {error}"))
        })?;
        Ok(Self { store, key, owner: owner.cast_signed() })
    }

    /// Takes or extends the lock for this long; false if another process has it.
    pub(crate) async fn take(&self, now_ms: i64, hold: Duration) -> Result<bool, StoreError> {
        let until_ms = now_ms.saturating_add(i64::try_from(hold.as_millis()).unwrap_or(i64::MAX));
        let stands = self.store.read(self.key.clone()).await?;
        let (free, when) = match &stands {
            None => (true, vec![When::Absent]),
            Some(item) => {
                let (owner, held_ms) = read(item)?;
                let unchanged = vec![
                    When::Equals(OWNER.into(), Value::Int(owner)),
                    When::Equals(UNTIL.into(), Value::Int(held_ms)),
                ];
                (owner == self.owner || held_ms <= now_ms, unchanged)
            }
        };
        if !free {
            return Ok(false);
        }
        match until_known_at_once(&*self.store, self.write(when, until_ms)).await?.0 {
            Written::Applied(_) => Ok(true),
            // Another process was faster; or we were, and the reply was lost.
            Written::Refused(item) => {
                Ok(item.as_ref().map(read).transpose()? == Some((self.owner, until_ms)))
            }
        }
    }

    /// Until when it is held, in milliseconds; 0: it was released. `None`: it was never taken.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "asked of the reporter's"))]
    pub(crate) async fn held_until_ms(&self) -> Result<Option<i64>, StoreError> {
        let stands = self.store.read(self.key.clone()).await?;
        stands.as_ref().map(|item| read(item).map(|(_, until_ms)| until_ms)).transpose()
    }

    /// Releases the lock at once, if it is ours.
    pub(crate) async fn release(&self) -> Result<(), StoreError> {
        let when = vec![When::Equals(OWNER.into(), Value::Int(self.owner))];
        until_known_at_once(&*self.store, self.write(when, 0)).await.map(|_| ())
    }

    fn write(&self, when: Vec<When>, until_ms: i64) -> Write {
        let (name, version) = format(FORMAT);
        Write {
            key: self.key.clone(),
            when,
            change: vec![
                Change::Set(name, version),
                Change::Set(OWNER.into(), Value::Int(self.owner)),
                Change::Set(UNTIL.into(), Value::Int(until_ms)),
            ],
        }
    }
}

fn read(item: &Item) -> Result<(i64, i64), StoreError> {
    check_format(item, FORMAT, "a lock")?;
    let parts = item.int(OWNER).zip(item.int(UNTIL));
    parts.ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "the lock cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    use crate::store::layout::Space;

    #[tokio::test]
    async fn one_process_has_it_until_it_lets_go_or_is_silent() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let of = || Lock::new(store.clone(), Space::new("s").notifier("ops")).unwrap();
        let (one, two) = (of(), of());
        let hold = Duration::from_secs(60);
        assert!(one.take(0, hold).await.unwrap());
        assert!(!two.take(59_999, hold).await.unwrap());
        assert!(one.take(59_999, hold).await.unwrap(), "it keeps it");
        assert!(!two.take(60_000, hold).await.unwrap());
        assert!(two.take(119_999, hold).await.unwrap(), "silent for a minute");
        assert!(!one.take(120_000, hold).await.unwrap());
        assert_eq!(one.held_until_ms().await.unwrap(), Some(179_999), "by the other");
        one.release().await.unwrap();
        assert!(!one.take(120_000, hold).await.unwrap(), "only its owner lets go of it");
        two.release().await.unwrap();
        assert_eq!(one.held_until_ms().await.unwrap(), Some(0), "released");
        assert!(one.take(120_000, hold).await.unwrap());
    }
}
