//! Usage events as ledger rows, and as draws on quotas.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{AHEAD, LATE, NotCounted, UnreadableEvent, UsageEvent};
use crate::amount::Atoms;
use crate::catalog::{MeterId, MeterSource, Over, Window, local_day};
use crate::clock::Now;
use crate::clock::unix_ms;
use crate::identity::hex;
use crate::ids::Surrogate;
use crate::ledger::record::UseKey;
use crate::ledger::units::UnitsCounted;
use crate::payers::late::LateUse;
use crate::policy::QuotaRule;
use crate::policy::resolve::LiveCatalog;
use crate::policy::scoped::ScopesOf;
use crate::sheets::sheet::Sheet;
use crate::telemetry::UnitsOutcome;
use crate::tenants::tenant::LiveTenant;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct EventEntry {
    sheet: Arc<Sheet>,
    /// Hash of the id, which identifies the event in keys.
    pub(super) id: String,
    /// Hash of its content: the same id may not come with other content.
    pub(super) print: String,
    /// Meters with atoms: the one reported, and the sums it feeds.
    atoms: Vec<(MeterId, u64)>,
    pub(super) rows: Vec<(UseKey, u64)>,
}

impl EventEntry {
    pub(crate) fn new(
        live: &LiveCatalog,
        now: Now,
        tenant: &LiveTenant,
        past: &mut Option<Arc<Sheet>>,
        event: &UsageEvent,
    ) -> Result<Self, NotCounted> {
        event.check()?;
        let sheet = tenant.sheet(live, now);
        let catalog = sheet.catalog.clone();
        let Some(id) = catalog.meter(&event.meter) else {
            return Err(NotCounted::UnknownMeter(event.meter.clone()));
        };
        let meter = &catalog.meters[usize::from(id.0)];
        if meter.count == MeterSource::Sum {
            return Err(NotCounted::Sum(event.meter.clone()));
        }
        let said_ms = event.at.map_or(now.wall_ms, unix_ms);
        if said_ms > now.wall_ms.saturating_add(millis(AHEAD)) {
            return Err(NotCounted::Ahead);
        }
        // A timestamp from a clock ahead of ours counts as now, in record and windows alike.
        let at_ms = said_ms.min(now.wall_ms);
        let record = tenant.record();
        check_open(record.era(at_ms).period(at_ms, &catalog.timezone), now.wall_ms)?;
        let is_of = |sheet: &&Arc<Sheet>| sheet.epoch == live.epoch && sheet.is_of(&record, at_ms);
        let sheet = match past.as_ref().filter(is_of) {
            Some(past) => past.clone(),
            None => past.insert(tenant.sheet_of(live, now, at_ms)).clone(),
        };
        let times =
            |units: u64, n: u64| units.checked_mul(n).ok_or_else(UnreadableEvent::too_large);
        let own = times(event.quantity, meter.scale)?;
        let fed = meter.feeds.iter().map(|(sum, n)| Ok((*sum, times(own, *n)?)));
        let atoms = std::iter::once(Ok((id, own))).chain(fed);
        let atoms = atoms.collect::<Result<Vec<(MeterId, u64)>, UnreadableEvent>>()?;
        let day = local_day(at_ms, &catalog.timezone);
        let row = |(id, atoms): &(MeterId, u64)| {
            let meter = &catalog.meters[usize::from(id.0)];
            let key = UseKey {
                tenant: sheet.tenant.surrogate,
                part: 0,
                meter: meter.name.clone(),
                scale: meter.scale,
                period_ms: sheet.row.period_ms,
                day,
                account: sheet.row.account.clone(),
            };
            (key, *atoms)
        };
        let rows = atoms.iter().map(row).collect();
        // Without a timestamp, the hash contains none.
        let said = format!("{}\n{}\n{:?}", event.meter, event.quantity, event.at.map(unix_ms));
        let hash = |text: &str| hex(&Sha256::digest(text)[..16]);
        Ok(Self { id: hash(&event.id), print: hash(&said), sheet, atoms, rows })
    }

    /// Notes its units for the metric, once they are on record.
    pub(super) fn count(&self, units: &mut UnitsCounted) {
        let plan = &self.sheet.policy.plan.name;
        for (key, atoms) in &self.rows {
            units.note(plan, (&key.meter, key.scale), UnitsOutcome::Reported, Atoms(*atoms));
        }
    }

    pub(crate) fn tenant(&self) -> Surrogate {
        self.sheet.tenant.surrogate
    }

    /// Its sheet, if use beyond a quota is owed: that debt is recorded after the event.
    pub(crate) fn may_owe(&self) -> Option<Arc<Sheet>> {
        let bills = |quota: &QuotaRule| {
            quota.quota.over == Over::Bill
                && self.atoms.iter().any(|(m, _)| *m == quota.quota.meter)
        };
        self.sheet.policy.quotas.iter().any(bills).then(|| self.sheet.clone())
    }

    /// Draws its units from the windows that it lies in, once they are on record.
    pub(super) fn draw(&self) {
        let sheet = &self.sheet;
        let now = sheet.tenant.hub.clock.now();
        let late = LateUse { sheet, scopes: ScopesOf::default(), now };
        self.atoms.iter().filter(|(_, n)| *n > 0).for_each(|(meter, n)| late.pay(*meter, *n));
        sheet.mark_dirty();
    }
}

/// Whether a billing period still accepts events.
fn check_open(period: Window, now_ms: i64) -> Result<(), NotCounted> {
    if now_ms < period.end_ms.saturating_add(millis(LATE)) {
        return Ok(());
    }
    let begin = jiff::Timestamp::from_millisecond(period.start_ms);
    let period = begin.map_or_else(|_| "an unknown time".to_owned(), |begin| begin.to_string());
    Err(NotCounted::Closed { period })
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
