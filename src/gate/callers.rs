//! Step 1, identify: from what a request presents to a tenant in memory.
//!
//! The hot path is one look-up by a keyed 128-bit hash of the credential. A miss is loaded from the
//! directory once for all waiting requests, at most `READS` loads at a time, with tenants taking
//! turns; an unknown credential is remembered in a table of fixed size. So a flood of forged
//! credentials costs neither memory nor other callers' requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::tenants::{LoadFailed, Refresh, Tenants, Wanted};
use super::{Gate, Inner, LEASE_WAIT, Pending, Waited};
use crate::catalog::Auth;
use crate::clock::{Now, nanos};
use crate::config::OnUnknown;
use crate::decision::Reason;
use crate::directory::{credential_tag, name_tag};
use crate::identity::{
    ANONYMOUS, Caller, CredentialKey, Identity, Presented, RequestView, is_own_id, line,
    named_caller,
};
use crate::patience;
use crate::repeated::repeated;
use crate::store::StoreErrorKind;
use crate::tenants::caller::KnownCaller;
use crate::tenants::tenant::LiveTenant;
use crate::tenants::{MAX_AGE, REFRESH_AGE};

/// Longest wait of a caller that is not in memory for the directory to answer: it, once it is being
/// looked up, and anyone while it is in line.
pub(super) const LOOK_UP_WAIT: Duration = Duration::from_secs(2);

/// A wait in line is no longer than so many of these, however fast the line moves: 10 s, before
/// proxies and clients commonly give up.
const LOOK_UP_WAITS: u32 = 5;

/// After so many waits what a request has found unknown is so, though something of that name was
/// made lately: the first look-up may have begun before that, the second has not. It was revoked.
const SURE: u8 = 2;

/// The outcome of step 1.
pub(crate) enum Identification {
    Caller(Arc<KnownCaller>),
    Refused(Reason),
    Ask(Pending),
}

impl Gate {
    /// Identifies the caller. `rounds`: how often this request has waited so far.
    pub(super) fn identify(
        &self,
        view: &dyn RequestView,
        auth: Auth,
        now: Now,
        rounds: u8,
    ) -> Identification {
        let inner = &self.inner;
        if let Some(caller) = view.caller() {
            return self.named_by_host(caller, now, rounds);
        }
        if let Some(custom) = &inner.credentials.custom {
            match custom.identify(view) {
                Identity::Tenant(caller) => return self.named_by_host(caller, now, rounds),
                Identity::Refused => return Identification::Refused(Reason::Unidentified),
                Identity::Absent => {}
            }
        }
        let Ok(presented) = inner.credentials.identifier.present(view) else {
            return self.refused_unknown();
        };
        let Some(probe) = inner.credentials.identifier.probe(&presented) else {
            return self.without_credential(auth, now, rounds);
        };
        if let Some(known) = inner.tenants.callers.get(&probe.0)
            && known.is_fresh(now)
            && has_plan(&known, &presented, now)
        {
            if known.wants_refresh(now) {
                self.refresh_caller(&known, &presented, probe);
            }
            return Identification::Caller(known.clone());
        }
        self.unknown(view, presented, probe, now, rounds)
    }

    /// Asks for a credential to be looked up again in the background. A JWT is not: it holds until
    /// its end or the age bound, and is verified again then.
    #[cold]
    fn refresh_caller(&self, known: &KnownCaller, presented: &Presented<'_>, probe: CredentialKey) {
        let Presented::ApiKey { key, .. } = presented else {
            return;
        };
        let Ok(hashes) = self.inner.credentials.identifier.hashes(key) else {
            return;
        };
        let refresh = Refresh::Caller(probe, Box::new(Wanted::Credential(hashes)));
        if self.inner.tenants.refreshes.try_send(refresh).is_err() {
            known.refreshing.store(false, Ordering::Release);
        }
    }

    #[cold]
    fn unknown(
        &self,
        view: &dyn RequestView,
        presented: Presented<'_>,
        probe: CredentialKey,
        now: Now,
        rounds: u8,
    ) -> Identification {
        let inner = &self.inner;
        if inner.tenants.unknown.contains(probe, now)
            && (rounds >= SURE || !self.was_just_made(&presented, now))
        {
            return self.unidentified(now, rounds);
        }
        match presented {
            Presented::ApiKey { key, .. } => match inner.credentials.identifier.hashes(key) {
                Ok(hashes) => {
                    // Whose a key is is not known yet: look-ups wait by where they come from.
                    let whose =
                        inner.credentials.identifier.peer(view).map_or(0, |ip| match line(ip) {
                            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
                            IpAddr::V6(ip) => ip.to_bits(),
                        });
                    Identification::Ask(self.load(probe, Wanted::Credential(hashes), whose))
                }
                Err(_) => self.refused_unknown(),
            },
            #[cfg(feature = "jwt")]
            Presented::Jwt { token, .. } => {
                match inner.credentials.identifier.verify(token, now.wall_ms) {
                    Ok(verified) => {
                        // Without an end is one whom the host names; a token never is.
                        let expires_ms = verified.until_ms.min(i64::MAX - 1);
                        let caller = verified.caller();
                        let whose = name_tag(caller.tenant.as_bytes());
                        let wanted = Wanted::Named { caller, expires_ms };
                        Identification::Ask(self.load(probe, wanted, whose))
                    }
                    Err(_) => Identification::Refused(Reason::Unidentified),
                }
            }
            Presented::Tenant { id, user, plan, permissions, .. } => {
                let (user, permissions) = (user.as_deref(), permissions.as_deref());
                match named_caller(&id, user, plan.as_deref(), permissions) {
                    Ok(caller) => {
                        let whose = name_tag(caller.tenant.as_bytes());
                        let wanted = Wanted::Named { caller, expires_ms: i64::MAX };
                        Identification::Ask(self.load(probe, wanted, whose))
                    }
                    Err(_) => Identification::Refused(Reason::Unidentified),
                }
            }
            Presented::Nothing => self.unidentified(now, rounds),
        }
    }

    /// Whether what was unknown was made since: a key that was imported, a tenant.
    fn was_just_made(&self, presented: &Presented<'_>, now: Now) -> bool {
        let (inner, unknown) = (&self.inner, &self.inner.tenants.unknown);
        if !unknown.has_made() {
            return false;
        }
        match presented {
            Presented::ApiKey { key, .. } => {
                let hashes = inner.credentials.identifier.hashes(key).unwrap_or_default();
                hashes.iter().any(|hash| unknown.was_made(credential_tag(hash), now))
            }
            // Its tenant's name is in the token; while anything was made it is looked up again.
            #[cfg(feature = "jwt")]
            Presented::Jwt { .. } => true,
            Presented::Tenant { id, .. } => unknown.was_made(name_tag(id), now),
            Presented::Nothing => false,
        }
    }

    /// A caller that the host's own code names.
    fn named_by_host(&self, caller: Caller, now: Now, rounds: u8) -> Identification {
        if is_own_id(&caller.tenant) {
            return Identification::Refused(Reason::Unidentified);
        }
        self.named(caller, i64::MAX, now, rounds)
    }

    /// A caller named by a trusted source: cached by the name and its scopes.
    fn named(&self, caller: Caller, expires_ms: i64, now: Now, rounds: u8) -> Identification {
        let probe = self.inner.credentials.probe_of(&caller);
        if let Some(known) = self.inner.tenants.callers.get(&probe.0)
            && known.is_fresh(now)
            && known.agrees(caller.plan.as_deref(), now)
        {
            return Identification::Caller(known.clone());
        }
        let unknown = &self.inner.tenants.unknown;
        if unknown.contains(probe, now)
            && (rounds >= SURE
                || !unknown.has_made()
                || !unknown.was_made(name_tag(caller.tenant.as_bytes()), now))
        {
            return self.unidentified(now, rounds);
        }
        let whose = name_tag(caller.tenant.as_bytes());
        Identification::Ask(self.load(probe, Wanted::Named { caller, expires_ms }, whose))
    }

    /// Nothing was presented.
    fn without_credential(&self, auth: Auth, now: Now, rounds: u8) -> Identification {
        if auth == Auth::Optional {
            return self.named(Caller::new(ANONYMOUS), i64::MAX, now, rounds);
        }
        if self.inner.settings.identity.unknown != OnUnknown::Anonymous {
            self.inner.credentials.hint_at_no_caller();
        }
        self.unidentified(now, rounds)
    }

    /// Handles a missing or unknown credential by `identity.unknown`.
    fn unidentified(&self, now: Now, rounds: u8) -> Identification {
        match self.inner.settings.identity.unknown {
            OnUnknown::Anonymous => self.named(Caller::new(ANONYMOUS), i64::MAX, now, rounds),
            OnUnknown::Reject | OnUnknown::Create => self.refused_unknown(),
        }
    }

    fn refused_unknown(&self) -> Identification {
        let Inner { credentials, tenants, .. } = &*self.inner;
        credentials.hint_at_no_key(|| !tenants.callers.is_empty());
        Identification::Refused(Reason::Unidentified)
    }

    /// Loads a caller, once for all requests that wait for it; tenants (`whose`) take turns.
    fn load(&self, probe: CredentialKey, wanted: Wanted, whose: u128) -> Pending {
        let inner = self.inner.clone();
        Box::pin(async move {
            if inner.hub.reach.is_away() {
                return inner.tenants.without_directory(probe, wanted);
            }
            // Who is in memory can be taken for what it was, unless something is known to have
            // changed; and it is known whose it is.
            let awake = inner.tenants.callers.get(&probe.0).map(|it| it.clone());
            let is_known = awake.is_some() || inner.tenants.is_remembered(probe);
            let is_in_doubt =
                |it: &KnownCaller| inner.tenants.recent.is_in_doubt(it.looked_up_ns());
            let waits_long = !is_known || awake.as_deref().is_some_and(is_in_doubt);
            let wait = if waits_long { LOOK_UP_WAIT } else { LEASE_WAIT };
            let whose = awake.map_or(whose, |it| it.tenant.core.surrogate.as_u128());
            let load = async {
                let Some(place) = inner.tenants.reads.place(whose).await else {
                    return Err(LoadFailed::Busy);
                };
                let loads = inner.tenants.load_caller(probe, wanted.clone());
                let loaded = patience::within(LOOK_UP_WAIT, loads).await;
                let loaded = loaded.ok_or(LoadFailed::Silent)?.map_err(LoadFailed::Store);
                loaded.inspect(|()| place.is_answered())
            };
            let waits = if waits_long { LOOK_UP_WAITS } else { 1 };
            let line = || inner.tenants.line_of_reads();
            let load = inner.tenants.loads.once(&probe.0, load);
            let (loaded, _) = inner.hub.reach.while_it_moves(wait, waits, line, load).await;
            match loaded {
                Some(Ok(())) => return Waited::default(),
                Some(Err(LoadFailed::Busy)) if inner.tenants.keep_as_known(probe, &wanted) => {
                    return Waited::default();
                }
                Some(Err(LoadFailed::Busy)) => {
                    return Waited { refused: Some(Reason::Unavailable), ..Waited::default() };
                }
                Some(Err(LoadFailed::Store(error))) => {
                    if matches!(error.kind, StoreErrorKind::Unavailable | StoreErrorKind::Unknown) {
                        inner.hub.reach.suspect();
                    }
                    let now_ms = inner.clock.now().wall_ms;
                    repeated!(warn, now_ms, "a caller could not be looked up"; %error);
                }
                // It goes on in the background, for the next request.
                Some(Err(LoadFailed::Silent)) | None if is_known => {
                    let _ = inner
                        .tenants
                        .refreshes
                        .try_send(Refresh::Caller(probe, Box::new(wanted.clone())));
                }
                Some(Err(LoadFailed::Silent)) | None => {}
            }
            inner.tenants.without_directory(probe, wanted)
        })
    }

    /// Reads a tenant again when what is known of it grows old: in the background from half of the
    /// age bound on, and before going on when the bound has passed, or when its trial begins.
    #[inline]
    pub(super) fn refresh(&self, tenant: &Arc<LiveTenant>, now: Now) -> Option<Pending> {
        let age = tenant.age_in_use_ns(now);
        if age < nanos(REFRESH_AGE) { None } else { self.refresh_old(tenant, age, now) }
    }

    #[cold]
    fn refresh_old(&self, tenant: &Arc<LiveTenant>, age: u64, now: Now) -> Option<Pending> {
        let begins = tenant.lacks_first_request(&self.inner.catalogs.live.load(), now);
        if age < nanos(MAX_AGE) && !begins {
            self.inner.tenants.refresh_soon(tenant);
            return None;
        }
        self.reread(tenant, true)
    }

    /// The same for a look at its usage, which begins no trial.
    pub(super) fn refresh_for_look(&self, tenant: &Arc<LiveTenant>, now: Now) -> Option<Pending> {
        if tenant.age_in_use_ns(now) < nanos(MAX_AGE) { None } else { self.reread(tenant, false) }
    }

    /// Reads a tenant again, for a request of it or for a look at its usage.
    fn reread(&self, tenant: &Arc<LiveTenant>, for_request: bool) -> Option<Pending> {
        if self.inner.hub.reach.is_away() {
            self.inner.tenants.keep_tenant(tenant);
            return None;
        }
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        Some(Box::pin(async move {
            let key = tenant.core.surrogate.as_u128();
            let read = async {
                let place = inner.tenants.reads.place(key).await.ok_or(LoadFailed::Busy)?;
                if inner.tenants.read_again(&tenant, for_request).await {
                    place.is_answered();
                }
                Ok::<(), LoadFailed>(())
            };
            let is_in_doubt = inner.tenants.recent.is_in_doubt(tenant.read_ns());
            let wait = if is_in_doubt { LOOK_UP_WAIT } else { LEASE_WAIT };
            // A tenant that cannot be read stays as it was last known.
            let read = inner.hub.reach.within(wait, inner.tenants.loads.once(&key, read)).await;
            if !matches!(read, Some(Ok(()))) {
                inner.tenants.keep_tenant(&tenant);
                if for_request {
                    inner.tenants.refresh_soon(&tenant);
                }
            }
            Waited::default()
        }))
    }
}

/// Whether the plan that a caller names is the one that its tenant is on.
#[inline]
fn has_plan(known: &KnownCaller, presented: &Presented<'_>, now: Now) -> bool {
    match presented {
        Presented::Tenant { plan, .. } => known.agrees(plan.as_deref(), now),
        // Named, if at all, by a token that says the same as when it was looked up.
        _ => known.holds_plan(now),
    }
}

impl Tenants {
    /// The directory cannot be read: a caller in memory stays as last known, and a guest is
    /// admitted.
    fn without_directory(&self, probe: CredentialKey, wanted: Wanted) -> Waited {
        if self.keep_as_known(probe, &wanted) || self.let_in(probe, wanted) {
            return Waited::default();
        }
        Waited { refused: Some(Reason::Unavailable), ..Waited::default() }
    }
}
