//! What a tenant has used and has left, from the document that `GET /usage` answers.

use std::fmt::Write as _;

use serde_json::Value;

use crate::commands::Ran;
use crate::commands::plans;
use crate::commands::tenant::{list, second, text};
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table};

pub(super) fn print(out: Output, report: &Value) -> Ran {
    if out.json {
        out.document(report)?;
        return Ok(code::OK);
    }
    let mut head = Table::of_pairs();
    head.pair("plan", text(&report["plan"]));
    let colour = if report["status"] == "active" { Colour::Green } else { Colour::Red };
    head.coloured(["status".to_owned(), text(&report["status"])], (1, colour));
    let period = &report["period"];
    let span = format!("{} to {}", at(&period["start"], "-"), at(&period["end"], "no end"));
    head.pair("period", format!("{span} ({})", text(&period["timezone"])));
    for (name, feature) in report["features"].as_object().into_iter().flatten() {
        head.pair("feature", format!("{name}: {}", text(feature)));
    }
    out.table(&head)?;
    out.table(&limits(report))?;
    if !list(&report["rates"]).is_empty() {
        out.table(&rates(report))?;
    }
    Ok(code::OK)
}

/// An instant to the second, or what stands for none.
fn at(of: &Value, none: &str) -> String {
    if of.is_null() { none.to_owned() } else { text(&second(of)) }
}

/// An exact amount: its text, where its number is not exact. One that is left out is nothing.
fn amount(of: &Value, name: &str) -> String {
    match (&of[format!("{name}_text").as_str()], &of[name]) {
        (Value::String(exact), _) => exact.clone(),
        (_, Value::Null) => "0".to_owned(),
        (_, number) => text(number),
    }
}

/// The quotas and grants of all meters.
fn limits(report: &Value) -> Table {
    let mut table = Table::new(["LIMIT", "SCOPE", "USED", "OF", "DEBT", "OVER", "RESETS"]);
    let none = || "-".to_owned();
    for meter in list(&report["meters"]) {
        let (limits, grants) = (list(&meter["limits"]), list(&meter["grants"]));
        for limit in limits {
            let colour = if limit["debt"].is_null() { Colour::Plain } else { Colour::Red };
            table.coloured(limit_row(meter, limit), (4, colour));
        }
        for grant in grants {
            let by = if grant["source"] == "plan" { "plan" } else { "grant" };
            table.row([
                format!("{}: {}", text(&meter["name"]), text(&grant["id"])),
                format!("once, by the {by}"),
                amount(grant, "used"),
                amount(grant, "limit"),
                none(),
                none(),
                at(&grant["expires_at"], "never"),
            ]);
        }
        if limits.is_empty() && grants.is_empty() {
            let (used, over) = (amount(meter, "used"), amount(meter, "over"));
            table.row([text(&meter["name"]), none(), used, none(), none(), over, none()]);
        }
    }
    table
}

fn limit_row(meter: &Value, limit: &Value) -> [String; 7] {
    let of = if limit["limit"].is_null() { "unlimited".to_owned() } else { amount(limit, "limit") };
    [
        text(&limit["id"]),
        text(&limit["scope"]),
        amount(limit, "used"),
        of,
        amount(limit, "debt"),
        amount(meter, "over"),
        at(&limit["resets_at"], "never"),
    ]
}

fn rates(report: &Value) -> Table {
    let mut table = Table::new(["RATE", "SCOPE", "LIMIT", "BURST"]);
    for rate in list(&report["rates"]) {
        let mut limit = amount(rate, "limit");
        if let Some(meter) = rate["meter"].as_str() {
            let _ = write!(limit, " {meter}");
        }
        let _ = write!(limit, " / {} s", text(&rate["per_seconds"]));
        table.row([text(&rate["id"]), text(&rate["scope"]), limit, amount(rate, "burst")]);
    }
    table
}

/// What units would get.
pub(super) fn print_peek(out: Output, found: &Value) -> Result<(), Failure> {
    let mut head = Table::of_pairs();
    head.pair("plan", text(&found["plan"]));
    head.pair("asked", format!("{} {}", text(&found["units"]), text(&found["meter"])));
    out.table(&head)?;
    plans::print_limits(out, found)?;
    plans::print_verdict(out, found)
}
