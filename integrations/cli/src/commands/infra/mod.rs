//! `infra`: what stands around a service in production, as texts for other tools, and whether its
//! table is as it should be.
//!
//! | file | has |
//! |---|---|
//! | `template` | the table and the schedule of reports, as templates of three tools |
//! | `iam` | policies with the rights that a role uses |
//! | `status` | the table, compared with the template |
//! | `watched` | what dashboards show, and what raises alarms, by the metrics of the code |
//! | `dashboard`, `alarms` | these for Grafana and CloudWatch |

mod alarms;
mod dashboard;
mod iam;
#[cfg(any(test, not(feature = "dynamodb")))]
mod no_status;
#[cfg(feature = "dynamodb")]
mod status;
mod template;
mod watched;

#[cfg(feature = "dynamodb")]
pub(super) use status::table_checks;

use std::collections::BTreeSet;

use serde_json::Value;
use tallygate::Gate;

use super::Ran;
use crate::args::{Infra, OfTable};
use crate::failure::{Failure, code};
use crate::output::Output;
use crate::settings::{Settings, StoreAt};

#[cfg_attr(
    not(feature = "dynamodb"),
    allow(clippy::unused_async, reason = "it waits where the feature is on")
)]
pub(super) async fn run(out: Output, settings: &Settings, what: Infra) -> Ran {
    match what {
        Infra::Template { format, of } => template::run(out, settings, &of, format),
        Infra::Iam(how) => iam::run(out, settings, &how),
        #[cfg(feature = "dynamodb")]
        Infra::Status => status::run(out, settings).await,
        #[cfg(not(feature = "dynamodb"))]
        Infra::Status => Err(no_status::why(settings)),
        Infra::Dashboard(how) => dashboard::run(out, &how),
        Infra::Alarms { namespace } => alarms::run(out, &namespace),
    }
}

/// The names that texts are about.
struct Names {
    /// The table's name, or its ARN.
    table: String,
    space: String,
}

fn names(settings: &Settings, of: &OfTable) -> Names {
    let in_file = || match settings.store() {
        StoreAt::Dynamodb(table) => table,
        _ => "tallygate".to_owned(),
    };
    let table = of.table.clone().unwrap_or_else(in_file);
    let space = settings.text("store", "space").unwrap_or("default").to_owned();
    Names { table, space }
}

/// What the service sends alerts to over AWS. The library has checked these: nothing in them ends a
/// text or a line.
struct AlertTargets {
    /// ARNs.
    topics: BTreeSet<String>,
    /// Names, and ARNs.
    buses: BTreeSet<String>,
}

fn alert_targets(settings: &Settings) -> Result<AlertTargets, Failure> {
    let service = Gate::builder(&settings.path);
    let addresses = |all: Vec<(String, String)>| all.into_iter().map(|(_, it)| it).collect();
    let (topics, buses) = (service.sns_topics()?, service.event_buses()?);
    Ok(AlertTargets { topics: addresses(topics), buses: addresses(buses) })
}

/// Refuses a name that no table can have: it would stand in a text as something else.
fn check_name(table: &str) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match (3..=255).contains(&table.len()) && table.chars().all(legal) {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "no table can be called {table:?}\nhelp: 3 to 255 characters, each a letter of a-z or \
             A-Z, a digit, `_`, `-` or `.`"
        ))),
    }
}

/// Refuses a name that no namespace of CloudWatch can have: it would end a query.
fn check_namespace(name: &str) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '#');
    match (1..=255).contains(&name.len()) && name.chars().all(legal) && !name.starts_with("AWS/") {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "no namespace of yours can be called {name:?}\n\
             help: 1 to 255 characters, each a letter of a-z or A-Z, a digit, or one of `.-_/#`, \
             and not AWS/ at its start"
        ))),
    }
}

/// Refuses a text that is no ARN.
fn check_arn(arn: &str) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%');
    match arn.starts_with("arn:") && arn.split(':').count() >= 6 && arn.chars().all(legal) {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "{arn:?} is no ARN\n\
             help: as in arn:aws:lambda:eu-central-1:123456789012:function:report"
        ))),
    }
}

/// What is said where the service has no table.
fn no_table() -> Failure {
    Failure::new(
        code::FILE,
        "the service file has no table: store.kind is not \"dynamodb\"\n\
         help: name the service file of production with --service, or write \
         TALLYGATE__STORE__KIND=dynamodb before the command",
    )
}

/// Prints a document for another tool, indented unless the output is for a program.
fn print_document(out: Output, document: &Value) -> Ran {
    let broken = |error: serde_json::Error| Failure::new(code::FAILURE, error.to_string());
    match out.json {
        true => out.document(document)?,
        false => out.whole(&(serde_json::to_string_pretty(document).map_err(broken)? + "\n"))?,
    }
    Ok(code::OK)
}

/// Prints a text for another tool; with `--json` as a string.
fn print(out: Output, text: &str) -> Ran {
    match out.json {
        true => out.document(&Value::from(text))?,
        false => out.whole(text)?,
    }
    Ok(code::OK)
}
