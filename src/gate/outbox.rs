//! What is on its way to Stripe, as an operator looks at it: whole for the command, and in pages of
//! a bounded number of reads for the operator's routes. Stripe is not asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::billing::Billing;
use super::scales::Records;
use super::{Gate, Inner};
use crate::billing::result::ReportError;
use crate::billing::{DecidedEntry, EntryState, ItemId, OutboxRow};
use crate::ids::Surrogate;

/// Entries of some tenants. [`Gate::outbox_page`] returns it.
#[derive(Default)]
pub(crate) struct OutboxPage {
    /// The entries, but for those that were accepted, without a doubt: there are many.
    pub(crate) rows: Vec<OutboxRow>,
    /// How many entries are in each state, by its word.
    pub(crate) states: BTreeMap<&'static str, u64>,
    /// The minute of the oldest entry that was not accepted.
    pub(crate) oldest: Option<SystemTime>,
    /// Items that were read.
    pub(crate) items: usize,
    /// The last tenant, if there are more.
    pub(crate) next: Option<Surrogate>,
}

/// This process's reports to Stripe. [`Gate::reporting`] returns it.
pub(crate) struct Reporting {
    /// The last that succeeded.
    pub(crate) succeeded: Option<SystemTime>,
    /// Why the last one failed, if it did.
    pub(crate) error: Option<String>,
}

impl Gate {
    /// This process's reports; `None`: it bills nothing.
    pub(crate) fn reporting(&self) -> Option<Reporting> {
        let last = &self.inner.outbound.billing.as_ref()?.last_report;
        Some(Reporting { succeeded: last.succeeded(), error: last.error() })
    }

    /// The entries for Stripe whose outcome is not final, with their tenants. Stripe is not asked.
    /// For the operator's command.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store fails.
    #[doc(hidden)]
    pub async fn outbox(&self) -> Result<Vec<OutboxRow>, ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let mut rows = billing.reporter.rows(billing.items().await?.iter()).await?;
        let mut records = HashMap::new();
        for row in &mut rows {
            row.tenant = self.inner.id_of(row.entry.item.tenant, &mut records).await?;
        }
        Ok(rows)
    }

    /// What operators have decided about entries, the last 32 of each tenant's meter and period.
    /// For the operator's command.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store fails.
    #[doc(hidden)]
    pub async fn outbox_decisions(&self) -> Result<Vec<DecidedEntry>, ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let mut all = billing.reporter.decided(billing.items().await?.iter()).await?;
        let mut records = HashMap::new();
        for entry in &mut all {
            entry.tenant = self.inner.id_of(entry.item.tenant, &mut records).await?;
        }
        all.sort_by_key(|entry| entry.decision.at());
        Ok(all)
    }

    /// Entries for Stripe of the tenants after this one, or of one alone: of whole tenants, until
    /// so many items were read.
    pub(crate) async fn outbox_page(
        &self,
        alone: Option<Surrogate>,
        after: Option<Surrogate>,
        most: usize,
    ) -> Result<OutboxPage, ReportError> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(ReportError::NoService)?;
        let is_asked = |id: &ItemId| match alone {
            Some(tenant) => id.tenant == tenant,
            None => after.is_none_or(|after| id.tenant > after),
        };
        let mut by_tenant = BTreeMap::<Surrogate, BTreeSet<ItemId>>::new();
        for id in billing.items().await?.into_iter().filter(is_asked) {
            by_tenant.entry(id.tenant).or_default().insert(id);
        }
        let mut page = OutboxPage::default();
        let (mut records, mut last) = (HashMap::new(), None);
        for (tenant, items) in by_tenant {
            if page.items >= most {
                page.next = last;
                break;
            }
            page.items += items.len();
            last = Some(tenant);
            for row in billing.reporter.rows(items.iter()).await? {
                self.put(&mut page, row, &mut records).await?;
            }
        }
        Ok(page)
    }

    async fn put(
        &self,
        page: &mut OutboxPage,
        mut row: OutboxRow,
        records: &mut Records,
    ) -> Result<(), ReportError> {
        *page.states.entry(row.state.word()).or_default() += 1;
        match row.state {
            EntryState::Sent => return Ok(()),
            EntryState::Doubtful(_) => {}
            EntryState::Waits | EntryState::Uncertain | EntryState::Stopped(_) => {
                page.oldest = page.oldest.into_iter().chain([row.minute]).min();
            }
        }
        row.tenant = self.inner.id_of(row.entry.item.tenant, records).await?;
        page.rows.push(row);
        Ok(())
    }
}

impl Billing {
    /// The items of all use that has a customer.
    async fn items(&self) -> Result<BTreeSet<ItemId>, ReportError> {
        Ok(self.reporter.used().await?.into_iter().filter_map(|used| used.id).collect())
    }
}

impl Inner {
    /// A tenant's id, if the directory still has it.
    async fn id_of(
        &self,
        tenant: Surrogate,
        records: &mut Records,
    ) -> Result<Option<Arc<str>>, ReportError> {
        let record = self.record_of(tenant, records).await?;
        Ok(record.map(|record| record.id.as_str().into()))
    }
}
