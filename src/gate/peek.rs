//! What so many units of a meter would get now, as work that asks for them ([`Gate::admit`]) would:
//! admitted, or refused by which limit, with its numbers. Nothing is drawn.

use serde_json::{Value, json};

use super::explain::{merge, shown, verdict};
use super::logged::Drawn;
use super::standing::LimitReader;
use super::{Gate, Identified};
use crate::error::Error;
use crate::wire::rfc3339;

impl Gate {
    /// What so many units of this meter would get now, as a JSON object: the verdict, and the
    /// limits that hold for them in the order in which they are asked. Counters are read as by
    /// [`explain`](Self::explain). For the operator's routes and command.
    ///
    /// # Errors
    ///
    /// There is no such meter, or it is a sum of others; or the store's error.
    #[doc(hidden)]
    pub async fn peek(&self, who: &Identified, meter: &str, units: u64) -> Result<Value, Error> {
        let inner = &*self.inner;
        if let Some(read) = self.refresh_for_look(&who.tenant().0, inner.clock.now()) {
            read.await;
        }
        let now = inner.clock.now();
        let live = inner.catalogs.live.load_full();
        let sheet = who.tenant().0.sheet(&live, now);
        let catalog = &sheet.catalog;
        self.meter(meter)?; // in the plan file, and no sum, which counts its parts
        let known = catalog.meter(meter).ok_or_else(|| Error::NoMeter(meter.to_owned()))?;
        let atoms = units.saturating_mul(catalog.meters[usize::from(known.0)].scale);
        let rules = sheet.policy.work(catalog, None, &[(known, atoms)]);
        let scopes = who.scopes(&inner.hub.without_value);
        let here = LimitReader { inner, sheet: &sheet, scopes, now, hold: None, stored: None };
        let stored = here.read_unleased().await?;
        let reader = LimitReader { stored: Some(&stored), ..here };
        let call = (&rules, Some(0));
        let asked: Vec<_> = reader.asked_of_all(call, Drawn::No).collect();
        let record = who.tenant().0.record();
        let origins = live.origins(&record, &sheet.policy.plan, now.wall_ms);
        let from = (&record, &origins);
        let limits: Vec<_> =
            asked.iter().map(|(limit, asked)| shown(&reader, *limit, asked, from)).collect();
        let mut all = json!({
            "at": rfc3339(now.wall_ms),
            "tenant": sheet.tenant.id,
            "meter": meter,
            "units": units,
            "plan": sheet.policy.plan.name,
            "status": super::status_word(&sheet.standing),
            "revision": live.revision,
            "limits": limits,
        });
        merge(&mut all, verdict(&reader, &rules, &asked));
        Ok(all)
    }
}
