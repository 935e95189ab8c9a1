//! The audit: whether use as recorded, owed, sent and counted by the service is the same, by
//! account, tenant, meter and billing period. Every difference is a [`Gap`] with a name.
//!
//! It trusts nothing that a reporter keeps in memory: logs are read from their first slot, items
//! and pools as stored, and the service's sums are asked for anew. It decides and sends nothing.
//!
//! Use that was served and never recorded cannot be read anywhere, because it was never written.
//! Its bound can: units of a pool that a writer holds, or held when it died, beyond what it
//! recorded ([`Pool::unrecorded`]). So served = recorded + at most that.
//!
//! Not promised: the service's sums lag, so that use sent within the last hours may show as a gap
//! that is gone at the next audit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::due::{DueUse, RecordedUse};
use super::item::ItemId;
use super::outbox::Outbox;
use super::report::Reporter;
use super::result::ReportError;
use super::sink::Sum;
use crate::amount::{Amount, Atoms};
use crate::clock::time_at;
use crate::ids::{Surrogate, WriterId};
use crate::ledger::record::PoolRow;
use crate::ledger::totals::Examined;
use crate::quota::pool::{self, PoolId};
use crate::renewal::Whole;
use crate::store::{StoreError, StoreErrorKind};

mod gap;

pub use gap::Gap;

/// The findings of an audit: [`Gate::audit`](crate::Gate::audit) returns them. Begin with
/// [`is_clean`](Self::is_clean) and [`gaps`](Self::gaps).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// One line for each account, tenant, meter and period.
    pub lines: Vec<Line>,
    /// Units that the service counted, by customer and event name.
    pub totals: Vec<Total>,
    /// Pools with use recorded by writers.
    pub pools: Vec<Pool>,
    /// The logs that cannot be read to their ends, each by the id of its writer, and why: what was
    /// recorded beyond that point is in no line.
    pub broken_logs: Vec<String>,
    /// Tenants of whom something stored is damaged, and what: what depends on it is in no line and
    /// no pool. The others are audited.
    pub failed: Vec<(Surrogate, String)>,
}

/// One account, tenant, meter and period; two, if the meter was counted in other parts of its unit
/// in between. Amounts are the meter's, except where units of the service are stated. In
/// [`Audit::lines`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// The billing account in force at the use; `None` if there was none.
    pub account: Option<Arc<str>>,
    /// The tenant.
    pub tenant: Surrogate,
    /// The meter.
    pub meter: Arc<str>,
    /// When the period began, Unix milliseconds.
    pub(crate) period_ms: i64,
    /// Recorded in the logs.
    pub recorded: Amount,
    /// Owed of that: all, or only the use beyond a quota that bills.
    pub owed: Amount,
    /// Frozen into entries.
    pub frozen: Amount,
    /// Whole units of the service that it has accepted.
    pub sent: u64,
    /// Differences, including those that pass by themselves.
    pub gaps: Vec<Gap>,
}

/// Units sent and counted for one customer and event name, over all periods. Whole units of the
/// service. In [`Audit::totals`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Total {
    /// The customer at the service.
    pub customer: String,
    /// The event name of the meter at the service.
    pub event: String,
    /// Units accepted by the service.
    pub sent: u64,
    /// Units sent without an answer, which may count.
    pub open: u64,
    /// The service's own count.
    pub counted: i64,
}

/// A pool of a limit, compared with what was recorded of it. Amounts are those of its meter; of a
/// meter that the plan file has lost, and of a grant that was ended, they count the smallest parts
/// of a unit. In [`Audit::pools`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pool {
    /// The tenant.
    pub tenant: Surrogate,
    /// The limit's name: `requests/month`.
    pub limit: Arc<str>,
    /// Start of the window, Unix milliseconds.
    pub(crate) start_ms: i64,
    /// Taken out of the pool: held and spent.
    pub taken: Amount,
    /// Recorded by all writers.
    pub recorded: Amount,
    /// Held by writers beyond what each has recorded: still to be served, given back, or served by
    /// a process that died. The bound of what was served and not recorded.
    pub unrecorded: Amount,
    /// Whether the amount taken equals the amount held and spent.
    pub balanced: bool,
}

impl Line {
    /// When the period began.
    pub fn period(&self) -> SystemTime {
        time_at(self.period_ms)
    }
}

impl Pool {
    /// When the window began.
    pub fn start(&self) -> SystemTime {
        time_at(self.start_ms)
    }
}

impl Audit {
    /// Every gap of every line.
    pub fn gaps(&self) -> impl Iterator<Item = (&Line, &Gap)> {
        self.lines.iter().flat_map(|line| line.gaps.iter().map(move |gap| (line, gap)))
    }

    /// Whether all recorded use is owed, sent and counted, except for gaps that pass by themselves.
    pub fn is_clean(&self) -> bool {
        self.gaps().all(|(_, gap)| gap.is_passing())
            && self.broken_logs.is_empty()
            && self.failed.is_empty()
            && self.pools.iter().all(|pool| pool.balanced)
    }
}

impl Total {
    /// Whether the service counts what was sent, with or without open entries.
    fn agrees(&self) -> bool {
        let counted = u64::try_from(self.counted).ok();
        counted == Some(self.sent) || counted == Some(self.sent.saturating_add(self.open))
    }
}

impl Reporter {
    /// Reads all logs anew.
    pub(crate) async fn examine(&self) -> Result<Examined, StoreError> {
        self.inner.ledger.examine(self.inner.clock.now().wall_ms).await
    }

    /// The audit of this use, each with the terms it is billed under, if any; of the pools whose
    /// `scales` are given, in atoms per unit; and of tenants that have `failed` before.
    pub(crate) async fn audit(
        &self,
        uses: Vec<(RecordedUse, Option<DueUse>)>,
        examined: &Examined,
        scales: &BTreeMap<&PoolId, u64>,
        mut failed: BTreeMap<Surrogate, String>,
    ) -> Result<Audit, ReportError> {
        let broken = |(of, why): &(WriterId, String)| format!("log {of}: {why}");
        let broken_logs = examined.broken.iter().map(broken).collect();
        let mut audit = Audit { broken_logs, ..Audit::default() };
        let mut groups = BTreeMap::<(String, String), Group>::new();
        let now_s = self.inner.sink.time().await?;
        for (used, due) in uses {
            let at = audit.lines.len();
            let (line, outbox) = match &due {
                None => (unbilled(&used), None),
                Some(due) => {
                    let read = self.outbox(&due.id).await;
                    let Some(outbox) = intact(read, used.tenant, &mut failed)? else { continue };
                    let too_old = self.inner.is_too_old(due, &outbox, now_s).await?;
                    (line(due, &outbox, too_old), Some(outbox))
                }
            };
            audit.lines.push(line);
            if let Some((due, outbox)) = due.zip(outbox) {
                add(&mut groups, at, &due, &outbox);
            }
        }
        for ((customer, event), group) in groups {
            let total = self.total(customer, event, &group, now_s).await?;
            if !total.agrees() {
                let gap = Gap::Counted { sent: total.sent, counted: total.counted };
                for at in &group.lines {
                    audit.lines[*at].gaps.push(gap.clone());
                }
            }
            audit.totals.push(total);
        }
        audit.pools = self.pools(examined, scales, &mut failed).await?;
        audit.failed = failed.into_iter().collect();
        Ok(audit)
    }

    async fn total(
        &self,
        customer: String,
        event: String,
        group: &Group,
        now_s: i64,
    ) -> Result<Total, ReportError> {
        let minute = |at_s: i64| at_s - at_s.rem_euclid(60);
        let (from_s, until_s) = (minute(group.from_s), minute(now_s).saturating_add(60));
        // What was used by a clock that ran ahead is not due yet, and has no minute to ask about.
        let counted = match from_s < until_s {
            true => {
                let sum = Sum { customer: customer.clone(), event: event.clone(), from_s, until_s };
                self.inner.sink.sum(sum).await?
            }
            false => 0,
        };
        Ok(Total { customer, event, sent: group.sent, open: group.open, counted })
    }

    async fn pools(
        &self,
        examined: &Examined,
        scales: &BTreeMap<&PoolId, u64>,
        failed: &mut BTreeMap<Surrogate, String>,
    ) -> Result<Vec<Pool>, StoreError> {
        let mut pools = Vec::new();
        for (id, scale) in scales {
            let read = self.pool(id, &examined.pools[*id], *scale).await;
            // An expired pool is no longer audited.
            pools.extend(intact(read, id.tenant, failed)?.flatten());
        }
        Ok(pools)
    }

    async fn pool(
        &self,
        id: &PoolId,
        rows: &HashMap<WriterId, PoolRow>,
        scale: u64,
    ) -> Result<Option<Pool>, StoreError> {
        let read = Whole::read(&*self.inner.store, &self.inner.space, id).await?;
        let Some(pool) = read else { return Ok(None) };
        let (taken, balanced) = pool.taken()?;
        let entries = pool.entries()?;
        let beyond = |(of, entry): &(WriterId, pool::Entry)| {
            entry.held.saturating_sub(rows.get(of).map_or(0, |row| row.total))
        };
        let recorded = rows.values().fold(0, |sum: u64, row| sum.saturating_add(row.total));
        let unrecorded = entries.iter().map(beyond).fold(0, u64::saturating_add);
        Ok(Some(Pool {
            tenant: id.tenant,
            limit: id.limit.clone(),
            start_ms: id.start_ms,
            // Never below nothing, unless the table was changed by hand.
            taken: Amount::new(u64::try_from(taken).unwrap_or(0), scale),
            recorded: Amount::new(recorded, scale),
            unrecorded: Amount::new(unrecorded, scale),
            balanced: balanced && taken >= 0,
        }))
    }
}

/// The value that was read; `None` if it is damaged, which is noted for its tenant.
fn intact<T>(
    read: Result<T, StoreError>,
    tenant: Surrogate,
    failed: &mut BTreeMap<Surrogate, String>,
) -> Result<Option<T>, StoreError> {
    match read {
        Err(error) if error.kind == StoreErrorKind::Corrupt => {
            failed.entry(tenant).or_insert_with(|| error.to_string());
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// The lines of one customer and event name.
struct Group {
    lines: Vec<usize>,
    from_s: i64,
    sent: u64,
    open: u64,
}

impl Default for Group {
    fn default() -> Self {
        Self { lines: Vec::new(), from_s: i64::MAX, sent: 0, open: 0 }
    }
}

/// Adds an item to the groups of its event, and of those that its entries were sent under.
fn add(groups: &mut BTreeMap<(String, String), Group>, at: usize, due: &DueUse, outbox: &Outbox) {
    let mut group = |event: &str, sent: u64, open: u64| {
        let name = (due.terms.customer.clone(), event.to_owned());
        let group = groups.entry(name).or_default();
        if group.lines.last() != Some(&at) {
            group.lines.push(at);
        }
        group.from_s = group.from_s.min(due.id.period_ms.div_euclid(1_000));
        group.sent = group.sent.saturating_add(sent);
        group.open = group.open.saturating_add(open);
    };
    group(&due.terms.event, 0, 0);
    for (event, sent) in outbox.sent_by_event() {
        group(event, sent, 0);
    }
    if let Some(pending) = outbox.pending.as_ref().filter(|pending| pending.first_s.is_some()) {
        group(&pending.entry.event, 0, pending.entry.value);
    }
}

fn unbilled(used: &RecordedUse) -> Line {
    let (amount, none) = (Amount::new(used.atoms.0, used.scale), Amount::new(0, used.scale));
    let gap = match &used.id {
        None => Gap::NoAccount { amount },
        Some(_) => Gap::NoTerms { amount },
    };
    Line {
        account: used.id.as_ref().map(|id| id.account.clone()),
        tenant: used.tenant,
        meter: used.meter.clone(),
        period_ms: used.period_ms,
        recorded: amount,
        owed: none,
        frozen: none,
        sent: 0,
        gaps: vec![gap],
    }
}

fn line(due: &DueUse, outbox: &Outbox, too_old: bool) -> Line {
    let ItemId { account, tenant, meter, scale, period_ms } = due.id.clone();
    let (owed, unit) = (due.owed(), due.terms.atoms_per_unit.max(1));
    let amount = |atoms: Atoms| Amount::new(atoms.0, scale);
    Line {
        account: Some(account),
        tenant,
        meter,
        period_ms,
        recorded: amount(due.used),
        owed: amount(owed),
        frozen: amount(outbox.frozen),
        sent: outbox.value_sent(),
        gaps: gaps((owed, unit), scale, outbox, too_old),
    }
}

/// Gaps that show in an item's own state, before the service is asked. `unit` is how many atoms a
/// unit of the service has, `scale` how many a unit of the meter has.
fn gaps((owed, unit): (Atoms, u64), scale: u64, outbox: &Outbox, too_old: bool) -> Vec<Gap> {
    let amount = |atoms: Atoms| Amount::new(atoms.0, scale);
    let mut gaps = Vec::new();
    let left = owed.saturating_sub(outbox.frozen);
    let units = left.parts(unit);
    if units > 0 {
        gaps.push(if too_old { Gap::TooOld { units } } else { Gap::Waiting { units } });
    }
    let rest = Atoms(left.0 % unit);
    if rest > Atoms::NONE {
        gaps.push(Gap::Remainder { amount: amount(rest) });
    }
    if outbox.frozen > owed {
        gaps.push(Gap::Shrunk { amount: amount(outbox.frozen.saturating_sub(owed)) });
    }
    let pending = outbox.pending.as_ref();
    if let Some(pending) = pending {
        let (k, units) = (pending.entry.k, pending.entry.value);
        gaps.push(match pending.stopped.clone() {
            Some(why) => Gap::Stopped { k, units, why },
            None => Gap::Open { k, units },
        });
    }
    for sent in &outbox.sent {
        if let Some(sum) = sent.doubt {
            gaps.push(Gap::Doubtful { k: sent.entry.k, units: sent.entry.value, sum });
        }
    }
    let sent = outbox.sent.iter().map(|sent| sent.entry.atoms);
    let entries = sent.chain(pending.map(|pending| pending.entry.atoms));
    let entries = entries.fold(outbox.settled.atoms, Atoms::saturating_add);
    if entries != outbox.frozen {
        gaps.push(Gap::Books { frozen: amount(outbox.frozen), entries: amount(entries) });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::outbox::{OutboxEntry, Stopped};

    /// Of the meter: two of its units are one of the service.
    const SCALE: u64 = 5;

    fn amount(atoms: u64) -> Amount {
        Amount::new(atoms, SCALE)
    }

    fn gaps(owed: u64, unit: u64, outbox: &Outbox) -> Vec<Gap> {
        super::gaps((Atoms(owed), unit), SCALE, outbox, false)
    }

    fn outbox() -> Outbox {
        let mut outbox = Outbox::default();
        let (customer, event) = ("cus_1".to_owned(), "api".to_owned());
        outbox.freeze(OutboxEntry {
            k: 1,
            customer,
            event,
            value: 5,
            atoms: Atoms(50),
            minute_s: 0,
        });
        outbox
    }

    #[test]
    fn an_open_entry_may_be_counted_already_or_not_yet() {
        let total = |counted| Total {
            customer: "cus_1".to_owned(),
            event: "api".to_owned(),
            sent: 7,
            open: 5,
            counted,
        };
        let agrees: Vec<i64> = (-1..20).filter(|counted| total(*counted).agrees()).collect();
        assert_eq!(agrees, [7, 12]);
    }

    #[test]
    fn an_item_names_each_of_its_gaps() {
        assert_eq!(gaps(0, 10, &Outbox::default()), []);
        let waiting = [Gap::Waiting { units: 2 }, Gap::Remainder { amount: amount(5) }];
        assert_eq!(gaps(25, 10, &Outbox::default()), waiting);
        let too_old = [Gap::TooOld { units: 2 }, Gap::Remainder { amount: amount(5) }];
        assert_eq!(super::gaps((Atoms(25), 10), SCALE, &Outbox::default(), true), too_old);
        assert!(!too_old[0].is_passing());
        assert_eq!(gaps(50, 10, &outbox()), [Gap::Open { k: 1, units: 5 }]);
        let mut sent = outbox();
        sent.delivered();
        assert_eq!(gaps(50, 10, &sent), []);
        assert_eq!(gaps(20, 10, &sent), [Gap::Shrunk { amount: amount(30) }]);
        let mut doubtful = sent.clone();
        doubtful.verified(1, 3, false, 0);
        assert_eq!(gaps(50, 10, &doubtful), [Gap::Doubtful { k: 1, units: 5, sum: 3 }]);
        let mut stopped = outbox();
        stopped.refused("no");
        let why = Stopped::Refused("no".to_owned());
        assert_eq!(gaps(50, 10, &stopped), [Gap::Stopped { k: 1, units: 5, why }]);
        sent.frozen = Atoms(70);
        let books = gaps(70, 10, &sent);
        assert_eq!(books[0].to_string(), "14 units are frozen, but the entries amount to 10");
        assert_eq!(books, [Gap::Books { frozen: amount(70), entries: amount(50) }]);
    }
}
