//! States of a hold, and the mark of an uncharged cost.

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

/// Marks an ask whose cost is not charged. No request uses that much.
pub(super) const FORGIVEN: u64 = u64::MAX;
