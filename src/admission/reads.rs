//! Bytes read of a request's body.
//!
//! A handler may leave a body to a task that goes on reading after the response has ended. Bytes
//! read until then are charged with the request, the rest late, once the body is dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use crate::admission::context::HoldContext;
use crate::catalog::MeterId;

/// Counts the bytes of a request's body as they are read: the gate charges these, not the length
/// that the request states. An adapter that can wrap bodies declares it
/// ([`RequestView::counts_reads`](crate::identity::RequestView::counts_reads)), and gets one with
/// the admission of a request whose bytes are metered
/// ([`Running::reads`](crate::adapter::Running::reads)).
/// It is dropped with the body; bytes read after the request ended are charged then.
#[derive(Clone, Debug, Default)]
pub struct BytesRead(Arc<Read>);

#[derive(Debug, Default)]
struct Read {
    total: AtomicU64,
    rest: OnceLock<Rest>,
}

/// State that the request leaves at its end.
#[derive(Debug)]
struct Rest {
    /// Bytes charged with it.
    charged: u64,
    /// The payer of the others, and their meters.
    of: HoldContext,
    meters: SmallVec<[MeterId; 1]>,
}

impl BytesRead {
    /// Adds bytes that have been read.
    pub fn add(&self, bytes: usize) {
        let more = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.total.fetch_add(more, Ordering::Relaxed);
    }

    /// All bytes read so far.
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// The request has ended and was charged for this many; more may still come, or have come since
    /// the count was read: the last handle charges them.
    pub(super) fn go_on(self, charged: u64, of: &HoldContext, meters: SmallVec<[MeterId; 1]>) {
        if !meters.is_empty() {
            let _first = self.0.rest.set(Rest { charged, of: of.clone(), meters });
        }
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        let Some(Rest { charged, of, meters }) = self.rest.take() else { return };
        let more = self.total.get_mut().saturating_sub(charged);
        if more > 0 {
            meters.into_iter().for_each(|meter| of.charge_late(meter, more));
        }
    }
}
