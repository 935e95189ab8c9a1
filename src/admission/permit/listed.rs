//! Itemised state of a hold, allocated only off the fast path.

use super::Hold;
use super::keyed::Keyed;
use super::reserve::Reserves;
use super::spare::Spares;
use super::state::ByAsk;
use crate::policy::AskIndex;
use crate::policy::taken::TakenList;

/// Counters of one request for reported or streamed numbers. The catalog allows this many such
/// meters.
pub(crate) const COUNTERS: usize = 8;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Itemized {
    pub(crate) taken: TakenList,
    /// Reported or streamed so far.
    pub(super) counters: [u64; COUNTERS],
    /// Recorded so far.
    pub(super) recorded: ByAsk,
    /// Set aside for each meter ask; empty: just what it was admitted with.
    pub(super) reserves: Reserves,
    /// The number of draws beyond the first.
    pub(super) draws: u64,
    /// The true number of a cost that was an estimate.
    pub(super) truth: Option<(AskIndex, u64)>,
    /// Its state, if it is to be counted once.
    pub(super) keyed: Option<Keyed>,
    /// Holds that draw and report for it since its sheet was replaced; the last one is current.
    pub(super) going_on: Vec<Hold>,
}

/// A permit's list, created when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct LazyList(Option<Box<Itemized>>);

thread_local! {
    static LISTS: Spares<Box<Itemized>> = const { Spares::new() };
}

impl LazyList {
    /// The list, if there is one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Itemized> {
        self.0.as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut Itemized> {
        self.0.as_deref_mut()
    }

    /// The list, created if there is none.
    #[inline]
    pub(crate) fn open(&mut self) -> &mut Itemized {
        self.0.get_or_insert_with(|| Spares::take(&LISTS).unwrap_or_default())
    }
}

impl Drop for LazyList {
    #[inline]
    fn drop(&mut self) {
        if let Some(listed) = self.0.take() {
            keep(listed);
        }
    }
}

fn keep(mut listed: Box<Itemized>) {
    listed.taken.clear();
    listed.recorded.rows_mut().clear();
    listed.reserves.rows_mut().clear();
    listed.counters = [0; COUNTERS];
    listed.draws = 0;
    listed.truth = None;
    listed.keyed = None;
    listed.going_on.clear();
    Spares::keep(&LISTS, listed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::taken::{DrawnFrom, PaysFor, Taken};
    use crate::table::Index;

    #[test]
    fn a_list_that_is_used_again_is_empty() {
        let mut list = LazyList::default();
        let listed = list.open();
        let (from, pays) = (DrawnFrom::Pool(Index::test(0)), PaysFor::Ask(Index::test(0)));
        listed.taken.push(Taken { from, n: 3, pays, draw: 0 });
        listed.recorded.rows_mut().push(1);
        listed.counters[2] = 7;
        listed.draws = 1;
        listed.truth = Some((Index::test(0), 1));
        let at = std::ptr::from_ref(listed);
        drop(list);

        let mut next = LazyList::default();
        let listed = next.open();
        assert!(std::ptr::eq(at, listed), "the same box");
        assert!(listed.taken.is_empty() && listed.recorded.len() == 0);
        assert_eq!((listed.counters, listed.draws), ([0; COUNTERS], 0));
        assert_eq!(listed.truth, None);
    }
}
