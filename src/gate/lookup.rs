//! Looking callers and tenants up in the directory, and keeping what was found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::tenants::{Refresh, Tenants, Wanted};
use crate::catalog::Scope;
use crate::clock::{Now, nanos};
use crate::directory::{
    DirectoryError, Tenant, TenantEdit, TenantRecord, check_plan_name, credential_tag,
};
use crate::identity::{ANONYMOUS, Caller, CredentialHash, CredentialKey, ScopeHash, Scopes};
use crate::ids::Surrogate;
use crate::policy::scoped::ScopeValues;
use crate::repeated::repeated;
use crate::store::{StoreError, StoreErrorKind};
use crate::tenants::caller::{KnownCaller, Named};
use crate::tenants::tenant::LiveTenant;
use crate::tenants::{MAX_AGE, REFRESH_AGE, RETRY};

/// A plan that the host names for a tenant, which vouches for it; `None`: the default plan.
type Vouched<'a> = Option<&'a str>;

/// Look-ups of one caller while its tenant is being changed again and again.
const LOOKS: usize = 4;

impl Tenants {
    /// Looks a caller up and keeps what is found, or that nothing was.
    pub(super) async fn load_caller(
        &self,
        probe: CredentialKey,
        wanted: Wanted,
    ) -> Result<(), StoreError> {
        for _ in 1..LOOKS {
            if self.load_caller_once(probe, wanted.clone(), false).await? {
                return Ok(());
            }
        }
        self.load_caller_once(probe, wanted, true).await.map(|_| ())
    }

    /// `false`: what was found may have been changed meanwhile, and is not kept, unless it is the
    /// last look.
    async fn load_caller_once(
        &self,
        probe: CredentialKey,
        wanted: Wanted,
        is_last: bool,
    ) -> Result<bool, StoreError> {
        let (now, as_of) = (self.clock.now(), self.recent.so_far());
        self.recent.reads(now.mono_ns);
        // A token is verified again by its age: its issuer may have withdrawn the key.
        let vouched_until = match &wanted {
            Wanted::Credential(_) => KnownCaller::vouched_until(now, true),
            Wanted::Named { expires_ms: i64::MAX, .. } => KnownCaller::vouched_until(now, false),
            Wanted::Named { .. } => 0,
        };
        let (tenant, caller, expires_ms) = match wanted {
            Wanted::Credential(hashes) => match self.directory.lookup_credential(hashes).await? {
                Some(found) => {
                    if let Some(hash) = found.unnoted {
                        // Where the queue is full the next look-up asks again.
                        let _ = self.refreshes.try_send(Refresh::Use(hash));
                    }
                    let permissions = found.permissions;
                    let caller = Caller { permissions, ..Caller::new("").key(found.key_id) };
                    (self.load_tenant(found.surrogate).await?, caller, found.expires_ms)
                }
                None => (None, Caller::new(""), i64::MAX),
            },
            Wanted::Named { caller, expires_ms } => {
                (self.tenant_of(&caller, now).await?, caller, expires_ms)
            }
        };
        let Some(tenant) = tenant else {
            self.not_found(probe, now);
            return Ok(true);
        };
        if !is_last && self.recent.has_changed(tenant.core.surrogate, as_of) {
            return Ok(false);
        }
        let known = KnownCaller {
            sheet: tenant.sheet(&self.live.load(), now),
            values: scope_values(tenant.core.surrogate, &caller),
            named: Named::of(&caller, &tenant),
            tenant,
            looked_up_ns: now.mono_ns.into(),
            expires_ms,
            vouched_until,
            as_of,
            refreshing: AtomicBool::new(false),
            is_kept: false,
        };
        let known = Arc::new(known);
        self.callers.insert(probe.0, known.clone());
        self.idle.forget_caller(probe);
        if self.recent.has_doubted(as_of) {
            known.looked_up_by(now.mono_ns.saturating_sub(nanos(MAX_AGE)));
        }
        Ok(true)
    }

    /// The directory does not know it: a known caller is forgotten, so that a credential that was
    /// revoked does not come back while the directory is away.
    fn not_found(&self, probe: CredentialKey, now: Now) {
        self.callers.remove(&probe.0);
        self.idle.forget_caller(probe);
        self.unknown.insert(probe, now);
    }

    /// Reads it again when it is its turn; as it was last known if that cannot be.
    pub(super) async fn refresh_in_turn(&self, refresh: Refresh) {
        match refresh {
            Refresh::Tenant(tenant) => {
                match self.reads.place(tenant.core.surrogate.as_u128()).await {
                    Some(_place) => _ = self.read_again(&tenant, true).await,
                    None => tenant.unwant_refresh(),
                }
            }
            Refresh::Use(hash) => {
                if let Some(_place) = self.reads.place(credential_tag(&hash)).await {
                    self.note_use(hash).await;
                }
            }
            Refresh::Caller(probe, wanted) => {
                let known = self.callers.get(&probe.0).map(|it| it.clone());
                let whose = known.as_ref().map(|it| it.tenant.core.surrogate.as_u128());
                match self.reads.place(whose.unwrap_or_default()).await {
                    Some(_place) => self.refresh_caller(probe, *wanted).await,
                    None => {
                        known.inspect(|it| it.refreshing.store(false, Ordering::Release));
                    }
                }
            }
        }
    }

    /// Puts the hour of a key's use on record. Where that fails the next look-up asks again.
    async fn note_use(&self, hash: CredentialHash) {
        if self.hub.reach.is_away() {
            return;
        }
        if let Err(error) = self.directory.note_use(hash).await {
            let now_ms = self.clock.now().wall_ms;
            repeated!(warn, now_ms, "the last use of a key could not be recorded"; %error);
        }
    }

    /// Has a tenant read again in the background, unless that is on its way. Where the queue is
    /// full it is asked for again.
    pub(super) fn refresh_soon(&self, tenant: &Arc<LiveTenant>) {
        if tenant.wants_refresh()
            && self.refreshes.try_send(Refresh::Tenant(tenant.clone())).is_err()
        {
            tenant.unwant_refresh();
        }
    }

    /// Looks a caller up again; one whose credential is unknown by now is forgotten.
    async fn refresh_caller(&self, probe: CredentialKey, wanted: Wanted) {
        if self.hub.reach.is_away() {
            self.keep_as_known(probe, &wanted);
            return;
        }
        if let Err(error) = self.load_caller(probe, wanted.clone()).await {
            let now_ms = self.clock.now().wall_ms;
            repeated!(warn, now_ms, "a caller could not be looked up again"; %error);
            self.keep_as_known(probe, &wanted);
        }
    }

    /// The directory does not answer: a caller that is known stays so for a while, unless its
    /// credential has ended by itself.
    ///
    /// The plan that it names now cannot be assigned: its tenant stays on the one that it has.
    pub(super) fn keep_as_known(&self, probe: CredentialKey, wanted: &Wanted) -> bool {
        let now = self.clock.now();
        let awake = self.callers.get(&probe.0).map(|known| known.clone());
        let known = awake.or_else(|| self.wake_caller(probe));
        let known = known.filter(|known| now.wall_ms < known.expires_ms && !known.is_outdated());
        let Some(known) = known else { return false };
        self.recent.reads(now.mono_ns);
        let retry_ns = now.mono_ns.saturating_sub(nanos(MAX_AGE) - nanos(RETRY));
        let named = match wanted {
            Wanted::Named { caller, .. } => Named::of(caller, &known.tenant),
            Wanted::Credential(_) => known.named.clone(),
        };
        let again = KnownCaller {
            named,
            tenant: known.tenant.clone(),
            sheet: known.tenant.last_sheet(),
            values: known.values.clone(),
            looked_up_ns: retry_ns.max(known.looked_up_ns()).into(),
            expires_ms: known.expires_ms,
            vouched_until: 0,
            as_of: known.as_of,
            refreshing: AtomicBool::new(true), // not before it is too old again
            is_kept: true,
        };
        self.callers.insert(probe.0, Arc::new(again));
        true
    }

    /// The tenant of a caller, on the plan that this names, if it names one.
    async fn tenant_of(
        &self,
        caller: &Caller,
        now: Now,
    ) -> Result<Option<Arc<LiveTenant>>, StoreError> {
        let Some(plan) = &caller.plan else {
            return self.tenant_named(&caller.tenant).await;
        };
        if self.source.is_some() {
            // The host's tables say which plan it is on.
            return self.tenant_named(&caller.tenant).await;
        }
        let plan = named_plan(&caller.tenant, plan, now);
        let tenant = self.tenant_or_made(&caller.tenant, Some(plan)).await?;
        if let Some(tenant) = &tenant {
            self.assign(tenant, plan, now).await?;
        }
        Ok(tenant)
    }

    /// Assigns a tenant the plan that its caller names.
    async fn assign(
        &self,
        tenant: &LiveTenant,
        plan: Vouched<'_>,
        now: Now,
    ) -> Result<(), StoreError> {
        if tenant.record().assigned_plan() == plan {
            return Ok(());
        }
        if !tenant.may_change_plan(now) {
            return Ok(());
        }
        let id = &tenant.core.id;
        tenant.count_plan_change(now);
        if !tenant.may_change_plan(now) {
            const TEXT: &str = "callers of a tenant name one plan and then another: this one stays \
                                for a minute";
            let plan = plan.unwrap_or_default();
            repeated!(warn, now.wall_ms, TEXT; tenant = %id, %plan);
        }
        match self.directory.tenant(id).named_plan(plan).note("named by its caller").save().await {
            // Where another process has assigned it, nothing was written, and that is news here.
            Ok(saved) => self.learn(tenant, saved.record().clone()),
            Err(DirectoryError::Store(error)) => return Err(error),
            Err(error) => {
                const TEXT: &str = "the plan that a caller names could not be assigned";
                repeated!(warn, now.wall_ms, TEXT; tenant = %id, %error);
            }
        }
        Ok(())
    }

    /// The tenant with this outer id; made on first sight where that is configured.
    pub(super) async fn tenant_named(
        &self,
        id: &str,
    ) -> Result<Option<Arc<LiveTenant>>, StoreError> {
        self.tenant_or_made(id, None).await
    }

    /// The same. `plan`: the host vouches for the tenant by naming its plan, and it is made on that
    /// plan in any case.
    async fn tenant_or_made(
        &self,
        id: &str,
        plan: Option<Vouched<'_>>,
    ) -> Result<Option<Arc<LiveTenant>>, StoreError> {
        if let Some(surrogate) = self.directory.lookup_name(id).await?
            && let Some(tenant) = self.load_tenant(surrogate).await?
        {
            return Ok(Some(tenant));
        }
        // No tenant, or a name that leads nowhere yet: another process that makes that tenant may
        // be about to go on, or was cut off. Saving it makes it to the end.
        let made = if self.is_hosts(id) {
            self.made_as_host_says(id).await?
        } else if self.creates || plan.is_some() || id == ANONYMOUS {
            let new = self.directory.tenant(id).note("first seen");
            let new = plan.into_iter().fold(new, TenantEdit::named_plan);
            self.made(new.save().await.map(Some))?.map(|tenant| tenant.record().surrogate)
        } else {
            None
        };
        match made {
            Some(surrogate) => self.load_tenant(surrogate).await,
            None => Ok(None),
        }
    }

    /// A tenant that was to be made on first sight; `None`: it cannot be.
    pub(super) fn made(
        &self,
        made: Result<Option<Tenant>, DirectoryError>,
    ) -> Result<Option<Tenant>, StoreError> {
        match made {
            Ok(tenant) => Ok(tenant),
            Err(DirectoryError::Store(error)) => Err(error),
            Err(error) => {
                let now_ms = self.clock.now().wall_ms;
                repeated!(warn, now_ms, "a tenant could not be made on first sight"; %error);
                Ok(None)
            }
        }
    }

    /// The tenant in memory, read from the directory if it is not there.
    pub(super) async fn load_tenant(
        &self,
        surrogate: Surrogate,
    ) -> Result<Option<Arc<LiveTenant>>, StoreError> {
        if let Some(known) = self.tenant_in_memory(surrogate)
            && known.age_in_use_ns(self.clock.now()) < nanos(REFRESH_AGE)
            && !known.is_gone()
        {
            return Ok(Some(known));
        }
        let as_of = self.recent.so_far();
        self.recent.reads(self.clock.now().mono_ns);
        let Some(record) = self.directory.lookup_tenant(surrogate).await? else {
            return Ok(None);
        };
        let Some(record) = self.as_host_says(record).await? else {
            return Ok(None);
        };
        let (live, now) = (self.live.load(), self.clock.now());
        let tenant = self.tenant_or(surrogate, || {
            let tenant = LiveTenant::new(record.clone(), &live, &self.hub, now);
            // Callers of it that sleep since before it left memory may have been revoked since:
            // also during the reading, when there was no tenant to tell them.
            let is_changed = self.recent.has_changed(surrogate, as_of);
            tenant.revoked(if is_changed { self.recent.so_far() } else { as_of });
            Some(Arc::new(tenant))
        });
        let Some(tenant) = tenant else { return Ok(None) };
        self.learn(&tenant, record);
        self.doubt_if_changed(&tenant, as_of, now);
        Ok(Some(tenant))
    }

    /// Reads a tenant again that is in use. False: that has failed, and it stays as it was last
    /// known.
    pub(super) async fn read_again(&self, tenant: &LiveTenant, for_request: bool) -> bool {
        let is_read = !self.hub.reach.is_away() && self.read_anew(tenant, for_request).await;
        if !is_read {
            self.keep_tenant(tenant);
        }
        is_read
    }

    /// Reads a tenant again, for a request of it (`is_used`) or because it was changed. False: it
    /// could not be read.
    pub(super) async fn read_anew(&self, tenant: &LiveTenant, is_used: bool) -> bool {
        let as_of = self.recent.so_far();
        self.recent.reads(self.clock.now().mono_ns);
        let read = match self.directory.lookup_tenant(tenant.core.surrogate).await {
            Ok(Some(record)) => self.as_host_says(record).await,
            read => read,
        };
        let read = match read {
            Ok(Some(record)) if is_used => self.first_request(record).await.map(Some),
            read => read,
        };
        let now = self.clock.now();
        match read {
            Ok(Some(record)) => {
                self.learn(tenant, record);
                self.doubt_if_changed(tenant, as_of, now);
            }
            Ok(None) => tenant.is_none(now.mono_ns),
            Err(error) => {
                const TEXT: &str = "a tenant could not be read again: it stays as last known";
                repeated!(warn, now.wall_ms, TEXT; %error);
                if matches!(error.kind, StoreErrorKind::Unavailable | StoreErrorKind::Unknown) {
                    self.hub.reach.suspect();
                }
                return false;
            }
        }
        true
    }

    /// The directory does not answer: a tenant stays as it was last known, and is asked for again
    /// after a while.
    pub(super) fn keep_tenant(&self, tenant: &LiveTenant) {
        let now = self.clock.now();
        self.recent.reads(now.mono_ns);
        // As old as to be read again after `RETRY`, and not by the very next request.
        tenant.keep_as_known(now.mono_ns.saturating_sub(nanos(REFRESH_AGE) - nanos(RETRY)));
    }

    /// Whether a caller is in memory, active or compacted.
    pub(super) fn is_remembered(&self, probe: CredentialKey) -> bool {
        self.callers.contains_key(&probe.0) || self.idle.has_caller(probe)
    }

    /// Takes over what the directory says now.
    pub(super) fn learn(&self, tenant: &LiveTenant, record: Arc<TenantRecord>) {
        let (live, now) = (self.live.load(), self.clock.now());
        tenant.learn(record, &live, now);
        if tenant.lacks_first_request(&live, now) {
            // A trial begins to run with the next request, which has it read again; no look at
            // `GET /usage` does.
            tenant.read_by(now.mono_ns.saturating_sub(nanos(REFRESH_AGE)));
        }
    }

    /// Marks a tenant for rereading if a change arrived after its read began. If everything has
    /// been in doubt since, it is reread before it is used.
    fn doubt_if_changed(&self, tenant: &LiveTenant, as_of: u64, now: Now) {
        if self.recent.has_changed(tenant.core.surrogate, as_of) {
            let age = if self.recent.has_doubted(as_of) { MAX_AGE } else { REFRESH_AGE };
            tenant.read_by(now.mono_ns.saturating_sub(nanos(age)));
        }
    }

    /// A plan that expires counts from the tenant's first request: noted when it is read for one.
    async fn first_request(
        &self,
        record: Arc<crate::directory::TenantRecord>,
    ) -> Result<Arc<crate::directory::TenantRecord>, StoreError> {
        let now_ms = self.clock.now().wall_ms;
        let expires = self.live.load().resolve(&record, now_ms).policy.plan.expires.is_some();
        if !expires || record.first_request_ms.is_some() {
            return Ok(record);
        }
        let first = self.directory.first_request(record.surrogate, now_ms).await?;
        let mut record = (*record).clone();
        record.first_request_ms = first.or(Some(now_ms));
        Ok(Arc::new(record))
    }
}

/// The plan that a caller names, as it is assigned. A name that no plan can have is the default
/// plan, as one that the plan file lacks: it vouches for the tenant all the same, and must not
/// leave a tenant on a better plan that it had.
fn named_plan<'a>(tenant: &str, plan: &'a str, now: Now) -> Vouched<'a> {
    match check_plan_name(plan) {
        Ok(()) => Some(plan),
        Err(error) => {
            const TEXT: &str = "a caller names a plan that cannot be: the default plan applies. \
                                Write the name of a plan in the plan file";
            repeated!(error, now.wall_ms, TEXT; %tenant, %error);
            None
        }
    }
}

/// The plan that a caller names, as of what its tenant's assigned plan is now.
pub(super) fn scope_values(tenant: Surrogate, caller: &Caller) -> ScopeValues {
    let scopes = Scopes::of(caller.clone(), None);
    let hash = |scope: &Scope| scopes.hash(tenant, scope).map(ScopeHash::as_u128);
    ScopeValues {
        key: hash(&Scope::Key),
        user: hash(&Scope::User),
        named: caller
            .named
            .iter()
            .filter_map(|(name, _)| Some((name.clone(), hash(&Scope::Named(name.clone()))?)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::directory::{Hears, News};
    use crate::store::Memory;
    use crate::testing::{self, Fault, Faulty, Odds};

    const PLANS: &str = r#"
        default-plan = "free"
        [plan.free]
        quota.requests = "1/day"
    "#;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_was_half_made_on_first_sight_is_made_whole_by_the_next() {
        let mut failed = 0;
        for passed in 0..4 {
            let store = Memory::new();
            let faulty = Faulty::scripted(store.clone(), []);
            let (gate, _clock) = testing::gate_with(PLANS, faulty.clone());
            faulty.then(repeat_n(Fault::Pass, passed));
            faulty.then(repeat_n(Fault::LoseRequest, 100));
            failed += usize::from(gate.tenant("acme").await.is_err());
            let (next, _clock) = testing::gate_with(PLANS, store);
            assert!(next.tenant("acme").await.is_ok(), "after {passed} writes");
        }
        assert!(failed >= 2, "the name, and what follows it");
    }

    /// The key's caller sleeps, its tenant has left memory, and another key has that read again.
    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_revoked_while_its_tenant_is_read_does_not_come_back() {
        for is_revoked in [false, true] {
            let faulty = Faulty::scripted(Memory::new(), []);
            let (gate, clock) = testing::gate_with(PLANS, faulty.clone());
            let inner = &gate.inner;
            let (caller, expires_ms) = (Caller::new("acme").key("ci"), i64::MAX);
            let probe = inner.credentials.probe_of(&caller);
            inner.tenants.load_caller(probe, Wanted::Named { caller, expires_ms }).await.unwrap();
            let surrogate = gate.tenant("acme").await.unwrap().0.core.surrogate;
            assert_eq!(gate.doze().await, (1, 0));
            inner.tenants.forget_idle(clock.now(), Duration::MAX, Duration::ZERO);
            assert!(
                inner.tenants.is_remembered(probe)
                    && inner.tenants.tenant_in_memory(surrogate).is_none()
            );
            faulty.odds(Odds { delay: 1_000, ..Odds::default() });
            let revoke = async { is_revoked.then(|| inner.hear(News::Revoked(surrogate))) };
            let (read, _) = tokio::join!(inner.tenants.load_tenant(surrogate), revoke);
            assert!(read.unwrap().is_some());
            assert_eq!(
                inner.tenants.keep_as_known(probe, &Wanted::Credential(vec![])),
                !is_revoked
            );
        }
    }
}
