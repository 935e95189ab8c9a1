//! `outbox`: what is on its way to Stripe, and the decisions that it waits for. Stripe is not
//! asked, and nothing is sent: the next report sends what was decided to be owed.

use serde_json::{Value, json};
use tallygate::Gate;
use tallygate::billing::{DecidedEntry, EntryState, OutboxRow};

use crate::args::{Decided, Outbox};
use crate::ask;
use crate::commands::{Ran, actor};
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

/// What the identifier of every entry begins with.
const ALL_BEGIN: &str = "tg_";

pub(in crate::commands) async fn run(out: Output, settings: &Settings, what: Outbox) -> Ran {
    with_gate(settings, For::Audit, async |gate| {
        if matches!(what, Outbox::Decided) {
            return decided(out, &gate.outbox_decisions().await?);
        }
        let rows = gate.outbox().await?;
        match what {
            Outbox::Decided => Ok(code::OK),
            Outbox::List => list(out, &rows),
            Outbox::Decide { entry, settled, owed: _, how } => {
                let row = found(&rows, &entry)?;
                if !matches!(row.state, EntryState::Stopped(_)) {
                    return Err(not_stopped(row));
                }
                decide(out, gate, &[row], settled, &how).await
            }
            Outbox::Retry { entry: Some(entry), all: _, how } => {
                let row = found(&rows, &entry)?;
                if !row.was_refused() {
                    return Err(not_refused(row));
                }
                decide(out, gate, &[row], false, &how).await
            }
            Outbox::Retry { entry: None, all: _, how } => {
                let refused: Vec<_> = rows.iter().filter(|row| row.was_refused()).collect();
                decide(out, gate, &refused, false, &how).await
            }
        }
    })
    .await
}

fn list(out: Output, rows: &[OutboxRow]) -> Ran {
    let mut table = Table::new(["ENTRY", "TENANT", "METER", "PERIOD", "UNITS", "STATE", "WHY"]);
    for row in rows {
        if out.json {
            out.document(&json_of(row))?;
            continue;
        }
        let colour = match row.state {
            EntryState::Stopped(_) | EntryState::Doubtful(_) => Colour::Red,
            _ => Colour::Plain,
        };
        let cells = [
            row.identifier.clone(),
            tenant(row),
            row.entry.item.meter.to_string(),
            written(row.entry.item.period()),
            row.units.to_string(),
            row.state.word().to_owned(),
            row.state.why().unwrap_or_else(|| "-".to_owned()),
        ];
        table.coloured(cells, (5, colour));
    }
    match rows.is_empty() {
        true => say(
            "nothing is on its way. What is owed and was not sent yet, or is owed anew, is in no \
             entry: `tallygate report --dry-run` says how much that is",
        ),
        false if !out.json => out.table(&table)?,
        false => {}
    }
    let waits = rows.iter().any(|row| matches!(row.state, EntryState::Stopped(_)));
    Ok(if waits { code::DIFFERENCES } else { code::OK })
}

fn decided(out: Output, all: &[DecidedEntry]) -> Ran {
    let mut table =
        Table::new(["ENTRY", "TENANT", "METER", "PERIOD", "UNITS", "DECIDED", "AT", "BY", "WHY"]);
    for DecidedEntry { item, tenant, decision } in all {
        let verdict = if decision.counts { "settled" } else { "owed" };
        let tenant = tenant.as_deref().map_or_else(|| item.tenant.to_string(), str::to_owned);
        if out.json {
            out.document(&json!({
                "entry": decision.identifier, "tenant": tenant, "meter": &*item.meter,
                "period": written(item.period()), "units": decision.units, "decided": verdict,
                "at": written(decision.at()), "actor": decision.actor, "reason": decision.reason,
            }))?;
            continue;
        }
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            decision.identifier.clone(),
            tenant,
            item.meter.to_string(),
            written(item.period()),
            decision.units.to_string(),
            verdict.to_owned(),
            written(decision.at()),
            or_dash(&decision.actor),
            or_dash(&decision.reason),
        ]);
    }
    match all.is_empty() {
        true => say("nothing was decided"),
        false if !out.json => out.table(&table)?,
        false => {}
    }
    Ok(code::OK)
}

/// Decides about entries, after the question; what is no longer stopped is a conflict.
async fn decide(
    out: Output,
    gate: &Gate,
    rows: &[&OutboxRow],
    settled: bool,
    Decided { how, actor: by, reason }: &Decided,
) -> Ran {
    let verdict = if settled { "settled" } else { "owed" };
    let units: u64 = rows.iter().map(|row| row.units).sum();
    let what = match settled {
        true => format!("settle {} entries of {units} units: they are never sent", rows.len()),
        false => format!("owe {units} units of {} entries: they are sent anew", rows.len()),
    };
    if rows.is_empty() {
        say("no entry was refused");
        return Ok(code::OK);
    }
    ask::decided(&what, *how)?;
    let by = actor(by.as_ref());
    if how.dry_run {
        say("dry run: nothing was decided");
    }
    for row in rows {
        let made = gate.decide_stopped_by(&row.entry, settled, &by, reason.as_deref());
        if !how.dry_run && !made.await? {
            let text = format!("{}: it does not wait any more: look again", row.identifier);
            return Err(Failure::conflict(text));
        }
        match out.json {
            true => out.document(&json!({
                "dry_run": how.dry_run, "entry": row.identifier, "units": row.units,
                "decided": verdict,
            }))?,
            false => {
                out.line(&format!("{}: {} units are {verdict}", row.identifier, row.units))?;
            }
        }
    }
    Ok(code::OK)
}

/// The one entry whose identifier begins so. What every identifier begins with names none, even
/// where there is one alone: a script with an empty variable would decide about that.
fn found<'a>(rows: &'a [OutboxRow], begins: &str) -> Result<&'a OutboxRow, Failure> {
    if ALL_BEGIN.starts_with(begins) {
        let text = format!("{begins:?} names no entry: write the beginning of its identifier");
        return Err(Failure::usage(text + "\nhelp: `tallygate outbox list` shows it"));
    }
    let mut all = rows.iter().filter(|row| row.identifier.starts_with(begins));
    match (all.next(), all.next()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several entries begin with {begins:?}: write more of it")))
        }
        (None, _) => {
            let help = "`tallygate outbox list` shows those that are not final";
            Err(Failure::not_found(format!("there is no entry {begins:?}\nhelp: {help}")))
        }
    }
}

fn not_stopped(row: &OutboxRow) -> Failure {
    let text = format!("{}: it does not wait for a decision", row.identifier);
    Failure::conflict(format!("{text}\nhelp: {}", goes_on(row)))
}

fn not_refused(row: &OutboxRow) -> Failure {
    let why = match row.state {
        EntryState::Waits => "Stripe has not refused it",
        _ => "Stripe has not refused it, and may have counted it",
    };
    Failure::conflict(format!("{}: {why}\nhelp: {}", row.identifier, goes_on(row)))
}

/// What becomes of an entry by itself, or what its operator does.
fn goes_on(row: &OutboxRow) -> &'static str {
    match row.state {
        EntryState::Waits => "the next `tallygate report` sends it",
        EntryState::Uncertain => {
            "each `tallygate report` sends it again under the same identifier, which counts once; \
             after a day Stripe's sum says whether it did"
        }
        EntryState::Sent => "the reports of tomorrow verify it with Stripe's sum",
        EntryState::Doubtful(_) => {
            "each day's reports ask for its sum again; `tallygate audit` compares it, and \
             docs/billing.md says what a doubtful entry means"
        }
        EntryState::Stopped(_) => "look at Stripe, and then `tallygate outbox decide`",
    }
}

/// The tenant's id, else its surrogate.
fn tenant(row: &OutboxRow) -> String {
    let id = row.tenant.as_deref().map(str::to_owned);
    id.unwrap_or_else(|| row.entry.item.tenant.to_string())
}

fn json_of(row: &OutboxRow) -> Value {
    let item = &row.entry.item;
    json!({
        "entry": row.identifier,
        "tenant": tenant(row),
        "account": &*item.account,
        "meter": &*item.meter,
        "event": row.event,
        "period": written(item.period()),
        "minute": written(row.minute),
        "units": row.units,
        "state": row.state.word(),
        "why": row.state.why(),
    })
}
