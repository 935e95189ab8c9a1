//! Idempotent requests and work: the claim on a key, between the decision and the handler.
//!
//! The claim is written while the request holds its units, before its handler runs. This is the one
//! wait after which a request is not decided anew, because its units are held.
//!
//! Work whose units cannot be had may be a repeat that was paid: for that its claim is read alone,
//! so that refused work leaves nothing in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::logged::{About, Unlogged};
use super::{Answer, Gate, Inner, LEASE_WAIT, Pending, Running, Waited};
use crate::admission::claim::{Claim, ClaimStep, KeyFound, OnceKey};
use crate::admission::permit::{Hold, HoldBox};
use crate::catalog::{OnLeaseError, Route};
use crate::decision::{Reason, Refusal};
use crate::identity::RequestView;
use crate::ids::Surrogate;
use crate::patience::Progress;
use crate::places::Places;
use crate::repeated::repeated;
use crate::sheets::tenant_core::TenantCore;
use crate::store::layout;
use crate::store::{Change, StoreError, StoreErrorKind, StoreFuture, When, Write, Written, repeat};
use crate::wire::{self, Reply};

/// Between two tries of a write that did not get through.
const RETRY: Duration = Duration::from_millis(25);

/// A wait in line for a claim is no longer than so many times [`LEASE_WAIT`], however fast the line
/// moves: as long as one for a lease.
const CLAIM_WAITS: u32 = 24;

/// Claims being written at once: as many as lease calls, for the same reason. One tenant has half.
pub(super) const CLAIMS: usize = 256;

/// Claims that are being written or wait for it, of one tenant no more than are free: more than are
/// written in the time that they wait.
pub(super) const CLAIMS_IN_HAND: usize = 16_384;

/// Format of the note that a tenant has claims.
const CLAIMANT_FORMAT: i64 = 1;

impl Gate {
    /// The request's idempotency key, on a route with `once-by`. An empty or repeated header is not
    /// a key.
    #[inline]
    pub(crate) fn once_key(
        &self,
        route: Option<&Route>,
        view: &dyn RequestView,
    ) -> Option<OnceKey> {
        let key = presented(route, view)?;
        let body = view.body_digest();
        if body.is_none() && view.body_length() != Some(0) {
            self.say_bodies_are_not_compared();
        }
        let query = view.query().unwrap_or_default();
        Some(OnceKey::new(key, view.method(), (view.path(), query), body.as_ref()))
    }

    #[cold]
    fn say_bodies_are_not_compared(&self) {
        if !self.inner.recording.said_no_digest.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a request with an idempotency key has a body that is not compared: the same key \
                 with another body counts as a retry. Put `DigestBodies` of your framework's \
                 adapter outside of the gate, or leave a `BodyDigest` yourself. This is logged once"
            );
        }
    }

    /// Whether a request has an idempotency key, on a route with `once-by`. Then a digest of its
    /// body ([`RequestView::body_digest`]) distinguishes it from others with the same key. For
    /// adapters.
    pub fn counts_once(&self, view: &dyn RequestView) -> bool {
        let live = self.inner.catalogs.live.load();
        let route = self.inner.route_of(&live.catalog, view);
        let rules = route.map(|id| &live.catalog.routes.as_slice()[usize::from(id.0)]);
        presented(rules, view).is_some()
    }

    /// The reply, a 413, to a request with a body longer than the `at_most` bytes that are read for
    /// a digest. For adapters.
    pub fn body_too_long_reply(&self, at_most: usize) -> Reply {
        let detail = format!(
            "A request with an idempotency key may have a body of at most {at_most} bytes here."
        );
        wire::plain_problem(413, "Content Too Large", &detail)
    }

    /// Claims the key for a request that has been admitted.
    #[cold]
    pub(crate) fn claim(&self, mut hold: HoldBox, once: OnceKey) -> Pending {
        let inner = self.inner.clone();
        // Made here: the wait may be dropped before it is polled.
        let mut record = Unlogged::new(self, hold.unlogged.take());
        let hold = Unclaimed(Some(hold));
        Box::pin(async move {
            let answer = inner.claimed(hold, once).await;
            if matches!(answer, Answer::Refuse(_)) {
                record.take(); // the refusal is on record
            }
            Waited { answer: Some(Box::new(answer)), ..Waited::default() }
        })
    }
}

/// The key, on a route that asks for one.
#[inline]
fn presented<'a>(route: Option<&Route>, view: &'a dyn RequestView) -> Option<&'a [u8]> {
    let header = route?.once_by.as_deref()?;
    let key = view.header(header).filter(|key| !key.is_empty())?;
    (!view.is_repeated(header)).then_some(key)
}

impl Inner {
    async fn claimed(self: &Arc<Self>, mut unclaimed: Unclaimed, once: OnceKey) -> Answer {
        let is_away = self.hub.reach.is_away();
        let (wait, waits) = if is_away { (Duration::ZERO, 1) } else { (LEASE_WAIT, CLAIM_WAITS) };
        let line = InLine::default();
        let progress = || line.progress(&self.recording.claims);
        let find = self.find(&unclaimed, once, &line);
        let (found, _) = self.hub.reach.while_it_moves(wait, waits, progress, find).await;
        let Some(mut hold) = unclaimed.0.take() else {
            return self.refuse_claim(None, Reason::Unavailable);
        };
        match found {
            // The same code has decided; only the caller is not told.
            Some(Ok((_, KeyFound::Conflict))) if hold.of.rules().shadow => {
                Answer::Admit(Running { hold })
            }
            Some(Ok((_, KeyFound::Conflict))) => {
                self.refuse_claim(Some(hold), Reason::IdempotencyConflict)
            }
            Some(Ok((claim, found))) => {
                let now = self.clock.now();
                hold.count_once(claim, found, self.recording.settler.queue(), now);
                Answer::Admit(Running { hold })
            }
            away => {
                if let Some(Err(error)) = away {
                    let now_ms = self.clock.now().wall_ms;
                    repeated!(warn, now_ms, "an idempotency key could not be claimed"; %error);
                }
                match hold.of.sheet.policy.on_lease_error() {
                    OnLeaseError::Deny if !hold.of.rules().shadow => {
                        self.refuse_claim(Some(hold), Reason::Unavailable)
                    }
                    // Counted as without a key.
                    OnLeaseError::Deny | OnLeaseError::Allow { .. } => {
                        Answer::Admit(Running { hold })
                    }
                }
            }
        }
    }

    /// The claim on the key, and this request's part in it.
    async fn find(
        &self,
        of: &Unclaimed,
        once: OnceKey,
        line: &InLine,
    ) -> Result<(Claim, KeyFound), StoreError> {
        let Some(hold) = &of.0 else { return Err(no_hold()) };
        let tenant = &hold.of.sheet.tenant;
        if self.tenants.guests.has(tenant) {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "a guest has no idempotency keys",
            ));
        }
        if !tenant.has_claims.load(Ordering::Relaxed) {
            self.note_claimant(hold, line).await?;
        }
        let mut claim = self.draw_claim(tenant, once)?;
        let now_ms = || self.clock.now().wall_ms;
        let mut write = claim.put(now_ms());
        loop {
            let written = self.write_claim(tenant.surrogate, &write, line).await?;
            match claim.next(written, now_ms())? {
                ClaimStep::Run(found) => return Ok((claim, found)),
                ClaimStep::Write(next) => write = next,
            }
        }
    }

    /// The claim of work that has been charged, read without arriving. `None`: it has not.
    pub(super) async fn paid(
        &self,
        tenant: &TenantCore,
        once: OnceKey,
    ) -> Result<Option<Claim>, Reason> {
        if self.hub.reach.is_away() {
            return Err(Reason::Unavailable);
        }
        let line = InLine::default();
        let progress = || line.progress(&self.recording.claims);
        let read = self.read_paid(tenant, once, &line);
        let (found, _) =
            self.hub.reach.while_it_moves(LEASE_WAIT, CLAIM_WAITS, progress, read).await;
        match found {
            Some(Ok(claim)) => Ok(claim),
            Some(Err(error)) => {
                let now_ms = self.clock.now().wall_ms;
                repeated!(warn, now_ms, "a claim on work could not be read"; %error);
                Err(Reason::Unavailable)
            }
            None => Err(Reason::Unavailable),
        }
    }

    async fn read_paid(
        &self,
        tenant: &TenantCore,
        once: OnceKey,
        line: &InLine,
    ) -> Result<Option<Claim>, StoreError> {
        let mut claim = self.draw_claim(tenant, once)?;
        let key = claim.key().clone();
        let read = || self.leasing.ctx.store.read(key.clone());
        let item = self.in_line(tenant.surrogate, line, read).await?;
        let is_paid = item.map_or(Ok(false), |item| claim.is_paid(&item))?;
        Ok(is_paid.then_some(claim))
    }

    fn draw_claim(&self, tenant: &TenantCore, once: OnceKey) -> Result<Claim, StoreError> {
        let drawn = Claim::new(&self.leasing.writer.space, tenant.surrogate, once);
        drawn.map_err(|e| StoreError::new(StoreErrorKind::Unavailable, e.to_string()))
    }

    /// Notes, before the first claim of a tenant, that there are any: the ledger finds them by it.
    async fn note_claimant(&self, hold: &Hold, line: &InLine) -> Result<(), StoreError> {
        let tenant = &hold.of.sheet.tenant;
        let (format, version) = layout::format(CLAIMANT_FORMAT);
        let write = Write {
            key: self.leasing.writer.space.claimant(tenant.surrogate),
            when: vec![When::Absent],
            change: vec![Change::Set(format, version)],
        };
        self.write_claim(tenant.surrogate, &write, line).await?;
        tenant.has_claims.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn write_claim(
        &self,
        of: Surrogate,
        write: &Write,
        line: &InLine,
    ) -> Result<Written, StoreError> {
        self.in_line(of, line, || self.leasing.ctx.store.write(write.clone())).await
    }

    /// Repeats a call until its outcome is known; the caller bounds the wait.
    async fn in_line<T>(
        &self,
        of: Surrogate,
        line: &InLine,
        call: impl Fn() -> StoreFuture<T>,
    ) -> Result<T, StoreError> {
        let in_place = || async {
            line.is_in_line.store(true, Ordering::Relaxed);
            let Some(place) = self.recording.claims.place(of.as_u128()).await else {
                return Ok(None);
            };
            line.is_in_line.store(false, Ordering::Relaxed);
            let begun = self.clock.now();
            let answer = call().await;
            if answer.is_ok() {
                place.is_answered();
                line.answers.fetch_add(1, Ordering::Relaxed);
            }
            let took = self.clock.now().mono_ns.saturating_sub(begun.mono_ns);
            let error = answer.as_ref().err().map(|error| error.kind.word());
            crate::telemetry::store_call("claim", took as f64 / 1e9, error);
            answer.map(Some) // the place is free: others go on while this one waits
        };
        let pauses = std::iter::repeat(RETRY);
        let (answer, _) = repeat(pauses, StoreError::is_temporary, in_place).await?;
        answer.ok_or_else(too_many)
    }

    fn refuse_claim(&self, hold: Option<HoldBox>, reason: Reason) -> Answer {
        let of = hold.as_ref().map(|hold| &hold.of);
        let refusal: Box<Refusal> = self.turn_away(reason, of, &About::request(None));
        if let Some(hold) = hold {
            hold.into_inner().refuse(self.clock.now());
        }
        Answer::Refuse(refusal)
    }
}

/// The place of one claim in the line of claims to write.
#[derive(Debug, Default)]
struct InLine {
    is_in_line: AtomicBool,
    answers: AtomicU64,
}

impl InLine {
    fn progress(&self, claims: &Places) -> Progress {
        Progress {
            is_in_line: self.is_in_line.load(Ordering::Relaxed),
            of_line: claims.answered(),
            own: self.answers.load(Ordering::Relaxed),
        }
    }
}

/// A hold whose key is being claimed. A client that goes away meanwhile drops it: the handler never
/// ran, so that nothing is charged.
struct Unclaimed(Option<HoldBox>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(hold) = self.0.take() {
            let now = hold.now();
            hold.into_inner().refuse(now);
        }
    }
}

fn too_many() -> StoreError {
    StoreError::new(StoreErrorKind::Throttled, "too many claims of this tenant are waiting")
}

fn no_hold() -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, "a claim without a request")
}
