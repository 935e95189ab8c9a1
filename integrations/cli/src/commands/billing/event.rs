//! `event apply`: an event of Stripe's from a file, as its webhook would have been, and the
//! difference that it makes. It is not signed: the operator vouches for it.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tallygate::directory::{HistoryEntry, TenantRecord};
use tallygate::{EventApplied, EventRead, Gate};

use crate::args::Event;
use crate::commands::tenant::{changes, json_of};
use crate::commands::{Ran, actor};
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;

/// Most bytes of the file: more than a webhook may have, so that the library says no to it.
const MOST: u64 = 2 << 20;

/// A tenant as the directory has it, and its history.
type Known = Option<(Arc<TenantRecord>, Vec<HistoryEntry>)>;

pub(in crate::commands) async fn run(out: Output, settings: &Settings, what: Event) -> Ran {
    let Event::Apply { file, dry_run, actor: by } = what;
    let body = body(&file)?;
    with_gate(settings, For::Audit, async |gate| {
        let event = gate.read_event(&body).await?.ok_or_else(|| {
            let text = format!("{}: it is no event of Stripe's, or too large", file.display());
            Failure::usage(text + "\nhelp: `stripe events retrieve evt_..` prints one")
        })?;
        let before = known(gate, event.tenant.as_deref()).await?;
        let outcome = match dry_run {
            true => None,
            false => Some(gate.apply_event(&event, &actor(by.as_ref())).await?),
        };
        // A checkout may have linked a tenant.
        let now = gate.read_event(&body).await?.and_then(|it| it.tenant);
        let after = known(gate, now.as_deref().or(event.tenant.as_deref())).await?;
        print(out, &event, outcome.as_ref(), (&before, &after))?;
        Ok(match outcome {
            Some(EventApplied::Waits(_)) => code::FAILURE,
            Some(EventApplied::Unreadable) => code::USAGE,
            Some(EventApplied::NoTenant) => code::NOT_FOUND,
            Some(
                EventApplied::OtherMode | EventApplied::OtherAccount | EventApplied::NotLinked(_),
            ) => code::CONFLICT,
            _ => code::OK,
        })
    })
    .await
}

fn body(file: &Path) -> Result<Vec<u8>, Failure> {
    let of_file = |error: std::io::Error| Failure::of_file(file, &error);
    let mut body = Vec::new();
    std::fs::File::open(file)
        .map_err(of_file)?
        .take(MOST)
        .read_to_end(&mut body)
        .map_err(of_file)?;
    Ok(body)
}

async fn known(gate: &Gate, id: Option<&str>) -> Result<Known, Failure> {
    let Some(id) = id else { return Ok(None) };
    let Some(tenant) = gate.directory().find(id).await? else { return Ok(None) };
    Ok(Some((tenant.record().clone(), tenant.history().await?)))
}

fn print(
    out: Output,
    event: &EventRead,
    outcome: Option<&EventApplied>,
    (before, after): (&Known, &Known),
) -> Result<(), Failure> {
    let (word, why) = words(event, outcome);
    let fields = differences(before, after);
    let done = entries(before, after);
    let tenant = after.as_ref().map(|(record, _)| &record.id);
    if outcome.is_none() {
        say("dry run: nothing was applied");
    }
    if out.json {
        let fields =
            fields.iter().map(|(name, old, new)| json!({ "field": name, "old": old, "new": new }));
        return out.document(&json!({
            "dry_run": outcome.is_none(),
            "event": event.id,
            "type": event.kind,
            "customer": event.customer,
            "tenant": tenant,
            "outcome": word,
            "why": why,
            "differences": fields.collect::<Vec<_>>(),
            "changes": done,
        }));
    }
    let or = |text: Option<&String>| text.map_or_else(|| "none".to_owned(), Clone::clone);
    let mut head = Table::of_pairs();
    head.pair("event", &event.id);
    head.pair("type", &event.kind);
    head.pair("customer", or(event.customer.as_ref()));
    head.pair("tenant", or(tenant));
    head.pair("outcome", why.map_or_else(|| word.to_owned(), |why| format!("{word}: {why}")));
    done.iter().for_each(|change| head.pair("change", change.as_str()));
    out.table(&head)?;
    let mut table = Table::new(["WHAT", "OLD", "NEW"]);
    for (name, old, new) in &fields {
        table.row([name.clone(), old.to_string(), new.to_string()]);
    }
    if fields.is_empty() { Ok(()) } else { out.table(&table) }
}

/// What came of it in a word, and why.
fn words(event: &EventRead, outcome: Option<&EventApplied>) -> (&'static str, Option<String>) {
    match outcome {
        _ if event.is_known => ("applied before", None),
        None => ("not applied", None),
        Some(EventApplied::Applied) => ("applied", None),
        Some(EventApplied::Nothing) => ("nothing", Some("its type changes nothing here".into())),
        Some(EventApplied::NoTenant) => {
            let id = event.tenant.as_deref().unwrap_or_default();
            let text = format!("there is no tenant {id:?}: create it, and apply the event again");
            ("no tenant", Some(text))
        }
        Some(EventApplied::NotLinked(why)) => ("not linked", Some((*why).to_owned())),
        Some(EventApplied::OtherMode) => ("other mode", Some("the key is of the other one".into())),
        Some(EventApplied::OtherAccount) => {
            ("other account", Some("it is of a connected account".into()))
        }
        Some(EventApplied::Unreadable) => {
            ("unreadable", Some("its object matches no known API version".into()))
        }
        Some(EventApplied::Waits(why)) => ("waits", Some(why.clone())),
    }
}

/// The fields of a tenant that differ, as `tenant show --json` has them.
fn differences(before: &Known, after: &Known) -> Vec<(String, Value, Value)> {
    let of = |known: &Known| known.as_ref().map_or(json!({}), |(record, _)| json_of(record));
    let (old, new) = (of(before), of(after));
    let fields = new.as_object().into_iter().flatten().filter(|(name, _)| *name != "version");
    let pairs = fields.map(|(name, value)| (name.clone(), old[name].clone(), value.clone()));
    pairs.filter(|(_, old, new)| old != new).collect()
}

/// What was added to the history, in words.
fn entries(before: &Known, after: &Known) -> Vec<String> {
    let Some((_, history)) = after else { return Vec::new() };
    let known = before.as_ref().map_or(0, |(_, history)| history.len());
    history.iter().skip(known).flat_map(|entry| changes(&entry.edits)).collect()
}
