//! One reading: what is shown, and printed.

use serde_json::{Map, Value, json};

use super::outbox::Outbox;
use crate::args::TopSort;
use crate::failure::Failure;
use crate::output::{Colour, Output, Table, escaped};
use crate::when::{now, written};

/// Refusals that are printed: the last ones.
const PRINTED_REFUSALS: usize = 10;

/// What there is to see at one moment. Its texts are escaped.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// When it was taken, in UTC.
    pub(super) at: String,
    /// Where from.
    pub(super) source: String,
    /// Of a service: a store alone has none.
    pub(super) health: Option<Health>,
    /// Where something is billed.
    pub(super) outbox: Option<Outbox>,
    /// Tenants that were looked at.
    pub(super) in_use: u64,
    pub(super) tenants: Vec<TenantRow>,
    pub(super) refusals: Vec<RefusalRow>,
    /// How many refusals there were for each reason, the most frequent first.
    pub(super) by_reason: Vec<(String, u64)>,
    /// The same for programs.
    raw: Value,
}

/// How a service is.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    pub(super) is_ready: bool,
    pub(super) troubles: Vec<String>,
    /// Age of the oldest usage that is not written, in milliseconds.
    pub(super) flush_lag_ms: Option<u64>,
    pub(super) last_report: Option<String>,
}

/// A tenant, and the limit that it is nearest to.
#[derive(Clone, Debug, Default)]
pub(super) struct TenantRow {
    pub(super) id: String,
    pub(super) plan: String,
    pub(super) status: String,
    pub(super) limit: String,
    pub(super) used: String,
    pub(super) of: String,
    /// The used part of it; more than 1 where more was used.
    pub(super) share: f64,
    pub(super) resets: String,
}

/// A refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusalRow {
    pub(super) at: String,
    pub(super) tenant: String,
    pub(super) reason: String,
    pub(super) limit: String,
}

impl Reading {
    /// Of the answers of three of the operator's routes, and the outbox.
    pub(super) fn of_service(
        source: &str,
        health: Value,
        top: Value,
        refusals: Value,
        outbox: Value,
    ) -> Self {
        let troubles = list(&health["troubles"]).iter().map(text).collect();
        let counts = refusals["by_reason"].as_object().cloned().unwrap_or_default();
        let raw = json!({
            "health": health,
            "tenants": top["tenants"],
            "in-use": top["in-use"],
            "refusals": refusals["refusals"],
            "by_reason": counts,
            "outbox": outbox,
        });
        let health = Health {
            is_ready: health["ready"].as_bool().unwrap_or(false),
            troubles,
            flush_lag_ms: health["flush-lag-ms"].as_u64(),
            last_report: health["last-report"].as_str().map(escaped),
        };
        Self::of(source, Some(health), top["in-use"].as_u64().unwrap_or(0), raw)
    }

    /// Of tenants of a store, in the form of `GET /top`, and its outbox.
    pub(super) fn of_store(
        source: &str,
        tenants: Vec<Value>,
        looked_at: u64,
        outbox: Value,
    ) -> Self {
        let raw = json!({ "tenants": tenants, "in-use": looked_at, "outbox": outbox });
        Self::of(source, None, looked_at, raw)
    }

    fn of(source: &str, health: Option<Health>, in_use: u64, mut raw: Value) -> Self {
        let at = written(now());
        (raw["at"], raw["source"]) = (json!(at), json!(source));
        let counts = raw["by_reason"].as_object().map(by_reason).unwrap_or_default();
        Self {
            at,
            source: escaped(source),
            health,
            outbox: Outbox::of(&raw["outbox"], now()),
            in_use,
            tenants: list(&raw["tenants"]).iter().map(tenant).collect(),
            refusals: list(&raw["refusals"]).iter().map(refusal).collect(),
            by_reason: counts,
            raw,
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        self.raw.clone()
    }

    /// The tenants in an order, of those whose ids contain a text.
    pub(super) fn sorted(&self, sort: TopSort, filter: &str) -> Vec<&TenantRow> {
        let mut rows: Vec<_> = self.tenants.iter().filter(|it| it.id.contains(filter)).collect();
        let by_share = |a: &&TenantRow, b: &&TenantRow| b.share.total_cmp(&a.share);
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        match sort {
            TopSort::Tenant => {}
            TopSort::Share => rows.sort_by(by_share),
            TopSort::Plan => rows.sort_by(|a, b| a.plan.cmp(&b.plan).then_with(|| by_share(a, b))),
        }
        rows
    }

    /// Prints it as tables.
    pub(super) fn print(&self, out: Output, sort: TopSort) -> Result<(), Failure> {
        let mut head = Table::of_pairs();
        head.pair("of", &self.source);
        head.pair("at", &self.at);
        if let Some(health) = &self.health {
            let (word, colour) = health.word();
            head.coloured(["state".to_owned(), word.to_owned()], (1, colour));
            health.troubles.iter().for_each(|it| head.pair("trouble", it));
            head.pair("flush lag", health.flush_lag());
            head.pair("last report", health.last_report.as_deref().unwrap_or("none"));
        }
        if let Some(outbox) = &self.outbox {
            head.coloured(["outbox".to_owned(), outbox.text.clone()], (1, outbox.colour));
        }
        head.pair("in use", self.in_use.to_string());
        for (reason, n) in &self.by_reason {
            head.pair("refused", format!("{n} {reason}"));
        }
        out.table(&head)?;
        let mut table =
            Table::new(["TENANT", "PLAN", "STATUS", "SHARE", "USED", "OF", "LIMIT", "RESETS"]);
        for row in self.sorted(sort, "") {
            let TenantRow { id, plan, status, limit, used, of, resets, .. } = row.clone();
            let colour = row.colour();
            table.coloured([id, plan, status, row.percent(), used, of, limit, resets], (3, colour));
        }
        out.table(&table)?;
        self.print_refusals(out)
    }

    /// The last refusals, if there are any.
    fn print_refusals(&self, out: Output) -> Result<(), Failure> {
        if self.refusals.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(["REFUSED AT", "TENANT", "REASON", "LIMIT"]);
        for row in self.refusals.iter().take(PRINTED_REFUSALS) {
            let RefusalRow { at, tenant, reason, limit } = row.clone();
            table.coloured([at, tenant, reason, limit], (2, Colour::Plain));
        }
        out.table(&table)
    }
}

impl Health {
    /// Its state in a word.
    pub(super) fn word(&self) -> (&'static str, Colour) {
        match (self.is_ready, self.troubles.is_empty()) {
            (false, _) => ("not ready", Colour::Red),
            (true, false) => ("in trouble", Colour::Red),
            (true, true) => ("healthy", Colour::Green),
        }
    }

    pub(super) fn flush_lag(&self) -> String {
        self.flush_lag_ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3))
    }
}

impl TenantRow {
    pub(super) fn percent(&self) -> String {
        format!("{:.0}%", (self.share * 100.0).floor())
    }

    pub(super) fn colour(&self) -> Colour {
        match self.share {
            share if share >= 1.0 => Colour::Red,
            share if share >= 0.8 => Colour::Yellow,
            _ => Colour::Plain,
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A value as it is shown.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escaped(text),
        other => escaped(&other.to_string()),
    }
}

/// An instant, to the second.
fn second(of: &Value) -> String {
    let shown = text(of);
    match shown.split_once('.') {
        Some((whole, fraction)) if fraction.ends_with('Z') => format!("{whole}Z"),
        _ => shown,
    }
}

/// An amount: its exact text, where its number is not exact.
fn amount(of: &Value, name: &str) -> String {
    let exact = &of[format!("{name}_text").as_str()];
    text(if exact.is_string() { exact } else { &of[name] })
}

fn tenant(of: &Value) -> TenantRow {
    let limit = &of["limit"];
    TenantRow {
        id: text(&of["id"]),
        plan: text(&of["plan"]),
        status: text(&of["status"]),
        limit: text(&limit["id"]),
        used: amount(limit, "used"),
        of: amount(limit, "limit"),
        share: of["share"].as_f64().unwrap_or(0.0),
        resets: second(&limit["resets_at"]),
    }
}

fn refusal(of: &Value) -> RefusalRow {
    RefusalRow {
        at: second(&of["at"]),
        tenant: text(&of["tenant"]),
        reason: text(&of["reason"]),
        limit: text(&of["limit"]),
    }
}

fn by_reason(counts: &Map<String, Value>) -> Vec<(String, u64)> {
    let count = |(reason, n): (&String, &Value)| (escaped(reason), n.as_u64().unwrap_or(0));
    let mut counts: Vec<_> = counts.iter().map(count).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}
