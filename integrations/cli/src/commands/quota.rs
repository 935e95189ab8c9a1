//! `quota`: a quota begun anew within its window. What was used stays recorded and billed: the
//! units are given back, as a grant that ends with the window.

use serde_json::json;
use tallygate::directory::{DirectoryError, Tenant};
use tallygate::{Gate, Identified};

use super::{Ran, actor};
use crate::args::Quota;
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

/// What `limit.scope` has of a quota that a reset can give back.
const TENANT_WIDE: &str = "tenant";

pub(super) async fn run(out: Output, settings: &Settings, what: Quota) -> Ran {
    let Quota::Reset { id, limit, write } = what;
    let Some(reason) = write.reason.clone() else {
        return Err(Failure::usage("a reset needs a reason: write --reason \"..\""));
    };
    with_gate(settings, For::Tenants, async |gate| {
        let by = gate.directory().by(actor(write.actor.as_ref()));
        let tenant = by.find(&id).await?.ok_or_else(|| Failure::no_tenant(&id))?;
        match write.dry_run {
            true => rehearse(out, gate, &tenant, &limit).await,
            false => reset(out, gate, &tenant, (&limit, &reason)).await,
        }
    })
    .await
}

async fn reset(out: Output, gate: &Gate, tenant: &Tenant, of: (&str, &str)) -> Ran {
    let (id, (limit, reason)) = (&tenant.record().id, of);
    let given = gate.reset_quota(tenant, limit, reason).await?;
    if out.json {
        let grant = given.as_ref().map(|grant| {
            let ends = grant.expires_at().map(written);
            json!({ "id": grant.id, "meter": grant.meter, "units": grant.units, "expires": ends })
        });
        out.document(&json!({ "dry_run": false, "tenant": id, "grant": grant, "limit": limit }))?;
        return Ok(code::OK);
    }
    match given {
        Some(grant) => {
            let (units, meter) = (grant.units, &grant.meter);
            out.line(&format!("{id}: {limit} begins anew: {units} {meter} given back"))?;
        }
        None => out.line(&format!("{id}: {limit}: nothing to give back"))?,
    }
    Ok(code::OK)
}

/// Says what has been used of the quota.
async fn rehearse(out: Output, gate: &Gate, tenant: &Tenant, limit: &str) -> Ran {
    let id = &tenant.record().id;
    let report = gate.usage_report(&Identified::from(&gate.tenant(id).await?)).await?;
    let quotas = || report.meters.iter().flat_map(|meter| &meter.limits);
    let Some(quota) = quotas().find(|quota| &*quota.id == limit) else {
        let known = quotas().map(|quota| quota.id.to_string()).collect();
        return Err(DirectoryError::UnknownLimit { limit: limit.to_owned(), known }.into());
    };
    if &*quota.scope != TENANT_WIDE {
        return Err(DirectoryError::NotTenantWide(limit.to_owned()).into());
    }
    say("dry run: nothing was written");
    let would = format!("{limit} begins anew: {} used of it", quota.used);
    match out.json {
        true => out.document(&json!({ "dry_run": true, "tenant": id, "would": would }))?,
        false => out.line(&format!("{id}: {would}"))?,
    }
    Ok(code::OK)
}
