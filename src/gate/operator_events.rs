//! Stripe's events in the hand of an operator: read from a file, and applied as their webhooks are.

use super::Gate;
use crate::billing::customers::{Mark, NotLinked, customer_of};
use crate::billing::follower::{CHECKOUT_TENANT, EffectFailed, Follower};
use crate::billing::webhook::{MAX_BODY, WebhookEvent};
use crate::error::Error;

/// What an event says of itself.
#[derive(Clone, Debug)]
pub struct EventRead {
    /// Its id.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// Its customer, if it has one.
    pub customer: Option<String>,
    /// The id of the tenant that it is about, as far as that is known.
    pub tenant: Option<String>,
    /// Whether it was applied before: then it changes nothing.
    pub is_known: bool,
    event: WebhookEvent,
    body: Vec<u8>,
}

/// What came of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventApplied {
    /// It is in force.
    Applied,
    /// It is of no type that changes anything here, or names no tenant.
    Nothing,
    /// It names a tenant that is not there. It can be applied again.
    NoTenant,
    /// It cannot link the tenant that it names, for this reason. It can be applied again.
    NotLinked(&'static str),
    /// It is of the other mode, `test` or `live`.
    OtherMode,
    /// It is of a connected account.
    OtherAccount,
    /// A subscription or invoice in an unknown shape.
    Unreadable,
    /// It could not be applied now, for this reason.
    Waits(String),
}

impl Gate {
    /// Reads an event, without a signature; `None` if it is none, or larger than a webhook may be.
    /// For the operator's command.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store fails.
    #[doc(hidden)]
    pub async fn read_event(&self, body: &[u8]) -> Result<Option<EventRead>, Error> {
        let inner = &self.inner;
        inner.outbound.billing.as_ref().ok_or(Error::NoStripe)?;
        let parsed = (body.len() <= MAX_BODY).then(|| WebhookEvent::parse(body)).flatten();
        let Some(event) = parsed else { return Ok(None) };
        let (customers, directory) = (inner.follower().customers, &inner.tenants.directory);
        let is_known = customers.is_marked(&event).await?;
        let customer = customer_of(&event).map(str::to_owned);
        let named = event.object["metadata"][CHECKOUT_TENANT].as_str().map(str::to_owned);
        let linked = match &customer {
            Some(customer) => customers.read(customer).await?.tenant,
            None => None,
        };
        let tenant = match linked {
            Some(surrogate) => directory.lookup_tenant(surrogate).await?.map(|it| it.id.clone()),
            None => named,
        };
        let (id, kind, body) = (event.id.clone(), event.kind.clone(), body.to_vec());
        Ok(Some(EventRead { id, kind, customer, tenant, is_known, event, body }))
    }

    /// Applies an event as its webhook would be, without a signature: the operator vouches for it,
    /// and is the actor in the history of what it changes.
    ///
    /// # Errors
    ///
    /// The service file has no `[stripe]`, or the store fails.
    #[doc(hidden)]
    pub async fn apply_event(&self, read: &EventRead, actor: &str) -> Result<EventApplied, Error> {
        let inner = &self.inner;
        let billing = inner.outbound.billing.as_ref().ok_or(Error::NoStripe)?;
        let account = billing.events();
        let directory = inner.tenants.directory.by(actor);
        let follower = Follower { directory: &directory, ..inner.follower() };
        match follower.take_event(&account, &read.event, &read.body).await {
            Ok(Mark::Applied) => Ok(EventApplied::Applied),
            Ok(Mark::Unknown) => Ok(EventApplied::Nothing),
            Ok(Mark::NotLinked(NotLinked::NoTenant)) => Ok(EventApplied::NoTenant),
            Ok(Mark::NotLinked(why)) => Ok(EventApplied::NotLinked(in_words(why))),
            Ok(Mark::OtherMode) => Ok(EventApplied::OtherMode),
            Ok(Mark::OtherAccount) => Ok(EventApplied::OtherAccount),
            Err(EffectFailed::Unreadable) => Ok(EventApplied::Unreadable),
            Err(EffectFailed::Store(error)) => Err(error.into()),
            Err(why) => Ok(EventApplied::Waits(why.to_string())),
        }
    }
}

fn in_words(why: NotLinked) -> &'static str {
    match why {
        NotLinked::NoTenant => "it names a tenant that is not there",
        NotLinked::CustomerTaken => "its customer belongs to another tenant",
        NotLinked::OtherCustomer => {
            "its tenant has another customer, and a payment does not move it: link it by hand"
        }
        NotLinked::Name => "it does not name a tenant and a customer as they can be named",
    }
}
