//! The outcome of this process's last report to the billing service: logged, and kept for
//! [`Gate::health`](super::Gate::health).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::health::Trouble;
use crate::billing::result::{Report, ReportError};
use crate::clock::time_at;
use crate::telemetry;

/// After 24 h Stripe's sums decide about an entry, and the next reports ask for them: one that is
/// open for longer, 28 h, is in nothing that ends by itself.
const OLD_S: i64 = 28 * 3_600;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct LastReport(Mutex<Reported>);

#[derive(Debug, Default)]
struct Reported {
    succeeded_ms: Option<i64>,
    error: Option<String>,
    /// Entries and items that only an operator can settle.
    waiting: usize,
    /// Entries without an outcome, and the minute of the oldest, Unix seconds.
    open: (u64, Option<i64>),
}

impl LastReport {
    /// Keeps the outcome of a report, which was of all that is owed if it is `whole`.
    pub(super) fn note(&self, report: &Result<Report, ReportError>, whole: bool, now_ms: i64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Ok(report) => {
                (last.succeeded_ms, last.error) = (Some(now_ms), None);
                telemetry::reported(now_ms);
                if whole {
                    last.waiting = waiting(report);
                    last.open = (report.open, report.oldest_s);
                    let age_s = report.oldest_s.map_or(0, |it| now_ms / 1_000 - it);
                    telemetry::outbox(report.open, last.waiting, age_s.max(0) as f64);
                }
            }
            Err(error) => last.error = Some(error.to_string()),
        }
    }

    /// Another process reports now.
    pub(super) fn forget(&self) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.succeeded_ms.is_some() {
            telemetry::outbox(0, 0, 0.0);
        }
        *last = Reported::default();
    }

    /// When one succeeded.
    pub(super) fn succeeded(&self) -> Option<SystemTime> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.succeeded_ms.map(time_at)
    }

    /// Why the last one failed, if it did.
    pub(super) fn error(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    /// What is wrong by the last report.
    pub(super) fn troubles(&self, now_ms: i64, troubles: &mut Vec<Trouble>) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = last.error.clone() {
            let succeeded = last.succeeded_ms.map(time_at);
            troubles.push(Trouble::NotReported { error, succeeded });
        }
        if last.waiting > 0 {
            troubles.push(Trouble::BillingWaits { items: last.waiting });
        }
        if let (entries, Some(oldest_s)) = last.open
            && now_ms.div_euclid(1_000).saturating_sub(oldest_s) > OLD_S
        {
            let age_s = now_ms.div_euclid(1_000).saturating_sub(oldest_s);
            let oldest = Duration::from_secs(u64::try_from(age_s).unwrap_or(0));
            troubles.push(Trouble::OutboxOld { oldest, entries });
        }
    }
}

fn waiting(report: &Report) -> usize {
    let Report { stopped, doubtful, too_old, failed, .. } = report;
    stopped.len() + doubtful.len() + too_old.len() + failed.len()
}

/// Logs the outcome of a report that the gate makes by itself.
pub(super) fn log(report: &Result<Report, ReportError>) {
    match report {
        Ok(report) if waiting(report) > 0 => {
            let Report { sent, open, stopped, doubtful, too_old, failed, .. } = report;
            let (stopped, doubtful) = (stopped.len(), doubtful.len());
            let (too_old, failed) = (too_old.len(), failed.len());
            tracing::error!(
                sent,
                open,
                stopped,
                doubtful,
                too_old,
                failed,
                "usage was reported in part"
            );
        }
        Ok(Report { sent, units, verified, open, .. }) if sent + verified + open > 0 => {
            tracing::info!(sent, units, verified, open, "usage was reported");
        }
        Ok(_) => {}
        Err(error @ ReportError::Restored) => tracing::error!(%error, "usage is not reported"),
        Err(error) => tracing::warn!(%error, "usage could not be reported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_is_old_once_sums_should_have_decided_and_until_they_have() {
        let last = LastReport::default();
        let minute_s = 1_800_000_000;
        let at = |s: i64| {
            let mut troubles = Vec::new();
            last.troubles((minute_s + s) * 1_000, &mut troubles);
            troubles
        };
        let report = |open, oldest_s| Ok(Report { open, oldest_s, ..Report::default() });
        last.note(&report(3, Some(minute_s)), true, minute_s * 1_000);
        assert_eq!(at(OLD_S), []);
        let oldest = Duration::from_secs(28 * 3_600 + 1);
        assert_eq!(at(OLD_S + 1), [Trouble::OutboxOld { oldest, entries: 3 }]);
        // A report of a part says nothing of the rest.
        last.note(&report(0, None), false, minute_s * 1_000);
        assert_eq!(at(OLD_S + 1).len(), 1);
        last.note(&report(0, None), true, minute_s * 1_000);
        assert_eq!(at(OLD_S + 1), []);
    }
}
