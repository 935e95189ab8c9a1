//! Compacts callers and tenants that have been idle for a minute (see `tenants/compact.rs`); their
//! next request restores them. So a million tenants may be idle in one process.
//!
//! A tenant is in one of the two tables, never in both: it moves while its entry in the table of
//! active tenants is locked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use tokio::time::Instant;

use super::Inner;
use super::tenants::ByCredential;
use crate::clock::{Now, nanos};
use crate::holders::{Holder, is_held_only_by};
use crate::identity::CredentialKey;
use crate::ids::Surrogate;
use crate::renewal;
use crate::tenants::caller::KnownCaller;
use crate::tenants::compact::{CompactCaller, CompactTenant};
use crate::tenants::tenant::LiveTenant;

/// Callers and tenants that were not looked up for this long are compacted: twice the age at which
/// an active caller is looked up again.
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(60);

/// Most that are compacted before the task yields, and most that one sweep restores so that they
/// give back what they hold.
const AT_ONCE: usize = 4_096;

/// A table with room for this many is not worth making smaller.
const SMALL: usize = 1_024;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct IdleTenants {
    tenants: DashMap<Surrogate, CompactTenant>,
    callers: DashMap<u128, CompactCaller, ByCredential>,
    /// Some may hold units under an incarnation that has been sealed.
    sealed: AtomicBool,
}

impl IdleTenants {
    pub(super) fn tenants(&self) -> usize {
        self.tenants.len()
    }

    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    /// Whether some may hold units under an incarnation that has been sealed.
    pub(super) fn are_sealed(&self) -> bool {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Drops a caller that is active again, or whose credential is unknown.
    pub(super) fn forget_caller(&self, probe: CredentialKey) {
        self.callers.remove(&probe.0);
    }

    pub(super) fn has_caller(&self, probe: CredentialKey) -> bool {
        self.callers.contains_key(&probe.0)
    }

    /// Drops all callers: any key may have been revoked.
    pub(super) fn forget_callers(&self) {
        self.callers.clear();
    }
}

impl Inner {
    /// The tenant in memory, restored if it was compacted.
    pub(super) fn tenant_in_memory(&self, surrogate: Surrogate) -> Option<Arc<LiveTenant>> {
        if let Some(awake) = self.tenants.active.get(&surrogate) {
            return Some(awake.clone());
        }
        self.tenant_or(surrogate, || None)
    }

    /// The tenant in memory, or else made from what the directory says.
    pub(super) fn tenant_or(
        &self,
        surrogate: Surrogate,
        make: impl FnOnce() -> Option<Arc<LiveTenant>>,
    ) -> Option<Arc<LiveTenant>> {
        let slot = match self.tenants.active.entry(surrogate) {
            Slot::Occupied(awake) => return Some(awake.get().clone()),
            Slot::Vacant(slot) => slot,
        };
        let tenant = match self.tenants.idle.tenants.remove(&surrogate) {
            Some((_, compact)) => {
                compact.wake(&self.catalogs.live.load(), &self.hub, self.clock.now())
            }
            None => make()?,
        };
        Some(slot.insert(tenant).clone())
    }

    /// Notes that a key of this tenant was revoked, with the number of that change: its callers are
    /// looked up again, compacted ones once they are restored.
    pub(super) fn revoked(&self, surrogate: Surrogate, change: u64) {
        match self.tenants.active.entry(surrogate) {
            Slot::Occupied(awake) => awake.get().revoked(change),
            // Locked meanwhile: it cannot be restored.
            Slot::Vacant(_slot) => {
                if let Some(mut compact) = self.tenants.idle.tenants.get_mut(&surrogate) {
                    compact.revoked(change);
                }
            }
        }
    }

    /// Restores a compacted caller, as it was last known.
    pub(super) fn wake_caller(&self, probe: CredentialKey) -> Option<Arc<KnownCaller>> {
        let (_, compact) = self.tenants.idle.callers.remove(&probe.0)?;
        let looked_up_ns = compact.looked_up_ns();
        let (surrogate, values, expires_ms, as_of) = compact.wake();
        let tenant = self.tenant_in_memory(surrogate)?;
        let sheet = tenant.last_sheet();
        Some(Arc::new(KnownCaller {
            as_of,
            tenant,
            sheet,
            values,
            looked_up_ns: looked_up_ns.into(),
            expires_ms,
            refreshing: AtomicBool::new(false),
        }))
    }

    /// Compacts what has been idle for `after`: callers first, for they keep their tenants active.
    /// What has been idle for `evict_after` is about to leave memory and is not compacted again.
    pub(super) async fn compact_idle(&self, after: Duration, evict_after: Duration) {
        let now = self.clock.now();
        let span = nanos(after)..nanos(evict_after);
        let is_idle = |at_ns: u64| span.contains(&now.mono_ns.saturating_sub(at_ns));
        let idle = self.tenants.callers.iter().filter(|it| is_idle(it.looked_up_ns()));
        let idle: Vec<u128> = idle.map(|it| *it.key()).collect();
        for (i, probe) in idle.iter().enumerate() {
            self.tenants.callers.remove_if(probe, |_, caller| {
                let is_unused = is_held_only_by(caller, [Holder::Table]);
                let leaves = is_idle(caller.looked_up_ns()) && is_unused;
                // One whose key was revoked since is looked up anew.
                if leaves && !caller.is_outdated() {
                    self.tenants.idle.callers.insert(*probe, CompactCaller::of(caller));
                }
                leaves
            });
            rest_now_and_then(i).await;
        }
        let idle = self.tenants.active.iter().filter(|it| is_idle(it.read_ns()));
        let idle: Vec<Surrogate> = idle.map(|it| *it.key()).collect();
        for (i, surrogate) in idle.iter().enumerate() {
            self.tenants.active.remove_if(surrogate, |_, tenant| {
                let Some(compact) = CompactTenant::of(tenant, &self.hub, now) else { return false };
                self.hub.idle_units.hold_until(compact.unused_until_ms());
                self.tenants.idle.tenants.insert(*surrogate, compact);
                true
            });
            rest_now_and_then(i).await;
        }
    }

    /// Gives back what idle tenants hold, for a gate that closes: some at a time, so that they are
    /// not all restored at once. Returns how many leases could not be given back.
    pub(super) async fn close_idle(&self, deadline: Instant) -> usize {
        let mut kept = 0;
        loop {
            let mut some: Vec<Surrogate> =
                self.tenants.idle.tenants.iter().take(AT_ONCE).map(|it| *it.key()).collect();
            some.sort_unstable(); // a table has no order of its own
            // Something was kept: the time is up.
            if some.is_empty() || kept > 0 {
                return kept + self.tenants.idle.tenants.len();
            }
            let woken = some.iter().filter_map(|surrogate| self.tenant_in_memory(*surrogate));
            let leases = woken.flat_map(|tenant| tenant.core.leases()).collect();
            kept += renewal::give_back(&self.leasing.ctx, leases, deadline).await;
            for surrogate in some {
                let is_unused = |tenant: &_| is_held_only_by(tenant, [Holder::Table]);
                self.tenants.active.remove_if(&surrogate, |_, tenant| is_unused(tenant));
            }
        }
    }

    /// Restores tenants that hold units under a sealed incarnation, some at a time.
    pub(super) fn restore_sealed(&self, now_ms: i64) {
        let current = self.hub.incarnation.current();
        let holds =
            |it: &CompactTenant| it.unused_until_ms() > now_ms && it.incarnation() != current;
        let all = self.tenants.idle.tenants.iter().filter(|it| holds(it.value()));
        let mut some: Vec<Surrogate> = all.take(AT_ONCE).map(|it| *it.key()).collect();
        some.sort_unstable(); // a table has no order of its own
        self.tenants.idle.sealed.store(some.len() == AT_ONCE, Ordering::Relaxed);
        for surrogate in some {
            self.tenant_in_memory(surrogate);
        }
    }

    /// Forgets what has been compacted for `idle`, and restores some that have units to give back
    /// first.
    pub(super) fn forget_idle(&self, now: Now, keep_callers: Duration, idle: Duration) {
        let age = |at_ns: u64| now.mono_ns.saturating_sub(at_ns);
        self.tenants.idle.callers.retain(|_, it| age(it.looked_up_ns()) < nanos(keep_callers));
        let is_old = |at_ns: u64| age(at_ns) >= nanos(idle);
        let (mut held_until_ms, mut leased) = (i64::MIN, Vec::new());
        self.tenants.idle.tenants.retain(|surrogate, compact| {
            let holds = compact.unused_until_ms();
            held_until_ms = held_until_ms.max(holds);
            if is_old(compact.read_ns()) && compact.has_leases() && leased.len() < AT_ONCE {
                leased.push(*surrogate);
            }
            !is_old(compact.read_ns()) || compact.has_leases()
        });
        self.hub.idle_units.hold_only_until(held_until_ms);
        leased.sort_unstable(); // a table has no order of its own
        for surrogate in leased {
            // From here on it is a tenant that has been idle for long: see `sweep`.
            self.tenant_in_memory(surrogate);
        }
        shrink(&self.tenants.callers);
        shrink(&self.tenants.active);
        shrink(&self.tenants.idle.callers);
        shrink(&self.tenants.idle.tenants);
    }
}

/// Yields after each [`AT_ONCE`].
async fn rest_now_and_then(i: usize) {
    if i % AT_ONCE == AT_ONCE - 1 {
        tokio::task::yield_now().await;
    }
}

/// Frees the memory that a table had for many more entries: tables do not shrink by themselves.
fn shrink<K: Eq + std::hash::Hash, V, S: std::hash::BuildHasher + Clone>(table: &DashMap<K, V, S>) {
    if table.capacity() > 4 * table.len().max(SMALL) {
        table.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::quota::pool::View;
    use crate::store::{Memory, Store};
    use crate::{Ask, Gate, Permit, testing};

    const PLANS: &str = r#"
        default-plan = "free"
        [meter.jobs]
        [meter.gifts]
        [plan.free]
        rate.default = "1000/s"
        concurrency  = 4
        quota.jobs   = { limit = "LIMIT/hour", alert = [50, 90] }
        quota.gifts  = "60"
    "#;
    const MINUTE: Duration = Duration::from_secs(60);

    #[derive(Clone, Debug)]
    enum Op {
        Admit { tenant: u8, cost: u64 },
        Settle(usize),
        Cancel(usize),
        Flush,
        Doze,
        Advance(u32),
        Limit(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            8 => (0..3u8, 1..4u64).prop_map(|(tenant, cost)| Op::Admit { tenant, cost }),
            5 => (0..4usize).prop_map(Op::Settle),
            2 => (0..4usize).prop_map(Op::Cancel),
            2 => Just(Op::Flush),
            3 => Just(Op::Doze),
            1 => prop_oneof![0..5u32, Just(60)].prop_map(Op::Advance),
            1 => (10..50u64).prop_map(Op::Limit),
        ];
        prop::collection::vec(op, 1..150)
    }

    /// What is open, what was used in the hour that runs, by tenant, and how many were compacted.
    #[derive(Default)]
    struct Model {
        open: Vec<(Permit, u8, u64)>,
        hour: BTreeMap<u8, u64>,
        ever: BTreeMap<u8, u64>,
        slept: usize,
    }

    impl Model {
        fn held(&self, tenant: u8) -> u64 {
            self.open.iter().filter(|open| open.1 == tenant).map(|open| open.2).sum()
        }

        async fn admit(&mut self, gate: &Gate, tenant: u8, cost: u64, limit: u64) {
            let busy = self.open.iter().filter(|open| open.1 == tenant).count() == 4;
            let handle = gate.tenant(&format!("t{tenant}")).await.unwrap();
            let ask = Ask::new(&handle, "job").cost("jobs", cost).cost("gifts", 1);
            let left = |used: u64, limit: u64| limit.saturating_sub(used);
            let hour = self.hour.get(&tenant).copied().unwrap_or(0) + self.held(tenant);
            let gifts = self.ever.get(&tenant).copied().unwrap_or(0)
                + self.open.iter().filter(|open| open.1 == tenant).count() as u64;
            let fits = !busy && left(hour, limit) >= cost && left(gifts, 60) >= 1;
            match gate.admit(ask).await {
                Ok(permit) => {
                    assert!(fits, "t{tenant}: {cost} past {hour} of {limit}, {gifts} of 60");
                    self.open.push((permit, tenant, cost));
                }
                Err(refusal) => assert!(!fits, "t{tenant}: {hour} of {limit}: {refusal:?}"),
            }
        }

        fn settle(&mut self, i: usize) {
            let (permit, tenant, cost) = self.open.swap_remove(i);
            permit.settle();
            *self.hour.entry(tenant).or_default() += cost;
            *self.ever.entry(tenant).or_default() += 1;
        }
    }

    async fn run(program: Vec<Op>) {
        let store = Memory::new();
        let mut limit = 30;
        let plans = testing::Plans::new(&PLANS.replace("LIMIT", "30"));
        let (gate, clock) = testing::gate_reading(&plans, store.clone());
        let mut model = Model::default();
        for op in program {
            match op {
                Op::Admit { tenant, cost } => model.admit(&gate, tenant, cost, limit).await,
                Op::Settle(i) if i < model.open.len() => model.settle(i),
                Op::Cancel(i) if i < model.open.len() => model.open.swap_remove(i).0.cancel(),
                Op::Flush => gate.flush_now().await.unwrap(),
                Op::Doze => {
                    let busy = model.open.len();
                    clock.advance(Duration::from_millis(10)); // buckets fill
                    let (compact, awake) = gate.doze().await;
                    assert!(awake >= usize::from(busy > 0));
                    model.slept += compact;
                }
                Op::Advance(minutes) => {
                    let hour = |clock: &crate::ManualClock| clock.now().wall_ms / 3_600_000;
                    let before = hour(&clock);
                    clock.advance(minutes * MINUTE);
                    // What is open counts in the hour that it was taken in.
                    if hour(&clock) > before {
                        (0..model.open.len()).rev().for_each(|i| model.settle(i));
                        model.hour.clear();
                    }
                }
                Op::Limit(next) => {
                    // Lowered below what is used or leased it acts when that is given back.
                    limit = limit.max(next);
                    plans.set(&PLANS.replace("LIMIT", &limit.to_string()));
                    gate.reload().await.unwrap();
                }
                _ => {}
            }
        }
        (0..model.open.len()).rev().for_each(|i| model.settle(i));
        gate.flush_now().await.unwrap();
        // Sheets of before, and the renewer, let go of what they have in hand.
        tokio::time::sleep(Duration::from_secs(2)).await;
        clock.advance(Duration::from_secs(1));
        let (compact, awake) = gate.doze().await;
        model.slept += compact;
        assert_eq!(awake, 0, "somebody cannot sleep: {:?}", gate.inner);
        let used: u64 = model.ever.values().sum();
        gate.close().await.unwrap();
        let mut spent = 0;
        for key in store.keys().into_iter().filter(|key| key.pk.split('#').nth(2) == Some("Q")) {
            let item = store.read(key.clone()).await.unwrap().unwrap();
            let view = View::read(&item, gate.inner.leasing.writer.incarnation).unwrap();
            let held = view.mine.map_or(0, |mine| mine.held) as i64;
            let this = item.int("spent").unwrap() + held;
            assert_eq!(view.terms.limit - view.free, this, "{key:?}");
            if key.pk.contains("gifts") || key.sk.contains("gifts") {
                spent += this as u64;
            }
        }
        assert_eq!(spent, used, "what was given back is not what was left");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 96,
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn who_sleeps_in_between_is_admitted_and_counted_as_if_awake(program in ops()) {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().unwrap();
            runtime.block_on(run(program));
        }
    }
}
