//! What changes a tenant. Each change is one save of the library's, or one request to a service,
//! with its actor and its reason; in a dry run its checks are made, and nothing is written.

use serde_json::{Value, json};
use tallygate::directory::{Grant, TenantEdit};

use super::kept::{Tenants, rehearse_in, with_tenants};
use super::shown::{self, Entry};
use crate::args::{Destroy, Tenant as What, Write};
use crate::ask::allowed;
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::place::Place;
use crate::rehearsal::Rehearsal;
use crate::service::{For, is_made};
use crate::when::{When, now};

/// A change that is to be made.
pub(super) struct Change {
    pub(super) id: String,
    pub(super) how: Write,
    /// Whether the tenant is to be there, or is not to be.
    is_new: bool,
    pub(super) edit: Edit,
}

/// What is changed.
pub(super) enum Edit {
    Create { plan: Option<String> },
    Plan(Option<String>),
    Override { changes: String, until: Option<When> },
    EndOverride(Option<String>),
    Grant { grant: Grant, expires: Option<When> },
    EndGrant(String),
    Suspend,
    Resume,
}

/// Runs one of the commands that change a tenant.
pub(super) async fn run(out: Output, place: &Place, what: What) -> Ran {
    let change = change(what)?;
    let opened = if change.is_new { For::FirstTenant } else { For::Tenants };
    if let Place::Store(settings) = place
        && change.is_new
        && change.how.dry_run
        && !is_made(&settings.store())
    {
        // It makes no store either.
        let stage = Rehearsal::begin(settings).await?;
        let would = rehearse_in(stage.directory(), &change).await?;
        return would_be(out, &change.id, would.as_ref());
    }
    with_tenants(place, opened, async |tenants| make(out, tenants, &change).await).await
}

/// The change that is asked for, if it may be made.
fn change(what: What) -> Result<Change, Failure> {
    let of = |id: String, how: Write, edit: Edit| Change { id, how, is_new: false, edit };
    let destroys = |id: String, how: Destroy, text: String, edit: Edit| {
        allowed(&text, &how).map(|()| of(id, how.write, edit))
    };
    Ok(match what {
        What::Create { id, plan, write } => {
            Change { id, how: write, is_new: true, edit: Edit::Create { plan } }
        }
        // `--default` is there where no plan is.
        What::SetPlan { id, plan, write, .. } => of(id, write, Edit::Plan(plan)),
        What::Override { id, changes, until, write } => {
            of(id, write, Edit::Override { changes, until })
        }
        What::EndOverride { id, exception, how, .. } => {
            let which = exception.as_deref().unwrap_or("all of them");
            let text = format!("end the override of {id:?}: {which}");
            destroys(id, how, text, Edit::EndOverride(exception))?
        }
        What::Grant { id, meter, units, grant, expires, source, write } => {
            let grant = Grant::new(grant, meter, units).source(source);
            let grant = match &write.reason {
                Some(reason) => grant.note(reason),
                None => grant,
            };
            of(id, write, Edit::Grant { grant, expires })
        }
        What::EndGrant { id, grant, how } => {
            let text = format!("end the grant {grant:?} of {id:?}");
            destroys(id, how, text, Edit::EndGrant(grant))?
        }
        What::Suspend { id, how } => {
            let text = format!("suspend {id:?}: all its requests are refused");
            destroys(id, how, text, Edit::Suspend)?
        }
        What::Resume { id, write } => of(id, write, Edit::Resume),
        What::List(_)
        | What::Show { .. }
        | What::Erase { .. }
        | What::History { .. }
        | What::Refusals { .. } => {
            return Err(Failure::new(code::FAILURE, "this command is another's"));
        }
    })
}

async fn make(out: Output, tenants: &Tenants<'_>, change: &Change) -> Ran {
    let before = tenants.find(&change.id).await?;
    if change.is_new && before.is_some() {
        let text = format!("there is a tenant {:?} already", change.id);
        let help =
            "\nhelp: `tallygate tenant show` shows it, `tallygate tenant set-plan` changes it";
        return Err(Failure::conflict(text + help));
    }
    if !change.is_new {
        let before = before.as_ref().ok_or_else(|| Failure::no_tenant(&change.id))?;
        is_there(before, change)?;
    }
    if change.how.dry_run {
        let would = tenants.rehearse(change).await?;
        if would.is_none() {
            before.as_ref().map_or(Ok(()), |before| was_given(before, change))?;
        }
        return would_be(out, &change.id, would.as_ref());
    }
    let mut after = tenants.save(change).await?;
    was_given(&after, change)?;
    if before.is_some_and(|it| it["version"] == after["version"]) {
        say("nothing changed: it was so already");
    }
    if out.json {
        after["dry_run"] = json!(false);
        out.document(&after)?;
    } else {
        out.table(&shown::table_of(&after, None))?;
    }
    Ok(code::OK)
}

fn has(tenant: &Value, list: &str, id: &str) -> bool {
    shown::list(&tenant[list]).iter().any(|it| it["id"] == id)
}

/// Whether what is to be ended is there.
fn is_there(tenant: &Value, change: &Change) -> Result<(), Failure> {
    let (what, known, id) = match &change.edit {
        Edit::EndOverride(Some(id)) => ("override", has(tenant, "overrides", id), id),
        Edit::EndGrant(id) => ("grant", has(tenant, "grants", id), id),
        _ => return Ok(()),
    };
    if known {
        return Ok(());
    }
    let text = format!("{:?} has no {what} {id:?}", change.id);
    Err(Failure::not_found(text + "\nhelp: `tallygate tenant show` lists them"))
}

/// Whether a grant is there now: one that has ended is not given again.
fn was_given(tenant: &Value, change: &Change) -> Result<(), Failure> {
    match &change.edit {
        Edit::Grant { grant, .. } if !has(tenant, "grants", &grant.id) => {
            let text = format!("the grant `{}` was given before and has ended", grant.id);
            Err(Failure::conflict(text + ": give another one under a new id"))
        }
        _ => Ok(()),
    }
}

/// Prints what would be in the history; `None`: nothing would change.
fn would_be(out: Output, id: &str, entry: Option<&Entry>) -> Ran {
    say("dry run: nothing was written");
    if out.json {
        out.document(&json!({
            "dry_run": true,
            "id": id,
            "edits": entry.map(|it| &*it.edits).unwrap_or_default(),
            "actor": entry.map(|it| &it.actor),
            "reason": entry.map(|it| &it.note),
        }))?;
        return Ok(code::OK);
    }
    match entry {
        None => out.line(&format!("{id}: nothing would change"))?,
        Some(entry) => {
            for change in entry.changes() {
                out.line(&format!("{id}: {change}"))?;
            }
        }
    }
    Ok(code::OK)
}

/// The change as the library makes it.
pub(super) fn apply(edit: TenantEdit, change: &Change) -> Result<TenantEdit, Failure> {
    let reason = change.how.reason.as_deref();
    let edit = match &change.edit {
        Edit::Create { plan: None } => edit,
        Edit::Create { plan: Some(plan) } | Edit::Plan(Some(plan)) => edit.plan(plan),
        Edit::Plan(None) => edit.default_plan(),
        Edit::Override { changes, until } => {
            edit.override_(changes, instant(*until)?, reason.unwrap_or_default())
        }
        Edit::EndOverride(Some(id)) => edit.end_override(id),
        Edit::EndOverride(None) => edit.end_overrides(),
        Edit::Grant { grant, expires } => edit.grant(match instant(*expires)? {
            Some(end) => grant.clone().expires(end),
            None => grant.clone(),
        }),
        Edit::EndGrant(id) => edit.end_grant(id),
        Edit::Suspend => edit.suspend(),
        Edit::Resume => edit.resume(),
    };
    Ok(match reason {
        Some(reason) => edit.note(reason),
        None => edit,
    })
}

/// An end of the command line as an instant, which is not past.
pub(super) fn instant(end: Option<When>) -> Result<Option<std::time::SystemTime>, Failure> {
    let too_late = || Failure::usage("the calendar does not reach so far: write an earlier end");
    let Some(end) = end else { return Ok(None) };
    let end = end.from(now()).ok_or_else(too_late)?;
    match end > now() {
        true => Ok(Some(end)),
        false => Err(Failure::usage("the end is past already: nothing would come of it")),
    }
}
