//! Whether a shared value is in use, by its count of references. The only place that reads one.
//!
//! # Laws
//!
//! 1. The code that asks names the holders it knows of, itself included. A value with more
//!    references is in use.
//! 2. "In use" may be outdated at once. That costs another round of a sweep, and memory until then,
//!    but no unit.
//! 3. "Not in use" lasts until one of the named holders gives a reference away. The code that asks
//!    holds the lock under which they do so; or what it does is right for a value in use too, as
//!    for a lease, whose units in use are never given back.
//! 4. What the last user did is seen once "not in use" was returned.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

/// A holder that is no use of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holder {
    /// The code that asks: a handle, or a list of its own.
    Asker,
    /// The table in which it is looked up.
    Table,
    /// The tenant it is a part of, which keeps its core, its sheet and all of its leases.
    Tenant,
    /// The sheet in force, which keeps its tenant's core and the leases it has drawn on.
    Sheet,
}

/// Whether nothing but these holds the value.
pub(crate) fn is_held_only_by<T, const N: usize>(value: &Arc<T>, _holders: [Holder; N]) -> bool {
    let is_unused = Arc::strong_count(value) <= N;
    if is_unused {
        fence(Ordering::Acquire);
    }
    is_unused
}

/// Whether there is another handle than this one: for the hot path, without law 4.
#[inline]
pub(crate) fn is_shared<T>(handle: &Arc<T>) -> bool {
    Arc::strong_count(handle) > 1
}

/// Whether nothing holds the value any more.
pub(crate) fn is_gone<T>(value: &Weak<T>) -> bool {
    value.strong_count() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_use_while_another_than_the_named_holders_has_it() {
        let asker = Arc::new(7);
        let table = asker.clone();
        let user = table.clone();
        assert!(!is_held_only_by(&asker, [Holder::Asker, Holder::Table]) && is_shared(&asker));
        drop(user);
        assert!(is_held_only_by(&asker, [Holder::Asker, Holder::Table]) && is_shared(&asker));
        let weak = Arc::downgrade(&table);
        drop(table);
        assert!(is_held_only_by(&asker, [Holder::Asker]) && !is_shared(&asker) && !is_gone(&weak));
        drop(asker);
        assert!(is_gone(&weak));
    }
}
