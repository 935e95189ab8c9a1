//! A quota begun anew within its window, by a grant of what was used of it: no counter is changed,
//! and what was used stays recorded and billed.

use sha2::{Digest, Sha256};

use super::{Gate, Identified, TenantHandle};
use crate::amount::Amount;
use crate::directory::{DirectoryError, Grant, Tenant, TenantEdit};
use crate::error::Error;
use crate::identity::hex;
use crate::report::{GrantReport, LimitReport, MeterReport, UsageReport};

/// Source of the grants.
const SOURCE: &str = "reset";
/// Attempts at a reset that meets others of the same quota.
const ATTEMPTS: usize = 4;
/// Bytes of the hash that stands for a quota in a grant's id.
const ID_BYTES: usize = 4;

impl Gate {
    /// Has a tenant's quota begin anew: as many units can be used until the end of its window as if
    /// nothing had been. It gives the used units back as a [`Grant`] that ends with the window and
    /// has the source `reset`; `None` if none were used. A grant is of whole units: a part of one
    /// that was used is given back as one. It is of the meter, so that it also lasts beyond the
    /// meter's other quotas. The usage stays recorded, and what was
    /// billed beyond the quota stays billed. `limit` is a quota's id, as in `GET /usage`:
    /// `credits/month`. `reason` is for the history, which also records the actor of the tenant's
    /// [handle](crate::directory::Directory::by).
    ///
    /// What open requests of this process have set aside is not given: it comes back by itself, or
    /// is used after the reset. Units that other processes hold in their leases count as used. A
    /// reset made twice gives nothing twice; asked of another process, it may give what the first
    /// has in its leases.
    ///
    /// ```
    /// # let mut runtime = tokio::runtime::Builder::new_current_thread();
    /// # runtime.enable_all().build().unwrap().block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// use tallygate::Ask;
    ///
    /// let (gate, _clock) = tallygate::testing::gate(r#"
    ///     default-plan = "free"
    ///     [meter.deliveries]
    ///     [plan.free]
    ///     quota.deliveries = "2/month"
    /// "#);
    /// let acme = gate.directory().by("kim").tenant("acme").save().await?;
    /// let deliver = Ask::new(&gate.tenant("acme").await?, "deliver").cost("deliveries", 2);
    /// gate.admit(deliver.clone()).await.expect("included").settle();
    /// assert!(gate.admit(deliver.clone()).await.is_err());
    ///
    /// let given = gate.reset_quota(&acme, "deliveries/month", "lost in our outage").await?;
    /// assert_eq!(given.map(|grant| grant.units), Some(2));
    /// assert!(gate.admit(deliver).await.is_ok());
    /// # }
    /// # Ok::<(), tallygate::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectoryError::UnknownLimit`] if the tenant has no such quota, and
    /// [`DirectoryError::NotTenantWide`] if it is one for each user, key or address; otherwise as
    /// [`TenantEdit::save`](crate::directory::TenantEdit::save).
    pub async fn reset_quota(
        &self,
        tenant: &Tenant,
        limit: &str,
        reason: &str,
    ) -> Result<Option<Grant>, Error> {
        self.reset_quota_once(tenant, limit, reason, None).await
    }

    /// The same for a request with this idempotency key, if it has one: repeated, it gives nothing
    /// more, whatever was used since. It returns the grant that it has given; `None` where that has
    /// ended, or it had nothing to give.
    pub(crate) async fn reset_quota_once(
        &self,
        tenant: &Tenant,
        limit: &str,
        reason: &str,
        once: Option<&str>,
    ) -> Result<Option<Grant>, Error> {
        let id = id_of_request(tenant, limit, once)?;
        for _ in 0..ATTEMPTS {
            if let Some(id) = &id
                && let Some(given) = tenant.grant_given(id).await?
            {
                return Ok(given);
            }
            let made = self.reset_now(tenant, limit, (reason, id.as_deref())).await?;
            let Some((grant, edit)) = made else {
                if let Some(id) = &id {
                    let meter = limit.split_once('/').map_or(limit, |(meter, _)| meter);
                    tenant.note_nothing_given(id, meter).await?;
                }
                return Ok(None);
            };
            match edit.save().await {
                Ok(_) => return Ok(Some(grant)),
                // Another change has come first, perhaps a reset that gave all of it.
                Err(DirectoryError::GrantDiffers(_) | DirectoryError::Busy) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(DirectoryError::Busy.into())
    }

    /// What [`reset_quota`](Self::reset_quota) would give at the moment, by the same computation
    /// and under the same checks; nothing is written. For the operator's command.
    ///
    /// # Errors
    ///
    /// As of [`reset_quota`](Self::reset_quota).
    #[doc(hidden)]
    pub async fn rehearse_reset(
        &self,
        tenant: &Tenant,
        limit: &str,
        reason: &str,
    ) -> Result<Option<Grant>, Error> {
        self.rehearse_reset_once(tenant, limit, reason, None).await
    }

    /// The same of a request with this idempotency key, if it has one.
    pub(crate) async fn rehearse_reset_once(
        &self,
        tenant: &Tenant,
        limit: &str,
        reason: &str,
        once: Option<&str>,
    ) -> Result<Option<Grant>, Error> {
        let id = id_of_request(tenant, limit, once)?;
        if let Some(id) = &id
            && let Some(given) = tenant.grant_given(id).await?
        {
            return Ok(given);
        }
        let made = self.reset_now(tenant, limit, (reason, id.as_deref())).await?;
        let Some((grant, edit)) = made else {
            return Ok(None);
        };
        edit.rehearse().await?;
        Ok(Some(grant))
    }

    /// The reset of what is used at the moment: its grant, and the change that gives it. `None`:
    /// nothing is to be given back.
    async fn reset_now(
        &self,
        tenant: &Tenant,
        limit: &str,
        (reason, id): (&str, Option<&str>),
    ) -> Result<Option<(Grant, TenantEdit)>, Error> {
        let handle = self.tenant(&tenant.record().id).await?;
        // What another process gave a moment ago is not in this one's memory yet.
        if !self.inner.tenants.read_anew(&handle.0, false).await {
            return Err(DirectoryError::Busy.into());
        }
        let version = handle.0.record().version;
        self.check_is_tenant_wide(&handle, limit)?;
        let report = self.usage_report(&Identified::from(&handle)).await?;
        let (meter, quota) = find(&report, limit)?;
        let made = Reset { meter, quota, version };
        Ok(made.grant(reason, id).map(|grant| {
            // No grant beside one that is not in the report.
            let edit = tenant.edit().only_of(version);
            let edit = edit.grant(grant.clone()).note(reason);
            (grant, edit)
        }))
    }

    fn check_is_tenant_wide(
        &self,
        tenant: &TenantHandle,
        limit: &str,
    ) -> Result<(), DirectoryError> {
        let sheet = tenant.0.sheet(&self.inner.catalogs.live.load(), self.inner.clock.now());
        let mut quotas = sheet.policy.quotas.iter().filter(|rule| &*rule.quota.id == limit);
        match quotas.any(|rule| !rule.tenant_wide) {
            true => Err(DirectoryError::NotTenantWide(limit.to_owned())),
            false => Ok(()),
        }
    }
}

/// The tenant's quota with this id, with its meter.
fn find<'a>(
    report: &'a UsageReport,
    limit: &str,
) -> Result<(&'a MeterReport, &'a LimitReport), DirectoryError> {
    let all = || report.meters.iter().flat_map(|it| it.limits.iter().map(move |of| (it, of)));
    all().find(|(_, quota)| &*quota.id == limit).ok_or_else(|| {
        let known = all().map(|(_, quota)| quota.id.to_string()).collect();
        DirectoryError::UnknownLimit { limit: limit.to_owned(), known }
    })
}

/// See [`Gate::reset_quota`].
struct Reset<'a> {
    meter: &'a MeterReport,
    quota: &'a LimitReport,
    /// The tenant's, as it was read: a reset of the same state is the same grant.
    version: u64,
}

impl Reset<'_> {
    /// The grant after which as much is left as at the start of the window, with this id, or one
    /// of the state that was read.
    fn grant(&self, reason: &str, id: Option<&str>) -> Option<Grant> {
        let quota = self.quota;
        let limit = quota.limit?;
        // What is set aside comes back by itself, or is used after the reset.
        let used = quota.used.atoms().min(limit.atoms()).saturating_sub(self.meter.held.atoms());
        let used = used.saturating_add(quota.debt.atoms());
        let start = quota.starts_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let of_quota = begin_of_id(&quota.id);
        let of_window = format!("{of_quota}{}-", start.as_millis());
        // Those of requests with an idempotency key name no window, and end with theirs.
        let of_request = format!("{of_quota}k");
        let is_of_window = |grant: &&GrantReport| {
            grant.id.starts_with(&of_window)
                || grant.id.starts_with(&of_request) && grant.expires_at == quota.resets_at
        };
        let earlier = self.meter.grants.iter().filter(is_of_window);
        let left = earlier.fold(0_u64, |left, grant| {
            left.saturating_add(grant.limit.atoms().saturating_sub(grant.used.atoms()))
        });
        let units = whole_units(used.saturating_sub(left), limit);
        if units == 0 {
            return None;
        }
        let id = id.map_or_else(|| format!("{of_window}{}", self.version), str::to_owned);
        let grant = Grant::new(id, &*self.meter.name, units).source(SOURCE).note(reason);
        Some(quota.resets_at.into_iter().fold(grant, Grant::expires))
    }
}

/// The id of the grant that the request with this idempotency key gives; `None`: it has no key.
fn id_of_request(
    tenant: &Tenant,
    limit: &str,
    once: Option<&str>,
) -> Result<Option<String>, DirectoryError> {
    let request = once.map(|once| tenant.id_of_reset(once)).transpose()?;
    Ok(request.map(|request| format!("{}{request}", begin_of_id(limit))))
}

/// How the ids of a quota's grants begin.
fn begin_of_id(limit: &str) -> String {
    format!("{SOURCE}-{}-", hex(&Sha256::digest(limit.as_bytes())[..ID_BYTES]))
}

/// The whole units that hold so many atoms, of the scale of an amount.
fn whole_units(atoms: u64, like: Amount) -> u64 {
    atoms.div_ceil(like.scale().max(1))
}
