//! How a tenant and its history are printed.

use serde_json::{Value, json};
use tallygate::Entitlements;
use tallygate::directory::{ChangeOutcome, Edit, HistoryEntry, Override, TenantRecord};

use super::read::end;
use crate::output::{Colour, Table};
use crate::when::{written, written_or};

/// The plan of a tenant that has none of its own.
const DEFAULT: &str = "(default)";

/// A tenant as JSON.
pub(in crate::commands) fn json_of(record: &TenantRecord) -> Value {
    let exception = |it: &Override| {
        json!({
            "id": it.id(),
            "changes": it.changes,
            "until": it.until().map(written),
            "note": it.note,
            "at": written(it.at()),
        })
    };
    let grants = record.grants.iter().map(|it| {
        json!({
            "id": it.id,
            "meter": it.meter,
            "units": it.units,
            "source": it.source,
            "expires": it.expires_at().map(written),
            "note": it.note,
        })
    });
    json!({
        "id": record.id,
        "surrogate": record.surrogate.to_string(),
        "plan": record.plan,
        "plan_since": written(record.plan_since()),
        "suspended": record.suspended,
        "erased": record.erased().map(written),
        "payment": word(record),
        "payment_since": written(record.payment_since()),
        "anchor": written(record.anchor()),
        "first_request": record.first_request().map(written),
        "account": record.account,
        "addons": record.addons,
        "overrides": record.overrides.iter().map(exception).collect::<Vec<_>>(),
        "grants": grants.collect::<Vec<_>>(),
        "version": record.version,
    })
}

/// The payment state's word in the two files.
fn word(record: &TenantRecord) -> String {
    let word = serde_json::to_value(record.payment).ok();
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_else(|| "-".to_owned())
}

/// The head of a list of tenants.
pub(super) fn list_head() -> Table {
    Table::new(["ID", "PLAN", "STATE", "PAYMENT", "OVERRIDES", "GRANTS"])
}

/// A tenant in a list.
pub(super) fn list_row(table: &mut Table, record: &TenantRecord) {
    let (state, colour) = state(record);
    let cells = [
        record.id.clone(),
        record.plan.clone().unwrap_or_else(|| DEFAULT.to_owned()),
        state.to_owned(),
        word(record),
        record.overrides.len().to_string(),
        record.grants.len().to_string(),
    ];
    table.coloured(cells, (2, colour));
}

fn state(record: &TenantRecord) -> (&'static str, Colour) {
    match (record.erased(), record.suspended) {
        (Some(_), _) => ("erased", Colour::Red),
        (None, true) => ("suspended", Colour::Red),
        (None, false) => ("active", Colour::Green),
    }
}

/// A tenant as a table, with what is in force where that is known.
pub(super) fn table_of(record: &TenantRecord, now: Option<&Entitlements>) -> Table {
    let mut table = Table::of_pairs();
    table.pair("id", &record.id);
    let plan = record.plan.as_deref().unwrap_or(DEFAULT);
    table.pair("plan", format!("{plan} since {}", written(record.plan_since())));
    let (state, colour) = state(record);
    table.coloured(["state".to_owned(), state.to_owned()], (1, colour));
    if let Some(now) = now {
        table.pair("in force", format!("{}, {}", now.plan, now.status));
    }
    table.pair("payment", format!("{} since {}", word(record), written(record.payment_since())));
    table.pair("cycles from", written(record.anchor()));
    table.pair("first request", written_or(record.first_request(), "none yet"));
    table.pair("account", record.account.as_deref().unwrap_or("none"));
    for (name, quantity) in &record.addons {
        table.pair("addon", format!("{name} x {quantity}"));
    }
    for it in &record.overrides {
        let text = format!("{} {} ({}; {})", it.id(), it.changes, end(it.until()), it.note);
        table.pair("override", text);
    }
    for it in &record.grants {
        let (units, meter, ends) = (it.units, &it.meter, end(it.expires_at()));
        table.pair("grant", format!("{} {units} {meter} ({ends}; {})", it.id, it.source));
    }
    table.pair("surrogate", record.surrogate.to_string());
    table
}

/// An entry of the history as JSON. The edits are as they are stored.
pub(super) fn entry_json(entry: &HistoryEntry) -> Value {
    json!({
        "at": written(entry.at),
        "actor": entry.actor,
        "outcome": outcome(entry.outcome),
        "edits": entry.edits,
        "reason": entry.note,
    })
}

/// Whether a change happened, in a word.
pub(super) fn outcome(outcome: ChangeOutcome) -> &'static str {
    match outcome {
        ChangeOutcome::Happened => "happened",
        ChangeOutcome::Pending => "pending",
        ChangeOutcome::Never => "never",
        _ => "unknown",
    }
}

/// Changes in words.
pub(in crate::commands) fn changes(edits: &[Edit]) -> Vec<String> {
    edits.iter().map(change).collect()
}

fn change(edit: &Edit) -> String {
    match edit {
        Edit::Created => "created".to_owned(),
        Edit::Plan(Some(plan)) => format!("plan {plan}"),
        Edit::Plan(None) => "the default plan".to_owned(),
        Edit::Suspended(true) => "suspended".to_owned(),
        Edit::Suspended(false) => "resumed".to_owned(),
        Edit::Override(it) => {
            format!("override {} {} ({})", it.id(), it.changes, end(it.until()))
        }
        Edit::OverrideEnded(id) => format!("override {id} ended"),
        Edit::OverridesEnded => "all overrides ended".to_owned(),
        Edit::Grant(it) => {
            format!("grant {} {} {} ({})", it.id, it.units, it.meter, end(it.expires_at()))
        }
        Edit::GrantEnded(id) => format!("grant {id} ended"),
        Edit::KeyMade { id, name, .. } => format!("key {id} {name}"),
        Edit::KeyEnds { id, .. } => format!("key {id} given an end"),
        Edit::KeyRevoked { id } => format!("key {id} revoked"),
        Edit::Account(Some(account)) => format!("account {account}"),
        Edit::Account(None) => "no account".to_owned(),
        Edit::Erased => "erased".to_owned(),
        // Those of the billing service, and of later versions: as they are stored.
        other => serde_json::to_string(other).unwrap_or_else(|_| "unknown".to_owned()),
    }
}
