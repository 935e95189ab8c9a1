//! How many reads of the directory are in flight at once, and who is next.
//!
//! A flood of credentials that nobody knows must not become a flood of store reads. What finds no
//! slot waits, and those who wait are served in turn by whose they are (a tenant, an address): many
//! of one kind do not keep others waiting. The caller bounds the wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The slots.
#[derive(Clone, Debug)]
pub struct Reads(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: usize,
    /// Those who wait, by whose they are.
    queues: HashMap<u128, VecDeque<oneshot::Sender<ReadSlot>>>,
    /// Whose turn it is; each once.
    turns: VecDeque<u128>,
}

/// One read in flight; dropped when it is done.
#[derive(Debug)]
pub struct ReadSlot {
    /// `None`: it was handed back without being used.
    of: Option<Reads>,
}

impl Reads {
    /// Most reads in flight in one process: at 10 ms a read, 6,400 new callers a second.
    pub const MAX: usize = 64;

    /// Most that wait: as many as are served in some two seconds.
    pub const MAX_WAITING: usize = 16_384;

    /// Most of one tenant or address that wait: a quarter of all.
    pub const MAX_OF_ONE: usize = 4_096;

    /// All slots free.
    pub fn new() -> Self {
        let state =
            State { free: Self::MAX, waiting: 0, queues: HashMap::new(), turns: VecDeque::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A slot, as soon as one is free and it is this one's turn; `None`: too many wait already.
    pub async fn slot(&self, whose: u128) -> Option<ReadSlot> {
        let next = {
            let mut state = self.locked();
            if state.free > 0 {
                state.free -= 1;
                return Some(ReadSlot { of: Some(self.clone()) });
            }
            let State { waiting, queues, turns, .. } = &mut *state;
            if *waiting >= Self::MAX_WAITING {
                return None;
            }
            let queue = queues.entry(whose).or_default();
            if queue.len() >= Self::MAX_OF_ONE {
                return None;
            }
            if queue.is_empty() {
                turns.push_back(whose);
            }
            let (tell, next) = oneshot::channel();
            queue.push_back(tell);
            *waiting += 1;
            next
        };
        next.await.ok()
    }

    /// A slot is free: the next in turn has it.
    fn pass_on(&self) {
        let mut state = self.locked();
        while let Some(whose) = state.turns.pop_front() {
            let State { waiting, queues, turns, .. } = &mut *state;
            let Some(queue) = queues.get_mut(&whose) else { continue };
            let next = queue.pop_front();
            if queue.is_empty() {
                queues.remove(&whose);
            } else {
                turns.push_back(whose);
            }
            let Some(next) = next else { continue };
            *waiting -= 1;
            match next.send(ReadSlot { of: Some(self.clone()) }) {
                Ok(()) => return,
                // It has gone away. Its slot is the next one's.
                Err(mut unused) => unused.of = None,
            }
        }
        state.free += 1;
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReadSlot {
    fn drop(&mut self) {
        if let Some(reads) = self.of.take() {
            reads.pass_on();
        }
    }
}

impl Default for Reads {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn has_64_slots_and_hands_them_on_in_turn_by_whose_they_are() {
        let reads = Reads::new();
        let mut held = Vec::new();
        for _ in 0..Reads::MAX {
            held.push(reads.slot(0).await.unwrap());
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for whose in [1, 1, 1, 1, 2, 3] {
            let (reads, order) = (reads.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let slot = reads.slot(whose).await.unwrap();
                order.lock().unwrap().push(whose);
                tokio::task::yield_now().await;
                drop(slot);
            }));
            tokio::task::yield_now().await;
        }
        assert!(order.lock().unwrap().is_empty());
        held.pop();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 1, 1, 1]);
        drop(held);
        assert_eq!(reads.locked().free, Reads::MAX);
        assert!(reads.locked().queues.is_empty());
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_costs_no_slot_and_those_who_wait_are_bounded() {
        let reads = Reads::new();
        let mut held = Vec::new();
        for _ in 0..Reads::MAX {
            held.push(reads.slot(0).await.unwrap());
        }
        let waits: Vec<_> = (0..Reads::MAX_OF_ONE)
            .map(|_| {
                let reads = reads.clone();
                tokio::spawn(async move { drop(reads.slot(7).await) })
            })
            .collect();
        while reads.locked().waiting < Reads::MAX_OF_ONE {
            tokio::task::yield_now().await;
        }
        assert!(reads.slot(7).await.is_none(), "of one");
        waits.iter().for_each(|wait| wait.abort());
        for wait in waits {
            let _ = wait.await;
        }
        held.clear();
        let state = reads.locked();
        assert_eq!((state.free, state.waiting), (Reads::MAX, 0));
    }
}
