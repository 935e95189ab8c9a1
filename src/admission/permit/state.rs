//! States of a hold, what it counts by meter ask, and the mark of an uncharged cost.

use smallvec::SmallVec;

use crate::policy::AskIndex;
use crate::table::Table;

/// From its admission to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldState {
    /// Not admitted yet: it holds nothing.
    New,
    /// Runs; its costs are not decided.
    Open,
    /// Costs are recorded; numbers may still come.
    Charged,
    /// Over; numbers that still come are late.
    Over,
}

/// An amount of each meter ask.
pub(super) type ByAsk = Table<AskIndex, SmallVec<[u64; 4]>>;

/// Marks an ask whose cost is not charged. No request uses that much.
pub(super) const FORGIVEN: u64 = u64::MAX;
