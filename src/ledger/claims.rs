//! Claims on idempotency keys: the task that settles them, and sums over settled claims.
//!
//! A request with a key is answered once its claim is settled, so the task writes at once, and
//! retries the unchanged write until its outcome is known, however long that takes. Tenants take
//! turns ([`Places`]), and a write waiting for its retry has no place. The task has an owner
//! ([`Settler`]) and is stopped by [`Settler::close`], which drains first: until every claim is
//! settled or the deadline has passed. Claims left then were not answered; their units stay used.
//!
//! Reading goes through all claims of a tenant, a thousand per page. Claims are not folded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::units::UnitsCounted;
use crate::admission::claim::{self, Charge, Claim, ClaimUse, Settle};
use crate::admission::claim_queue::ClaimQueue;
use crate::clock::Clock;
use crate::delays::Delays;
use crate::ids::Surrogate;
use crate::places::Places;
use crate::repeated::repeated;
use crate::sheets::use_row::RowAtoms;
use crate::store::layout::{CLAIM_SHARDS, Space};
use crate::store::{Item, Page, Query, Store, StoreError, StoreErrorKind, repeat};
use crate::task::{OwnedTask, Stop};
use crate::telemetry::UnitsOutcome;

/// Limit on claims being settled at once: the same as lease calls, for the same reason.
const IN_FLIGHT: usize = 256;

/// Pauses between tries of a write.
const PAUSES: Delays = Delays::doubling(Duration::from_millis(25), Duration::from_secs(2));

/// The owner's side of the task.
#[derive(Debug)]
pub(crate) struct Settler {
    queue: Arc<ClaimQueue>,
    task: OwnedTask,
}

impl Settler {
    pub(crate) fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let queue = Arc::<ClaimQueue>::default();
        let task = OwnedTask::start(|stop| run(queue.clone(), store, clock, stop));
        Self { queue, task }
    }

    /// The queue of claims waiting for the task.
    pub(crate) fn queue(&self) -> &Arc<ClaimQueue> {
        &self.queue
    }

    /// Settles the queued claims and ends the task. Returns false if the deadline came first.
    pub(crate) async fn close(&self, deadline: Instant) -> bool {
        self.task.stop();
        self.task.ended_by(deadline).await.is_ok()
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        // They will not be settled: release the requests that wait for them.
        drop(self.queue.take());
    }
}

async fn run(queue: Arc<ClaimQueue>, store: Arc<dyn Store>, clock: Arc<dyn Clock>, stop: Stop) {
    // There are never more than requests in flight, which the server bounds.
    let places = Places::new(IN_FLIGHT, usize::MAX);
    let mut writes = JoinSet::new();
    let mut units = UnitsCounted::default();
    let mut stopping = false;
    while !stopping || !writes.is_empty() {
        tokio::select! {
            biased; // so that one seed is one run
            () = stop.signalled(), if !stopping => stopping = true,
            Some(ended) = writes.join_next(), if !writes.is_empty() => {
                match ended {
                    Ok(Some((plan, used))) => count(&mut units, &plan, &used),
                    Ok(None) => {}
                    Err(panicked) => {
                        tracing::error!(error = %panicked, "settling a claim panicked");
                    }
                }
            }
            () = queue.pushed(), if !stopping => {}
        }
        for settling in queue.take() {
            let (store, clock, places) = (store.clone(), clock.clone(), places.clone());
            writes.spawn(async move {
                let used = settling.usage();
                let room = (&places, settling.tenant());
                let charge = settle(&*store, room, settling.claim(), &used).await;
                let plan = settling.plan().clone();
                let charge = charge.unwrap_or_else(|error| {
                    // An unreadable claim will not become readable: record the usage in the log, so
                    // that it is not lost.
                    const TEXT: &str = "a claim on an idempotency key cannot be settled";
                    repeated!(error, clock.now().wall_ms, TEXT; %error);
                    Charge::Log
                });
                let charged = matches!(charge, Charge::Claim).then_some((plan, used));
                settling.end(charge);
                charged
            });
        }
    }
}

/// Counts for the metric what a claim charges. What the log has instead is counted with that.
fn count(units: &mut UnitsCounted, plan: &Arc<str>, used: &ClaimUse) {
    for (meter, scale, atoms) in &used.rows {
        units.note(plan, (meter, *scale), UnitsOutcome::Used, atoms.used);
        units.note(plan, (meter, *scale), UnitsOutcome::Over, atoms.over);
    }
    units.tell();
}

/// Settles one claim, however long it takes, with each write in one of the tenant's places. Fails
/// if it cannot be read.
async fn settle(
    store: &dyn Store,
    (places, tenant): (&Places, Surrogate),
    claim: &Claim,
    used: &ClaimUse,
) -> Result<Charge, StoreError> {
    let mut write = claim.settle(used);
    loop {
        let in_place = || async {
            // Let go before the pause: others proceed while this one waits.
            let _place = places.place(tenant.as_u128()).await;
            store.write(write.clone()).await
        };
        let (written, _) = repeat(PAUSES, StoreError::is_temporary, in_place).await?;
        match claim.settled(written, used)? {
            Settle::Done(charge) => return Ok(charge),
            Settle::Write(next) => write = next,
        }
    }
}

/// Sums of settled claims: meter, scale, period, day, account; then atoms.
pub(super) type Claimed = BTreeMap<(Arc<str>, u64, i64, u32, Option<Arc<str>>), RowAtoms>;

/// The total usage in a tenant's claims.
pub(super) async fn read(
    store: &dyn Store,
    space: &Space,
    tenant: Surrogate,
) -> Result<Claimed, StoreError> {
    let mut all = Claimed::new();
    for shard in 0..CLAIM_SHARDS {
        let pk = space.claims(tenant, shard).pk;
        each(store, pk, |_, item| {
            let Some(ClaimUse { period_ms, day, account, rows }) = claim::used(item)? else {
                return Ok(());
            };
            for (meter, scale, atoms) in rows {
                all.entry((meter, scale, period_ms, day, account.clone())).or_default().add(atoms);
            }
            Ok(())
        })
        .await?;
    }
    Ok(all)
}

/// Every tenant that may have claims.
pub(super) async fn claimants(
    store: &dyn Store,
    space: &Space,
) -> Result<Vec<Surrogate>, StoreError> {
    let mut all = Vec::new();
    let pk = space.claimants_pk();
    each(store, pk, |sk, _| {
        let unreadable = || StoreError::new(StoreErrorKind::Corrupt, "a claimant's name");
        all.push(Surrogate::parse(sk).ok_or_else(unreadable)?);
        Ok(())
    })
    .await?;
    Ok(all)
}

async fn each(
    store: &dyn Store,
    pk: String,
    mut see: impl FnMut(&str, &Item) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut query = Query { pk, from: String::new(), until: None, limit: Page::MAX_ITEMS };
    loop {
        let page = store.query(query.clone()).await?;
        for (sk, item) in &page.items {
            see(sk, item)?;
        }
        let Some(next) = page.next else { return Ok(()) };
        query.from = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::claim::OnceKey;
    use crate::amount::Atoms;
    use crate::ids::WriterId;
    use crate::ledger::totals::Ledger;
    use crate::quota::lease::Writer;
    use crate::store::layout;
    use crate::store::{Change, Memory, When, Write};

    async fn claim(store: &Memory, space: &Space, key: &[u8], used: Option<&ClaimUse>) {
        let tenant = Surrogate::test(1);
        let once = OnceKey::new(key, "POST", ("/chat", ""), None);
        let claim = Claim::new(space, tenant, once).unwrap();
        store.write(claim.put(0)).await.unwrap();
        if let Some(used) = used {
            let places = Places::new(1, 1);
            let room = (&places, tenant);
            assert_eq!(settle(store, room, &claim, used).await.unwrap(), Charge::Claim);
        }
    }

    #[tokio::test]
    async fn billing_and_reports_count_settled_claims_and_no_others() {
        let (store, space, tenant) = (Memory::new(), Space::new("test"), Surrogate::test(1));
        let (format, version) = layout::format(1);
        let change = vec![Change::Set(format, version)];
        let note = Write { key: space.claimant(tenant), when: vec![When::Absent], change };
        store.write(note).await.unwrap();
        let used = |day, n| ClaimUse {
            period_ms: 7,
            day,
            account: Some("acct".into()),
            rows: vec![("requests".into(), 1, RowAtoms { used: Atoms(n), over: Atoms(n / 4) })],
        };
        claim(&store, &space, b"one", Some(&used(20_260_301, 3))).await;
        claim(&store, &space, b"two", Some(&used(20_260_302, 4))).await;
        claim(&store, &space, b"held", None).await;

        let writer = Writer { space, incarnation: WriterId::test(1) };
        let ledger = Ledger::new(Arc::new(store), writer);
        let billed = ledger.by_period(10_000).await.unwrap();
        assert_eq!(billed.len(), 1);
        let of_period = (billed[0].tenant, billed[0].period_ms, billed[0].atoms);
        assert_eq!(of_period, (tenant, 7, RowAtoms { used: Atoms(7), over: Atoms(1) }));
        assert_eq!(billed[0].account.as_deref(), Some("acct"));
        let mut shown = ledger.uses(tenant, |_, _| false, 20_000).await.unwrap();
        shown.sort_by_key(|row| row.day);
        let shown: Vec<_> = shown.iter().map(|row| (row.day, row.atoms.used.0)).collect();
        assert_eq!(shown, [(20_260_301, 3), (20_260_302, 4)]);
    }
}
