//! What is wrong with a gate at the moment, apart from its alerts: read from memory.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::Inner;
use super::health::Trouble;
use crate::clock::time_at;

/// How much longer than two flushes usage may wait before it is called late: as long as a store
/// that is throttled for a moment takes.
const LATE: Duration = Duration::from_secs(10);

/// How far the clock may be behind that of the process that published the plans in force.
const BEHIND_MS: i64 = 60_000;

/// No release is older: the begin of 2026.
const RELEASED_MS: i64 = 1_767_225_600_000;

impl Inner {
    /// What is wrong with the gate, apart from its alerts.
    pub(super) fn troubles(&self, troubles: &mut Vec<Trouble>) {
        if self.teardown.closing.load(Ordering::Acquire) {
            troubles.push(Trouble::Closing);
        }
        if self.hub.reach.is_away() {
            troubles.push(Trouble::StoreAway);
        }
        let (flusher, oldest) = (&self.recording.flusher, self.flush_lag());
        let error = flusher.backlog().error().map(|error| error.to_string());
        if error.is_some() || oldest > flusher.every() * 2 + LATE {
            troubles.push(Trouble::NotWritten { oldest, error });
        }
        if let Some(error) = self.catalogs.failure() {
            troubles.push(Trouble::PlanFile { error });
        }
        #[cfg(feature = "stripe")]
        if let Some(billing) = &self.outbound.billing {
            billing.last_report.troubles(self.clock.now().wall_ms, troubles);
        }
        troubles.extend(self.wrong_clock());
    }

    /// A wall clock that is behind what is past for certain.
    fn wrong_clock(&self) -> Option<Trouble> {
        let now_ms = self.clock.now().wall_ms;
        let not_before_ms = self.catalogs.published_ms().max(RELEASED_MS);
        let is_behind = now_ms.saturating_add(BEHIND_MS) < not_before_ms;
        let (says, not_before) = (time_at(now_ms), time_at(not_before_ms));
        is_behind.then_some(Trouble::Clock { says, not_before })
    }

    /// Age of the oldest usage that is not written yet.
    pub(crate) fn flush_lag(&self) -> Duration {
        let backlog = self.recording.flusher.backlog();
        backlog.age(self.clock.now().mono_ns).unwrap_or_default()
    }

    /// When this process last reported to Stripe and succeeded, if it does.
    pub(crate) fn last_reported(&self) -> Option<SystemTime> {
        #[cfg(feature = "stripe")]
        return self.outbound.billing.as_ref().and_then(|billing| billing.last_report.succeeded());
        #[cfg(not(feature = "stripe"))]
        None
    }
}
