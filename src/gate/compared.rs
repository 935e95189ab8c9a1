//! Tenants by what two plan files would do to them: whose next unit a new file would refuse, or
//! bill more of, and the old one does not. A tenant's record is resolved under each file, the pools
//! of its plan there are read from the store, and the verdict on one unit more is that of
//! [`peek`](Gate::peek).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::explain::verdict;
use super::logged::Drawn;
use super::standing::{LimitReader, StoredPools};
use super::{Gate, Inner};
use crate::amount::Amount;
use crate::catalog::{Catalog, MeterId, MeterSource, Over};
use crate::clock::Now;
use crate::decision::LimitState;
use crate::directory::Tenant;
use crate::error::Error;
use crate::policy::QuotaRule;
use crate::policy::resolve::LiveCatalog;
use crate::sheets::sheet::Sheet;
use crate::store::StoreError;
use crate::tenants::tenant::LiveTenant;

/// Two plan files, to compare tenants under. [`Gate::compare_plans`] takes them.
#[derive(Debug)]
#[doc(hidden)]
pub struct PlanFiles {
    old: LiveCatalog,
    new: LiveCatalog,
}

/// What a tenant would newly meet. [`Gate::compare_plans`] returns them.
#[derive(Clone, Debug)]
#[doc(hidden)]
#[non_exhaustive]
pub struct PlanChange {
    /// The tenant.
    pub tenant: String,
    /// Its plan under the new file.
    pub plan: Arc<str>,
    /// The limit: `requests/month`. Where none refuses, the reason: `trial-over`.
    pub limit: Arc<str>,
    /// What it has used in the window that is open, under the new file.
    pub used: Option<Amount>,
    /// The limit before; `None`: there is none.
    pub old: Option<Amount>,
    /// The limit after.
    pub new: Option<Amount>,
    /// Whether the next unit is refused after, and was not before.
    pub is_refused: bool,
    /// What would be billed of so much use in a window of the old file, and of the new one.
    pub billed: [Amount; 2],
}

impl PlanFiles {
    /// Reads both.
    ///
    /// # Errors
    ///
    /// [`Error::Plans`] with all mistakes of one.
    pub fn read(old: (&str, &str), new: (&str, &str), now: SystemTime) -> Result<Self, Error> {
        let live = |(name, text): (&str, &str)| {
            let catalog = Catalog::parse(name, text, now)?;
            Ok::<_, Error>(LiveCatalog::new(Arc::new(catalog), 1, 1))
        };
        Ok(Self { old: live(old)?, new: live(new)? })
    }
}

impl Gate {
    /// What the new file would newly refuse, or bill more of such use, under the limits of the
    /// whole tenant. A meter whose `parts` are others than on record is left out: the store refuses
    /// such a file. For the operator's command.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn compare_plans(
        &self,
        tenant: &Tenant,
        files: &PlanFiles,
    ) -> Result<Vec<PlanChange>, Error> {
        let inner = &self.inner;
        let Some(live) = inner.tenants.load_tenant(tenant.record().surrogate).await? else {
            return Ok(Vec::new());
        };
        let now = inner.clock.now();
        let old = Under::read(inner, &live, &files.old, now).await?;
        let new = Under::read(inner, &live, &files.new, now).await?;
        let recorded = inner.catalogs.live.load().catalog.clone();
        let [before, mut after] = [&old, &new].map(|it| it.refusals(inner, now));
        after.retain(|refused| {
            let was_refused = before.iter().any(|it| it.meter == refused.meter);
            !was_refused && is_of_record(&recorded, &refused.meter, new.catalog())
        });
        let mut found = BTreeMap::<Arc<str>, PlanChange>::new();
        let change = |limit: &Arc<str>| PlanChange {
            tenant: tenant.record().id.clone(),
            plan: new.sheet.policy.plan.name.clone(),
            limit: limit.clone(),
            used: None,
            old: old.state(inner, now, limit).map(|it| it.limit),
            new: new.state(inner, now, limit).map(|it| it.limit),
            is_refused: false,
            billed: [Amount::units(0); 2],
        };
        for refused in after {
            let it = found.entry(refused.by.clone()).or_insert_with(|| change(&refused.by));
            it.is_refused = true;
            it.used = refused.used;
        }
        for (limit, used, billed) in new.billed(inner, now) {
            let before = old.billed(inner, now).find(|(id, ..)| *id == limit);
            let before = before.map_or(Amount::units(0), |(_, _, billed)| billed);
            let meter = limit.split('/').next().unwrap_or_default();
            if billed > before && is_of_record(&recorded, meter, new.catalog()) {
                let it = found.entry(limit.clone()).or_insert_with(|| change(&limit));
                it.used = Some(used);
                it.billed = [before, billed];
            }
        }
        Ok(found.into_values().collect())
    }
}

/// Whether a meter's unit has the parts in which it is on record, if it is.
fn is_of_record(recorded: &Catalog, meter: &str, file: &Catalog) -> bool {
    let scale = |of: &Catalog| Some(of.meters[usize::from(of.meter(meter)?.0)].scale);
    scale(recorded).is_none_or(|it| scale(file) == Some(it))
}

/// A tenant under a plan file, with what the store has of its pools there.
struct Under {
    sheet: Arc<Sheet>,
    stored: StoredPools,
}

/// A refusal of one unit more.
struct Refused {
    meter: Arc<str>,
    /// The limit, or the reason.
    by: Arc<str>,
    used: Option<Amount>,
}

impl Under {
    async fn read(
        inner: &Inner,
        tenant: &LiveTenant,
        file: &LiveCatalog,
        now: Now,
    ) -> Result<Self, StoreError> {
        let sheet = tenant.sheet_under(file, now);
        let stored = inner.reader(&sheet, now).read_unleased().await?;
        Ok(Self { sheet, stored })
    }

    fn catalog(&self) -> &Catalog {
        &self.sheet.catalog
    }

    fn reader<'a>(&'a self, inner: &'a Inner, now: Now) -> LimitReader<'a> {
        LimitReader { stored: Some(&self.stored), ..inner.reader(&self.sheet, now) }
    }

    /// By meter, whether one unit more would be refused.
    fn refusals(&self, inner: &Inner, now: Now) -> Vec<Refused> {
        let reader = self.reader(inner, now);
        let mut found = Vec::new();
        for (at, meter) in self.catalog().meters.iter().enumerate() {
            if meter.count == MeterSource::Sum {
                continue; // it counts its parts
            }
            let id = MeterId(u16::try_from(at).unwrap_or(u16::MAX));
            let rules = self.sheet.policy.work(self.catalog(), None, &[(id, meter.scale)]);
            let asked: Vec<_> = reader.asked_of_all((&rules, Some(0)), Drawn::No).collect();
            let said = verdict(&reader, &rules, &asked);
            if said["verdict"] != "refused" {
                continue;
            }
            let word = said["limit"].as_str().or(said["reason"].as_str()).unwrap_or_default();
            let limit = asked.iter().find(|(_, asked)| *asked.name == *word);
            let state = limit.and_then(|(limit, _)| reader.state(*limit));
            found.push(Refused {
                meter: meter.name.clone(),
                by: word.into(),
                used: state.map(|it| it.used),
            });
        }
        found
    }

    /// The quotas that bill: what is used of each, and what is beyond.
    fn billed<'a>(
        &'a self,
        inner: &'a Inner,
        now: Now,
    ) -> impl Iterator<Item = (Arc<str>, Amount, Amount)> + 'a {
        let reader = self.reader(inner, now);
        let bills = |rule: &&QuotaRule| rule.tenant_wide && rule.quota.over == Over::Bill;
        self.sheet.policy.quotas.iter().filter(bills).filter_map(move |rule| {
            let amount = |atoms| Amount::new(atoms, reader.scale(rule.quota.meter));
            let (used, limit) = (reader.used_of(rule)?, rule.quota.limit?);
            Some((rule.quota.id.clone(), amount(used), amount(used.saturating_sub(limit))))
        })
    }

    /// The limit of this name, as it stands.
    fn state(&self, inner: &Inner, now: Now, name: &str) -> Option<LimitState> {
        let reader = self.reader(inner, now);
        let meter = self.catalog().meter(name.split('/').next()?)?;
        let scale = self.catalog().meters[usize::from(meter.0)].scale;
        let rules = self.sheet.policy.work(self.catalog(), None, &[(meter, scale)]);
        rules.limits().filter_map(|limit| reader.state(limit)).find(|it| *it.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Grant;
    use crate::testing;
    use crate::{Ask, Identified};

    const OLD: &str = "default-plan = \"pro\"\n[meter.jobs]\n\
        stripe = { event = \"jobs\", send = \"overage\" }\n[meter.pages]\nparts = 4\n\
        [plan.pro]\nquota.jobs = \"1000/day\"\nquota.pages = \"1000/day\"\n\
        [plan.once]\nquota.jobs = \"1000\"\n[plan.sold]\n\
        quota.jobs = { limit = \"1000/cycle\", over = \"bill\" }\n[plan.trial]\nexpires = \"9d\"\n\
        quota.jobs = \"1000/day\"";

    fn files(new: &str) -> PlanFiles {
        PlanFiles::read(("old", OLD), ("new", new), SystemTime::UNIX_EPOCH).unwrap()
    }

    /// A tenant that has used 600 jobs.
    async fn used(gate: &Gate, id: &str, plan: &str, given: u64) {
        let edit = gate.directory().tenant(id).plan(plan);
        let edit = match given {
            0 => edit,
            units => edit.grant(Grant::new("g", "jobs", units)),
        };
        edit.save().await.unwrap();
        let handle = gate.tenant(id).await.unwrap();
        gate.admit(Ask::new(&handle, "job").cost("jobs", 600)).await.unwrap().settle();
    }

    /// A gate on a file, as of a process of its own.
    async fn opened(path: &std::path::Path, plans: &str) -> Gate {
        let store = crate::store::Redb::open(path).unwrap();
        let clock = crate::ManualClock::at_unix_ms(testing::START_MS);
        testing::builder(plans).store(store).clock(clock).open().await.unwrap()
    }

    /// Tenants that have used 600 jobs, in a file.
    async fn in_file(path: &std::path::Path, of: &[(&str, u64)]) -> Vec<String> {
        let gate = opened(path, OLD).await;
        let mut ids = Vec::new();
        for (plan, given) in of {
            ids.push(format!("{plan}{given}"));
            used(&gate, &ids[ids.len() - 1], plan, *given).await;
        }
        gate.close().await.unwrap();
        ids
    }

    async fn compared(gate: &Gate, id: &str, new: &str) -> Vec<PlanChange> {
        let tenant = gate.directory().find(id).await.unwrap().unwrap();
        gate.compare_plans(&tenant, &files(new)).await.unwrap()
    }

    /// Who is refused is whom a gate under the new file refuses, whatever the plan gives and how.
    #[tokio::test]
    async fn a_new_file_refuses_whom_it_is_said_to() {
        let news = [
            OLD.to_owned(),
            OLD.replace("1000", "500"),
            OLD.replace("1000", "600"),
            OLD.replace("1000", "601"),
            OLD.replace("\"1000/day\"", "\"prepaid\""),
            OLD.replace("\"1000/day\"", "\"700\""),
            OLD.replace("\"1000\"", "\"500/day\""),
            OLD.replace("expires = \"9d\"\n", ""),
            OLD.replace("\"bill\"", "\"bill\", stop = \"500\"").replace("1000", "100"),
        ];
        let all = [("pro", 0), ("pro", 5_000), ("pro", 50), ("once", 0), ("sold", 0), ("trial", 0)];
        let (mut refused, mut admitted) = (0, 0);
        for new in &news {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("t.redb");
            let ids = in_file(&path, &all).await;
            let gate = opened(&path, OLD).await;
            let mut said = Vec::new();
            for id in &ids {
                let is_of_jobs = |it: &PlanChange| it.is_refused && !it.limit.starts_with("pages");
                said.push(compared(&gate, id, new).await.iter().any(is_of_jobs));
            }
            gate.close().await.unwrap();
            let gate = opened(&path, new).await;
            for (id, said) in ids.iter().zip(said) {
                let handle = gate.tenant(id).await.unwrap();
                let one = gate.peek(&Identified::from(&handle), "jobs", 1).await.unwrap();
                assert_eq!(said, one["verdict"] == "refused", "{id} {one} {new}");
                *(if said { &mut refused } else { &mut admitted }) += 1;
            }
            gate.close().await.unwrap();
        }
        assert!(refused > 10 && admitted > 10, "{refused} refused, {admitted} admitted");
    }

    /// Of a smaller quota that bills, more of such use is billed; of other parts nothing is said.
    #[tokio::test]
    async fn more_of_such_use_is_billed_under_a_smaller_quota() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        let ids = in_file(&path, &[("sold", 0)]).await;
        let gate = opened(&path, OLD).await;
        for (new, billed) in [
            (OLD.to_owned(), None),
            (OLD.replace("1000", "500"), Some(100)),
            (OLD.replace("1000", "700"), None),
            (OLD.replace("[meter.jobs]", "[meter.jobs]\nparts = 9").replace("1000", "500"), None),
        ] {
            let found = compared(&gate, &ids[0], &new).await;
            let more = found.iter().map(|it| (&*it.limit, it.is_refused, it.billed[1]));
            let expected = billed.map(|n| ("jobs/cycle", false, Amount::units(n)));
            assert_eq!(more.collect::<Vec<_>>(), Vec::from_iter(expected), "{new}");
        }
        gate.close().await.unwrap();
    }
}
