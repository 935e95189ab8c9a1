//! `plans simulate`: what another plan file would have decided, beside the one in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::legal;
use super::replay::{self, Came};
use super::traffic::Traffic;
use crate::args::Simulate;
use crate::commands::Ran;
use crate::decisions;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::settings::Settings;

/// A plan file, and what came under it.
struct Under {
    file: String,
    came: BTreeMap<String, Came>,
}

pub(super) async fn run(out: Output, settings: &Settings, how: Simulate) -> Ran {
    let traffic = match &how.access_log {
        Some(path) => Traffic::of_access_log(path, &how)?,
        None => {
            let records = decisions::read(&decisions::named(settings, how.log.clone())?)?;
            Traffic::of_decisions(&records)
        }
    };
    let mut files: Vec<PathBuf> = vec![settings.plans_file()];
    files.extend(how.plans.clone());
    let no_scope = settings.text("identity", "no-scope").unwrap_or("tenant");
    let mut all = Vec::new();
    for path in &files {
        all.push(under(path, no_scope, &traffic).await?);
    }
    say_left_out(&traffic);
    if let [now, ..] = &*all
        && how.access_log.is_none()
    {
        let otherwise: u64 = now.came.values().map(|it| it.otherwise).sum();
        if otherwise > 0 {
            say(&format!(
                "{otherwise} of {} decisions differ from the log under {}: its counters began \
                 before the log, or its plans or tenants were others then",
                traffic.calls.len(),
                now.file
            ));
        }
    }
    print(out, &all)?;
    Ok(code::OK)
}

async fn under(path: &Path, no_scope: &str, traffic: &Traffic) -> Result<Under, Failure> {
    let file = path.display().to_string();
    let plan_file = legal(path)?;
    let plans = plan_file.catalog.plans();
    let known: Vec<String> = plans.iter().map(|plan| plan.name.to_string()).collect();
    replay::missing_plans(&known, &traffic.calls, &file)?;
    Ok(Under { file, came: replay::run(&plan_file, no_scope, &traffic.calls).await? })
}

fn say_left_out(traffic: &Traffic) {
    for (why, lines) in &traffic.left_out {
        say(&format!("left out: {lines} lines: {why}"));
    }
    if traffic.one_in > 1 {
        say(&format!(
            "the log has one in {} admissions, and all refusals: the counters here are lower than \
             they were. Log all (`decisions.admissions = 1`) to simulate",
            traffic.one_in
        ));
    }
}

fn print(out: Output, all: &[Under]) -> Result<(), Failure> {
    let mut table = Table::new([
        "TENANT",
        "PLAN FILE",
        "CALLS",
        "ADMITTED",
        "REFUSED",
        "REFUSED BY",
        "OVER",
        "NOT AS LOGGED",
    ]);
    let tenants = all.first().map(|it| it.came.keys().cloned().collect::<Vec<_>>());
    for tenant in tenants.unwrap_or_default() {
        let each = all.iter().filter_map(|under| Some((&under.file, under.came.get(&tenant)?)));
        if out.json {
            let files: Vec<Value> = each.map(|(file, came)| json_of(file, came)).collect();
            out.document(&json!({ "tenant": tenant, "files": files }))?;
            continue;
        }
        for (file, came) in each {
            let listed = |pairs: Vec<String>| match pairs.is_empty() {
                true => "-".to_owned(),
                false => pairs.join(", "),
            };
            let by = came.refused_by.iter().map(|(by, n)| format!("{by}: {n}"));
            let over = came.over.iter().map(|(meter, n)| format!("{n} {meter}"));
            table.row([
                tenant.clone(),
                file.clone(),
                came.calls.to_string(),
                came.admitted.to_string(),
                (came.calls - came.admitted).to_string(),
                listed(by.collect()),
                listed(over.collect()),
                came.otherwise.to_string(),
            ]);
        }
    }
    if out.json { Ok(()) } else { out.table(&table) }
}

fn json_of(file: &str, came: &Came) -> Value {
    let over: BTreeMap<_, _> =
        came.over.iter().map(|(meter, n)| (meter, json!(n.to_string()))).collect();
    json!({
        "file": file,
        "calls": came.calls,
        "admitted": came.admitted,
        "refused": came.calls - came.admitted,
        "refused_by": came.refused_by,
        "over": over,
        "not_as_logged": came.otherwise,
    })
}
