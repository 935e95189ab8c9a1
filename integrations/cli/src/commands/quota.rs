//! `quota`: a quota begun anew within its window. What was used stays recorded and billed: the
//! units are given back, as a grant that ends with the window.

use http::Method;
use serde_json::{Value, json};

use super::tenant::{second, text};
use super::{Ran, actor};
use crate::args::Quota;
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::place::{Place, without_actor};
use crate::service::{For, with_gate};
use crate::when::written;

pub(super) async fn run(out: Output, place: &Place, what: Quota) -> Ran {
    let Quota::Reset { id, limit, write } = what;
    let Some(reason) = write.reason.clone() else {
        return Err(Failure::usage("a reset needs a reason: write --reason \"..\""));
    };
    let settings = match place {
        Place::Store(settings) => settings,
        Place::Service(client) => {
            without_actor(write.actor.as_ref())?;
            let body = json!({ "limit": limit, "reason": reason });
            let route = (Method::POST, "/resets");
            let answer = client.change_of(&id, route, &body, write.dry_run).await?;
            return show(out, (&id, &limit), &far(&answer["grant"]), write.dry_run);
        }
    };
    with_gate(settings, For::Tenants, async |gate| {
        let by = gate.directory().by(actor(write.actor.as_ref()));
        let tenant = by.find(&id).await?.ok_or_else(|| Failure::no_tenant(&id))?;
        let given = match write.dry_run {
            true => gate.rehearse_reset(&tenant, &limit, &reason).await?,
            false => gate.reset_quota(&tenant, &limit, &reason).await?,
        };
        let grant = given.map(|grant| {
            let ends = grant.expires_at().map(written);
            json!({ "id": grant.id, "meter": grant.meter, "units": grant.units, "expires": ends })
        });
        show(out, (&id, &limit), &grant.unwrap_or_default(), write.dry_run)
    })
    .await
}

/// A grant as a service has it; `null`: nothing was used.
fn far(grant: &Value) -> Value {
    if grant.is_null() {
        return Value::Null;
    }
    json!({
        "id": grant["id"], "meter": grant["meter"], "units": grant["units"],
        "expires": second(&grant["expires"]),
    })
}

fn show(out: Output, (id, limit): (&str, &str), grant: &Value, dry_run: bool) -> Ran {
    if dry_run {
        say("dry run: nothing was written");
    }
    if out.json {
        let document = json!({ "dry_run": dry_run, "tenant": id, "grant": grant, "limit": limit });
        out.document(&document)?;
        return Ok(code::OK);
    }
    if grant.is_null() {
        out.line(&format!("{id}: {limit}: nothing to give back"))?;
        return Ok(code::OK);
    }
    let (units, meter) = (text(&grant["units"]), text(&grant["meter"]));
    let text = match dry_run {
        true => format!("would begin anew: {units} {meter} would be given back"),
        false => format!("begins anew: {units} {meter} given back"),
    };
    out.line(&format!("{id}: {limit} {text}"))?;
    Ok(code::OK)
}
