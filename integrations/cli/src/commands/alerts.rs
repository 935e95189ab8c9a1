//! `alerts`: whether they arrive, and what waits.

use serde_json::json;
use tallygate::notify::NotDelivered;

use super::Ran;
use crate::args::Alerts;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::service::{For, for_alerts, with_gate};
use crate::settings::Settings;
use crate::when::written;

/// What is said where there is no `[[notify]]`.
const NONE: &str = "the service file has no [[notify]]: alerts go nowhere\n\
                    help: docs/alerts.md says how to set it up";

pub(super) async fn run(out: Output, settings: &Settings, what: Alerts) -> Ran {
    if !settings.table.contains_key("notify") {
        return Err(Failure::new(code::FILE, NONE));
    }
    match what {
        Alerts::Test => test(out, settings).await,
        Alerts::List => list(out, settings).await,
    }
}

/// Needs no store: it runs beside the service.
async fn test(out: Output, settings: &Settings) -> Ran {
    let gate = for_alerts(settings).await?;
    let tested = gate.test_alerts().await;
    gate.close().await?;
    let mut table = Table::new(["DESTINATION", "STATE", "DETAIL"]);
    let mut worst = code::OK;
    for (name, done) in tested {
        let (state, colour, detail) = match done {
            Ok(()) => ("ok", Colour::Green, "it took the test".to_owned()),
            Err(NotDelivered::Refused(why)) => ("refused", Colour::Red, why),
            Err(why) => ("failed", Colour::Red, why.to_string()),
        };
        if state != "ok" {
            worst = code::FAILURE;
        }
        match out.json {
            true => out.document(&json!({
                "destination": name, "state": state, "detail": detail
            }))?,
            false => table.coloured([name, state.to_owned(), detail], (1, colour)),
        }
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(worst)
}

async fn list(out: Output, settings: &Settings) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        let waiting = gate.waiting_alerts().await?;
        if waiting.is_empty() {
            say("no alert waits");
            return Ok(code::OK);
        }
        let mut table = Table::new(["DESTINATION", "STATE", "FOUND", "KIND", "TEXT"]);
        for (to, of, refused) in waiting {
            let at = written(of.at);
            match out.json {
                true => out.document(&json!({
                    "destination": to, "found": at, "id": of.id, "kind": of.kind, "text": of.text,
                    "refused": refused
                }))?,
                false => {
                    let state = refused.map_or("waits".to_owned(), |why| format!("refused: {why}"));
                    table.row([to, state, at, of.kind, of.text]);
                }
            }
        }
        if !out.json {
            out.table(&table)?;
        }
        Ok(code::OK)
    })
    .await
}
