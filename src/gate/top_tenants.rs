//! The gauge of the tenants nearest to a limit, where the service file asks for it: the one metric
//! that has tenants as labels.
//!
//! A series stays in the host's recorder for as long as the process lives, so their number is
//! bounded here: past [`MOST_SERIES`] a tenant that was never shown has no name.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Inner;
use crate::telemetry;

/// How often it is set: as often as memory is swept, since it looks at all tenants in use.
const EVERY: Duration = Duration::from_secs(30);

/// Most series of a process: a scrape of some hundred KiB.
const MOST_SERIES: usize = 1_000;

/// The name of all that have none.
const OTHERS: &str = "(others)";

/// The used share of a limit.
pub(super) struct Share {
    pub(super) tenant: Arc<str>,
    pub(super) limit: Arc<str>,
    pub(super) used: f64,
}

/// Sets the gauge for so many tenants.
pub(super) async fn watch(inner: Weak<Inner>, most: usize) {
    let mut look = tokio::time::interval(EVERY);
    let mut shown = Shown::default();
    loop {
        look.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        shown.set(inner.shares(most).await);
    }
}

/// The series that were ever set, by tenant and limit, with what they show.
#[derive(Default)]
struct Shown(BTreeMap<(Arc<str>, Arc<str>), f64>);

impl Shown {
    /// Shows these; what is not among them any more goes to 0.
    fn set(&mut self, shares: Vec<Share>) {
        let before = std::mem::take(&mut self.0);
        self.0 = before.keys().map(|of| (of.clone(), 0.0)).collect();
        for Share { tenant, limit, used } in shares {
            let own = (tenant, limit);
            let has_room = self.0.len() < MOST_SERIES || self.0.contains_key(&own);
            let of = if has_room { own } else { (OTHERS.into(), "".into()) };
            let shown = self.0.entry(of).or_default();
            *shown = shown.max(used);
        }
        for ((tenant, limit), used) in &self.0 {
            if before.get(&(tenant.clone(), limit.clone())) != Some(used) {
                telemetry::limit_used(tenant, limit, *used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(tenant: &str, used: f64) -> Share {
        Share { tenant: tenant.into(), limit: "requests/day".into(), used }
    }

    #[test]
    fn one_that_leaves_goes_to_nothing_and_series_are_bounded() {
        let mut shown = Shown::default();
        shown.set(vec![share("a", 0.5), share("b", 0.4)]);
        shown.set(vec![share("b", 0.9)]);
        let of = |shown: &Shown, tenant: &str| {
            shown.0.iter().find(|(of, _)| *of.0 == *tenant).map(|(_, used)| *used)
        };
        assert_eq!((of(&shown, "a"), of(&shown, "b")), (Some(0.0), Some(0.9)));
        for n in 0..2 * MOST_SERIES {
            shown.set(vec![share(&format!("t{n}"), 0.7), share("b", 0.8)]);
        }
        assert_eq!(shown.0.len(), MOST_SERIES + 1);
        assert_eq!((of(&shown, OTHERS), of(&shown, "b")), (Some(0.7), Some(0.8)));
        shown.set(vec![]);
        assert!(shown.0.values().all(|used| *used == 0.0));
    }
}
