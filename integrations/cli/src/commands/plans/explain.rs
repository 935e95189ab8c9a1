//! `plans explain`: how a request of a tenant would be decided now. The library decides; this says
//! where each part of it is written.

use serde_json::{Value, json};
use tallygate::Identified;
use tallygate::directory::TenantRecord;

use super::lines::Lines;
use super::read;
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table};
use crate::service::{For, with_gate};
use crate::settings::Settings;

pub(super) async fn run(out: Output, settings: &Settings, id: &str, request: &str) -> Ran {
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
        let mut all = gate.explain(&who, &method, path).await?;
        let text = read(&file)?.map(|file| file.text);
        let text = text.map_err(|errors| Failure::new(code::FILE, errors.to_string()))?;
        let file = file.display().to_string();
        add_places(&mut all, &file, Lines::of(&text).as_ref());
        all["request"] = json!(format!("{method} {path}"));
        all["identified_by"] = json!(ways(settings));
        all["plan_from"] = json!(plan_from(tenant.record(), &all));
        all["overrides"] = json!(overrides(tenant.record()));
        match out.json {
            true => out.document(&all)?,
            false => print(out, &all)?,
        }
        Ok(code::OK)
    })
    .await
}

/// Adds file and line of the plan, the route and each limit.
fn add_places(all: &mut Value, file: &str, lines: Option<&Lines<'_>>) {
    let Some(lines) = lines else { return };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (tenant, plan, route) = (text(&all["tenant"]), text(&all["plan"]), text(&all["route"]));
    let place = |line: Option<usize>| line.map(|line| format!("{file}:{line}"));
    all["plan_at"] = json!(place(lines.plan(&plan)));
    all["route_at"] = json!(place(lines.route(&route)));
    for limit in all["limits"].as_array_mut().into_iter().flatten() {
        let (kind, name) = (text(&limit["kind"]), text(&limit["name"]));
        limit["at"] = json!(place(lines.limit(&tenant, &plan, &kind, &name)));
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

fn overrides(record: &TenantRecord) -> Vec<String> {
    record.overrides.iter().map(|it| format!("{} {}", it.id(), it.changes.trim())).collect()
}

fn print(out: Output, all: &Value) -> Result<(), Failure> {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
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
    head.pair("overrides", list(&all["overrides"]));
    head.pair("route", format!("{}{}", text(&all["route"]), at(&all["route_at"])));
    head.pair("cost", pairs(&all["cost"], " "));
    head.pair("without the store", pairs(&all["fail_policy"], " = "));
    out.table(&head)?;
    let mut table = Table::new([
        "LIMIT",
        "SCOPE",
        "ASKED",
        "LEFT",
        "USED",
        "OF",
        "WINDOW",
        "COUNTER",
        "WRITTEN AT",
    ]);
    for limit in all["limits"].as_array().into_iter().flatten() {
        let window = match (&limit["window"]["start"], &limit["window"]["end"]) {
            (Value::Null, _) if limit["per_seconds"].is_null() => "-".to_owned(),
            (Value::Null, _) => format!("{} s", text(&limit["per_seconds"])),
            (start, Value::Null) => format!("from {}", to_seconds(start)),
            (start, end) => format!("{} to {}", to_seconds(start), to_seconds(end)),
        };
        table.row([
            text(&limit["name"]),
            text(&limit["scope"]),
            text(&limit["asked"]),
            text(&limit["remaining"]),
            text(&limit["used"]),
            text(&limit["limit"]),
            window,
            text(&limit["counter"]),
            text(&limit["at"]),
        ]);
    }
    out.table(&table)?;
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
