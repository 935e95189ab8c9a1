//! Rates over several nodes, without a write per request.
//!
//! Nodes that share a store give each other equal parts of every rate; a limit under pressure has
//! shares of its own, which move to where the demand is. What a node serves between two slots it
//! decides alone, so the rate over all nodes has a bound and not an exact value: while a node joins
//! it may have been promised twice for a slot, and a share that is moved acts at both ends within
//! one. The bound is printed when the gate opens ([`bound`]).
//!
//! Pure state machines ([`machine`], [`shares`], [`nodes`], [`pressure`]) and one task ([`task`])
//! that makes their calls. On a store that only this process opens there is no such task, and no
//! cost.

mod machine;
mod nodes;
mod pressure;
mod shares;
mod task;
mod told;

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod fleet_tests;

pub(crate) use crate::ids::LimitId;
pub(crate) use machine::Asked;
pub(crate) use task::{Buckets, Joined, Sharing, bound, join};
pub(crate) use told::ThrottledLimits;

/// A slot: how often a node beats, reads what is under pressure, and moves its shares.
const SLOT_NS: u64 = 5_000_000_000;

/// A node that has not been heard of for so many slots is taken for dead, and its shares with it.
/// One that cannot read for as long serves no more than an equal part.
const LAPSE_SLOTS: u64 = 2;

/// A node that has not been heard of for so many slots is struck from the list.
const GONE_SLOTS: u64 = 12;
