//! Requests whose handlers are at work or whose bodies are being sent: noted when a handler or a
//! body first has to wait for something, or a body has more than one chunk, so that closing the
//! gate settles those that the server did not wait for.
//!
//! A handler that is ready when it is first polled, with a body in one piece, is never noted, and
//! pays nothing for this.

use std::sync::{Mutex, MutexGuard, PoisonError};

use slab::Slab;

use super::usage::Admitted;
use crate::admission::permit::NotedAt;
use crate::decision::Outcome;

/// Lists, so that threads seldom meet at one: as many as machines commonly have cores.
const LISTS: usize = 16;

/// See the [module](self). As long as the requests that it notes, which the server bounds.
#[derive(Debug)]
pub(crate) struct InHand([Mutex<List>; LISTS]);

#[derive(Debug, Default)]
struct List {
    requests: Slab<Admitted>,
    /// The gate is closed: nothing is noted any more.
    is_closed: bool,
}

impl InHand {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    /// Notes a request; `None` once the gate is closed.
    pub(crate) fn note(&self, request: &Admitted) -> Option<NotedAt> {
        let mut list = self.list_of(request);
        if list.is_closed {
            return None;
        }
        // As many as that do not fit into memory.
        u32::try_from(list.requests.insert(request.clone())).ok().map(NotedAt)
    }

    /// Its handler has answered, or is gone.
    pub(crate) fn strike(&self, request: &Admitted, at: NotedAt) {
        let struck = self.list_of(request).requests.try_remove(at.0 as usize);
        drop(struck); // outside of the lock: it may be the last handle
    }

    /// Ends what is in hand as aborted, and notes nothing more. Says how many there were.
    pub(super) fn close(&self) -> usize {
        let mut n = 0;
        for list in &self.0 {
            let requests = {
                let mut list = locked(list);
                list.is_closed = true;
                std::mem::take(&mut list.requests)
            };
            n += requests.len();
            for (_, request) in requests {
                let mut hold = request.hold();
                let now = hold.now();
                hold.end(Outcome::Aborted, now);
            }
        }
        n
    }

    fn list_of(&self, request: &Admitted) -> MutexGuard<'_, List> {
        // A place is some hundred bytes: lower bits are the same for all.
        locked(&self.0[(request.address() >> 9) % LISTS])
    }
}

fn locked(list: &Mutex<List>) -> MutexGuard<'_, List> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
