//! The gate and settings that all services of one layer share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Extensions, Request, Uri};
use http_body::Body;

use super::view::{FindPattern, FindPeer, HttpView};
use crate::gate::{Gate, Step, Waited};
use crate::identity::Caller;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct LayerShared {
    pub(super) gate: Gate,
    pub(super) extensions: bool,
    pub(super) peer: FindPeer,
    pub(super) original: Option<FindPath>,
    pub(super) matched: Option<FindPattern>,
    pub(super) caller: Option<FindCaller>,
    /// The route in the plan file, where the host has named it.
    pub(super) route: Option<Arc<str>>,
    /// The inner service counts the bytes read.
    pub(super) reads: bool,
    /// Whether the warning about an uncounted upgraded connection has been logged.
    pub(super) said_unheld: AtomicBool,
}

/// Finds the originally requested path in a request's extensions.
type FindPath = for<'a> fn(&'a Extensions) -> Option<&'a Uri>;

/// The host's function from a request's extensions to its caller.
type CallerFn = dyn Fn(&Extensions) -> Option<Caller> + Send + Sync;

/// Finds the caller in a request's extensions.
#[derive(Clone)]
pub(super) struct FindCaller(pub(super) Arc<CallerFn>);

impl std::fmt::Debug for FindCaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FindCaller(..)")
    }
}

impl LayerShared {
    /// Puts the caller into the request's extensions, where every view of it finds it.
    #[inline]
    pub(super) fn name_caller<B>(&self, request: &mut Request<B>) {
        if let Some(FindCaller(find)) = &self.caller
            && let Some(caller) = find(request.extensions())
        {
            request.extensions_mut().insert(caller);
        }
    }

    /// Asks the gate about a request.
    pub(super) fn ask<B: Body>(&self, request: &Request<B>, waited: Waited) -> Step {
        self.gate.admit_request(&self.view_of(request), waited)
    }

    /// The gate's view of a request.
    #[inline]
    pub(super) fn view_of<'a, B: Body>(&'a self, request: &'a Request<B>) -> HttpView<'a> {
        let asked_for = self.original.and_then(|find| find(request.extensions()));
        let uri = asked_for.unwrap_or_else(|| request.uri());
        let view = HttpView::of(request, uri, self.peer, self.matched);
        let body = request.body();
        // An empty body may report only that it has ended, as lambda_http's does.
        let length = body.size_hint().exact().or_else(|| body.is_end_stream().then_some(0));
        view.body_of(length).counting_reads(self.reads).on_route(self.route.as_deref())
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
