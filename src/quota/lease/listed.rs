//! The hub's lists a lease is on, so that none has to be searched.

use std::sync::atomic::{AtomicU8, Ordering};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Listed(AtomicU8);

impl Listed {
    /// On the list of leases that wait for a higher ceiling.
    pub(crate) const CAPPED: u8 = 1;
    /// On the list of leases that no sheet holds any more.
    pub(crate) const RETIRED: u8 = 2;
    /// Still wanted on the list; without this it is dropped at the next pass over the list.
    pub(crate) const WANTED: u8 = 4;
    /// On the list of leases with units that other processes could take back.
    pub(crate) const RECLAIMABLE: u8 = 8;

    /// True: it was not on the list before.
    pub(crate) fn put(&self, list: u8) -> bool {
        self.0.fetch_or(list, Ordering::AcqRel) & list == 0
    }

    /// True: it was on the list.
    pub(crate) fn take(&self, list: u8) -> bool {
        self.0.fetch_and(!list, Ordering::AcqRel) & list != 0
    }

    pub(crate) fn has(&self, list: u8) -> bool {
        self.0.load(Ordering::Acquire) & list != 0
    }
}
