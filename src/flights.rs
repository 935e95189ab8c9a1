//! Deduplicates concurrent work, such as a look-up or a reading: done once for all concurrent
//! callers.
//!
//! The first caller does it, and the others wait in order of arrival. If the first leaves before it
//! is done, the next starts over. Results are not kept here.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::holders::{Holder, is_held_only_by};

/// Work in progress, by name: never more entries than waiting requests.
#[derive(Debug)]
pub(crate) struct Flights<K, T>(Mutex<HashMap<K, Arc<OnceCell<T>>>>);

impl<K: Eq + Hash + Clone, T: Clone> Flights<K, T> {
    /// Does `work`, or waits for the same work already in progress.
    pub(crate) async fn once(&self, name: &K, work: impl Future<Output = T>) -> T {
        let flight = self.locked().entry(name.clone()).or_default().clone();
        let seat = Seat { flights: self, name, flight };
        seat.flight.get_or_init(|| work).await.clone()
    }
}

impl<K, T> Flights<K, T> {
    fn locked(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A waiting caller. The first to leave after completion, or the last if there is none, removes the
/// flight from the list.
struct Seat<'a, K: Eq + Hash, T> {
    flights: &'a Flights<K, T>,
    name: &'a K,
    flight: Arc<OnceCell<T>>,
}

impl<K: Eq + Hash, T> Drop for Seat<'_, K, T> {
    fn drop(&mut self) {
        let mut flights = self.flights.locked();
        let is_listed = flights.get(self.name).is_some_and(|it| Arc::ptr_eq(it, &self.flight));
        // Others only join under the lock.
        let is_last = is_held_only_by(&self.flight, [Holder::Table, Holder::Asker]);
        if is_listed && (self.flight.initialized() || is_last) {
            flights.remove(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_done_once_for_all_and_anew_where_the_first_went_away() {
        let (flights, done) = (Arc::new(Flights::default()), Arc::new(AtomicU32::new(0)));
        let ask = || {
            let (flights, done) = (flights.clone(), done.clone());
            tokio::spawn(async move {
                let work = async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    done.fetch_add(1, Ordering::Relaxed)
                };
                flights.once(&7, work).await
            })
        };
        let first = ask();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let others: Vec<_> = (0..10).map(|_| ask()).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.abort();
        for other in others {
            assert_eq!(other.await.unwrap(), 0);
        }
        assert_eq!(ask().await.unwrap(), 1);

        let lone = ask();
        tokio::time::sleep(Duration::from_millis(100)).await;
        lone.abort();
        assert!(lone.await.unwrap_err().is_cancelled());
        assert!(flights.locked().is_empty());
    }
}
