//! A caller in memory: its tenant and credential, with the tenant's sheet at hand.
//!
//! The sheet is the one that held when the caller was looked up. While it still does, a request of
//! this caller costs no count of references but the caller's own; after an edge or a change the
//! tenant has the sheet, until the caller is looked up anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::{Now, nanos};
use crate::decision::Refusal;
use crate::identity::{Caller, Permissions};
use crate::policy::resolve::LiveCatalog;
use crate::policy::scoped::ScopeValues;
use crate::sheets::sheet::Sheet;
use crate::tenants::tenant::{LiveTenant, ticks, ticks_of};
use crate::tenants::{MAX_AGE, MAX_VOUCHED, REFRESH_AGE};

const HOUR_MS: i64 = 3_600_000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct KnownCaller {
    pub(crate) tenant: Arc<LiveTenant>,
    pub(crate) sheet: Arc<Sheet>,
    pub(crate) values: ScopeValues,
    /// Boxed, because many callers name nothing.
    pub(crate) named: Option<Box<Named>>,
    /// When this was looked up, on the monotonic clock, and when the credential ends by itself.
    pub(crate) looked_up_ns: AtomicU64,
    pub(crate) expires_ms: i64,
    /// Until when the feed of changes may vouch for it, in [`ticks`]; 0: it does not.
    pub(crate) vouched_until: u32,
    /// How many changes had been heard of when the look-up began.
    pub(crate) as_of: u64,
    /// Whether it is being looked up again.
    pub(crate) refreshing: AtomicBool,
    /// It could not be looked up again, and is as it was last known, perhaps without the id of its
    /// key.
    pub(crate) is_kept: bool,
}

/// What a caller names beside its tenant.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// The user and the id of its key, for the host's own form of refusals.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) plan: Option<NamedPlan>,
    /// What it may do.
    pub(crate) permissions: Permissions,
}

impl Named {
    /// A caller that is known by nothing but what it may do.
    pub(crate) fn with_permissions(permissions: Permissions) -> Option<Box<Self>> {
        let named = Self { user: None, key: None, plan: None, permissions };
        (!named.permissions.is_empty()).then(|| Box::new(named))
    }

    /// What this caller of this tenant names, if anything.
    pub(crate) fn of(caller: &Caller, tenant: &LiveTenant) -> Option<Box<Self>> {
        let since = |name| NamedPlan { name, since: tenant.plans() };
        let (user, key) = (caller.user.clone(), caller.key.clone());
        let (plan, permissions) = (caller.plan.clone().map(since), caller.permissions.clone());
        let named = Self { user, key, plan, permissions };
        let is_any = named.user.is_some()
            || named.key.is_some()
            || named.plan.is_some()
            || !named.permissions.is_empty();
        is_any.then(|| Box::new(named))
    }
}

/// A plan that a caller names for its tenant.
#[derive(Clone, Debug)]
pub(crate) struct NamedPlan {
    pub(crate) name: Arc<str>,
    /// How often the tenant's assigned plan had changed when this one was assigned.
    pub(crate) since: u16,
}

/// A sheet that is kept: itself, or through a caller who has it at hand, which saves a busy tenant
/// the counting of references.
#[derive(Clone, Debug)]
pub(crate) enum SheetRef {
    /// Work of the program itself, which no caller asked for.
    Own(Arc<Sheet>),
    /// The one that its caller has at hand.
    Of(Arc<KnownCaller>),
    /// The caller's was outdated.
    Newer(Arc<Sheet>, Arc<KnownCaller>),
}

impl SheetRef {
    /// The caller's values for scopes, as far as they are known.
    pub(crate) fn scopes(&self) -> Option<&ScopeValues> {
        self.caller().map(|caller| &caller.values)
    }

    /// The caller, if it is not the program itself.
    pub(crate) fn caller(&self) -> Option<&Arc<KnownCaller>> {
        match self {
            Self::Own(_) => None,
            Self::Of(caller) | Self::Newer(_, caller) => Some(caller),
        }
    }

    /// Adds the caller's user and key to a refusal that lacks them.
    #[cold]
    pub(crate) fn name_in(&self, refusal: &mut Refusal) {
        let Some(named) = self.caller().and_then(|caller| caller.named.as_ref()) else { return };
        refusal.user = refusal.user.take().or_else(|| named.user.clone());
        refusal.key = refusal.key.take().or_else(|| named.key.clone());
    }
}

impl std::ops::Deref for SheetRef {
    type Target = Arc<Sheet>;

    fn deref(&self) -> &Arc<Sheet> {
        match self {
            Self::Own(sheet) | Self::Newer(sheet, _) => sheet,
            Self::Of(caller) => &caller.sheet,
        }
    }
}

impl KnownCaller {
    /// The caller that a piece of work is for: in no table, and looked up only as its tenant is.
    pub(crate) fn of_work(
        tenant: Arc<LiveTenant>,
        sheet: Arc<Sheet>,
        values: ScopeValues,
        caller: &Caller,
        now: Now,
    ) -> Self {
        Self {
            named: Named::of(caller, &tenant),
            tenant,
            sheet,
            values,
            looked_up_ns: now.mono_ns.into(),
            expires_ms: i64::MAX,
            vouched_until: 0,
            as_of: 0,
            refreshing: AtomicBool::new(true),
            is_kept: false,
        }
    }

    /// What it may do, if anything.
    #[inline]
    pub(crate) fn permissions(&self) -> Option<&Permissions> {
        self.named.as_ref().map(|named| &named.permissions)
    }

    /// Whether it has a permission.
    #[inline]
    pub(crate) fn may(&self, permission: &str) -> bool {
        self.permissions().is_some_and(|held| held.has(permission))
    }

    /// When this was looked up, on the monotonic clock.
    #[inline]
    pub(crate) fn looked_up_ns(&self) -> u64 {
        self.looked_up_ns.load(Ordering::Relaxed)
    }

    /// Takes it for looked up no later than then.
    pub(crate) fn looked_up_by(&self, at_ns: u64) {
        self.looked_up_ns.fetch_min(at_ns, Ordering::Relaxed);
    }

    /// Whether a key of its tenant was revoked since the look-up began: perhaps this one.
    #[inline]
    pub(crate) fn is_outdated(&self) -> bool {
        self.as_of < self.tenant.keys_since()
    }

    /// True once, from half of the age bound on.
    pub(crate) fn wants_refresh(&self, now: Now) -> bool {
        now.mono_ns.saturating_sub(self.looked_up_ns()) > nanos(REFRESH_AGE)
            && !self.is_vouched_for(now)
            && !self.refreshing.load(Ordering::Relaxed)
            && !self.refreshing.swap(true, Ordering::AcqRel)
    }

    /// Whether it may still be used as it is.
    pub(crate) fn is_fresh(&self, now: Now) -> bool {
        (now.mono_ns.saturating_sub(self.looked_up_ns()) < nanos(MAX_AGE)
            || self.is_vouched_for(now))
            && now.wall_ms < self.expires_ms
            && !self.is_outdated()
    }

    /// Whether no key of its tenant was changed since it was looked up: then it is as good as
    /// looked up at the last look at the feed of changes.
    #[cold]
    fn is_vouched_for(&self, now: Now) -> bool {
        if ticks(now) >= self.vouched_until || self.tenant.is_gone() {
            return false;
        }
        let (tenant, followed) = (self.tenant.core.surrogate, &self.tenant.core.hub.followed);
        let looked_up_ns = self.looked_up_ns.load(Ordering::SeqCst);
        let Some(until_ns) = followed.vouches_for(tenant, looked_up_ns, now) else { return false };
        let (set, get) = (Ordering::SeqCst, Ordering::Relaxed);
        let is_set = self.looked_up_ns.compare_exchange(looked_up_ns, until_ns, set, get).is_ok();
        // It may have come into doubt meanwhile, which finds the earlier time.
        if is_set && followed.vouches_for(tenant, looked_up_ns, now).is_none() {
            self.looked_up_ns.fetch_min(looked_up_ns, set);
        }
        now.mono_ns.saturating_sub(self.looked_up_ns()) <= nanos(REFRESH_AGE)
    }

    /// Until when the feed of changes may vouch for a caller that is looked up now. One with a key
    /// is looked up again in the next hour of the wall clock, to note that it was used in it.
    pub(crate) fn vouched_until(now: Now, by_key: bool) -> u32 {
        let left_ms = HOUR_MS - now.wall_ms.rem_euclid(HOUR_MS);
        let left_ns = u64::try_from(left_ms).unwrap_or(0).saturating_mul(1_000_000);
        let most_ns = if by_key { left_ns.min(nanos(MAX_VOUCHED)) } else { nanos(MAX_VOUCHED) };
        ticks_of(now.mono_ns.saturating_add(most_ns))
    }

    /// The plan that it named when it was looked up.
    #[inline]
    fn plan(&self) -> Option<&NamedPlan> {
        self.named.as_ref()?.plan.as_ref()
    }

    /// Whether its tenant's assigned plan is the one that it names now, or may not be changed now.
    #[inline]
    pub(crate) fn agrees(&self, name: Option<&str>, now: Now) -> bool {
        match (self.plan(), name) {
            (None, None) => true,
            (Some(plan), Some(name)) if *plan.name == *name => self.holds_plan(now),
            _ => !self.tenant.may_change_plan(now),
        }
    }

    /// The same for the plan that it named then.
    #[inline]
    pub(crate) fn holds_plan(&self, now: Now) -> bool {
        let is_assigned = |plan: &NamedPlan| plan.since == self.tenant.plans();
        self.plan().is_none_or(is_assigned) || !self.tenant.may_change_plan(now)
    }

    /// The sheet that holds now for this caller's tenant.
    #[inline]
    pub(crate) fn into_sheet(self: Arc<Self>, live: &LiveCatalog, now: Now) -> SheetRef {
        if self.sheet.holds(live.epoch, now) {
            SheetRef::Of(self)
        } else {
            SheetRef::Newer(self.tenant.sheet(live, now), self)
        }
    }
}
