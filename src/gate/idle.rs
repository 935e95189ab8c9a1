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

use super::tenants::{Tenants, in_order};
use crate::clock::{Now, nanos};
use crate::holders::{Holder, is_held_only_by};
use crate::identity::CredentialKey;
use crate::ids::Surrogate;
use crate::quota::lease::Lease;
use crate::renewal::{self, RenewerContext};
use crate::tenants::MAX_AGE;
use crate::tenants::caller::{KnownCaller, Named};
use crate::tenants::compact::{CompactCaller, CompactTenant};
use crate::tenants::tenant::LiveTenant;

/// Callers and tenants that were not looked up for this long are compacted: twice the age at which
/// an active caller is looked up again.
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(60);

/// A tenant that has not called for this long leaves memory, once its leases are given back.
pub(super) const IDLE: Duration = Duration::from_secs(600);

/// Most callers in memory. Past it the oldest half is looked up anew when it calls.
const MAX_CALLERS: usize = 2_000_000;

/// Most that are compacted before the task yields, and most that one sweep restores so that they
/// give back what they hold.
const AT_ONCE: usize = 4_096;

/// A table with room for this many is not worth making smaller.
const SMALL: usize = 1_024;

impl Tenants {
    /// The tenant in memory, restored if it was compacted.
    pub(super) fn tenant_in_memory(&self, surrogate: Surrogate) -> Option<Arc<LiveTenant>> {
        if let Some(awake) = self.active.get(&surrogate) {
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
        let slot = match self.active.entry(surrogate) {
            Slot::Occupied(awake) => return Some(awake.get().clone()),
            Slot::Vacant(slot) => slot,
        };
        let tenant = match self.idle.tenants.remove(&surrogate) {
            Some((_, compact)) => compact.wake(&self.live.load(), &self.hub, self.clock.now()),
            None => make()?,
        };
        Some(slot.insert(tenant).clone())
    }

    /// Notes that a key of this tenant was revoked, with the number of that change: its callers are
    /// looked up again, compacted ones once they are restored.
    pub(super) fn revoked(&self, surrogate: Surrogate, change: u64) {
        match self.active.entry(surrogate) {
            Slot::Occupied(awake) => awake.get().revoked(change),
            // Locked meanwhile: it cannot be restored.
            Slot::Vacant(_slot) => {
                if let Some(mut compact) = self.idle.tenants.get_mut(&surrogate) {
                    compact.revoked(change);
                }
            }
        }
    }

    /// Restores a compacted caller, as it was last known.
    pub(super) fn wake_caller(&self, probe: CredentialKey) -> Option<Arc<KnownCaller>> {
        let (_, compact) = self.idle.callers.remove(&probe.0)?;
        let looked_up_ns = compact.looked_up_ns();
        let (surrogate, values, expires_ms, as_of, permissions) = compact.wake();
        let tenant = self.tenant_in_memory(surrogate)?;
        let sheet = tenant.last_sheet();
        Some(Arc::new(KnownCaller {
            as_of,
            tenant,
            sheet,
            values,
            named: Named::with_permissions(permissions),
            looked_up_ns: looked_up_ns.into(),
            expires_ms,
            vouched_until: 0,
            refreshing: AtomicBool::new(false),
            is_kept: true,
        }))
    }

    /// Compacts what has been idle for `after`: callers first, for they keep their tenants active.
    /// What has been idle for `evict_after` is about to leave memory and is not compacted again.
    pub(super) async fn compact_idle(&self, after: Duration, evict_after: Duration) {
        let now = self.clock.now();
        let span = nanos(after)..nanos(evict_after);
        let is_idle = |at_ns: u64| span.contains(&now.mono_ns.saturating_sub(at_ns));
        let idle = self.callers.iter().filter(|it| is_idle(it.looked_up_ns()));
        let idle: Vec<u128> = idle.map(|it| *it.key()).collect();
        for (i, probe) in idle.iter().enumerate() {
            self.callers.remove_if(probe, |_, caller| {
                let is_unused = is_held_only_by(caller, [Holder::Table]);
                let leaves = is_idle(caller.looked_up_ns()) && is_unused;
                // One whose key was revoked since is looked up anew.
                if leaves && !caller.is_outdated() {
                    self.idle.callers.insert(*probe, CompactCaller::of(caller));
                }
                leaves
            });
            rest_now_and_then(i).await;
        }
        let idle = self.active.iter().filter(|it| is_idle(it.read_ns()));
        let idle: Vec<Surrogate> = idle.map(|it| *it.key()).collect();
        for (i, surrogate) in idle.iter().enumerate() {
            self.active.remove_if(surrogate, |_, tenant| {
                let Some(compact) = CompactTenant::of(tenant, &self.hub, now) else { return false };
                self.hub.idle_units.hold_until(compact.unused_until_ms());
                self.idle.tenants.insert(*surrogate, compact);
                true
            });
            rest_now_and_then(i).await;
        }
    }

    /// Gives back what idle tenants hold, for a gate that closes: some at a time, so that they are
    /// not all restored at once. Returns how many leases could not be given back.
    pub(super) async fn close_idle(&self, ctx: &RenewerContext, deadline: Instant) -> usize {
        let mut kept = 0;
        loop {
            let mut some: Vec<Surrogate> =
                self.idle.tenants.iter().take(AT_ONCE).map(|it| *it.key()).collect();
            some.sort_unstable(); // a table has no order of its own
            // Something was kept: the time is up.
            if some.is_empty() || kept > 0 {
                return kept + self.idle.tenants.len();
            }
            let woken = some.iter().filter_map(|surrogate| self.tenant_in_memory(*surrogate));
            let leases = woken.flat_map(|tenant| tenant.core.leases()).collect();
            kept += renewal::give_back(ctx, leases, deadline).await;
            for surrogate in some {
                let is_unused = |tenant: &_| is_held_only_by(tenant, [Holder::Table]);
                self.active.remove_if(&surrogate, |_, tenant| is_unused(tenant));
            }
        }
    }

    /// Has every sheet made anew: leases and rows of before belong to another incarnation.
    pub(super) async fn turn_over(&self) {
        self.live.rcu(|live| live.next());
        self.return_sealed().await;
    }

    /// What a sealed incarnation holds and does not use goes back now, whether its tenant calls
    /// again, sleeps or does neither: others soon take what its closed entries say for used.
    pub(super) async fn return_sealed(&self) {
        let now_ms = self.clock.now().wall_ms;
        self.restore_sealed(now_ms);
        let incarnation = self.hub.incarnation.current();
        for lease in self.leases() {
            if lease.incarnation() != incarnation && lease.window().end_ms > now_ms {
                self.hub.retired.add(lease);
            }
        }
        self.hub.retired.give_back().await;
    }

    /// Restores tenants that hold units under a sealed incarnation, some at a time.
    fn restore_sealed(&self, now_ms: i64) {
        let current = self.hub.incarnation.current();
        let holds =
            |it: &CompactTenant| it.unused_until_ms() > now_ms && it.incarnation() != current;
        let all = self.idle.tenants.iter().filter(|it| holds(it.value()));
        let mut some: Vec<Surrogate> = all.take(AT_ONCE).map(|it| *it.key()).collect();
        some.sort_unstable(); // a table has no order of its own
        self.idle.sealed.store(some.len() == AT_ONCE, Ordering::Relaxed);
        for surrogate in some {
            self.tenant_in_memory(surrogate);
        }
    }

    /// Frees what is unused.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        let old = |at_ns: u64, bound: Duration| now.mono_ns.saturating_sub(at_ns) > nanos(bound);
        // Kept past their age bound, so that they can stay as last known while the store is away.
        let full = self.callers.len() + self.idle.callers() > MAX_CALLERS;
        let keep = if full { MAX_AGE / 2 } else { IDLE };
        self.callers.retain(|_, caller| !old(caller.looked_up_ns(), keep));
        let mut to_return = Vec::new();
        self.active.retain(|_, tenant| {
            if tenant.age_ns(now) < nanos(IDLE) {
                return true;
            }
            // A handle may be about to use it: only what no request holds goes back.
            let is_kept = !is_held_only_by(tenant, [Holder::Table]);
            let sheet = tenant.last_sheet();
            let mut quiet = sheet.is_quiet(now);
            let running = |lease: &Arc<Lease>| lease.window().end_ms > now.wall_ms;
            let leases = tenant.core.leases();
            for lease in leases.iter().filter(|lease| running(lease) || sheet.has(lease)) {
                if !lease.is_returned() && (!is_kept || lease.open_holds() == 0) {
                    quiet = false;
                    lease.rest();
                    to_return.push(lease.clone());
                }
            }
            is_kept || !quiet
        });
        to_return.extend(self.hub.scoped.sweep(now));
        in_order(to_return).iter().for_each(|lease| self.hub.renewals.wake(lease));
        self.forget_idle(now, keep, IDLE);
        crate::telemetry::tenants_cached((self.active.len() + self.idle.tenants()) as u64);
    }

    /// Forgets what has been compacted for `idle`, and restores some that have units to give back
    /// first.
    pub(super) fn forget_idle(&self, now: Now, keep_callers: Duration, idle: Duration) {
        let age = |at_ns: u64| now.mono_ns.saturating_sub(at_ns);
        self.idle.callers.retain(|_, it| age(it.looked_up_ns()) < nanos(keep_callers));
        let is_old = |at_ns: u64| age(at_ns) >= nanos(idle);
        let (mut held_until_ms, mut leased) = (i64::MIN, Vec::new());
        self.idle.tenants.retain(|surrogate, compact| {
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
        shrink(&self.callers);
        shrink(&self.active);
        shrink(&self.idle.callers);
        shrink(&self.idle.tenants);
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
