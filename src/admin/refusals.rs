//! The last refusals of a tenant, or of all.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Admin, written};
use crate::wire::{Reply, plain_problem};

/// Refusals of an answer, where the request does not say how many.
const PAGE: usize = 100;
/// Most refusals of an answer.
const MAX_PAGE: usize = 1_000;

impl Admin {
    /// The last refusals in this process, newest first, and how many of those in memory there are
    /// for each reason.
    pub(super) fn refusals(&self, tenant: Option<&str>, query: &str) -> Result<Reply, Reply> {
        let most = limit(query)?;
        let kept = self.gate.inner.recording.decisions.refusals(tenant.map(Some), usize::MAX);
        let mut by_reason = BTreeMap::<&str, u64>::new();
        for reason in kept.iter().filter_map(|it| it.reason.as_deref()) {
            *by_reason.entry(reason).or_default() += 1;
        }
        let shown: Vec<_> = kept.iter().take(most).map(|record| json!(**record)).collect();
        Ok(written::json(200, &json!({ "refusals": shown, "by_reason": by_reason })))
    }
}

fn limit(query: &str) -> Result<usize, Reply> {
    let bad = |detail: &str| plain_problem(400, "Bad query", detail);
    match query.split_once('=') {
        None if query.is_empty() => Ok(PAGE),
        Some(("limit", limit)) => {
            let limit = limit.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
            limit.ok_or_else(|| bad("limit is a number from 1 to 1000."))
        }
        _ => Err(bad("Only limit may be asked for.")),
    }
}
