//! The gate and settings that all services of one layer share.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Extensions, Request, Uri};
use http_body::Body;

use super::view::{FindPattern, FindPeer, HttpView};
use crate::gate::{Gate, Step, Waited};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct LayerShared {
    pub(super) gate: Gate,
    pub(super) extensions: bool,
    pub(super) peer: FindPeer,
    pub(super) original: Option<FindPath>,
    pub(super) matched: Option<FindPattern>,
    /// The inner service counts the bytes read.
    pub(super) reads: bool,
    /// Whether the warning about an uncounted upgraded connection has been logged.
    pub(super) said_unheld: AtomicBool,
}

/// Finds the originally requested path in a request's extensions.
type FindPath = for<'a> fn(&'a Extensions) -> Option<&'a Uri>;

impl LayerShared {
    /// Asks the gate about a request.
    pub(super) fn ask<B: Body>(&self, request: &Request<B>, waited: Waited) -> Step {
        self.gate.admit_request(&self.view_of(request), waited)
    }

    /// The gate's view of a request.
    #[inline]
    pub(super) fn view_of<'a, B: Body>(&self, request: &'a Request<B>) -> HttpView<'a> {
        let asked_for = self.original.and_then(|find| find(request.extensions()));
        let uri = asked_for.unwrap_or_else(|| request.uri());
        let view = HttpView::of(request, uri, self.peer, self.matched);
        let body = request.body();
        // An empty body may report only that it has ended, as lambda_http's does.
        let length = body.size_hint().exact().or_else(|| body.is_end_stream().then_some(0));
        view.body_of(length).counting_reads(self.reads)
    }

    /// Warns once that a connection was upgraded to another protocol and its handler keeps no
    /// handle.
    #[cold]
    pub(super) fn note_unheld_upgrade(&self) {
        if !self.said_unheld.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a connection was upgraded (101) and its handler keeps no handle on the request: \
                 `concurrency` does not count it any more. Take `Usage` and move it into the task \
                 that serves the connection. This is logged once"
            );
        }
    }
}
