//! Tenants and their customers at Stripe, as hosts link them.

use super::{Gate, Inner};
use crate::billing::StripeObject;
use crate::billing::customers::Customers;
use crate::billing::follower::{EffectFailed, Follower};
use crate::directory::DirectoryError;
use crate::error::Error;

impl Gate {
    /// Links a tenant to its Stripe customer (`cus_..`), and applies that customer's earlier events
    /// to it. Usage that was admitted before the link is never billed.
    ///
    /// # Errors
    ///
    /// The tenant does not exist, the customer belongs to another tenant, or the store fails: then
    /// link again. If Stripe does not answer, the link is made all the same, and Stripe is queried
    /// again within a day.
    pub async fn link_customer(&self, tenant: &str, customer: &str) -> Result<(), Error> {
        match self.inner.follower().link(tenant, customer).await {
            Ok(()) => Ok(()),
            Err(EffectFailed::Directory(DirectoryError::NoTenant)) => {
                Err(Error::NoTenant(tenant.to_owned()))
            }
            Err(error @ (EffectFailed::Sink(_) | EffectFailed::Undecided)) => {
                tracing::warn!(tenant, %error, "linked; its state at Stripe is not known yet");
                Ok(())
            }
            Err(EffectFailed::Store(error)) => Err(error.into()),
            Err(EffectFailed::Directory(error)) => Err(error.into()),
            Err(EffectFailed::Busy | EffectFailed::Unreadable) => Err(DirectoryError::Busy.into()),
        }
    }

    /// Returns the id of the tenant's Stripe customer, linked to the tenant: the customer that is
    /// linked already, or else one that was created for the tenant earlier, or a new one.
    ///
    /// # Errors
    ///
    /// As [`link_customer`](Self::link_customer). Also if Stripe does not answer, or the service
    /// file has no `[stripe]`.
    pub async fn ensure_customer(&self, tenant: &str) -> Result<String, Error> {
        let found = self.directory().find(tenant).await?;
        let found = found.ok_or_else(|| Error::NoTenant(tenant.to_owned()))?;
        if let Some(customer) = &found.record().account {
            return Ok(customer.clone());
        }
        let billing = self.inner.outbound.billing.as_ref().ok_or(Error::NoStripe)?;
        let name = found.record().surrogate.to_string();
        let customer = billing.stripe.customer_for(&name, tenant).await?;
        self.link_customer(tenant, &customer).await?;
        Ok(customer)
    }
}

impl Gate {
    /// The objects at Stripe that the plan file in force names, as they stand. For the operator's
    /// command.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or Stripe does not answer.
    #[doc(hidden)]
    pub async fn stripe_objects(&self) -> Result<Vec<StripeObject>, Error> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(Error::NoStripe)?;
        let catalog = self.inner.catalogs.live.load().catalog.clone();
        Ok(billing.stripe.objects(&catalog).await?)
    }

    /// Makes the meter of this event name at Stripe. The caller has seen that there is none.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or Stripe refuses.
    #[doc(hidden)]
    pub async fn make_stripe_meter(&self, event: &str) -> Result<(), Error> {
        let billing = self.inner.outbound.billing.as_ref().ok_or(Error::NoStripe)?;
        Ok(billing.stripe.make_meter(event).await?)
    }
}

impl Inner {
    /// Puts into force what customers' events say.
    pub(super) fn follower(&self) -> Follower<'_> {
        let (store, space) = (&self.leasing.ctx.store, &self.leasing.writer.space);
        Follower {
            customers: Customers::new(store.clone(), space.clone()),
            directory: &self.tenants.directory,
            live: &self.catalogs.live,
            clock: &*self.clock,
            stripe: self.outbound.billing.as_ref().map(|billing| &billing.stripe),
        }
    }
}
