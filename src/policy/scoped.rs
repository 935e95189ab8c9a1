//! Limits within a tenant: buckets and leases by credential, user, address or a named scope.
//!
//! A table of at most [`MAX_SCOPED`] entries for the whole process. An entry is created by the
//! first request that needs it and swept when idle. No tenant has more entries than are free: one
//! alone has half of them, two a third each. A tenant's existing entries are served and a request
//! that needs one more is refused, so that a flood of new scopes costs neither memory nor other
//! tenants.

use std::num::NonZeroU128;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::catalog::Scope;
use crate::clock::Now;
use crate::config::NoScope;
use crate::holders::{Holder, is_held_only_by};
use crate::ids::{Surrogate, WriterId};
use crate::policy::bucket::BucketRule;
use crate::quota::lease::Lease;
use crate::quota::lease::SLOT_OVER_MS;

mod bucket;

pub(crate) use bucket::ScopedBucket;

/// Most scoped buckets and leases in one process: about 300 MB of leases at worst.
pub(crate) const MAX_SCOPED: usize = 1_000_000;

/// An entry idle for this long is swept, a bucket once it is full and a lease once it is given
/// back.
pub(crate) const IDLE_NS: u64 = 600 * 1_000_000_000;

/// The caller within a tenant: hashes, stable across processes, of what identification yielded. The
/// address is not included: it belongs to the request, not to the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScopeValues {
    pub(crate) key: Option<u128>,
    pub(crate) user: Option<u128>,
    pub(crate) named: SmallVec<[(Arc<str>, u128); 1]>,
}

impl ScopeValues {
    /// Takes what it has no value for from another caller.
    pub(crate) fn complete_with(&mut self, other: &Self) {
        self.key = self.key.or(other.key);
        self.user = self.user.or(other.user);
        for (name, value) in &other.named {
            if !self.named.iter().any(|(known, _)| known == name) {
                self.named.push((name.clone(), *value));
            }
        }
    }
}

/// The scopes of one request: its caller's known values, and its address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScopesOf<'a> {
    /// `None` for work without a caller: limits within the tenant do not apply to it.
    pub(crate) known: Option<&'a ScopeValues>,
    pub(crate) ip: Option<NonZeroU128>,
    /// How limits treat a scope without a value for this caller. `None`: they do not apply.
    pub(crate) without: Option<&'a WithoutValue>,
}

/// The scopes of a request that has ended, kept while something of it is unpaid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptScopes {
    known: Option<ScopeValues>,
    ip: Option<NonZeroU128>,
}

impl KeptScopes {
    /// Those values of a request that these limits go by: callers that no limit tells apart are
    /// one.
    pub(crate) fn of<'s>(
        scopes: &ScopesOf<'_>,
        limits: impl IntoIterator<Item = &'s Scope>,
    ) -> Self {
        let known = scopes.known.map(|_| ScopeValues::default());
        let mut kept = Self { known, ip: None };
        limits.into_iter().for_each(|scope| kept.keep(scope, scopes));
        kept
    }

    fn keep(&mut self, scope: &Scope, of: &ScopesOf<'_>) {
        if *scope == Scope::Ip {
            self.ip = of.ip;
        }
        let (Some(kept), Some(known)) = (&mut self.known, of.known) else { return };
        match scope {
            Scope::Tenant | Scope::Ip => {}
            Scope::Key => kept.key = known.key,
            Scope::User => kept.user = known.user,
            Scope::Named(name) => {
                let is_kept = kept.named.iter().any(|(kept, _)| kept == name);
                let value = known.named.iter().find(|(known, _)| known == name);
                kept.named.extend(value.filter(|_| !is_kept).cloned());
            }
        }
    }

    /// As the request had them.
    pub(crate) fn scopes<'a>(&'a self, without: &'a WithoutValue) -> ScopesOf<'a> {
        ScopesOf { known: self.known.as_ref(), ip: self.ip, without: Some(without) }
    }
}

/// The value shared by all callers of a tenant that have none for a scope. Others are hashes.
const NO_VALUE: u128 = 1;

/// How limits treat callers without a value for their scope; logged once for each kind.
#[derive(Debug, Default)]
pub(crate) struct WithoutValue {
    rule: OnceLock<NoScope>,
    /// A bit for each kind that was logged.
    logged: AtomicU64,
}

impl WithoutValue {
    /// Sets the rule from the service file; until then the default applies.
    pub(crate) fn be(&self, rule: NoScope) {
        self.rule.get_or_init(|| rule);
    }

    pub(crate) fn rule(&self) -> NoScope {
        self.rule.get().copied().unwrap_or_default()
    }

    #[cold]
    fn value(&self, scope: &Scope) -> Option<u128> {
        let (bit, name) = match scope {
            Scope::Tenant | Scope::Key => (1, "key"),
            Scope::User => (2, "user"),
            Scope::Ip => (4, "ip"),
            // Names that share a bit share a line; there are few.
            Scope::Named(name) => (8 << (name.bytes().map(u64::from).sum::<u64>() % 61), &**name),
        };
        if self.logged.load(Ordering::Relaxed) & bit == 0
            && self.logged.fetch_or(bit, Ordering::Relaxed) & bit == 0
        {
            tracing::warn!(
                scope = name,
                "a request has no value for a scope that limits use: {}",
                told(self.rule()),
            );
        }
        (self.rule() != NoScope::Skip).then_some(NO_VALUE)
    }
}

/// The meaning of a rule, for the log.
pub(crate) fn told(rule: NoScope) -> &'static str {
    match rule {
        NoScope::Tenant => "they hold for all such callers of a tenant together",
        NoScope::Refuse => "such callers are refused",
        NoScope::Skip => "they do not hold for such callers",
    }
}

impl ScopesOf<'_> {
    /// The value of a scope that a limit applies by; `None`: it does not apply here.
    pub(crate) fn of(&self, scope: &Scope) -> Option<u128> {
        self.own(scope).or_else(|| {
            self.known?;
            self.without?.value(scope)
        })
    }

    /// Whether a caller is refused because it has no value for a scope.
    pub(crate) fn lacks(&self, scope: &Scope) -> bool {
        let refuses = self.without.is_some_and(|without| without.rule() == NoScope::Refuse);
        refuses && self.known.is_some() && self.own(scope).is_none()
    }

    /// The caller's own value.
    fn own(&self, scope: &Scope) -> Option<u128> {
        match scope {
            Scope::Tenant => Some(0),
            Scope::Key => self.known?.key,
            Scope::User => self.known?.user,
            Scope::Ip => self.ip.map(NonZeroU128::get),
            Scope::Named(name) => {
                self.known?.named.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
            }
        }
    }
}

/// Key of an entry: the tenant, the limit's name, the scope's value, and a lease's window start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ScopedKey {
    pub(crate) tenant: Surrogate,
    pub(crate) limit: Arc<str>,
    pub(crate) value: u128,
    pub(crate) start_ms: i64,
    /// The incarnation that leases it; 0 for a bucket.
    pub(crate) incarnation: WriterId,
}

impl ScopedKey {
    /// Of a rate's bucket, for one value of its scope.
    pub(crate) fn of_rate(tenant: Surrogate, rate: &Arc<str>, value: u128) -> Self {
        Self { tenant, limit: rate.clone(), value, start_ms: 0, incarnation: WriterId::NONE }
    }
}

/// A counter, with when it was last used.
#[derive(Debug)]
pub(crate) struct Used<T> {
    pub(crate) it: T,
    at_ns: AtomicU64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct ScopedTable {
    buckets: ScopeTable<ScopedBucket>,
    leases: ScopeTable<Arc<Lease>>,
}

/// Entries, and their number by tenant.
#[derive(Debug)]
struct ScopeTable<T> {
    entries: DashMap<ScopedKey, Arc<Used<T>>>,
    len: AtomicUsize,
    by_tenant: DashMap<Surrogate, usize>,
}

impl ScopedTable {
    /// The bucket, created full if it is new; `None` if its tenant may have no more.
    pub(crate) fn bucket(
        &self,
        key: ScopedKey,
        rule: &BucketRule,
        now_ns: u64,
    ) -> Option<Arc<Used<ScopedBucket>>> {
        self.buckets.find_or(key, now_ns, || ScopedBucket::new(rule))
    }

    /// The lease, created empty if it is new; `None` if its tenant may have no more.
    pub(crate) fn lease(
        &self,
        key: ScopedKey,
        now_ns: u64,
        make: impl FnOnce() -> Lease,
    ) -> Option<Arc<Lease>> {
        self.leases.find_or(key, now_ns, || Arc::new(make())).map(|used| used.it.clone())
    }

    /// The lease, if there is one.
    pub(crate) fn known_lease(&self, key: &ScopedKey) -> Option<Arc<Lease>> {
        self.leases.entries.get(key).map(|used| used.it.clone())
    }

    /// The bucket, if there is one.
    pub(crate) fn known_bucket(&self, key: &ScopedKey) -> Option<Arc<Used<ScopedBucket>>> {
        self.buckets.entries.get(key).map(|used| used.clone())
    }

    pub(crate) fn all_leases(&self) -> Vec<Arc<Lease>> {
        self.leases.entries.iter().map(|entry| entry.it.clone()).collect()
    }

    /// Drops entries that are idle for [`IDLE_NS`] and can be spared, and leases of slots that are
    /// over. Returns the leases that must be given back first, as long as their window runs; a
    /// later sweep drops them.
    pub(crate) fn sweep(&self, now: Now) -> Vec<Arc<Lease>> {
        let now_ns = now.mono_ns;
        let idle = |at: &AtomicU64| now_ns.saturating_sub(at.load(Ordering::Relaxed)) > IDLE_NS;
        self.buckets.retain(|used| {
            // What an open request still charges stays.
            let is_used = !is_held_only_by(used, [Holder::Table]);
            !idle(&used.at_ns) || !used.is_full(now_ns) || is_used
        });
        let mut to_return = Vec::new();
        self.leases.retain(|used| {
            let lease = &used.it;
            let end_ms = lease.window().end_ms;
            let is_over = end_ms <= now.wall_ms;
            let is_old_slot = lease.is_of_slot() && end_ms + SLOT_OVER_MS <= now.wall_ms;
            let is_used = !is_held_only_by(lease, [Holder::Table]);
            if !is_old_slot && !idle(&used.at_ns) || is_used {
                return true;
            }
            let done = (is_over || lease.is_returned()) && !lease.is_unlogged();
            if !done && !is_over {
                lease.rest();
                to_return.push(lease.clone());
            }
            !done
        });
        to_return
    }
}

impl<T> ScopeTable<T> {
    fn find_or(
        &self,
        key: ScopedKey,
        now_ns: u64,
        make: impl FnOnce() -> T,
    ) -> Option<Arc<Used<T>>> {
        if let Some(found) = self.entries.get(&key) {
            found.at_ns.store(now_ns, Ordering::Relaxed);
            return Some(found.clone());
        }
        self.make(key, now_ns, make)
    }

    #[cold]
    fn make(&self, key: ScopedKey, now_ns: u64, make: impl FnOnce() -> T) -> Option<Arc<Used<T>>> {
        let tenant = key.tenant;
        if !self.enter(tenant) {
            return None;
        }
        match self.entries.entry(key) {
            Slot::Occupied(found) => {
                let found = found.get().clone();
                self.leave(tenant); // another request was faster
                Some(found)
            }
            Slot::Vacant(slot) => {
                let used = Arc::new(Used { it: make(), at_ns: AtomicU64::new(now_ns) });
                Some(slot.insert(used).clone())
            }
        }
    }

    /// Counts one more entry for this tenant, if it has fewer than are free.
    fn enter(&self, tenant: Surrogate) -> bool {
        let mut of_tenant = self.by_tenant.entry(tenant).or_default();
        let free = MAX_SCOPED.saturating_sub(self.len.load(Ordering::Relaxed));
        if *of_tenant >= free {
            drop(of_tenant);
            self.by_tenant.remove_if(&tenant, |_, n| *n == 0);
            return false;
        }
        *of_tenant += 1;
        self.len.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn leave(&self, tenant: Surrogate) {
        self.len.fetch_sub(1, Ordering::Relaxed);
        if let Slot::Occupied(mut of_tenant) = self.by_tenant.entry(tenant) {
            *of_tenant.get_mut() = of_tenant.get().saturating_sub(1);
            if *of_tenant.get() == 0 {
                of_tenant.remove();
            }
        }
    }

    fn retain(&self, mut keeps: impl FnMut(&Arc<Used<T>>) -> bool) {
        self.entries.retain(|key, used| {
            let kept = keeps(used);
            if !kept {
                self.leave(key.tenant);
            }
            kept
        });
    }
}

impl<T> Default for ScopeTable<T> {
    fn default() -> Self {
        let (entries, by_tenant) = (DashMap::new(), DashMap::new());
        Self { entries, len: AtomicUsize::new(0), by_tenant }
    }
}

impl<T> std::ops::Deref for Used<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::quota::pool::{PoolId, Terms};

    fn bucket(table: &ScopedTable, rule: &BucketRule, tenant: u128, value: u128) -> bool {
        let tenant = Surrogate::test(tenant);
        let limit: Arc<str> = "default/s/ip".into();
        let key = ScopedKey { tenant, limit, value, start_ms: 0, incarnation: WriterId::NONE };
        table.bucket(key, rule, 0).is_some()
    }

    #[test]
    fn a_tenant_with_a_million_addresses_refuses_no_other() {
        let (table, rule) = (ScopedTable::default(), BucketRule::new(1, Duration::from_secs(1), 1));
        let made = (0..1_000_000).filter(|value| bucket(&table, &rule, 1, *value)).count();
        assert_eq!(made, MAX_SCOPED / 2);
        assert!(bucket(&table, &rule, 1, 7), "what it has is served");
        for tenant in 2..1_000 {
            assert!((0..100).all(|value| bucket(&table, &rule, tenant, value)), "{tenant}");
        }
        let now = Now { mono_ns: 2 * IDLE_NS, wall_ms: 0 };
        assert!(table.sweep(now).is_empty());
        assert!(table.buckets.entries.is_empty() && table.buckets.by_tenant.is_empty());
        assert_eq!(table.buckets.len.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn leases_of_windows_that_are_over_are_not_given_back() {
        let table = ScopedTable::default();
        let at = |wall_ms: i64, ago_ns: u64| Now { mono_ns: 2 * IDLE_NS + ago_ns, wall_ms };
        let make = |of_slot: bool, limit: &str| {
            let key = ScopedKey {
                tenant: Surrogate::test(1),
                limit: limit.into(),
                value: 7,
                start_ms: 0,
                incarnation: WriterId::test(1),
            };
            let (tenant, limit) = (key.tenant, key.limit.clone());
            let pool = PoolId { tenant, limit, scope: 7, start_ms: 0 };
            let terms = Terms { limit: 10, rev: 1 };
            let lease = || {
                let lease =
                    Lease::new(pool, 60_000, terms, 1).under(WriterId::test(1)).of_slot(of_slot);
                lease.release(3); // as if it held some
                lease
            };
            drop(table.lease(key, at(0, 0).mono_ns, lease));
        };
        make(true, "rate/default/s");
        make(false, "requests/min");
        let left = |now| (table.sweep(now).len(), table.all_leases().len());
        assert_eq!(left(at(59_999, 1)), (0, 2), "their windows run");
        assert_eq!(left(at(64_999, 1)), (0, 2), "the slot is only just over");
        assert_eq!(left(at(65_000, 1)), (0, 1));
        assert_eq!(left(at(65_000, 2 * IDLE_NS)), (0, 0));
    }
}
