//! Links between customers at the billing service and tenants: `S#customer`, one item each.
//!
//! # Laws
//!
//! 1. A customer belongs to one tenant, for good: only an unclaimed item is claimed.
//! 2. A tenant's customer is the one its record names (`account`); a previous one no longer affects
//!    it.
//!
//! The same item holds the facts from the customer's events (`billing/customers.rs`), so that
//! writers of either see the other: the link finds events that came before it.

use super::write::{Made, make};
use super::{Directory, DirectoryError, Surrogate, Tenant};
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, StoreError, StoreErrorKind, Value, When, Write};

/// Format of a customer's item.
pub(crate) const CUSTOMER_FORMAT: i64 = 1;

/// Most characters of a customer's name; Stripe's have some twenty.
const MAX_CUSTOMER: usize = 64;

const TENANT: &str = "tenant";

impl Directory {
    /// The tenant linked to this customer at the billing service, if any.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn lookup_customer(&self, customer: &str) -> Result<Option<Surrogate>, StoreError> {
        let item = self.inner.store.read(self.inner.space.customer(customer)).await?;
        Ok(item.as_ref().map(tenant_of).transpose()?.flatten())
    }
}

impl Tenant {
    /// Links the tenant to its customer at the billing service (Stripe's `cus_..`): from now on its
    /// usage is billed to that customer, and that customer's subscriptions decide its plan. Usage
    /// from before is never billed.
    ///
    /// This alone does not apply the customer's earlier events: where there is a gate, link with
    /// `Gate::link_customer`.
    ///
    /// # Errors
    ///
    /// The customer belongs to another tenant, or the store fails.
    pub async fn link_customer(&self, customer: &str) -> Result<Self, DirectoryError> {
        super::error::check_text(customer, "a customer", MAX_CUSTOMER)?;
        let (inner, tenant) = (&self.directory.inner, self.record.surrogate);
        let write = Write {
            key: inner.space.customer(customer),
            when: vec![When::Missing(TENANT.into())],
            change: vec![
                Change::Set(format(CUSTOMER_FORMAT).0, format(CUSTOMER_FORMAT).1),
                Change::Set(TENANT.into(), Value::Text(tenant.to_string())),
            ],
        };
        let stands = match make(&*inner.store, write).await? {
            Made::Yes(item) => Some(item),
            Made::No(item) | Made::Perhaps(item) => item,
        };
        if stands.as_ref().map(tenant_of).transpose()?.flatten() != Some(tenant) {
            return Err(DirectoryError::CustomerTaken);
        }
        self.edit().account(Some(customer.to_owned())).note("linked to its customer").save().await
    }
}

/// The tenant linked to this item's customer, if any.
pub(crate) fn tenant_of(item: &Item) -> Result<Option<Surrogate>, StoreError> {
    check_format(item, CUSTOMER_FORMAT, "a customer")?;
    let Some(text) = item.text(TENANT) else { return Ok(None) };
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a customer has no tenant's name");
    Surrogate::parse(text).map(Some).ok_or_else(damaged)
}
