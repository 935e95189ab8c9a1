//! `plans explain`: how a request of a tenant would be decided now. The library decides; this says
//! where each part of it was written: a line of the plan file, or an override of the directory.

use serde_json::{Value, json};
use tallygate::Identified;
use tallygate::directory::{DirectoryError, Edit, KeyState, Override, Tenant, TenantRecord};

use super::lines::Lines;
use super::read;
use crate::commands::Ran;
use crate::commands::tenant::text;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

/// Whose request it is.
pub(super) struct Caller {
    pub(super) tenant: String,
    /// What it may do; none: that is not said.
    pub(super) permissions: Vec<String>,
    /// The id of its key, which says what it may do.
    pub(super) key: Option<String>,
}

impl Caller {
    /// What it may do, where that is said.
    async fn held(&self, tenant: &Tenant) -> Result<Option<Vec<String>>, Failure> {
        let Some(id) = &self.key else {
            return Ok((!self.permissions.is_empty()).then(|| self.permissions.clone()));
        };
        let found = tenant.keys().await?.into_iter().find(|key| key.id == *id);
        let key = found.ok_or_else(|| DirectoryError::NoKey(id.clone()))?;
        if key.state != KeyState::Active {
            let state = crate::commands::key::state(key.state).0;
            let text = format!("the key {id} is {state}: a request with it is answered with 401");
            return Err(Failure::conflict(
                text + "\nhelp: `tallygate key list` shows those that work",
            ));
        }
        Ok(Some(key.permissions))
    }
}

pub(super) async fn run(out: Output, settings: &Settings, caller: &Caller, request: &str) -> Ran {
    let id = &caller.tenant;
    let (method, path) = request
        .trim()
        .split_once(' ')
        .ok_or_else(|| Failure::usage("write the method and the path: 'POST /v1/chat'"))?;
    let (method, path) = (method.to_ascii_uppercase(), path.trim_start());
    let path = path.split('?').next().unwrap_or(path);
    let file = settings.plans_file();
    with_gate(settings, For::Tenants, async |gate| {
        let found = gate.directory().find(id).await?;
        let tenant = found.ok_or_else(|| Failure::no_tenant(id))?;
        let who = Identified::from(&gate.tenant(id).await?);
        let held = caller.held(&tenant).await?;
        let mut all = gate.explain(&who, &method, path, held.as_deref()).await?;
        let text = read(&file)?.map(|file| file.text);
        let text = text.map_err(|errors| Failure::new(code::FILE, errors.to_string()))?;
        let file = file.display().to_string();
        let overrides = overrides(&tenant, &all).await?;
        if let Some(lines) = Lines::of(&text) {
            Places { file: &file, lines, overrides: &overrides }.add(&mut all);
        }
        all["request"] = json!(format!("{method} {path}"));
        all["identified_by"] = json!(ways(settings));
        all["plan_from"] = json!(plan_from(tenant.record(), &all));
        all["overrides"] = overrides.iter().map(Made::json).collect();
        match out.json {
            true => out.document(&all)?,
            false => print(out, &all)?,
        }
        Ok(code::OK)
    })
    .await
}

/// An override in force, as the directory has it.
struct Made {
    id: String,
    changes: String,
    at: String,
    by: Option<String>,
}

impl Made {
    fn json(&self) -> Value {
        json!({ "id": self.id, "changes": self.changes, "at": self.at, "by": self.by })
    }

    /// Where it was written.
    fn place(&self) -> String {
        let by = self.by.as_ref().map(|by| format!(" by {by}"));
        format!("override {} of {}{}", self.id, self.at, by.unwrap_or_default())
    }
}

/// The overrides in force, with their actors out of the history.
async fn overrides(tenant: &Tenant, all: &Value) -> Result<Vec<Made>, Failure> {
    let in_force = |it: &&Override| {
        let ids = all["overrides"].as_array().into_iter().flatten();
        ids.filter_map(Value::as_str).any(|id| id == it.id())
    };
    let own: Vec<_> = tenant.record().overrides.iter().filter(in_force).collect();
    // A history is read from its beginning: only where it says something.
    let history = if own.is_empty() { Vec::new() } else { tenant.history().await? };
    let made = own.into_iter().map(|it| {
        let is_it = |edit: &Edit| matches!(edit, Edit::Override(other) if other == it);
        let entry = history.iter().rev().find(|entry| entry.edits.iter().any(is_it));
        let by = entry.and_then(|entry| entry.actor.clone());
        Made { id: it.id(), changes: it.changes.trim().to_owned(), at: written(it.at()), by }
    });
    Ok(made.collect())
}

/// Where what is in force was written.
struct Places<'a> {
    file: &'a str,
    lines: Lines<'a>,
    overrides: &'a [Made],
}

impl Places<'_> {
    /// Adds the places of the plan, the route and each limit.
    fn add(&self, all: &mut Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (tenant, plan, route) = (text(&all["tenant"]), text(&all["plan"]), text(&all["route"]));
        all["plan_at"] = json!(self.line(self.lines.plan(&plan)));
        all["route_at"] = json!(self.line(self.lines.route(&route)));
        for limit in all["limits"].as_array_mut().into_iter().flatten() {
            limit["at"] = json!(self.of_limit(&tenant, &plan, limit));
        }
    }

    fn line(&self, line: Option<usize>) -> Option<String> {
        line.map(|line| format!("{}:{line}", self.file))
    }

    /// Where the number of a limit was written, with what enlarges it.
    fn of_limit(&self, tenant: &str, plan: &str, limit: &Value) -> Option<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name, origin) = (text(&limit["kind"]), text(&limit["name"]), &limit["origin"]);
        let first = match origin["from"].as_str() {
            Some("override") => {
                self.overrides.iter().find(|it| origin["override"] == *it.id).map(Made::place)
            }
            Some("exception") => self.line(self.lines.of_exception(tenant, &kind, &name)),
            _ => self.line(self.lines.of_limit(plan, &kind, &name)),
        };
        let addons = origin["addons"].as_object().into_iter().flatten().map(|(name, n)| {
            let place = self.line(self.lines.addon(name)).map(|at| format!(" ({at})"));
            format!("addon {name} x {n}{}", place.unwrap_or_default())
        });
        let grants = origin["grants"].as_array().into_iter().flatten();
        let grants = grants.filter_map(Value::as_str).map(|id| format!("grant {id}"));
        let all: Vec<String> = first.into_iter().chain(addons).chain(grants).collect();
        (!all.is_empty()).then(|| all.join(" + "))
    }
}

/// The ways of identifying callers, in their order.
fn ways(settings: &Settings) -> Vec<String> {
    let Some(ways) = settings.table.get("identify").and_then(toml::Value::as_array) else {
        return vec!["api-key".to_owned()];
    };
    let word = |way: &toml::Value| {
        let words = ["api-key", "jwt", "header", "claim", "network"];
        words.iter().find(|word| way.get(**word).is_some()).map(|word| (*word).to_owned())
    };
    ways.iter().filter_map(word).collect()
}

/// Why this plan is in force.
fn plan_from(record: &TenantRecord, all: &Value) -> &'static str {
    let is = |plan: &str| all["plan"].as_str() == Some(plan);
    match record.plan.as_deref() {
        Some(plan) if is(plan) => "assigned",
        Some(_) => "an exception, a subscription or the payment state, over the assigned one",
        None => "the default plan, or an exception",
    }
}

fn print(out: Output, all: &Value) -> Result<(), Failure> {
    let at = |value: &Value| value.as_str().map_or_else(String::new, |at| format!(" ({at})"));
    let list = |value: &Value| {
        let items: Vec<_> = value.as_array().into_iter().flatten().map(text).collect();
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    let pairs = |value: &Value, join: &str| {
        let pairs = value.as_object().into_iter().flatten();
        let pair = |(key, value): (&String, &Value)| {
            format!("{}{join}{}", key.replace('_', "-"), text(value))
        };
        pairs.map(pair).collect::<Vec<_>>().join(", ")
    };
    let mut head = Table::of_pairs();
    head.pair("request", text(&all["request"]));
    head.pair("tenant", text(&all["tenant"]));
    head.pair("identified by", list(&all["identified_by"]));
    head.pair("plan", format!("{}{}", text(&all["plan"]), at(&all["plan_at"])));
    head.pair("plan from", text(&all["plan_from"]));
    head.pair("status", text(&all["status"]));
    let made = all["overrides"].as_array().into_iter().flatten();
    let made: Vec<_> =
        made.map(|it| format!("{} {}", text(&it["id"]), text(&it["changes"]))).collect();
    let made = if made.is_empty() { "none".to_owned() } else { made.join(", ") };
    head.pair("overrides", made);
    head.pair("route", format!("{}{}", text(&all["route"]), at(&all["route_at"])));
    if let Some(needed) = all["permission"]["needed"].as_str() {
        let held = match all["permission"]["held"].as_bool() {
            Some(true) => "which the caller has",
            Some(false) => "which the caller lacks",
            None => "which the verdict takes the caller to have (--key, --permission)",
        };
        head.pair("permission", format!("{needed}, {held}"));
    }
    head.pair("cost", pairs(&all["cost"], " "));
    head.pair("without the store", pairs(&all["fail_policy"], " = "));
    out.table(&head)?;
    print_limits(out, all)?;
    print_verdict(out, all)
}

/// The limits, with their windows and counters.
pub(in crate::commands) fn print_limits(out: Output, all: &Value) -> Result<(), Failure> {
    let limits = || all["limits"].as_array().into_iter().flatten();
    let is_placed = limits().any(|limit| limit.get("at").is_some());
    let mut head = vec!["LIMIT", "SCOPE", "ASKED", "LEFT", "USED", "OF", "WINDOW", "COUNTER"];
    head.extend(is_placed.then_some("WRITTEN AT"));
    let mut table = Table::of_pairs();
    table.row(head.into_iter().map(str::to_owned));
    for limit in limits() {
        let window = match (&limit["window"]["start"], &limit["window"]["end"]) {
            (Value::Null, _) if limit["per_seconds"].is_null() => "-".to_owned(),
            (Value::Null, _) => format!("{} s", text(&limit["per_seconds"])),
            (start, Value::Null) => format!("from {}", to_seconds(start)),
            (start, end) => format!("{} to {}", to_seconds(start), to_seconds(end)),
        };
        let cells = [
            text(&limit["name"]),
            text(&limit["scope"]),
            text(&limit["asked"]),
            text(&limit["remaining"]),
            text(&limit["used"]),
            text(&limit["limit"]),
            window,
            text(&limit["counter"]),
        ];
        let place = is_placed.then(|| text(&limit["at"]));
        table.row(cells.into_iter().chain(place));
    }
    out.table(&table)
}

/// What is decided, and why.
pub(in crate::commands) fn print_verdict(out: Output, all: &Value) -> Result<(), Failure> {
    let mut verdict = Table::of_pairs();
    let is_good = all["verdict"] == "admitted" || all["verdict"] == "passed";
    let colour = if is_good { Colour::Green } else { Colour::Red };
    let because = match (&all["reason"], &all["limit"]) {
        (Value::Null, _) => String::new(),
        (reason, Value::Null) => format!(": {}", text(reason)),
        (reason, limit) => format!(": {} by {}", text(reason), text(limit)),
    };
    let cells = ["verdict".to_owned(), format!("{}{because}", text(&all["verdict"]))];
    verdict.coloured(cells, (1, colour));
    if let Some(status) = all["http_status"].as_u64() {
        verdict.pair("http status", status.to_string());
    }
    if let Some(seconds) = all["resets_in_seconds"].as_u64() {
        verdict.pair("resets in", format!("{seconds} s"));
    }
    out.table(&verdict)
}

/// An instant without its part of a second.
fn to_seconds(instant: &Value) -> String {
    let text = instant.as_str().unwrap_or_default();
    text.split_once('.').map_or_else(|| text.to_owned(), |(whole, _)| format!("{whole}Z"))
}
