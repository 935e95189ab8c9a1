//! Alerts: an event when a given percentage of a tenant's quota is used, once per window across all
//! processes, restarts included.
//!
//! Use settled by this process and units taken by others count: work under way here raises no
//! alert, and one may come early by another process's lease. Checked whenever use is collected for
//! the log. The pool's item decides which process raises it: the item keeps the highest use already
//! alerted, in atoms. Under another limit each percentage is another use, so an alert that fired
//! under a lower limit fires again under a raised one.

use std::sync::Arc;

use crate::catalog::Window;

/// A tenant has passed an `alert` percentage of a quota: the argument of the hook in
/// [`GateBuilder::on_alert`](crate::GateBuilder::on_alert).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alert {
    /// The tenant's outer id.
    pub tenant: Arc<str>,
    /// The limit's name: `requests/month`.
    pub limit: Arc<str>,
    /// The percentage of the limit that was passed; above 100 beyond a soft limit.
    pub percent: u16,
    /// The window in which it was passed, with its start and end.
    pub window: Window,
}

/// A lease's alerts, and how far they have been raised.
#[derive(Debug)]
pub(crate) struct Alerting {
    tenant: Arc<str>,
    rule: Arc<AlertRule>,
    /// The highest use already alerted that this process knows of, in atoms.
    raised: i64,
}

/// An alert that is due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) alert: Alert,
    /// The use that triggers it, in atoms of its pool.
    pub(crate) at: i64,
    /// The use that was seen, in the same.
    pub(crate) used: i64,
    pub(crate) terms: AlertTerms,
}

/// What a quota with alerts is a part of.
#[derive(Clone, Debug)]
pub(crate) struct AlertTerms {
    /// The plan's name.
    pub(crate) plan: Arc<str>,
    /// Atoms of a whole unit.
    pub(crate) scale: u64,
    /// The limit, in atoms.
    pub(crate) limit: u64,
    /// Whether the pool is the one beyond the limit.
    pub(crate) is_over: bool,
}

impl AlertTerms {
    /// Whole units used, where so many atoms of the pool are taken.
    pub(crate) fn used(&self, taken: i64) -> u64 {
        let before = if self.is_over { self.limit } else { 0 };
        before.saturating_add(u64::try_from(taken).unwrap_or(0)) / self.scale.max(1)
    }

    /// The limit in whole units.
    pub(crate) fn units(&self) -> u64 {
        self.limit / self.scale.max(1)
    }
}

/// The alerts of one pool: percentages with the use at which each is passed, ascending.
#[derive(Debug)]
pub(crate) struct AlertRule {
    pub(crate) limit: Arc<str>,
    pub(crate) steps: Vec<(i64, u16)>,
    pub(crate) terms: AlertTerms,
}

impl AlertRule {
    /// The percentages that fall into the pool of the included atoms, or into the one beyond them.
    pub(crate) fn new(limit_name: &Arc<str>, percents: &[u16], terms: AlertTerms) -> Option<Self> {
        let (limit, over) = (terms.limit, terms.is_over);
        let base = if over { 100 } else { 0 };
        let share = |percent: u16| {
            let used = u128::from(limit) * u128::from(percent - base) / 100;
            i64::try_from(used).unwrap_or(i64::MAX).max(1)
        };
        let here = percents.iter().filter(|percent| (**percent > 100) == over);
        let steps: Vec<_> = here.map(|percent| (share(*percent), *percent)).collect();
        (!steps.is_empty()).then(|| Self { limit: limit_name.clone(), steps, terms })
    }
}

impl Alerting {
    pub(crate) fn new(tenant: Arc<str>, rule: Arc<AlertRule>) -> Self {
        Self { tenant, rule, raised: 0 }
    }

    /// Switches to the alerts of another limit.
    pub(crate) fn follow(&mut self, rule: &Arc<AlertRule>) {
        self.rule.clone_from(rule);
    }

    /// The lowest percentage that `used` atoms have passed without an alert.
    pub(crate) fn due(&self, used: i64, window: Window) -> Option<Due> {
        let passed = |step: &&(i64, u16)| step.0 > self.raised && used >= step.0;
        let (at, percent) = *self.rule.steps.iter().find(passed)?;
        let (tenant, limit) = (self.tenant.clone(), self.rule.limit.clone());
        let terms = self.rule.terms.clone();
        Some(Due { alert: Alert { tenant, limit, percent, window }, at, used, terms })
    }

    /// The highest use already alerted that this process knows of.
    pub(crate) fn raised(&self) -> i64 {
        self.raised
    }

    /// Marks it as raised, by this process or another.
    pub(crate) fn settle(&mut self, at: i64) {
        self.raised = self.raised.max(at);
    }
}
