//! `usage`: what a tenant used and has left, as `GET /usage` has it; and usage that was counted
//! elsewhere.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};
use tallygate::ingest::{Counted, NotCounted, UsageEvent};
use tallygate::{Gate, Identified};

use super::Ran;
use crate::args::{Global, Usage, UsageHistory};
use crate::client::{encoded, plain};
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::place::{Place, of_store};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::now;

mod export;
mod shown;

/// What to do instead of `usage record` while the service runs.
const RECORD: &str = "send it to the service as an event: POST /usage (docs/ingest.md)";
/// And instead of `usage export`.
const EXPORT: &str = "stop the service, or export from a backup that is restored elsewhere";

pub(super) async fn run(out: Output, global: &Global, what: Usage) -> Ran {
    match what {
        Usage::Show { id } => show(out, &Place::of(global)?, &id).await,
        Usage::History(what) => history(out, &Place::of(global)?, &what).await,
        Usage::Peek { id, meter, units } => {
            peek(out, &Place::of(global)?, &id, (&meter, units)).await
        }
        Usage::Export(what) => {
            export::run(out, &of_store(global, "usage export", EXPORT)?, &what).await
        }
        Usage::Record { id, meter, units, event, at, dry_run } => {
            let settings = of_store(global, "usage record", RECORD)?;
            let too_late = || Failure::usage("the calendar does not reach so far: write a date");
            let at = at.map(|it| it.from(now()).ok_or_else(too_late)).transpose()?;
            let event = UsageEvent::new(event, id, meter, units);
            record(out, &settings, event, at, dry_run).await
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

async fn show(out: Output, place: &Place, id: &str) -> Ran {
    match place {
        Place::Store(settings) => {
            with_gate(settings, For::Tenants, async |gate| {
                let report = gate.usage_report(&tenant(gate, id).await?).await?;
                let report = serde_json::to_value(&report)
                    .map_err(|error| Failure::new(code::FAILURE, error.to_string()))?;
                shown::print(out, &report)
            })
            .await
        }
        Place::Service(client) => shown::print(out, &client.get_of(id, "/usage").await?),
    }
}

async fn peek(out: Output, place: &Place, id: &str, (meter, units): (&str, u64)) -> Ran {
    let found = match place {
        Place::Store(settings) => {
            with_gate(settings, For::Tenants, async |gate| {
                Ok(gate.peek(&tenant(gate, id).await?, meter, units).await?)
            })
            .await?
        }
        Place::Service(client) => {
            let query = format!("meter={}&units={units}", encoded(meter));
            client.get_of(id, &format!("/peek?{query}")).await?
        }
    };
    match out.json {
        true => out.document(&found)?,
        false => shown::print_peek(out, &found)?,
    }
    Ok(code::OK)
}

async fn history(out: Output, place: &Place, what: &UsageHistory) -> Ran {
    let mut query = format!("meter={}&granularity={}", encoded(&what.meter), what.by.word());
    for (name, value) in [("from", &what.from), ("to", &what.to)] {
        if let Some(value) = value {
            let _ = write!(query, "&{name}={}", encoded(value));
        }
    }
    let settings = match place {
        Place::Store(settings) => settings,
        Place::Service(client) => {
            let body = client.get_of(&what.id, &format!("/usage/history?{query}")).await?;
            print_history(out, &body)?;
            return Ok(code::OK);
        }
    };
    with_gate(settings, For::Tenants, async |gate| {
        let reply = gate.history_reply(&tenant(gate, &what.id).await?, &query).await;
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let detail = body["detail"].as_str().map_or("usage cannot be read".to_owned(), plain);
        match reply.status {
            200 => print_history(out, &body)?,
            400 => return Err(Failure::usage(detail)),
            404 => return Err(Failure::not_found(detail)),
            _ => return Err(Failure::new(code::FAILURE, detail)),
        }
        Ok(code::OK)
    })
    .await
}

fn print_history(out: Output, body: &Value) -> Result<(), Failure> {
    match out.json {
        true => out.document(body),
        false => out.table(&history_table(body)),
    }
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
