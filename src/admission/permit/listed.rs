//! What a permit has to write down when it is not plain, kept out of it: a permit is moved several
//! times between the gate and the end of a body, and most have nothing to write down.
//!
//! The lists are used again: each thread keeps a few, so that a request does not allocate one.

use std::cell::RefCell;

use smallvec::SmallVec;

use super::keyed::Keyed;
use crate::admission::decide::TakenList;

/// Counters of one request for what is reported or streamed. The catalog allows as many such
/// meters.
pub(crate) const COUNTERS: usize = 8;

/// Lists that a thread keeps for its next requests: as many as may end in a burst before the next
/// ones begin, at about 300 bytes each.
const SPARES: usize = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) taken: TakenList,
    /// What was reported or passed so far.
    pub(super) counters: [u64; COUNTERS],
    /// What of each meter ask has been recorded so far.
    pub(super) recorded: SmallVec<[u64; 4]>,
    /// How many draws were made beyond the first.
    pub(super) draws: u32,
    /// Where it is to count once.
    pub(super) keyed: Option<Keyed>,
}

/// A permit's list, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct List(Option<Box<Listed>>);

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is used again")]
    static SPARE: RefCell<Vec<Box<Listed>>> = const { RefCell::new(Vec::new()) };
}

impl List {
    /// What is written down, if anything is.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Listed> {
        self.0.as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut Listed> {
        self.0.as_deref_mut()
    }

    /// To write down.
    #[inline]
    pub(crate) fn open(&mut self) -> &mut Listed {
        self.0.get_or_insert_with(|| {
            // A thread that ends has none, and allocates.
            SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten().unwrap_or_default()
        })
    }
}

impl Drop for List {
    #[inline]
    fn drop(&mut self) {
        if let Some(listed) = self.0.take() {
            keep(listed);
        }
    }
}

fn keep(mut listed: Box<Listed>) {
    listed.taken.clear();
    listed.recorded.clear();
    listed.counters = [0; COUNTERS];
    listed.draws = 0;
    listed.keyed = None;
    // A thread that ends keeps none.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARES {
            spare.push(listed);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::decide::{From, Taken};

    #[test]
    fn a_list_that_is_used_again_is_empty() {
        let mut list = List::default();
        let listed = list.open();
        listed.taken.push(Taken { from: From::Pool(0), n: 3, ask: 0, draw: 0 });
        listed.recorded.push(1);
        listed.counters[2] = 7;
        listed.draws = 1;
        let at = std::ptr::from_ref(listed);
        drop(list);

        let mut next = List::default();
        let listed = next.open();
        assert!(std::ptr::eq(at, listed), "the same box");
        assert!(listed.taken.is_empty() && listed.recorded.is_empty());
        assert_eq!((listed.counters, listed.draws), ([0; COUNTERS], 0));
    }

    #[test]
    fn a_thread_keeps_a_bounded_number() {
        let mut lists: Vec<List> = (0..2 * SPARES).map(|_| List::default()).collect();
        for list in &mut lists {
            list.open();
        }
        drop(lists);
        assert_eq!(SPARE.with(|spare| spare.borrow().len()), SPARES);
    }
}
