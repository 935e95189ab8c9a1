//! Tenants of one plan, status or payment state. There is no index of these: the list is walked in
//! the order of the ids, a bounded number of tenants for each call, which says how many it read and
//! where the next one goes on.

use super::Gate;
use crate::directory::{DirectoryError, PaymentState, Tenant, TenantRecord};
use crate::policy::resolve::LiveCatalog;

/// Most tenants that one call reads, whatever it finds: each is a read of the store.
const MOST_READ: usize = 1_000;

/// Tenants of a page of the walk.
const PAGE: usize = 250;

/// The words for a tenant's status.
const STATUSES: [&str; 4] = ["active", "suspended", "trial-over", "payment-required"];

/// What is asked for. For [`Gate::filtered`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct TenantFilter {
    /// Only ids that begin with this.
    pub prefix: String,
    /// The plan that it is on now, also by default.
    pub plan: Option<String>,
    /// `active`, `suspended`, `trial-over` or `payment-required`.
    pub status: Option<String>,
    /// `good`, `trialing`, `past-due`, `unpaid` or `canceled`.
    pub payment: Option<String>,
}

/// A page of tenants. [`Gate::filtered`] returns it.
#[derive(Clone, Debug, Default)]
#[doc(hidden)]
#[non_exhaustive]
pub struct FilteredTenants {
    /// Those that match, in the order of their ids.
    pub tenants: Vec<Tenant>,
    /// Number of tenants that were read for it.
    pub read: usize,
    /// The id after which the next call goes on; `None`: this was the end.
    pub next: Option<String>,
}

impl TenantFilter {
    /// Whether it asks for more than the beginning of an id.
    fn looks_within(&self) -> bool {
        self.plan.is_some() || self.status.is_some() || self.payment.is_some()
    }

    fn matches(&self, record: &TenantRecord, live: &LiveCatalog, now_ms: i64) -> bool {
        let is_of = |asked: &Option<String>, own: &str| asked.as_ref().is_none_or(|it| it == own);
        if !is_of(&self.payment, payment_word(record.payment)) {
            return false;
        }
        if self.plan.is_none() && self.status.is_none() {
            return true;
        }
        let holds = live.resolve(record, now_ms);
        is_of(&self.plan, &holds.policy.plan.name)
            && is_of(&self.status, &super::status_word(&holds.standing))
    }
}

impl Gate {
    /// What is wrong with a filter, and what to write instead; `None`: nothing. For operators.
    #[doc(hidden)]
    pub fn filter_mistake(&self, filter: &TenantFilter) -> Option<String> {
        let payments = [
            PaymentState::Good,
            PaymentState::Trialing,
            PaymentState::PastDue,
            PaymentState::Unpaid,
            PaymentState::Canceled,
        ];
        let payments = payments.map(payment_word);
        let catalog = &self.inner.catalogs.live.load().catalog;
        if let Some(plan) = filter.plan.as_deref().filter(|it| catalog.plan(it).is_none()) {
            return Some(format!("no plan is called `{plan}`: {}", catalog.plan_help(plan)));
        }
        let is_none_of = |word: &&String, words: &[&str]| !words.contains(&word.as_str());
        if let Some(word) = filter.status.as_ref().filter(|it| is_none_of(it, &STATUSES)) {
            return Some(format!("`{word}` is no status: write {}", STATUSES.join(", ")));
        }
        if let Some(word) = filter.payment.as_ref().filter(|it| is_none_of(it, &payments)) {
            return Some(format!("`{word}` is no payment state: write {}", payments.join(", ")));
        }
        None
    }

    /// At most so many tenants that match, after this id. It reads at most 1,000 tenants: where
    /// `next` is set there may be more, even if none was found. For operators.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn filtered(
        &self,
        filter: &TenantFilter,
        after: &str,
        most: usize,
    ) -> Result<FilteredTenants, DirectoryError> {
        let inner = &self.inner;
        let mut found = FilteredTenants { next: Some(after.to_owned()), ..Default::default() };
        // Without a filter each tenant that is read is shown.
        let (page, most_read) = match filter.looks_within() {
            true => (PAGE, MOST_READ),
            false => (most, most),
        };
        while found.tenants.len() < most && found.read < most_read {
            let wanted = page.min(most_read - found.read);
            let from = found.next.take().unwrap_or_default();
            let read = inner.tenants.directory.list(&filter.prefix, &from, wanted).await?;
            let is_last = read.len() < wanted;
            let (live, now_ms) = (inner.catalogs.live.load(), inner.clock.now().wall_ms);
            for tenant in read {
                if found.tenants.len() == most {
                    return Ok(found);
                }
                found.read += 1;
                found.next = Some(tenant.record().id.clone());
                if filter.matches(tenant.record(), &live, now_ms) {
                    found.tenants.push(tenant);
                }
            }
            if is_last {
                found.next = None;
                break;
            }
        }
        Ok(found)
    }
}

/// The word for a payment state, as in the plan file.
fn payment_word(of: PaymentState) -> &'static str {
    match of {
        PaymentState::Good => "good",
        PaymentState::Trialing => "trialing",
        PaymentState::PastDue => "past-due",
        PaymentState::Unpaid => "unpaid",
        PaymentState::Canceled => "canceled",
    }
}
