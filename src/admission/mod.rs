//! The hot path: from a tenant's live state to a decision, in memory.
//!
//! # Laws
//!
//! 1. **No clock, no I/O, no await.** `now` is an argument. What cannot be decided from memory is
//!    answered as "need units of this lease", and another task fetches them.
//! 2. **All or nothing.** A refusal undoes what was taken before it. Between the two, another
//!    request may be refused wrongly; none is ever admitted wrongly.
//! 3. **One compare-and-swap per limit** on what is left of it. Never add first and undo later: an
//!    undo that dies with the process would have spent unused units.
//! 4. **Every hold ends.** What a permit took is settled or given back exactly once, to the lease,
//!    the window and the pool it was drawn from.
//!
//! The stages, in the order a request meets them: [`policy`] (which limits), [`decide`] (all or
//! nothing over [`bucket`] and [`lease`]), [`permit`] (holds until the end).

pub(crate) mod claim;
pub(crate) mod claim_queue;
#[cfg(test)]
mod conservation_tests;
pub(crate) mod context;
pub(crate) mod decide;
pub(crate) mod permit;
pub(crate) mod reads;
