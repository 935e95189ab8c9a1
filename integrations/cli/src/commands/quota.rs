//! `quota`: a quota begun anew within its window. What was used stays recorded and billed: the
//! units are given back, as a grant that ends with the window.

use serde_json::json;
use tallygate::directory::Grant;

use super::{Ran, actor};
use crate::args::Quota;
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

pub(super) async fn run(out: Output, settings: &Settings, what: Quota) -> Ran {
    let Quota::Reset { id, limit, write } = what;
    let Some(reason) = write.reason.clone() else {
        return Err(Failure::usage("a reset needs a reason: write --reason \"..\""));
    };
    with_gate(settings, For::Tenants, async |gate| {
        let by = gate.directory().by(actor(write.actor.as_ref()));
        let tenant = by.find(&id).await?.ok_or_else(|| Failure::no_tenant(&id))?;
        let given = match write.dry_run {
            true => gate.rehearse_reset(&tenant, &limit, &reason).await?,
            false => gate.reset_quota(&tenant, &limit, &reason).await?,
        };
        if write.dry_run {
            say("dry run: nothing was written");
        }
        show(out, (&id, &limit), given.as_ref(), write.dry_run)
    })
    .await
}

fn show(out: Output, (id, limit): (&str, &str), given: Option<&Grant>, dry_run: bool) -> Ran {
    if out.json {
        let grant = given.map(|grant| {
            let ends = grant.expires_at().map(written);
            json!({ "id": grant.id, "meter": grant.meter, "units": grant.units, "expires": ends })
        });
        let document = json!({ "dry_run": dry_run, "tenant": id, "grant": grant, "limit": limit });
        out.document(&document)?;
        return Ok(code::OK);
    }
    let Some(Grant { units, meter, .. }) = given else {
        out.line(&format!("{id}: {limit}: nothing to give back"))?;
        return Ok(code::OK);
    };
    let text = match dry_run {
        true => format!("would begin anew: {units} {meter} would be given back"),
        false => format!("begins anew: {units} {meter} given back"),
    };
    out.line(&format!("{id}: {limit} {text}"))?;
    Ok(code::OK)
}
