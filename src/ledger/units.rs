//! Units for the metric `tallygate_units_total`, from what goes to the log.
//!
//! A metric counts whole units, and a request may use a part of one: what is less than a unit is
//! kept here until the next use completes it. So the counts are those of the ledger, less a part
//! of a unit in each of the three writers: the flush, the settler of claims, the events.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::amount::Atoms;
use crate::telemetry::{self, UnitsOutcome};

/// Most series with a part of a unit in hand. Only plan files without end, each with new names,
/// come here; then all parts are dropped, each less than a unit.
const MOST: usize = 4_096;

/// Units of one writer of the log that the metric lacks. Empty without the feature `metrics`.
#[derive(Debug, Default)]
pub(crate) struct UnitsCounted {
    series: BTreeMap<Series, u64>,
    has_news: bool,
}

/// Labels, with the atoms of a unit.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    outcome: UnitsOutcome,
    plan: Arc<str>,
    meter: Arc<str>,
    scale: u64,
}

impl UnitsCounted {
    /// Notes atoms of a meter, which is given by its name and the atoms of its unit.
    pub(crate) fn note(
        &mut self,
        plan: &Arc<str>,
        (meter, scale): (&Arc<str>, u64),
        outcome: UnitsOutcome,
        atoms: Atoms,
    ) {
        if !telemetry::IS_ON || atoms == Atoms::NONE {
            return;
        }
        let series = Series { outcome, plan: plan.clone(), meter: meter.clone(), scale };
        let sum = self.series.entry(series).or_default();
        *sum = sum.saturating_add(atoms.0);
        self.has_news = true;
    }

    /// Counts whole units in the metric, and keeps the rest.
    pub(crate) fn tell(&mut self) {
        if !std::mem::take(&mut self.has_news) {
            return;
        }
        self.series.retain(|of, atoms| {
            let scale = of.scale.max(1);
            if *atoms >= scale {
                telemetry::units(&of.plan, &of.meter, of.outcome, *atoms / scale);
            }
            *atoms %= scale;
            *atoms > 0
        });
        if self.series.len() > MOST {
            self.series.clear();
        }
    }
}
