//! A caller in memory: whose credential it is, with the tenant's sheet at hand.
//!
//! The sheet is the one that held when the caller was looked up. While it still does, a request of
//! this caller costs no count of references but the caller's own; after an edge or a change the
//! tenant has the sheet, until the caller is looked up anew.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::resolve::LiveCatalog;
use super::scoped::ScopeValues;
use super::sheet::{Sheet, SheetRef};
use super::tenant::LiveTenant;
use crate::clock::Now;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct KnownCaller {
    pub(crate) tenant: Arc<LiveTenant>,
    pub(crate) sheet: Arc<Sheet>,
    pub(crate) values: ScopeValues,
    /// When this was looked up, on the monotonic clock, and when the credential ends by itself.
    pub(crate) looked_up_ns: u64,
    pub(crate) expires_ms: i64,
    /// Whether it is being looked up again.
    pub(crate) refreshing: AtomicBool,
}

impl KnownCaller {
    /// The sheet that holds now for this caller's tenant.
    #[inline]
    pub(crate) fn into_sheet(self: Arc<Self>, live: &LiveCatalog, now: Now) -> SheetRef {
        if self.sheet.holds(live.epoch, now) {
            SheetRef::Of(self)
        } else {
            SheetRef::Newer(self.tenant.sheet(live, now), self)
        }
    }
}
