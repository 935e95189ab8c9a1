//! Alerts: an event when so many percent of a tenant's quota are used, once per window over all
//! processes, restarts included.
//!
//! Use is looked at when a lease has been driven, so an alert comes with a lease and not with a
//! unit: up to one lease early, since units that another process holds count as used. Who raises it
//! is decided by the pool's item, which remembers the highest percentage that was raised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::catalog::Window;

/// A quota has passed one of its `alert` percentages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The tenant's outer id.
    pub tenant: Arc<str>,
    /// The limit's words: `requests/month`.
    pub limit: Arc<str>,
    /// The percentage of the limit that was passed; above 100 beyond a soft limit.
    pub percent: u16,
    /// The window it was passed in.
    pub window: Window,
}

/// What a lease needs to know of its quota's alerts.
#[derive(Debug)]
pub(crate) struct Alerting {
    tenant: Arc<str>,
    rule: Arc<AlertRule>,
    /// The highest percentage that this process knows to have been raised.
    raised: AtomicU16,
}

/// The alerts of one pool: percentages with the use at which each is passed, ascending.
#[derive(Debug)]
pub(crate) struct AlertRule {
    pub(crate) limit: Arc<str>,
    pub(crate) steps: Vec<(i64, u16)>,
}

impl AlertRule {
    /// The percentages that fall into the pool of `limit` included atoms, or into the one beyond
    /// it.
    pub(crate) fn new(
        limit_name: &Arc<str>,
        limit: u64,
        percents: &[u16],
        over: bool,
    ) -> Option<Self> {
        let base = if over { 100 } else { 0 };
        let share = |percent: u16| {
            let used = u128::from(limit) * u128::from(percent - base) / 100;
            i64::try_from(used).unwrap_or(i64::MAX).max(1)
        };
        let here = percents.iter().filter(|percent| (**percent > 100) == over);
        let steps: Vec<_> = here.map(|percent| (share(*percent), *percent)).collect();
        (!steps.is_empty()).then(|| Self { limit: limit_name.clone(), steps })
    }
}

impl Alerting {
    pub(crate) fn new(tenant: Arc<str>, rule: Arc<AlertRule>) -> Self {
        Self { tenant, rule, raised: AtomicU16::new(0) }
    }

    /// The highest percentage that `used` atoms have passed, unless it is known to have been
    /// raised.
    pub(crate) fn due(&self, used: i64) -> Option<u16> {
        let passed = self.rule.steps.iter().rev().find(|(at, _)| used >= *at)?.1;
        (passed > self.raised()).then_some(passed)
    }

    /// The highest percentage that this process knows to have been raised.
    pub(crate) fn raised(&self) -> u16 {
        self.raised.load(Ordering::Relaxed)
    }

    /// It has been raised, by this process or another.
    pub(crate) fn settle(&self, percent: u16) {
        self.raised.fetch_max(percent, Ordering::Relaxed);
    }

    pub(crate) fn alert(&self, percent: u16, window: Window) -> Alert {
        let (tenant, limit) = (self.tenant.clone(), self.rule.limit.clone());
        Alert { tenant, limit, percent, window }
    }
}
