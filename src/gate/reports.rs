//! Step 8, bill: the task that reports usage to Stripe, and the terms under which it does.
//!
//! All usage is reported every `stripe.report-every`, and the rest of a billing period within two
//! minutes after its end: Stripe closes the invoice an hour later, unless a grace period is set
//! there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::billing::Billing;
use super::ends::{Heard, LONGEST_MS};
use super::scales::Records;
use super::{Gate, Inner, last_report};
use crate::amount::Atoms;
use crate::billing::audit::Audit;
use crate::billing::decisions::DecidedBy;
use crate::billing::due::{DueUse, RecordedUse};
use crate::billing::result::{Report, ReportError, StoppedEntry};
use crate::billing::terms::terms;
use crate::billing::{BilledPeriod, ItemId, SentSinceCopy, SinkError, StripeInvoice};
use crate::clock::time_at;
use crate::directory::{News, TenantRecord};
use crate::ids::Surrogate;
use crate::repeated::repeated;
use crate::store::StoreError;
use crate::task::OwnedTask;

/// How long after the start the first report is made: what a process that died has left is not
/// kept waiting for a whole interval.
const FIRST: Duration = Duration::from_secs(30);

/// How long a process may be silent, beyond an interval and a half, before another reports.
const SILENT: Duration = Duration::from_secs(60);

/// How often periods that have ended are looked for.
const LOOK: Duration = Duration::from_secs(60);

/// Tenants with new items that are looked up in one minute, a read each: some seconds. The others
/// follow in the next.
const NEW_AT_ONCE: usize = 1_000;

/// Longest time that a requested report goes on querying customers, because its caller, such as a
/// function with a timeout, waits for it. The others are queried in the next report.
const POLL_WITHIN: Duration = Duration::from_secs(60);

/// Tenants whose terms are read at once.
const READS: usize = 64;

/// The end of a close, for the lock: another process need not wait then until it runs out.
const RELEASE: Duration = Duration::from_millis(500);

/// Items not processed, and why.
type FailedItems = Vec<(ItemId, String)>;

impl Gate {
    /// Reports to Stripe now, instead of at the next `stripe.report-every`: flushes usage, sends
    /// what is owed, and then queries customers that were not queried for a day, in case their
    /// webhooks were lost. Concurrent reports, in any process, are harmless.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, usage cannot be written or read, or Stripe cannot be
    /// reached: nothing was sent. Later failures are in the [`Report`].
    pub async fn report_now(&self) -> Result<Report, ReportError> {
        let inner = &self.inner;
        let billing = inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let report = inner.report(billing).await;
        billing.last_report.note(&report, true, inner.clock.now().wall_ms);
        report
    }
}

impl Gate {
    /// Resumes reports after the table was restored from a backup
    /// ([`restore`](crate::GateBuilder::restore)). Until this call nothing is sent to Stripe,
    /// because usage sent after the backup would be sent twice. `sent` is your statement of what
    /// was sent between the backup and the restore; read the [`audit`](Self::audit) first.
    ///
    /// Returns `false` if the table was never restored. A second statement replaces the first one
    /// for items that are not decided yet.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store fails.
    pub async fn resume_reports(&self, sent: SentSinceCopy) -> Result<bool, ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        Ok(billing.reporter.resume(sent).await?)
    }

    /// Decides about an entry in [`Report::stopped`], which waits for an operator. If `counts` is
    /// true, the entry is settled: it was billed by other means than the meter, or is forgiven. If
    /// it is false, its units are owed and sent anew with the next report.
    ///
    /// Returns `false` if the entry is not stopped any more. A later entry of the same item is
    /// never decided instead.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store fails.
    pub async fn decide_stopped(
        &self,
        entry: &StoppedEntry,
        counts: bool,
    ) -> Result<bool, ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        Ok(billing.reporter.decide(entry, counts, DecidedBy::default()).await?)
    }

    /// The same with who decides and why, each at most one line: kept with the entry's item. For
    /// the operator's command.
    ///
    /// # Errors
    ///
    /// As of [`decide_stopped`](Self::decide_stopped), or a text is too long.
    #[doc(hidden)]
    pub async fn decide_stopped_by(
        &self,
        entry: &StoppedEntry,
        counts: bool,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<bool, ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let by = DecidedBy { actor: Some(actor), reason };
        Ok(billing.reporter.decide(entry, counts, by).await?)
    }

    /// Until when the process that reports to Stripe has the lock, which each of its reports
    /// extends by an interval and a half: an instant in the past is of one that died, and no other
    /// has taken its place. `None`: none reports, or the last has closed. For the operator's
    /// command.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store fails.
    #[doc(hidden)]
    pub async fn reporter_until(&self) -> Result<Option<SystemTime>, ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let until_ms = billing.lock.held_until_ms().await?;
        Ok(until_ms.filter(|until_ms| *until_ms > 0).map(time_at))
    }

    /// A tenant's billed usage by meter and period, the latest period first, and the invoices of
    /// its customer at Stripe. For the operator's command.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store or Stripe does not answer.
    #[doc(hidden)]
    pub async fn invoices_of(
        &self,
        tenant: &TenantRecord,
    ) -> Result<(Vec<BilledPeriod>, Vec<StripeInvoice>), ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let periods = self.billed_of(tenant.surrogate).await?;
        let invoices = match &tenant.account {
            Some(customer) => billing.stripe.invoices(customer).await?,
            None => Vec::new(),
        };
        Ok((periods, invoices))
    }

    /// A tenant's billed usage by meter and period, the latest period first.
    pub(crate) async fn billed_of(
        &self,
        tenant: Surrogate,
    ) -> Result<Vec<BilledPeriod>, ReportError> {
        let inner = &self.inner;
        let billing = inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let mut used = billing.reporter.used().await?;
        used.retain(|used| used.tenant == tenant);
        let failed = |items: FailedItems| {
            let why = items.into_iter().next().map(|(_, why)| why);
            ReportError::Sink(SinkError(why.unwrap_or_else(|| "its usage cannot be read".into())))
        };
        let due = inner.due_of(used).await.map_err(failed)?;
        let mut periods = billing.reporter.billed(due).await?;
        periods.sort_by_key(|it| std::cmp::Reverse(it.item.period()));
        Ok(periods)
    }

    /// Compares what was recorded, what is owed, what was sent and what Stripe counts, after a
    /// flush of this process's usage. It reads every log from its beginning and queries Stripe
    /// twice for each customer and meter: once a day is often enough. Check the result with
    /// [`Audit::is_clean`], and list the differences with [`Audit::gaps`].
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store or Stripe does not answer. A gap is not an
    /// error; nor is a tenant with a damaged record, which is in [`Audit::failed`].
    pub async fn audit(&self) -> Result<Audit, ReportError> {
        let inner = &self.inner;
        let billing = inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        inner.recording.flusher.flush_now().await?;
        let examined = billing.reporter.examine().await?;
        let (mut records, mut failed) = (HashMap::new(), BTreeMap::new());
        let mut uses = Vec::new();
        for used in examined.uses.iter().cloned().map(RecordedUse::from) {
            // A meter that is sold nowhere is no gap; one that the plan file has lost may be.
            let gone = inner.catalogs.live.load().catalog.meter(&used.meter).is_none();
            if gone || inner.is_sent(&used.meter) {
                match inner.due(billing, used.clone(), &mut records).await {
                    Ok(due) => uses.push((used, due)),
                    // The others are audited without it.
                    Err(ReportError::Store(error)) if !error.is_temporary() => {
                        failed.insert(used.tenant, error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let scales = inner.scales(examined.pools.keys(), &mut records, &mut failed).await?;
        let audit = billing.reporter.audit(uses, &examined, &scales, failed).await?;
        if !audit.is_clean() {
            inner.raise_drift(audit.gaps().count()).await;
        }
        Ok(audit)
    }
}

/// Starts the task, if anything is billed.
pub(super) fn start(inner: &Arc<Inner>) {
    let Some(billing) = &inner.outbound.billing else { return };
    // A weak reference: the task must not keep alive a gate that its host has dropped. Cut off at
    // any line, a report leaves what the next one understands.
    let task = OwnedTask::until_stopped(run(Arc::downgrade(inner), billing.every));
    *billing.task.lock().unwrap_or_else(|e| e.into_inner()) = Some(task);
}

async fn run(inner: Weak<Inner>, every: Duration) {
    let mut whole_at = Instant::now() + FIRST.min(every);
    let mut tick = tokio::time::interval_at(whole_at, LOOK.min(every));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let Some(billing) = &inner.outbound.billing else { return };
        let now = Instant::now();
        let ended = if now >= whole_at {
            whole_at = (whole_at + every).max(now);
            None
        } else {
            match inner.ended_periods(billing).await {
                ended if ended.is_empty() => continue,
                ended => Some(ended),
            }
        };
        inner.report_in_turn(billing, ended).await;
    }
}

impl Inner {
    /// Stops the task, and reports what is owed one last time, until the deadline: the rest is
    /// recorded, and sent by the next report of any process.
    pub(super) async fn close_reports(self: &Arc<Self>, deadline: Instant) {
        let Some(billing) = &self.outbound.billing else { return };
        let task = billing.task.lock().unwrap_or_else(|e| e.into_inner()).take();
        let Some(task) = task else { return };
        task.stop();
        task.ended().await;
        let until = deadline.checked_sub(RELEASE).unwrap_or(deadline);
        let last = self.report_in_turn(billing, None);
        if tokio::time::timeout_at(until, last).await.is_err() {
            tracing::warn!("the last report was cut off: the next start continues it");
        }
        if !matches!(tokio::time::timeout_at(deadline, billing.lock.release()).await, Ok(Ok(()))) {
            tracing::debug!("the reporter's lock was not released: it will expire");
        }
    }

    /// Reports, unless another process does: all that is owed, or no more than these items, whose
    /// period has ended. After a whole report, customers are queried whose events may be missing.
    async fn report_in_turn(self: &Arc<Self>, billing: &Billing, ended: Option<HashSet<ItemId>>) {
        let hold = billing.every.saturating_add(billing.every / 2).saturating_add(SILENT);
        match billing.lock.take(self.clock.now().wall_ms, hold).await {
            Ok(true) => {}
            Ok(false) => {
                billing.last_report.forget();
                return billing.ends.forget();
            }
            // It only saves work: without it there is a report too many at worst.
            Err(error) => tracing::warn!(%error, "the reporter's lock cannot be taken"),
        }
        let (due, failed) = match self.due_now(billing, ended.as_ref()).await {
            Ok(due) => due,
            Err(error) => return self.note_report(billing, &Err(error), false),
        };
        let is_whole = ended.is_none();
        if is_whole {
            billing.ends.begin(&due, &failed, self.clock.now().wall_ms);
        }
        let customers = customers_of(&due);
        let report = billing.reporter.run(due).await.map(|report| report.with_failed(failed));
        self.note_report(billing, &report, is_whole);
        if is_whole {
            self.follower().poll(&billing.stripe, &billing.polls, customers).await;
        }
    }

    fn note_report(&self, billing: &Billing, report: &Result<Report, ReportError>, whole: bool) {
        last_report::log(report);
        billing.last_report.note(report, whole, self.clock.now().wall_ms);
    }

    async fn report(self: &Arc<Self>, billing: &Billing) -> Result<Report, ReportError> {
        self.recording.flusher.flush_now().await?;
        let (due, failed) = self.due_now(billing, None).await?;
        let customers = customers_of(&due);
        let report = billing.reporter.run(due).await?.with_failed(failed);
        let follower = self.follower();
        let polled = follower.poll(&billing.stripe, &billing.polls, customers);
        if tokio::time::timeout(POLL_WITHIN, polled).await.is_err() {
            tracing::warn!("not every customer was queried: the next report continues");
        }
        Ok(report)
    }

    /// Billed use with its terms, of all items or only of these. Also returns the items of tenants
    /// with an unreadable record, with the reason: the others are billed.
    async fn due_now(
        self: &Arc<Self>,
        billing: &Billing,
        only: Option<&HashSet<ItemId>>,
    ) -> Result<(Vec<DueUse>, FailedItems), ReportError> {
        let mut tenants = BTreeMap::<Surrogate, Vec<RecordedUse>>::new();
        for used in billing.reporter.used().await? {
            let Some(id) = &used.id else { continue };
            if only.is_none_or(|only| only.contains(id)) {
                tenants.entry(used.tenant).or_default().push(used);
            }
        }
        let room = Arc::new(Semaphore::new(READS));
        let mut reads = JoinSet::new();
        let (mut due, mut failed) = (Vec::new(), Vec::new());
        let mut take = |read: Result<Vec<DueUse>, FailedItems>| match read {
            Ok(more) => due.extend(more),
            Err(items) => failed.extend(items),
        };
        for (_, uses) in tenants {
            // Closed never: the permit is there as long as this function.
            let Ok(permit) = room.clone().acquire_owned().await else { break };
            let inner = self.clone();
            reads.spawn(async move {
                let due = inner.due_of(uses).await;
                drop(permit);
                due
            });
            while let Some(read) = reads.try_join_next() {
                take(read.unwrap_or_else(|_| Ok(Vec::new())));
            }
        }
        while let Some(read) = reads.join_next().await {
            take(read.unwrap_or_else(|_| Ok(Vec::new())));
        }
        Ok((due, failed))
    }

    /// The due part of one tenant's use; the error has its billed items and the reason why that
    /// cannot be determined.
    pub(super) async fn due_of(&self, uses: Vec<RecordedUse>) -> Result<Vec<DueUse>, FailedItems> {
        let Some(billing) = &self.outbound.billing else { return Ok(Vec::new()) };
        let (mut records, mut due) = (HashMap::new(), Vec::new());
        for used in &uses {
            match self.due(billing, used.clone(), &mut records).await {
                Ok(more) => due.extend(more),
                Err(error) => {
                    tracing::error!(tenant = %used.tenant, %error, "a tenant is not billed");
                    let ids = uses.into_iter().filter_map(|used| used.id);
                    let billed = ids.filter(|id| self.is_sent(&id.meter));
                    return Err(billed.map(|id| (id, error.to_string())).collect());
                }
            }
        }
        Ok(due)
    }

    /// Whether anything of a meter is sent.
    pub(super) fn is_sent(&self, meter: &str) -> bool {
        let live = self.catalogs.live.load();
        let at = live.catalog.meter(meter).map(|id| usize::from(id.0));
        at.is_some_and(|at| live.catalog.meters[at].stripe.is_some())
    }

    /// The due part of this use; `None` if none of it is ever sent.
    async fn due(
        &self,
        billing: &Billing,
        used: RecordedUse,
        records: &mut Records,
    ) -> Result<Option<DueUse>, ReportError> {
        let RecordedUse { id: Some(id), tenant, atoms, over, .. } = used else { return Ok(None) };
        let live = self.catalogs.live.load_full();
        if !self.is_sent(&id.meter) {
            return Ok(None);
        }
        let Some(record) = self.record_of(tenant, records).await? else { return Ok(None) };
        let terms = terms(&id, &live.catalog, &record, billing.carry);
        Ok(terms.map(|terms| DueUse { id, used: atoms, over, terms }))
    }
}

impl Inner {
    /// The items whose period has ended since they were last reported, also those that no whole
    /// report has seen.
    pub(super) async fn ended_periods(&self, billing: &Billing) -> HashSet<ItemId> {
        let now_ms = self.clock.now().wall_ms;
        if let Err(error) = self.note_new_items(billing, now_ms).await {
            repeated!(warn, now_ms, "items used since the last report are not known"; %error);
        }
        if let Err(error) = self.note_changes(billing).await {
            repeated!(warn, now_ms, "changed ends of billing periods are not known"; %error);
        }
        billing.ends.ended(now_ms)
    }

    /// Looks up again when the periods of changed tenants end.
    async fn note_changes(&self, billing: &Billing) -> Result<(), StoreError> {
        let Some(Heard { mut feed, own: as_of }) = billing.ends.to_hear() else { return Ok(()) };
        let recent = &self.tenants.recent;
        let so_far = recent.so_far();
        let look = self.tenants.directory.feed().look(&mut feed).await;
        // What was not heard of now is heard of in a minute.
        let own = if look.is_ok() { so_far } else { as_of };
        billing.ends.hears(Heard { feed, own });
        let look = look?;
        let changed = billing.ends.changed(|tenant| {
            look.missed
                || look.news.contains(&News::Tenant(tenant))
                || recent.has_changed(tenant, as_of)
        });
        for tenant in changed.into_iter().take(NEW_AT_ONCE) {
            let items = billing.ends.items_of(tenant).into_iter();
            // One that cannot be read is named by the next whole report.
            let due = self.due_of(items.map(unused).collect()).await.unwrap_or_default();
            billing.ends.turn(tenant, &due);
        }
        Ok(())
    }

    async fn note_new_items(&self, billing: &Billing, now_ms: i64) -> Result<(), StoreError> {
        let Some(since_ms) = billing.ends.since_ms() else { return Ok(()) };
        let uses = billing.reporter.logged(since_ms.saturating_sub(LONGEST_MS)).await?;
        let mut tenants = BTreeMap::<Surrogate, Vec<RecordedUse>>::new();
        for used in billing.ends.unseen(uses) {
            if self.is_sent(&used.meter) {
                tenants.entry(used.tenant).or_default().push(used);
            }
        }
        for (_, uses) in tenants.into_iter().take(NEW_AT_ONCE) {
            let ids: Vec<ItemId> = uses.iter().filter_map(|used| used.id.clone()).collect();
            // One that cannot be read is named by the next whole report.
            let due = self.due_of(uses).await.unwrap_or_default();
            billing.ends.saw(ids, &due, now_ms);
        }
        Ok(())
    }
}

/// An item whose terms are asked for.
fn unused(id: ItemId) -> RecordedUse {
    let ItemId { tenant, scale, period_ms, .. } = id;
    let meter = id.meter.clone();
    let (atoms, over) = (Atoms::NONE, Atoms::NONE);
    RecordedUse { id: Some(id), tenant, meter, atoms, over, scale, period_ms }
}

/// The customers with due use, each once.
fn customers_of(due: &[DueUse]) -> Vec<String> {
    let customers: BTreeSet<String> = due.iter().map(|due| due.terms.customer.clone()).collect();
    customers.into_iter().collect()
}
