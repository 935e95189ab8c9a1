//! `usage`: what a tenant used and has left, as `GET /usage` has it; and usage that was counted
//! elsewhere.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};
use tallygate::ingest::{Counted, NotCounted, UsageEvent};
use tallygate::report::{LimitReport, MeterReport, UsageReport};
use tallygate::{Gate, Identified};

use super::Ran;
use crate::args::{Usage, UsageHistory};
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::{now, written, written_or};

mod export;

pub(super) async fn run(out: Output, settings: &Settings, what: Usage) -> Ran {
    match what {
        Usage::Show { id } => show(out, settings, &id).await,
        Usage::History(what) => history(out, settings, &what).await,
        Usage::Export(what) => export::run(out, settings, &what).await,
        Usage::Record { id, meter, units, event, at, dry_run } => {
            let too_late = || Failure::usage("the calendar does not reach so far: write a date");
            let at = at.map(|it| it.from(now()).ok_or_else(too_late)).transpose()?;
            let event = UsageEvent::new(event, id, meter, units);
            record(out, settings, event, at, dry_run).await
        }
    }
}

/// A tenant as the gate knows it. It is looked up in the directory first, because a gate may create
/// a tenant that it does not know.
pub(super) async fn tenant(gate: &Gate, id: &str) -> Result<Identified, Failure> {
    if gate.directory().find(id).await?.is_none() {
        return Err(Failure::no_tenant(id));
    }
    Ok(Identified::from(&gate.tenant(id).await?))
}

async fn show(out: Output, settings: &Settings, id: &str) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        let report = gate.usage_report(&tenant(gate, id).await?).await?;
        if out.json {
            let document = serde_json::to_value(&report)
                .map_err(|error| Failure::new(code::FAILURE, error.to_string()))?;
            out.document(&document)?;
            return Ok(code::OK);
        }
        let mut head = Table::of_pairs();
        head.pair("plan", &*report.plan);
        let colour = if &*report.status == "active" { Colour::Green } else { Colour::Red };
        head.coloured(["status".to_owned(), report.status.to_string()], (1, colour));
        let (start, end) = (report.period.start, report.period.end);
        let span = format!("{} to {}", written(start), written_or(end, "no end"));
        head.pair("period", format!("{span} ({})", report.period.timezone));
        for (name, feature) in &report.features {
            head.pair("feature", format!("{name}: {}", super::plans::feature_word(feature)));
        }
        out.table(&head)?;
        out.table(&limits(&report))?;
        if !report.rates.is_empty() {
            out.table(&rates(&report))?;
        }
        Ok(code::OK)
    })
    .await
}

/// The quotas and grants of all meters.
fn limits(report: &UsageReport) -> Table {
    let mut table = Table::new(["LIMIT", "SCOPE", "USED", "OF", "DEBT", "OVER", "RESETS"]);
    for meter in &report.meters {
        for limit in &meter.limits {
            let colour = if limit.debt.is_zero() { Colour::Plain } else { Colour::Red };
            table.coloured(limit_row(meter, limit), (4, colour));
        }
        for grant in &meter.grants {
            table.row([
                format!("{}: {}", meter.name, grant.id),
                format!("once, by the {}", if &*grant.source == "plan" { "plan" } else { "grant" }),
                grant.used.to_string(),
                grant.limit.to_string(),
                "-".to_owned(),
                "-".to_owned(),
                written_or(grant.expires_at, "never"),
            ]);
        }
        if meter.limits.is_empty() && meter.grants.is_empty() {
            let (used, over) = (meter.used.to_string(), meter.over.to_string());
            let none = || "-".to_owned();
            table.row([meter.name.to_string(), none(), used, none(), none(), over, none()]);
        }
    }
    table
}

fn limit_row(meter: &MeterReport, limit: &LimitReport) -> [String; 7] {
    [
        limit.id.to_string(),
        limit.scope.to_string(),
        limit.used.to_string(),
        limit.limit.map_or_else(|| "unlimited".to_owned(), |it| it.to_string()),
        limit.debt.to_string(),
        meter.over.to_string(),
        written_or(limit.resets_at, "never"),
    ]
}

fn rates(report: &UsageReport) -> Table {
    let mut table = Table::new(["RATE", "SCOPE", "LIMIT", "BURST"]);
    for rate in &report.rates {
        let mut limit = rate.limit.to_string();
        if let Some(meter) = &rate.meter {
            let _ = write!(limit, " {meter}");
        }
        let _ = write!(limit, " / {} s", rate.per.as_secs());
        table.row([rate.id.to_string(), rate.scope.to_string(), limit, rate.burst.to_string()]);
    }
    table
}

async fn history(out: Output, settings: &Settings, what: &UsageHistory) -> Ran {
    let mut query = format!("meter={}&granularity={}", encoded(&what.meter), what.by.word());
    for (name, value) in [("from", &what.from), ("to", &what.to)] {
        if let Some(value) = value {
            let _ = write!(query, "&{name}={}", encoded(value));
        }
    }
    with_gate(settings, For::Tenants, async |gate| {
        let reply = gate.history_reply(&tenant(gate, &what.id).await?, &query).await;
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let detail = body["detail"].as_str().unwrap_or("usage cannot be read").to_owned();
        match reply.status {
            200 if out.json => out.document(&body)?,
            200 => out.table(&history_table(&body))?,
            400 => return Err(Failure::usage(detail)),
            404 => return Err(Failure::not_found(detail)),
            _ => return Err(Failure::new(code::FAILURE, detail)),
        }
        Ok(code::OK)
    })
    .await
}

/// The rows of a history in the shape of `GET /usage/history`.
fn history_table(body: &Value) -> Table {
    let mut table = Table::new(["FROM", "TO", "USED"]);
    for row in body["rows"].as_array().into_iter().flatten() {
        let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let used = row["used_text"].as_str().map(str::to_owned);
        let used = used.unwrap_or_else(|| row["used"].to_string());
        table.row([text("start"), text("end"), used]);
    }
    table
}

/// A value of a query, percent-encoded.
fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            true => out.push(char::from(byte)),
            false => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

async fn record(
    out: Output,
    settings: &Settings,
    event: UsageEvent,
    at: Option<SystemTime>,
    dry_run: bool,
) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        tenant(gate, &event.tenant).await?;
        gate.meter(&event.meter)?;
        let mut document = json!({
            "id": event.id,
            "tenant": event.tenant,
            "meter": event.meter,
            "units": event.quantity,
            "dry_run": dry_run,
        });
        let event = match at {
            Some(at) => event.clone().at(at),
            None => event.clone(),
        };
        let word = if dry_run {
            say("dry run: nothing was counted");
            "no"
        } else {
            counted(gate.ingest().events(vec![event]).await.pop())?
        };
        document["counted"] = json!(word);
        match out.json {
            true => out.document(&document)?,
            false => out.line(counted_words(word))?,
        }
        Ok(code::OK)
    })
    .await
}

/// That word for people.
pub(super) fn counted_words(word: &str) -> &'static str {
    match word {
        "now" => "counted",
        "before" => "counted before",
        _ => "would be counted, unless it was before",
    }
}

/// Whether an event was counted, in a word.
pub(super) fn counted(
    answer: Option<Result<Counted, NotCounted>>,
) -> Result<&'static str, Failure> {
    let why = match answer {
        Some(Ok(Counted::Before)) => return Ok("before"),
        Some(Ok(_)) => return Ok("now"),
        Some(Err(why)) => why,
        None => return Err(Failure::new(code::FAILURE, "no answer: write the same again")),
    };
    let text = why.to_string();
    Err(match why {
        NotCounted::Conflict | NotCounted::Closed { .. } => Failure::conflict(text),
        NotCounted::UnknownMeter(_) | NotCounted::UnknownTenant(_) => Failure::not_found(text),
        NotCounted::Malformed(_) | NotCounted::Ahead | NotCounted::Sum(_) => Failure::usage(text),
        _ => Failure::new(code::FAILURE, text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_query_stays_one() {
        assert_eq!(encoded("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
