//! How much of a request's body has been read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes of a request's body as they are read, for the gate, which charges these and not
/// the length that the request states. An adapter that can wrap bodies says so
/// ([`RequestView::counts_reads`](crate::identity::RequestView::counts_reads)), and gets one with
/// the admission of a request whose bytes are counted ([`Running::reads`](crate::Running::reads)).
#[derive(Clone, Debug, Default)]
pub struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    /// So many more have been read.
    pub fn add(&self, bytes: usize) {
        let more = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// All that have been read.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
