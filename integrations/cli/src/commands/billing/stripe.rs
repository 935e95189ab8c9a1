//! `stripe`: the meters and prices that the plan file names, as they stand at Stripe.
//!
//! `sync` makes missing meters alone. A price has an amount, which no plan file says; and what is
//! there is never changed: what customers pay hangs on it.

use serde_json::json;
use tallygate::Gate;
use tallygate::billing::{ObjectKind, StripeObject};

use crate::args::Stripe;
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;

pub(in crate::commands) async fn run(out: Output, settings: &Settings, what: Stripe) -> Ran {
    with_gate(settings, For::Audit, async |gate| {
        if let Stripe::Sync { dry_run } = what {
            sync(gate, dry_run).await?;
        }
        let objects = gate.stripe_objects().await?;
        print(out, &objects)?;
        let is_clean = objects.iter().all(|it| it.faults.is_empty());
        Ok(if is_clean { code::OK } else { code::DIFFERENCES })
    })
    .await
}

/// Makes the meters that are missing.
async fn sync(gate: &Gate, dry_run: bool) -> Result<(), Failure> {
    let objects = gate.stripe_objects().await?;
    let is_missing = |it: &&StripeObject| it.kind == ObjectKind::Meter && it.id.is_none();
    // Several meters of the plan file may have one event.
    let mut missing: Vec<&str> = objects.iter().filter(is_missing).map(|it| &*it.name).collect();
    missing.sort_unstable();
    missing.dedup();
    if dry_run {
        say("dry run: nothing was made");
    }
    for event in missing {
        if !dry_run {
            gate.make_stripe_meter(event).await?;
        }
        say(&format!("meter {event}: {}", if dry_run { "would be made" } else { "was made" }));
    }
    Ok(())
}

fn print(out: Output, objects: &[StripeObject]) -> Result<(), Failure> {
    let mut table = Table::new(["WHAT", "NAME", "FOR", "ID", "STATE", "DETAIL"]);
    for it in objects {
        let (what, state) = (kind(it.kind), state(it));
        if out.json {
            out.document(&json!({
                "what": what, "name": it.name, "for": it.by, "id": it.id, "state": state,
                "faults": it.faults,
            }))?;
            continue;
        }
        let detail = match (it.faults.is_empty(), it.kind, &it.id) {
            (true, ..) => "-".to_owned(),
            (_, ObjectKind::Meter, None) => "`tallygate stripe sync` makes it".to_owned(),
            (_, _, None) => format!("make a price with this lookup key, {what}"),
            _ => it.faults.join("; "),
        };
        let colour = if state == "ok" { Colour::Green } else { Colour::Red };
        let id = it.id.clone().unwrap_or_else(|| "-".to_owned());
        let cells = [what.to_owned(), it.name.clone(), it.by.clone(), id, state.to_owned(), detail];
        table.coloured(cells, (4, colour));
    }
    match objects.is_empty() {
        true => say("the plan file names no meter and no price at Stripe"),
        false if !out.json => out.table(&table)?,
        false => {}
    }
    Ok(())
}

fn kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Meter => "meter",
        ObjectKind::Recurring => "recurring price",
        ObjectKind::Once => "one-time price",
    }
}

fn state(it: &StripeObject) -> &'static str {
    match (&it.id, it.faults.is_empty()) {
        (None, _) => "missing",
        (Some(_), true) => "ok",
        (Some(_), false) => "differs",
    }
}
