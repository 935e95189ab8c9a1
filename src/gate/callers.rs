//! Step 1, identify: from what a request presents to a tenant in memory.
//!
//! The hot path is one look-up by a keyed 128-bit hash of the credential. What it misses is loaded
//! from the directory once for all who wait, at most [`Reads::MAX`](crate::directory::Reads::MAX)
//! loads at a time; what is found to be nobody's is remembered in a table of fixed size. So a flood
//! of forged credentials costs neither memory nor anybody else's requests.

use std::num::NonZeroU128;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Gate, Inner, Pending, Waited};
pub(crate) use crate::admission::caller::KnownCaller;
use crate::admission::sheet::Sheet;
use crate::admission::tenant::LiveTenant;
use crate::catalog::{Auth, Scope};
use crate::clock::Now;
use crate::config::Unknown;
use crate::decision::Reason;
use crate::identity::{
    ANONYMOUS, Caller, CredentialHash, Identity, Presented, Probe, RequestView, ScopeHash, Scopes,
    is_own_id, named_caller,
};
use crate::repeated::repeated;
use crate::store::StoreError;

/// How long what the directory said is believed: every change is seen within it.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(30);

/// From this age on a tenant is read again in the background, ahead of need.
pub(crate) const REFRESH_AGE: Duration = Duration::from_secs(15);

/// A tenant that could not be read again is asked for no sooner than after this.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What step 1 came to.
pub(crate) enum Seen {
    Caller(Arc<KnownCaller>),
    Refused(Reason),
    Ask(Pending),
}

/// Something to read again before it grows too old.
#[derive(Debug)]
pub(crate) enum Refresh {
    Tenant(Arc<LiveTenant>),
    Caller(Probe, Wanted),
}

/// What is looked up in the directory.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// A credential, under all the hashes it may be stored by.
    Credential(Vec<CredentialHash>),
    /// A tenant that was named by somebody we trust, with its scopes.
    Named { caller: Caller, expires_ms: i64 },
}

impl Gate {
    /// Who is calling.
    pub(super) fn identify(&self, view: &dyn RequestView, auth: Auth, now: Now) -> Seen {
        let inner = &self.inner;
        if let Some(custom) = &inner.custom {
            match custom.identify(view) {
                Identity::Tenant(caller) if is_own_id(&caller.tenant) => {
                    return Seen::Refused(Reason::Unidentified);
                }
                Identity::Tenant(caller) => return self.named(caller, i64::MAX, now),
                Identity::Refused => return Seen::Refused(Reason::Unidentified),
                Identity::Nobody => {}
            }
        }
        let Ok(presented) = inner.identifier.present(view) else {
            return Seen::Refused(Reason::Unidentified);
        };
        let Some(probe) = inner.identifier.probe(&presented) else {
            return self.nobody(auth, now);
        };
        if let Some(known) = inner.callers.get(&probe.0)
            && known.is_fresh(now)
        {
            if known.wants_refresh(now) {
                self.refresh_caller(&known, &presented, probe);
            }
            return Seen::Caller(known.clone());
        }
        self.unknown(presented, probe, now)
    }

    /// Asks for a credential to be looked up again in the background. A JWT is not: it holds until
    /// its end or the age bound, and is verified again then.
    #[cold]
    fn refresh_caller(&self, known: &KnownCaller, presented: &Presented<'_>, probe: Probe) {
        let Presented::ApiKey { key, .. } = presented else {
            return;
        };
        let Ok(hashes) = self.inner.identifier.hashes(key) else {
            return;
        };
        let refresh = Refresh::Caller(probe, Wanted::Credential(hashes));
        if self.inner.refreshes.try_send(refresh).is_err() {
            known.refreshing.store(false, Ordering::Release);
        }
    }

    #[cold]
    fn unknown(&self, presented: Presented<'_>, probe: Probe, now: Now) -> Seen {
        let inner = &self.inner;
        if inner.unknown.contains(probe, now) {
            return self.stranger(now);
        }
        match presented {
            Presented::ApiKey { key, .. } => match inner.identifier.hashes(key) {
                Ok(hashes) => Seen::Ask(self.load(probe, Wanted::Credential(hashes))),
                Err(_) => Seen::Refused(Reason::Unidentified),
            },
            #[cfg(feature = "jwt")]
            Presented::Jwt { token, .. } => match inner.identifier.verify(token, now.wall_ms) {
                Ok(verified) => {
                    let expires_ms = verified.until_ms;
                    let wanted = Wanted::Named { caller: verified.caller(), expires_ms };
                    Seen::Ask(self.load(probe, wanted))
                }
                Err(_) => Seen::Refused(Reason::Unidentified),
            },
            Presented::Tenant { id, user, .. } => match named_caller(&id, user.as_deref()) {
                Ok(caller) => {
                    let expires_ms = i64::MAX;
                    Seen::Ask(self.load(probe, Wanted::Named { caller, expires_ms }))
                }
                Err(_) => Seen::Refused(Reason::Unidentified),
            },
            Presented::Nothing => self.stranger(now),
        }
    }

    /// A caller that somebody we trust has named: cached by the name and its scopes.
    fn named(&self, caller: Caller, expires_ms: i64, now: Now) -> Seen {
        let probe = self.inner.probe_of(&caller);
        if let Some(known) = self.inner.callers.get(&probe.0)
            && known.is_fresh(now)
        {
            return Seen::Caller(known.clone());
        }
        if self.inner.unknown.contains(probe, now) {
            return self.stranger(now);
        }
        Seen::Ask(self.load(probe, Wanted::Named { caller, expires_ms }))
    }

    /// Nothing was presented.
    fn nobody(&self, auth: Auth, now: Now) -> Seen {
        if auth == Auth::Optional {
            return self.named(Caller::new(ANONYMOUS), i64::MAX, now);
        }
        self.stranger(now)
    }

    /// Nobody we know: as configured.
    fn stranger(&self, now: Now) -> Seen {
        match self.inner.config.identity.unknown {
            Unknown::Anonymous => self.named(Caller::new(ANONYMOUS), i64::MAX, now),
            Unknown::Reject | Unknown::Create => Seen::Refused(Reason::Unidentified),
        }
    }

    /// Loads a caller, once for all who wait for it.
    fn load(&self, probe: Probe, wanted: Wanted) -> Pending {
        let inner = self.inner.clone();
        Box::pin(async move {
            let loads = inner.loads.clone();
            let load = async {
                // Past the bound only callers that are not in memory are turned away.
                let Some(_slot) = inner.reads.try_slot() else {
                    return Err(Failed::Busy);
                };
                inner.load_caller(probe, wanted.clone()).await.map_err(Failed::Store)
            };
            let loaded = loads.try_get_with(probe.0, load).await;
            // It served those who waited together; what it found has its place elsewhere.
            loads.invalidate(&probe.0).await;
            match loaded {
                Ok(()) => Waited::default(),
                Err(failed) => {
                    if let Failed::Store(error) = &*failed {
                        let now_ms = inner.clock.now().wall_ms;
                        repeated!(warn, now_ms, "a caller could not be looked up"; %error);
                    }
                    let is_away = matches!(&*failed, Failed::Store(_));
                    if inner.keep_as_known(probe) || is_away && inner.let_in(probe, wanted) {
                        return Waited::default();
                    }
                    Waited { refused: Some(Reason::Unavailable), ..Waited::default() }
                }
            }
        })
    }

    /// Reads a tenant again when what is known of it grows old: in the background from half of the
    /// age bound on, and before going on when the bound has passed.
    pub(super) fn refresh(&self, tenant: &Arc<LiveTenant>, now: Now) -> Option<Pending> {
        let age = tenant.age_ns(now);
        if age < nanos(REFRESH_AGE) {
            return None;
        }
        if age < nanos(MAX_AGE) {
            if tenant.wants_refresh() && !self.inner.ask_refresh(tenant.clone()) {
                tenant.unwant_refresh();
            }
            return None;
        }
        let (inner, tenant) = (self.inner.clone(), tenant.clone());
        Some(Box::pin(async move {
            let key = tenant.core.surrogate.as_u128();
            let loads = inner.loads.clone();
            let read = async {
                inner.read_again(&tenant).await;
                Ok::<(), Failed>(())
            };
            // It cannot fail: a tenant that cannot be read stays as it was last known.
            let _ = loads.try_get_with(key, read).await;
            loads.invalidate(&key).await;
            Waited::default()
        }))
    }
}

/// Why a caller could not be loaded.
#[derive(Debug)]
enum Failed {
    Busy,
    Store(StoreError),
}

impl KnownCaller {
    /// True once, from half of the age bound on.
    fn wants_refresh(&self, now: Now) -> bool {
        now.mono_ns.saturating_sub(self.looked_up_ns) > nanos(REFRESH_AGE)
            && !self.refreshing.load(Ordering::Relaxed)
            && !self.refreshing.swap(true, Ordering::AcqRel)
    }

    fn is_fresh(&self, now: Now) -> bool {
        now.mono_ns.saturating_sub(self.looked_up_ns) < nanos(MAX_AGE)
            && now.wall_ms < self.expires_ms
    }
}

impl Inner {
    /// Where a request came from, hashed, if a limit is by address.
    #[inline]
    pub(super) fn ip_scope(&self, sheet: &Sheet, view: &dyn RequestView) -> Option<NonZeroU128> {
        if sheet.policy.uses_ip { self.hashed_ip(sheet, view) } else { None }
    }

    fn hashed_ip(&self, sheet: &Sheet, view: &dyn RequestView) -> Option<NonZeroU128> {
        let scopes = Scopes { ip: self.identifier.peer(view), ..Scopes::default() };
        let hash = scopes.hash(sheet.tenant.surrogate, &Scope::Ip)?;
        NonZeroU128::new(ScopeHash::as_u128(hash))
    }
}

pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
