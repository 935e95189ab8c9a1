//! Alerts of changes: written before the change, so that a crash loses none, and judged by the
//! history and the credentials before they are sent.

use super::history::chain;
use super::keys::KeyState;
use super::record::{PaymentState, TenantRecord};
use super::{Directory, Surrogate};
use crate::notify::kinds::{self, ChangeAhead, KEY_NOTICE_MS};
use crate::notify::{About, Judge, Verdict, VerdictFuture};
use crate::store::StoreError;

/// The name of operators' keys in alerts: they belong to no tenant.
const OPERATORS: &str = "operators";

/// A key whose alert falls due while its end is still being written has that end so long after at
/// the latest.
const WRITTEN_WITHIN_MS: i64 = 600_000;

impl Directory {
    /// Writes the alerts of a change that has been announced under this id and is not made yet.
    pub(super) async fn raise_change(
        &self,
        before: Option<&TenantRecord>,
        after: &TenantRecord,
        change: u64,
    ) -> Result<(), StoreError> {
        // A new tenant has its plan from the beginning.
        let Some(before) = before else { return Ok(()) };
        let alerts = &self.inner.alerts;
        let of = ChangeAhead { surrogate: after.surrogate, tenant: &after.id, change };
        if before.plan != after.plan && alerts.wants(kinds::PLAN_CHANGED) {
            let plans = (before.plan.as_deref(), after.plan.as_deref());
            alerts.raise(&kinds::plan_changed(alerts.stamp(), of, plans)).await?;
        }
        if before.payment != after.payment
            && let Some(state) = trouble(after.payment)
            && alerts.wants(kinds::PAYMENT)
        {
            alerts.raise(&kinds::payment_trouble(alerts.stamp(), of, state)).await?;
        }
        Ok(())
    }

    /// Writes the alert of a key that is to end then, due a week before. A key that ends sooner has
    /// none: its end was just set by hand.
    pub(super) async fn raise_key(
        &self,
        tenant: Surrogate,
        (key, name): (&str, &str),
        until_ms: i64,
    ) -> Result<(), StoreError> {
        let alerts = &self.inner.alerts;
        let is_soon = until_ms.saturating_sub(KEY_NOTICE_MS) <= self.now_ms();
        if is_soon || !alerts.wants(kinds::KEY_EXPIRING) {
            return Ok(());
        }
        let record = self.read_record(tenant).await?;
        let outer = record.as_ref().map_or(OPERATORS, |record| &record.id);
        alerts.raise_later(&kinds::key_expiring(tenant, outer, (key, name), until_ms)).await
    }

    async fn judge_change(&self, tenant: Surrogate, change: u64) -> Result<Verdict, StoreError> {
        // The record first: the chain from it back is complete in what is read after it.
        let record = self.read_record(tenant).await?;
        let (version, last) = record.map_or((0, 0), |record| (record.version, record.change));
        if last == change {
            return Ok(Verdict::Happened);
        }
        let entries = self.entries(tenant).await?;
        let announced = entries.iter().find(|(id, _)| *id == change);
        Ok(match announced {
            _ if chain(&entries, last).contains(&change) => Verdict::Happened,
            Some((_, entry)) if entry.version > version => Verdict::Pending,
            _ => Verdict::Never,
        })
    }

    async fn judge_key(
        &self,
        tenant: Surrogate,
        key: &str,
        until_ms: i64,
    ) -> Result<Verdict, StoreError> {
        let due_ms = until_ms.saturating_sub(KEY_NOTICE_MS);
        let not_so = match self.now_ms() < due_ms.saturating_add(WRITTEN_WITHIN_MS) {
            true => Verdict::Pending,
            false => Verdict::Never,
        };
        let Some(listed) = self.find_key(tenant, key).await? else { return Ok(not_so) };
        let works = self.key_state(tenant, key, &listed).await? == KeyState::Active;
        // The credential is the truth about its end.
        let held = self.read_credential(&listed.hash).await?;
        let ends_then = held.is_some_and(|held| held.until_ms == Some(until_ms));
        Ok(if works && ends_then { Verdict::Happened } else { not_so })
    }
}

impl Judge for Directory {
    fn judge<'a>(&'a self, about: &'a About) -> VerdictFuture<'a> {
        Box::pin(async move {
            match about {
                About::Fact => Ok(Verdict::Happened),
                About::Change { tenant, change } => self.judge_change(*tenant, *change).await,
                About::Key { tenant, key, until_ms } => {
                    self.judge_key(*tenant, key, *until_ms).await
                }
            }
        })
    }
}

/// The word of a payment state that is trouble.
fn trouble(state: PaymentState) -> Option<&'static str> {
    match state {
        PaymentState::PastDue => Some("past-due"),
        PaymentState::Unpaid => Some("unpaid"),
        PaymentState::Good | PaymentState::Trialing | PaymentState::Canceled => None,
    }
}
