//! The outcome of this process's last report to the billing service: logged, and kept for
//! [`Gate::health`](super::Gate::health).

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::health::Trouble;
use crate::billing::result::{Report, ReportError};
use crate::clock::time_at;
use crate::telemetry;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct LastReport(Mutex<Reported>);

#[derive(Debug, Default)]
struct Reported {
    succeeded_ms: Option<i64>,
    error: Option<String>,
    /// Entries and items that only an operator can settle.
    waiting: usize,
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
    pub(super) fn troubles(&self, troubles: &mut Vec<Trouble>) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = last.error.clone() {
            let succeeded = last.succeeded_ms.map(time_at);
            troubles.push(Trouble::NotReported { error, succeeded });
        }
        if last.waiting > 0 {
            troubles.push(Trouble::BillingWaits { items: last.waiting });
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
