//! Guests: tenants served on the default plan while the directory cannot be read
//! (`on-directory-error = "default-plan"`).
//!
//! # Laws
//!
//! 1. Only a caller named by a trusted source is a guest: a header of a trusted proxy, a
//!    claim, a JWT that was verified. An API key proves nothing while it cannot be looked up.
//! 2. Nothing is stored under a guest: it has a hub of its own, whose leases are not renewed, so
//!    that `on-lease-error` decides about its quotas at once.
//! 3. What a guest used is handed over to the tenant it is, as a late cost, once the directory
//!    answers. Until then it is in memory only: a process that dies meanwhile loses it. So there
//!    are no guests in mode `durable`, where what is answered is recorded.
//!
//! Not handed over: what a guest's keys, users and addresses used of limits of their own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::lookup::scope_values;
use super::tenants::{Tenants, Wanted};
use crate::admission::context::HoldContext;
use crate::admission::permit::Hold;
use crate::catalog::OnDirectoryError;
use crate::clock::nanos;
use crate::directory::TenantRecord;
use crate::holders::{Holder, is_held_only_by};
use crate::identity::CredentialKey;
use crate::ids::Surrogate;
use crate::repeated::repeated;
use crate::sheets::sheet::Sheet;
use crate::sheets::unrecorded::Dirty;
use crate::tenants::caller::{KnownCaller, Named, SheetRef};
use crate::tenants::tenant::LiveTenant;
use crate::tenants::{MAX_AGE, RETRY};

/// Most guests at once; the next gets 503. A client that a trusted proxy lets name its tenant may
/// invent names, and each takes memory.
pub(crate) const MAX_GUESTS: usize = 1_024;

/// How long a closing gate tries to hand over what guests used.
pub(super) const SETTLE_WITHIN: Duration = Duration::from_secs(2);

impl Tenants {
    /// Lets a caller in whose tenant cannot be looked up. False: it is to be refused.
    pub(super) fn let_in(&self, probe: CredentialKey, wanted: Wanted) -> bool {
        let (now, live) = (self.clock.now(), self.live.load());
        let Wanted::Named { caller, expires_ms } = wanted else { return false };
        if live.catalog.on_directory_error == OnDirectoryError::Deny
            || !self.guests.may_be
            || now.wall_ms >= expires_ms
        {
            return false;
        }
        let Some(tenant) = self.guest(&caller.tenant) else { return false };
        let known = KnownCaller {
            sheet: tenant.sheet(&live, now),
            values: scope_values(tenant.core.surrogate, &caller),
            // A guest is on the default plan whatever plan its caller names, which is not looked at
            // again before the directory is.
            named: Named::of(&caller, &tenant),
            tenant,
            // The directory is asked again after a while.
            looked_up_ns: now.mono_ns.saturating_sub(nanos(MAX_AGE) - nanos(RETRY)).into(),
            as_of: 0,
            expires_ms,
            vouched_until: 0,
            refreshing: AtomicBool::new(true),
            is_kept: true,
        };
        self.callers.insert(probe.0, Arc::new(known));
        true
    }

    fn guest(&self, id: &Arc<str>) -> Option<Arc<LiveTenant>> {
        let guests = &self.guests;
        if let Some(known) = guests.tenants.get(id) {
            return Some(known.clone());
        }
        if guests.tenants.len() >= MAX_GUESTS {
            return None;
        }
        let surrogate = Surrogate::draw().ok()?; // in memory only: no key is built from it
        let (now, live) = (self.clock.now(), self.live.load());
        let record = Arc::new(TenantRecord::begin(surrogate, id, now.wall_ms));
        const TEXT: &str = "the directory is away: served on the default plan";
        repeated!(warn, now.wall_ms, TEXT; tenant = %id);
        let make = || Arc::new(LiveTenant::new(record, &live, &guests.hub, now));
        Some(guests.tenants.entry(id.clone()).or_insert_with(make).clone())
    }

    /// Hands over what guests used, as far as the directory answers.
    pub(super) async fn settle_guests(&self) {
        let names: Vec<Arc<str>> = self.guests.tenants.iter().map(|it| it.key().clone()).collect();
        let mut found = HashMap::new();
        for name in names {
            // One that cannot be asked about now stays a guest.
            let Ok(tenant) = self.tenant_named(&name).await else { break };
            found.insert(name, tenant);
        }
        // No wait from here on: what is taken is handed over.
        let mut waiting = HashSet::new();
        for dirty in self.guests.hub.unrecorded.take() {
            let Dirty::Sheet(sheet) = dirty else { continue };
            sheet.clear_dirty(); // what is added from now on marks it again
            match found.get(&sheet.tenant.id) {
                Some(tenant) => self.hand_over(&sheet, tenant.as_deref()),
                None => {
                    sheet.mark_dirty();
                    waiting.insert(sheet.tenant.id.clone());
                }
            }
        }
        self.guests.tenants.retain(|id, tenant| {
            let is_alone = is_held_only_by(tenant, [Holder::Table])
                && is_held_only_by(&tenant.core, [Holder::Tenant, Holder::Sheet]);
            waiting.contains(id) || !is_alone || tenant.last_sheet().is_dirty()
        });
    }

    fn hand_over(&self, guest: &Sheet, tenant: Option<&LiveTenant>) {
        let used =
            guest.row.take().map(|(meter, n)| (&guest.catalog.meters[usize::from(meter.0)], n));
        let Some(tenant) = tenant else {
            let used: Vec<_> = used.map(|(meter, n)| (meter.name.clone(), n)).collect();
            let (id, now_ms) = (&guest.tenant.id, self.clock.now().wall_ms);
            repeated!(error, now_ms, "served as a guest, but there is no such tenant"; %id, ?used);
            return;
        };
        let now = self.clock.now();
        let sheet = tenant.sheet(&self.live.load(), now);
        for (meter, n) in used {
            let Some(id) = sheet.catalog.meter(&meter.name) else {
                const TEXT: &str = "use of a guest is not counted: its meter is gone";
                let (now_ms, meter) = (now.wall_ms, &meter.name);
                repeated!(error, now_ms, TEXT; %meter, atoms = n);
                continue;
            };
            let sheet = SheetRef::Own(sheet.clone());
            let of = HoldContext { sheet, route: None, ip: None, work: None };
            Hold::new(of, now, None).report_cost(id, n);
        }
    }

    /// The last try, as the gate closes.
    pub(super) async fn close_guests(&self, until: Instant) {
        if self.guests.hub.unrecorded.len() == 0 {
            return;
        }
        let _ = tokio::time::timeout_at(until, self.settle_guests()).await;
        let lost = self.guests.hub.unrecorded.len();
        if lost > 0 {
            tracing::error!(tenants = lost, "the directory is away: what guests used is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::GateBuilder;
    use crate::gate::{Answer, Gate, Step, Waited};
    use crate::identity::Caller;
    use crate::middleware::HttpView;
    use crate::store::Memory;
    use crate::testing::{self, Faulty};
    use crate::{ManualClock, Reason};

    const PLANS: &str = r#"
        default-plan = "free"
        on-directory-error = "default-plan"
        [plan.free]
        on-lease-error = { allow = "10%" }
        rate.default = "5/s"
        quota.requests = "100/day"
    "#;

    /// One request of this tenant: its status, as far as admission decides it.
    async fn call(gate: &Gate, tenant: &str) -> Result<(), Reason> {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-tenant", tenant.parse().unwrap());
        let (method, uri) = (http::Method::GET, http::Uri::from_static("/"));
        let mut waited = Waited::default();
        loop {
            let view = HttpView::new(&method, &uri, &headers, None);
            match gate.admit_request(&view, waited) {
                Step::Wait(pending) => waited = pending.await,
                Step::Done(Answer::Admit(mut running)) => {
                    let now = running.hold.now();
                    running.hold.end(crate::Outcome::Complete { status: 200 }, now);
                    return Ok(());
                }
                Step::Done(Answer::Refuse(refusal)) => return Err(refusal.reason),
                Step::Done(Answer::Pass) => panic!("every route is limited"),
            }
        }
    }

    fn open(plans: &str) -> (Gate, ManualClock, Faulty) {
        let faulty = Faulty::scripted(Memory::new(), []);
        let (gate, clock) = testing::gate_with(plans, faulty.clone());
        (gate, clock, faulty)
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_is_held_to_the_default_plan_and_its_use_reaches_the_tenant() {
        let (gate, clock, faulty) = open(PLANS);
        assert_eq!(call(&gate, "known").await, Ok(()));
        faulty.outage(true);
        for _ in 0..5 {
            assert_eq!(call(&gate, "acme").await, Ok(()));
        }
        assert_eq!(call(&gate, "acme").await, Err(Reason::Exhausted), "5 in a second");
        clock.advance(Duration::from_secs(1));
        for _ in 0..5 {
            assert_eq!(call(&gate, "acme").await, Ok(()));
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(call(&gate, "acme").await, Err(Reason::Unavailable), "a tenth of the quota");

        faulty.outage(false);
        gate.inner.tenants.settle_guests().await;
        clock.advance(RETRY * 2);
        assert_eq!(call(&gate, "acme").await, Ok(()));
        gate.flush_now().await.unwrap();
        let who = testing::identified(&gate, "acme").await;
        let report = gate.usage_report(&who).await.unwrap();
        assert_eq!(report.meters[0].used, 11, "ten as a guest");
        gate.inner.tenants.settle_guests().await;
        assert!(gate.inner.tenants.guests.tenants.is_empty(), "no guest is left");
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_word_or_in_durable_mode_nobody_is_a_guest() {
        let (gate, _clock, faulty) = open(&PLANS.replace("\"default-plan\"", "\"deny\""));
        faulty.outage(true);
        assert_eq!(call(&gate, "acme").await, Err(Reason::Unavailable));
        assert!(gate.inner.tenants.guests.tenants.is_empty());

        let service = r#"
            store.kind = "memory"
            flush.mode = "durable"
            proxy.trust = ["10.0.0.0/8"]
            [[identify]]
            header = "x-tenant"
        "#;
        let gate = GateBuilder::from_text(service).plans(PLANS).open().await.unwrap();
        let wanted = Wanted::Named { caller: Caller::new("acme"), expires_ms: i64::MAX };
        assert!(!gate.inner.tenants.let_in(CredentialKey(1), wanted));
    }

    #[tokio::test]
    async fn who_only_presents_a_key_is_no_guest() {
        let (gate, _clock, _faulty) = open(PLANS);
        assert!(!gate.inner.tenants.let_in(CredentialKey(1), Wanted::Credential(Vec::new())));
        let ended = Wanted::Named { caller: Caller::new("acme"), expires_ms: testing::START_MS };
        assert!(!gate.inner.tenants.let_in(CredentialKey(1), ended), "its token has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn guests_are_bounded() {
        let (gate, _clock, faulty) = open(PLANS);
        faulty.outage(true);
        for i in 0..MAX_GUESTS {
            assert!(gate.inner.tenants.guest(&format!("t{i}").into()).is_some());
        }
        assert!(gate.inner.tenants.guest(&"one-more".into()).is_none());
        assert!(gate.inner.tenants.guest(&"t0".into()).is_some());
    }
}
