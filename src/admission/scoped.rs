//! Limits within a tenant: buckets and leases by credential, user, address or a named scope.
//!
//! A table of at most [`MAX_SCOPED`] entries for the whole process. An entry is made by the first
//! request that needs it and swept when nobody has used it for a while; when the table is full,
//! what it holds is served and what would need a new entry is refused, so that a flood of new
//! scopes costs neither memory nor other tenants.

use std::num::NonZeroU128;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::bucket::BucketRule;
use super::lease::Lease;
use crate::catalog::Scope;
use crate::config::NoScope;
use crate::directory::Surrogate;

mod bucket;

pub(crate) use bucket::ScopedBucket;

/// Most scoped buckets and leases in one process: about 300 MB of leases at worst.
pub(crate) const MAX_SCOPED: usize = 1_000_000;

/// An entry that nobody has used for this long is swept, a bucket once it is full and a lease once
/// it is given back.
pub(crate) const IDLE_NS: u64 = 600 * 1_000_000_000;

/// Who is calling within a tenant: hashes, stable over processes, of what identification yielded.
/// The address is not among them: it is the request's, not the caller's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ScopeValues {
    pub(crate) key: Option<u128>,
    pub(crate) user: Option<u128>,
    pub(crate) named: SmallVec<[(Arc<str>, u128); 1]>,
}

/// The scopes of one request: what is known of its caller, and its address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScopesOf<'a> {
    /// `None` for work that no caller asked for: limits within the tenant do not hold for it.
    pub(crate) known: Option<&'a ScopeValues>,
    pub(crate) ip: Option<NonZeroU128>,
    /// What becomes of limits by a scope that the caller has no value of. `None`: they do not hold.
    pub(crate) without: Option<&'a WithoutValue>,
}

/// The value of those that have none of a scope, all of a tenant together. Others are hashes.
const NO_VALUE: u128 = 1;

/// What becomes of limits by a scope that a caller has no value of; told once for each kind.
#[derive(Debug, Default)]
pub(crate) struct WithoutValue {
    rule: OnceLock<NoScope>,
    told: AtomicU8,
}

impl WithoutValue {
    /// As the service file says; before that as where it says nothing.
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
            Scope::Named(name) => (8, &**name),
        };
        if self.told.load(Ordering::Relaxed) & bit == 0
            && self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
        {
            tracing::warn!(
                scope = name,
                "a request has no value of a scope that limits go by: {}",
                told(self.rule()),
            );
        }
        (self.rule() != NoScope::Skip).then_some(NO_VALUE)
    }
}

/// What a rule means, for the log.
pub(crate) fn told(rule: NoScope) -> &'static str {
    match rule {
        NoScope::Tenant => "they hold for all such callers of a tenant together",
        NoScope::Refuse => "such callers are refused",
        NoScope::Skip => "they do not hold for such callers",
    }
}

impl ScopesOf<'_> {
    /// The value of a scope by which a limit holds; `None`: it does not hold here.
    pub(crate) fn of(&self, scope: &Scope) -> Option<u128> {
        self.own(scope).or_else(|| {
            self.known?;
            self.without?.value(scope)
        })
    }

    /// Whether a caller is refused because it has no value of a scope.
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

/// Which entry: the tenant, the limit's words, whose value, and for a lease from when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ScopedKey {
    pub(crate) tenant: Surrogate,
    pub(crate) limit: Arc<str>,
    pub(crate) value: u128,
    pub(crate) start_ms: i64,
    /// Under which incarnation it is leased; 0 for a bucket.
    pub(crate) incarnation: u128,
}

/// A number that moves, with when it was last used.
#[derive(Debug)]
pub(crate) struct Used<T> {
    pub(crate) it: T,
    at_ns: AtomicU64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct ScopedTable {
    buckets: DashMap<ScopedKey, Arc<Used<ScopedBucket>>>,
    leases: DashMap<ScopedKey, Arc<Used<Arc<Lease>>>>,
}

impl ScopedTable {
    /// The bucket, made full if it is new; `None` if the table is full.
    pub(crate) fn bucket(
        &self,
        key: ScopedKey,
        rule: &BucketRule,
        now_ns: u64,
    ) -> Option<Arc<Used<ScopedBucket>>> {
        find_or(&self.buckets, key, now_ns, || ScopedBucket::new(rule))
    }

    /// The lease, made empty if it is new; `None` if the table is full.
    pub(crate) fn lease(
        &self,
        key: ScopedKey,
        now_ns: u64,
        make: impl FnOnce() -> Lease,
    ) -> Option<Arc<Lease>> {
        find_or(&self.leases, key, now_ns, || Arc::new(make())).map(|used| used.it.clone())
    }

    /// The lease, if there is one.
    pub(crate) fn known_lease(&self, key: &ScopedKey) -> Option<Arc<Lease>> {
        self.leases.get(key).map(|used| used.it.clone())
    }

    /// The bucket, if there is one.
    pub(crate) fn known_bucket(&self, key: &ScopedKey) -> Option<Arc<Used<ScopedBucket>>> {
        self.buckets.get(key).map(|used| used.clone())
    }

    pub(crate) fn all_leases(&self) -> Vec<Arc<Lease>> {
        self.leases.iter().map(|entry| entry.it.clone()).collect()
    }

    /// Drops what nobody has used for [`IDLE_NS`], and nobody would miss. Returns the leases that
    /// must be given back first; they are dropped by a later sweep.
    pub(crate) fn sweep(&self, now_ns: u64) -> Vec<Arc<Lease>> {
        let idle = |at: &AtomicU64| now_ns.saturating_sub(at.load(Ordering::Relaxed)) > IDLE_NS;
        self.buckets.retain(|_, used| !idle(&used.at_ns) || !used.is_full(now_ns));
        let mut to_return = Vec::new();
        self.leases.retain(|_, used| {
            if !idle(&used.at_ns) || Arc::strong_count(&used.it) > 1 {
                return true;
            }
            let done = used.it.is_returned() && !used.it.is_unlogged();
            if !done {
                used.it.rest();
                to_return.push(used.it.clone());
            }
            !done
        });
        to_return
    }
}

impl<T> std::ops::Deref for Used<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

fn find_or<T>(
    table: &DashMap<ScopedKey, Arc<Used<T>>>,
    key: ScopedKey,
    now_ns: u64,
    make: impl FnOnce() -> T,
) -> Option<Arc<Used<T>>> {
    if let Some(found) = table.get(&key) {
        found.at_ns.store(now_ns, Ordering::Relaxed);
        return Some(found.clone());
    }
    if table.len() >= MAX_SCOPED {
        return None;
    }
    match table.entry(key) {
        Slot::Occupied(found) => Some(found.get().clone()),
        Slot::Vacant(slot) => {
            let used = Arc::new(Used { it: make(), at_ns: AtomicU64::new(now_ns) });
            Some(slot.insert(used).clone())
        }
    }
}
