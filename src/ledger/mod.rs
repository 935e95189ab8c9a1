//! The cold path: usage, from memory to the ledger.
//!
//! # Laws
//!
//! 1. **Totals, not differences.** A row says how much this writer has counted so far. Reading
//!    takes the maximum per writer and row, so a retry, a replay or a duplicate changes nothing.
//! 2. **Write once.** Record `n` of a writer is put if absent, one in flight, with the same bytes
//!    until the outcome is known. A gap in the numbers is visible.
//! 3. **A writer is an incarnation**: 128 random bits drawn by this process, never a host, a pid or
//!    a counter.
//! 4. **Bounded.** The backlog is one row per tenant and meter that changed; an outage makes it
//!    older, not larger.
//!
//! Usage of requests with an idempotency key is not in the log but in their claims
//! ([`claims`](self::claims)).
//!
//! How much a crash loses before that depends on the [`Mode`]; see `docs/accuracy.md`.

pub(crate) mod ceilings;
pub(crate) mod claims;
pub(crate) mod collect;
pub(crate) mod compact;
pub(crate) mod flush;
pub(crate) mod journal;
pub(crate) mod journal_thread;
pub(crate) mod log;
pub(crate) mod numbers;
pub(crate) mod pace;
pub(crate) mod place;
mod quiet;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod totals;
pub(crate) mod units;

/// When usage counts as recorded, and so how much a crash may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// With the flush: at most one flush interval is lost.
    Fast,
    /// With the local journal: at most 50 ms are lost when the process dies.
    Journal,
    /// Before it is answered: nothing is lost.
    Durable,
}
