//! `plans`: a plan file as the library reads it.

mod affected;
mod diff;
mod explain;
mod given;
mod lines;
mod page;
mod replay;
mod show;
mod simulate;
mod traffic;

pub(super) use explain::{print_limits, print_verdict};

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tallygate::Feature;
use tallygate::catalog::{Catalog, PlanErrors, Warning};

use affected::By;

use super::Ran;
use crate::args::{Global, Plans};
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::place::{of_neither, of_store};
use crate::settings::Settings;
use crate::when::now;

/// What to do instead of `plans explain` while the service has the store.
const EXPLAIN: &str = "`tenant refusals` says why a service has refused; or stop the service first";

/// What to do instead of `plans diff --tenants` while the service has the store.
const DIFF: &str = "`plans diff --log` compares by a log of decisions; or stop the service first";

pub(super) async fn run(out: Output, global: &Global, what: Plans) -> Ran {
    if !matches!(what, Plans::Explain { .. } | Plans::Diff { tenants: true, .. }) {
        of_neither(global)?;
    }
    match what {
        Plans::Check { file } => check(out, &named(global, file)?),
        Plans::Show { file, plan } => show::run(out, &named(global, file)?, plan.as_deref()).await,
        Plans::Schema => {
            let schema = serde_json::to_string_pretty(&tallygate::catalog::schema());
            let schema = schema.map_err(|it| Failure::new(code::FAILURE, it.to_string()))?;
            out.whole(&format!("{schema}\n"))?;
            Ok(code::OK)
        }
        Plans::Explain { tenant, request, permission, key } => {
            let caller = explain::Caller { tenant, permissions: permission, key };
            let settings = of_store(global, "plans explain", EXPLAIN)?;
            explain::run(out, &settings, &caller, &request).await
        }
        Plans::Simulate(how) => simulate::run(out, &Settings::read(&global.service)?, *how).await,
        Plans::Diff { old, new, tenants, log } => {
            let by = match (tenants, log) {
                (true, _) => By::Store(of_store(global, "plans diff --tenants", DIFF)?),
                (false, Some(log)) => By::Log(log),
                (false, None) => By::Files,
            };
            diff::run(out, (&old, &new), by).await
        }
    }
}

/// The plan file of the command line, else of the service file.
fn named(global: &Global, file: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match file {
        Some(file) => Ok(file),
        None => Ok(Settings::read(&global.service)?.plans_file()),
    }
}

/// A plan file that was read and checked.
pub(super) struct PlanFile {
    pub(super) text: String,
    pub(super) catalog: Catalog,
}

/// Reads a plan file. Its mistakes are kept apart from those of reading it.
pub(super) fn read(path: &Path) -> Result<Result<PlanFile, PlanErrors>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Failure::of_file(path, &error),
        std::io::ErrorKind::NotFound => {
            let text = format!("{}: there is no plan file here", path.display());
            Failure::new(code::FILE, text + "\nhelp: `tallygate init` writes one to begin with")
        }
        _ => Failure::new(code::FILE, format!("{}: {error}", path.display())),
    })?;
    let catalog = Catalog::parse(&path.to_string_lossy(), &text, now());
    Ok(catalog.map(|catalog| PlanFile { text, catalog }))
}

/// The same, where a mistake ends the command.
fn legal(path: &Path) -> Result<PlanFile, Failure> {
    read(path)?.map_err(|errors| Failure::new(code::FILE, errors.to_string()))
}

fn check(out: Output, path: &Path) -> Ran {
    let shown = path.display().to_string();
    match read(path)? {
        Ok(PlanFile { catalog, .. }) => {
            let plans: Vec<&str> = catalog.plans().iter().map(|plan| &*plan.name).collect();
            let warning = |it: &Warning| {
                json!({
                    "line": it.place.line,
                    "column": it.place.column,
                    "message": it.message,
                })
            };
            if out.json {
                let warnings: Vec<Value> = catalog.warnings.iter().map(warning).collect();
                let (plans, ok) = (json!(plans), true);
                out.document(&json!({
                    "file": shown, "ok": ok, "plans": plans, "warnings": warnings, "errors": [],
                }))?;
            } else {
                warn(&shown, &catalog.warnings);
                out.line(&format!("{shown}: ok, with the plans {}", plans.join(", ")))?;
            }
            Ok(code::OK)
        }
        Err(errors) => {
            if out.json {
                out.document(&json!({
                    "file": shown, "ok": false, "plans": [], "warnings": [],
                    "errors": errors.iter().map(error).collect::<Vec<_>>(),
                }))?;
            }
            Err(Failure::new(code::FILE, errors.to_string()))
        }
    }
}

fn error(it: &tallygate::catalog::PlanError) -> Value {
    json!({ "line": it.line, "column": it.column, "message": it.message, "help": it.help })
}

fn warn(file: &str, warnings: &[Warning]) {
    for it in warnings {
        say(&format!("{file}:{}:{}: warning: {}", it.place.line, it.place.column, it.message));
    }
}

/// A feature in a word.
pub(super) fn feature_word(feature: &Feature) -> String {
    match feature {
        Feature::Flag(on) => on.to_string(),
        Feature::Number(number) => number.to_string(),
        Feature::Text(text) => text.to_string(),
        Feature::Unlimited => "unlimited".to_owned(),
    }
}
