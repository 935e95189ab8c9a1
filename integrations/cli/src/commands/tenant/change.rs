//! What changes a tenant. Each change is one save of the library's, with its actor and its reason;
//! in a dry run it is made on a copy.

use serde_json::json;
use tallygate::directory::{Directory, Grant, HistoryEntry, Tenant, TenantEdit, TenantRecord};

use super::{actor, read, shown};
use crate::args::{Destroy, Tenant as What, Write};
use crate::ask::allowed;
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::rehearsal::Rehearsal;
use crate::service::{For, is_made, with_gate};
use crate::settings::Settings;
use crate::when::{When, now};

/// A change that is to be made.
struct Change {
    id: String,
    how: Write,
    /// Whether the tenant is to be there, or is not to be.
    is_new: bool,
    edit: Edit,
}

/// What is changed.
enum Edit {
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
pub(super) async fn run(out: Output, settings: &Settings, what: What) -> Ran {
    let change = change(what)?;
    let opened = if change.is_new { For::FirstTenant } else { For::Tenants };
    if change.is_new && change.how.dry_run && !is_made(&settings.store()) {
        return rehearse(out, settings, None, &change).await; // it makes no store either
    }
    with_gate(settings, opened, async |gate| make(out, settings, gate.directory(), &change).await)
        .await
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

async fn make(out: Output, settings: &Settings, directory: &Directory, change: &Change) -> Ran {
    let by = directory.by(actor(change.how.actor.as_ref()));
    let before = by.find(&change.id).await?;
    if change.is_new && before.is_some() {
        let text = format!("there is a tenant {:?} already", change.id);
        let help =
            "\nhelp: `tallygate tenant show` shows it, `tallygate tenant set-plan` changes it";
        return Err(Failure::conflict(text + help));
    }
    if !change.is_new {
        is_there(read::found(before.clone(), &change.id)?.record(), &change.edit)?;
    }
    if change.how.dry_run {
        return rehearse(out, settings, before.as_ref(), change).await;
    }
    let edit = before.as_ref().map_or_else(|| by.tenant(&change.id), Tenant::edit);
    let after = apply(edit, change)?.save().await?;
    let record = after.record();
    if before.is_some_and(|it| it.record().version == record.version) {
        say("nothing changed: it was so already");
    }
    if out.json {
        let mut document = shown::json_of(record);
        document["dry_run"] = json!(false);
        out.document(&document)?;
    } else {
        out.table(&shown::table_of(record, None))?;
    }
    Ok(code::OK)
}

/// Whether what is to be ended is there.
fn is_there(record: &TenantRecord, edit: &Edit) -> Result<(), Failure> {
    let (what, known, id) = match edit {
        Edit::EndOverride(Some(id)) => {
            ("override", record.overrides.iter().any(|it| it.id() == *id), id)
        }
        Edit::EndGrant(id) => ("grant", record.grants.iter().any(|it| it.id == *id), id),
        _ => return Ok(()),
    };
    if known {
        return Ok(());
    }
    let text = format!("{:?} has no {what} {id:?}", record.id);
    Err(Failure::not_found(text + "\nhelp: `tallygate tenant show` lists them"))
}

/// Makes the change on a copy.
async fn rehearse(
    out: Output,
    settings: &Settings,
    tenant: Option<&Tenant>,
    change: &Change,
) -> Ran {
    let stage = Rehearsal::begin(settings).await?;
    if let Some(tenant) = tenant {
        stage.copy(tenant.record()).await?;
    }
    let by = stage.directory().by(actor(change.how.actor.as_ref()));
    let before = by.find(&change.id).await?;
    let after = apply(by.tenant(&change.id), change)?.save().await?;
    let entry = stage.change(before.as_ref(), &after).await?;
    say("dry run: nothing was written");
    told(out, &change.id, entry.as_ref())?;
    Ok(code::OK)
}

/// Prints what would be in the history.
fn told(out: Output, id: &str, entry: Option<&HistoryEntry>) -> Result<(), Failure> {
    if out.json {
        let (edits, reason) = (entry.map(|it| &it.edits), entry.map(|it| &it.note));
        return out.document(&json!({
            "dry_run": true,
            "id": id,
            "edits": edits.cloned().unwrap_or_default(),
            "actor": entry.map(|it| &it.actor),
            "reason": reason,
        }));
    }
    match entry {
        None => out.line(&format!("{id}: nothing would change")),
        Some(entry) => shown::changes(&entry.edits)
            .iter()
            .try_for_each(|change| out.line(&format!("{id}: {change}"))),
    }
}

/// The change as the library makes it.
fn apply(edit: TenantEdit, change: &Change) -> Result<TenantEdit, Failure> {
    let reason = change.how.reason.as_deref();
    let edit = match &change.edit {
        Edit::Create { plan: None } => edit,
        Edit::Create { plan: Some(plan) } | Edit::Plan(Some(plan)) => edit.plan(plan),
        Edit::Plan(None) => edit.default_plan(),
        Edit::Override { changes, until } => {
            edit.override_(changes, at(*until)?, reason.unwrap_or_default())
        }
        Edit::EndOverride(Some(id)) => edit.end_override(id),
        Edit::EndOverride(None) => edit.end_overrides(),
        Edit::Grant { grant, expires } => edit.grant(match at(*expires)? {
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
fn at(end: Option<When>) -> Result<Option<std::time::SystemTime>, Failure> {
    let too_late = || Failure::usage("the calendar does not reach so far: write an earlier end");
    let Some(end) = end else { return Ok(None) };
    let end = end.from(now()).ok_or_else(too_late)?;
    match end > now() {
        true => Ok(Some(end)),
        false => Err(Failure::usage("the end is past already: nothing would come of it")),
    }
}
