//! Places for store calls. Tenants take turns (see [`crate::turns`]), so that one with thousands of
//! calls does not keep others waiting for long.
//!
//! A wait for a place has no timeout of its own: requests give up after a time, background work
//! waits for its turn. A place covers one piece of work of one tenant or line, with all its calls:
//! a look-up keeps it until the last of its reads is done. Claims, which may be retried for long,
//! release it between attempts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::turns::Turns;

/// See the [module](self). Clones share the places.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<AllPlaces>);

#[derive(Debug)]
struct AllPlaces {
    turns: Mutex<Turns<Waits, u128>>,
    /// Calls that the store has answered.
    answered: AtomicU64,
}

/// A waiter for a place.
#[derive(Debug)]
struct Waits {
    whose: u128,
    tell: oneshot::Sender<Place>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None`: it was returned unused.
    of: Option<Places>,
    whose: u128,
}

impl Places {
    /// A number of places, and a limit on the callers that have one or wait for one.
    pub(crate) fn new(places: usize, most: usize) -> Self {
        let turns = Mutex::new(Turns::new(places, most));
        Self(Arc::new(AllPlaces { turns, answered: AtomicU64::new(0) }))
    }

    /// Waits for a place for `whose`. `None` if too many of its own calls already wait.
    pub(crate) async fn place(&self, whose: u128) -> Option<Place> {
        let (tell, told) = oneshot::channel();
        {
            let mut turns = self.locked();
            turns.push(whose, Waits { whose, tell }).ok()?;
            self.hand_out(&mut turns);
        }
        told.await.ok()
    }

    /// How many calls with a place the store has answered: while this rises, the line moves.
    pub(crate) fn answered(&self) -> u64 {
        self.0.answered.load(Ordering::Relaxed)
    }

    /// Gives the free places to the waiters whose turn it is.
    fn hand_out(&self, turns: &mut Turns<Waits, u128>) {
        while let Some(Waits { whose, tell }) = turns.next() {
            if let Err(mut unused) = tell.send(Place { of: Some(self.clone()), whose }) {
                // The waiter is gone. Its place is for the next one.
                unused.of = None;
                turns.done(whose);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Turns<Waits, u128>> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The store has answered the work that has this place.
    pub(crate) fn is_answered(&self) {
        if let Some(places) = &self.of {
            places.0.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.of.take() {
            let mut turns = places.locked();
            turns.done(self.whose);
            places.hand_out(&mut turns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 64;

    fn waits(places: &Places, whose: u128) -> tokio::task::JoinHandle<Option<Place>> {
        let places = places.clone();
        tokio::spawn(async move { places.place(whose).await })
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_has_many_leaves_places_to_the_next_and_places_go_on_by_turns() {
        let places = Places::new(PLACES, 1_000);
        let flood: Vec<_> = (0..200).map(|_| waits(&places, 1)).collect();
        settle().await;
        let has = |it: &&tokio::task::JoinHandle<_>| it.is_finished();
        assert_eq!(flood.iter().filter(has).count(), PLACES / 2);
        let other = waits(&places, 2);
        settle().await;
        assert!(other.is_finished(), "at once, and not behind all of the other's");
        drop(other.await.unwrap());
        flood.iter().for_each(|it| it.abort());
        for it in flood {
            drop(it.await);
        }
        assert!(places.locked().is_empty());
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_costs_no_place_and_those_who_wait_are_bounded() {
        let places = Places::new(2, 100);
        let held = places.place(7).await.unwrap();
        let flood: Vec<_> = (0..49).map(|_| waits(&places, 7)).collect();
        settle().await;
        assert!(places.place(7).await.is_none(), "half of all are one's own");
        flood.iter().for_each(|it| it.abort());
        for it in flood {
            assert!(it.await.is_err());
        }
        drop(held);
        assert!(places.locked().is_empty());
        assert!(places.place(7).await.is_some());
    }
}
