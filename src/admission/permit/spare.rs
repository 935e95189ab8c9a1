//! Reused allocations: each thread keeps a few, so that a request need not allocate.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

use super::Hold;

/// How many a thread keeps for its next requests: as many as may end in a burst before the next
/// ones begin, at about 400 bytes a request.
const SPARES: usize = 64;

/// Spare allocations of one thread.
pub(crate) struct Spares<P>(RefCell<Vec<P>>);

impl<P> Spares<P> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// A spare one. A thread that is ending has none.
    #[inline]
    pub(crate) fn take(kept: &'static LocalKey<Self>) -> Option<P> {
        kept.try_with(|kept| kept.0.borrow_mut().pop()).ok().flatten()
    }

    /// Keeps a cleared one. A thread that is ending keeps none.
    #[inline]
    pub(crate) fn keep(kept: &'static LocalKey<Self>, spare: P) {
        let _ = kept.try_with(|kept| {
            let mut kept = kept.0.borrow_mut();
            if kept.len() < SPARES {
                kept.push(spare);
            }
        });
    }
}

thread_local! {
    static HOLDS: Spares<Box<Option<Hold>>> = const { Spares::new() };
}

/// A boxed hold: it passes through the gate, the response's future and its body, each of which
/// would move it.
#[derive(Debug)]
pub(crate) struct HoldBox(Option<Box<Option<Hold>>>);

impl HoldBox {
    // Inlined, so that the hold is built in place.
    #[inline(always)]
    pub(crate) fn new(hold: Hold) -> Self {
        let mut place = Spares::take(&HOLDS).unwrap_or_default();
        // Where it is seen to be empty nothing is dropped, and the hold need not be moved.
        match &mut *place {
            empty @ None => *empty = Some(hold),
            Some(held) => *held = hold,
        }
        Self(Some(place))
    }

    pub(crate) fn into_inner(mut self) -> Hold {
        self.0.as_mut().and_then(|place| place.take()).expect(FULL)
    }
}

/// A box is made with a hold and loses it only when dropped.
const FULL: &str = "a box holds its hold until it is dropped";

impl Deref for HoldBox {
    type Target = Hold;

    #[inline]
    fn deref(&self) -> &Hold {
        self.0.as_ref().and_then(|place| place.as_ref().as_ref()).expect(FULL)
    }
}

impl DerefMut for HoldBox {
    #[inline]
    fn deref_mut(&mut self) -> &mut Hold {
        self.0.as_mut().and_then(|place| place.as_mut().as_mut()).expect(FULL)
    }
}

impl Drop for HoldBox {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut place) = self.0.take() {
            *place = None; // this settles the hold, unless it is settled already
            Spares::keep(&HOLDS, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static NUMBERS: Spares<Box<u32>> = const { Spares::new() };
    }

    #[test]
    fn a_thread_keeps_a_bounded_number() {
        (0..2 * SPARES).for_each(|i| Spares::keep(&NUMBERS, Box::new(i as u32)));
        assert_eq!(Spares::take(&NUMBERS), Some(Box::new(SPARES as u32 - 1)));
        let rest = std::iter::from_fn(|| Spares::take(&NUMBERS)).count();
        assert_eq!(rest, SPARES - 1);
    }
}
