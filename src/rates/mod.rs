//! Rates over several nodes, without a write per request.
//!
//! Nodes that share a store have equal parts of every rate; a limit under pressure has shares of
//! its own, which move to where the demand is. Between two slots each node decides alone, so the
//! rate over all nodes has a bound and not an exact value: while a node joins, its part may be
//! promised twice for a slot, and a moved share takes effect at both ends within one. The bound is
//! printed when the gate opens ([`bound`]).
//!
//! Pure state machines ([`machine`], [`shares`], [`nodes`], [`pressure`]) and one task ([`task`])
//! that makes their calls. On a store used by this process alone there is no such task, and no
//! cost.

mod machine;
mod nodes;
mod pressure;
mod shares;
mod task;
mod throttled;

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod fleet_tests;

pub(crate) use crate::ids::LimitId;
pub(crate) use machine::Asked;
pub(crate) use task::{Buckets, Joined, Sharing, bound, join};
pub(crate) use throttled::Throttled;

/// A slot: the interval at which a node writes its heartbeat, reads the list of limits under
/// pressure, and moves its shares.
const SLOT_NS: u64 = 5_000_000_000;

/// A node silent for this many slots is considered dead, and its shares lost. One that cannot read
/// for as long serves at most an equal part.
const LAPSE_SLOTS: u64 = 2;

/// A node silent for this many slots is removed from the list.
const GONE_SLOTS: u64 = 12;
