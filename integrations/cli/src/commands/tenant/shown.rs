//! How a tenant and its history are printed.

use std::time::SystemTime;

use serde_json::{Value, json};
use tallygate::directory::{ChangeOutcome, Edit, HistoryEntry, Override, TenantRecord};

use crate::output::{Colour, Table};
use crate::when::{to_second, written, written_or};

/// The plan of a tenant that has none of its own.
const DEFAULT: &str = "(default)";
/// The end of what has none.
const NO_END: &str = "no end";

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

/// The same document of a tenant as the operator's routes have it.
pub(super) fn of_route(tenant: &Value) -> Value {
    let exceptions = list(&tenant["overrides"]).iter().map(|it| {
        json!({
            "id": it["id"],
            "changes": it["changes"],
            "until": second(&it["until"]),
            "note": it["reason"],
            "at": second(&it["at"]),
        })
    });
    let grants = list(&tenant["grants"]).iter().map(|it| {
        json!({
            "id": it["id"],
            "meter": it["meter"],
            "units": it["units"],
            "source": it["source"],
            "expires": second(&it["expires"]),
            "note": it["reason"],
        })
    });
    json!({
        "id": tenant["id"],
        "surrogate": tenant["surrogate"],
        "plan": tenant["assigned-plan"],
        "plan_since": second(&tenant["plan-since"]),
        "suspended": tenant["suspended"],
        "erased": second(&tenant["erased"]),
        "payment": tenant["payment"],
        "payment_since": second(&tenant["payment-since"]),
        "anchor": second(&tenant["anchor"]),
        "first_request": second(&tenant["first-request"]),
        "account": tenant["account"],
        "addons": tenant["addons"],
        "overrides": exceptions.collect::<Vec<_>>(),
        "grants": grants.collect::<Vec<_>>(),
        "version": tenant["version"],
    })
}

/// An instant of a service, to the second; `null` as it is.
pub(in crate::commands) fn second(of: &Value) -> Value {
    of.as_str().map_or(Value::Null, |text| json!(to_second(text)))
}

/// The entries of a list.
pub(in crate::commands) fn list(of: &Value) -> &[Value] {
    of.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A value as a cell.
pub(in crate::commands) fn text(of: &Value) -> String {
    match of {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn or(of: &Value, none: &str) -> String {
    if of.is_null() { none.to_owned() } else { text(of) }
}

/// The head of a list of tenants.
pub(super) fn list_head() -> Table {
    Table::new(["ID", "PLAN", "STATE", "PAYMENT", "OVERRIDES", "GRANTS"])
}

/// A tenant in a list.
pub(super) fn list_row(table: &mut Table, tenant: &Value) {
    let (state, colour) = state(tenant);
    let cells = [
        text(&tenant["id"]),
        or(&tenant["plan"], DEFAULT),
        state.to_owned(),
        text(&tenant["payment"]),
        list(&tenant["overrides"]).len().to_string(),
        list(&tenant["grants"]).len().to_string(),
    ];
    table.coloured(cells, (2, colour));
}

fn state(tenant: &Value) -> (&'static str, Colour) {
    match (tenant["erased"].is_null(), tenant["suspended"] == true) {
        (false, _) => ("erased", Colour::Red),
        (true, true) => ("suspended", Colour::Red),
        (true, false) => ("active", Colour::Green),
    }
}

/// A tenant as a table, with the plan and the status in force where they are known.
pub(super) fn table_of(tenant: &Value, now: Option<&(String, String)>) -> Table {
    let mut table = Table::of_pairs();
    let since = |what: &str, since: &Value| format!("{what} since {}", text(since));
    table.pair("id", text(&tenant["id"]));
    table.pair("plan", since(&or(&tenant["plan"], DEFAULT), &tenant["plan_since"]));
    let (state, colour) = state(tenant);
    table.coloured(["state".to_owned(), state.to_owned()], (1, colour));
    if let Some((plan, status)) = now {
        table.pair("in force", format!("{plan}, {status}"));
    }
    table.pair("payment", since(&text(&tenant["payment"]), &tenant["payment_since"]));
    table.pair("cycles from", text(&tenant["anchor"]));
    // It is kept for plans that end a while after it.
    if let Some(first) = tenant["first_request"].as_str() {
        table.pair("first request", first);
    }
    table.pair("account", or(&tenant["account"], "none"));
    for (name, quantity) in tenant["addons"].as_object().into_iter().flatten() {
        table.pair("addon", format!("{name} x {quantity}"));
    }
    for it in list(&tenant["overrides"]) {
        let (id, changes, note) = (text(&it["id"]), text(&it["changes"]), text(&it["note"]));
        table.pair("override", format!("{id} {changes} ({}; {note})", or(&it["until"], NO_END)));
    }
    for it in list(&tenant["grants"]) {
        let (id, units, meter) = (text(&it["id"]), text(&it["units"]), text(&it["meter"]));
        let (ends, source) = (or(&it["expires"], NO_END), text(&it["source"]));
        table.pair("grant", format!("{id} {units} {meter} ({ends}; {source})"));
    }
    table.pair("surrogate", text(&tenant["surrogate"]));
    table
}

/// An entry of a history.
pub(in crate::commands) struct Entry {
    pub(super) at: String,
    pub(super) actor: Option<String>,
    pub(super) outcome: String,
    /// As they are stored.
    pub(super) edits: Vec<Value>,
    pub(super) note: Option<String>,
}

impl Entry {
    pub(in crate::commands) fn of(entry: &HistoryEntry) -> Self {
        Self {
            at: written(entry.at),
            actor: entry.actor.clone(),
            outcome: outcome(entry.outcome).to_owned(),
            edits: entry.edits.iter().map(|edit| json!(edit)).collect(),
            note: entry.note.clone(),
        }
    }

    /// Of the operator's routes.
    pub(in crate::commands) fn of_route(entry: &Value) -> Self {
        let own = |of: &Value| of.as_str().map(str::to_owned);
        Self {
            at: text(&second(&entry["at"])),
            actor: own(&entry["actor"]),
            outcome: text(&entry["outcome"]),
            edits: list(&entry["edits"]).to_vec(),
            note: own(&entry["reason"]),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "at": self.at,
            "actor": self.actor,
            "outcome": self.outcome,
            "edits": self.edits,
            "reason": self.note,
        })
    }

    /// Its changes in words; one of a later version as it is stored.
    pub(super) fn changes(&self) -> Vec<String> {
        let words = |stored: &Value| match serde_json::from_value::<Edit>(stored.clone()) {
            Ok(edit) => change(&edit),
            Err(_) => stored.to_string(),
        };
        self.edits.iter().map(words).collect()
    }
}

/// Whether a change happened, in a word.
fn outcome(outcome: ChangeOutcome) -> &'static str {
    match outcome {
        ChangeOutcome::Happened => "happened",
        ChangeOutcome::Pending => "pending",
        ChangeOutcome::Never => "never",
        _ => "unknown",
    }
}

/// An end, or that there is none.
fn end(at: Option<SystemTime>) -> String {
    written_or(at, NO_END)
}

/// Changes in words.
#[cfg(feature = "stripe")]
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
