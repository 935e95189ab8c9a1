//! A value that is nearly always what it begins as: a word while it is, a box while it is not.
//! Every tenant in memory has a lease for each of its limits, and few of them ever owe anything.

use std::ops::{Deref, DerefMut};

/// A value with a constant to begin with.
pub(super) trait Begins: PartialEq + Copy + 'static {
    const BEGINNING: &'static Self;
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Rarely<T>(Option<Box<T>>);

impl<T: Begins> Rarely<T> {
    /// Frees the box of a value that is again what it began as. A step may write such a value many
    /// times, so it is called once after each step.
    pub(super) fn tidy(&mut self) {
        if self.0.as_deref() == Some(T::BEGINNING) {
            self.0 = None;
        }
    }
}

impl<T> Default for Rarely<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Begins> From<T> for Rarely<T> {
    fn from(value: T) -> Self {
        Self((value != *T::BEGINNING).then(|| Box::new(value)))
    }
}

impl<T: Begins> Deref for Rarely<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BEGINNING)
    }
}

impl<T: Begins> DerefMut for Rarely<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(*T::BEGINNING))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Begins for u64 {
        const BEGINNING: &'static Self = &7;
    }

    #[test]
    fn takes_a_box_only_while_it_differs() {
        let mut value = Rarely::<u64>::default();
        assert_eq!((*value, value.0.is_none()), (7, true));
        *value = 8;
        value.tidy();
        assert_eq!((*value, value.0.is_some()), (8, true));
        *value = 7;
        value.tidy();
        assert_eq!((*value, value.0.is_none()), (7, true));
        assert!(Rarely::from(7).0.is_none());
    }
}
