//! Who would newly be refused, or billed more, under another plan file: by the use that a store has
//! of the windows that are open, or by a log of decisions that is decided again under both files.
//!
//! A store is read tenant by tenant, each with the pools of its plan: no more than
//! [`AT_ONCE`] of them are in memory, and a line at a terminal says how far it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;
use tallygate::{Amount, PlanChange, PlanFiles, TenantFilter};
use tokio::task::JoinSet;

use super::PlanFile;
use super::replay::{self, Came};
use super::traffic::Traffic;
use crate::decisions;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::progress::Progress;
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::now;

/// Tenants that are read at once: a table answers each in milliseconds.
const AT_ONCE: usize = 16;

/// Tenants of a page.
const PAGE: usize = 500;

/// By what tenants are compared.
pub(super) enum By {
    /// By nothing: the files alone.
    Files,
    Store(Settings),
    Log(PathBuf),
}

/// A tenant, and what would be otherwise.
pub(super) struct Affected {
    tenant: String,
    plan: Option<String>,
    /// The quota, the meter, or `refusals`.
    what: String,
    used: Option<String>,
    old: Option<String>,
    new: Option<String>,
    change: &'static str,
}

/// A file, and where it was read.
type File<'a> = (&'a Path, PlanFile);

/// The tenants; `None`: they were not asked for.
pub(super) async fn find(files: &[File<'_>; 2], by: By) -> Result<Option<Vec<Affected>>, Failure> {
    match by {
        By::Files => Ok(None),
        By::Store(settings) => of_store(&settings, files).await.map(Some),
        By::Log(log) => of_log(&log, files).await.map(Some),
    }
}

async fn of_store(settings: &Settings, files: &[File<'_>; 2]) -> Result<Vec<Affected>, Failure> {
    let names = [0, 1].map(|at| files[at].0.display().to_string());
    let [old, new] = [0, 1].map(|at| (names[at].as_str(), files[at].1.text.as_str()));
    let both = std::sync::Arc::new(PlanFiles::read(old, new, now())?);
    with_gate(settings, For::Tenants, async |gate| {
        let (line, mut read, mut after) = (Progress::begin(false), 0_usize, String::new());
        let mut found = Vec::new();
        loop {
            let page = gate.filtered(&TenantFilter::default(), &after, PAGE).await?;
            let (mut rest, mut running) = (page.tenants.into_iter(), JoinSet::new());
            loop {
                for tenant in rest.by_ref().take(AT_ONCE - running.len()) {
                    let (gate, both) = (gate.clone(), both.clone());
                    running.spawn(async move { gate.compare_plans(&tenant, &both).await });
                }
                let Some(ended) = running.join_next().await else { break };
                let ended = ended.map_err(|it| Failure::new(code::FAILURE, it.to_string()))?;
                found.extend(ended?.into_iter().flat_map(of_change));
                read += 1;
                line.say(format!("{read} tenants read"));
            }
            let Some(next) = page.next else { break };
            after = next;
        }
        found.sort_by(|a, b| (&a.tenant, &a.what).cmp(&(&b.tenant, &b.what)));
        Ok(found)
    })
    .await
}

/// A quota may both be billed more and refuse.
fn of_change(it: PlanChange) -> Vec<Affected> {
    let [before, after] = &it.billed;
    let row = |old: Option<String>, new: Option<String>, change| Affected {
        tenant: it.tenant.clone(),
        plan: Some(it.plan.to_string()),
        what: it.limit.to_string(),
        used: it.used.map(|used| used.to_string()),
        old,
        new,
        change,
    };
    let limit = |of: Option<Amount>| of.map(|it| it.to_string());
    let refused = it.is_refused.then(|| row(limit(it.old), limit(it.new), "refused"));
    let more = after > before;
    let billed =
        more.then(|| row(Some(before.to_string()), Some(after.to_string()), "billed more"));
    refused.into_iter().chain(billed).collect()
}

async fn of_log(log: &Path, files: &[File<'_>; 2]) -> Result<Vec<Affected>, Failure> {
    let traffic = Traffic::of_decisions(&decisions::read(log)?);
    let mut came = Vec::new();
    for (path, file) in files {
        let name = path.display().to_string();
        let plans = file.catalog.plans();
        let known: Vec<String> = plans.iter().map(|plan| plan.name.to_string()).collect();
        replay::missing_plans(&known, &traffic.calls, &name)?;
        came.push(replay::run(file, "tenant", &traffic.calls, &name).await?.came);
    }
    if traffic.one_in > 1 {
        let one_in = traffic.one_in;
        say(&format!("the log has one in {one_in} admissions: use was more than is counted here"));
    }
    let [old, new] = &*came else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (tenant, after) in new {
        if let Some(before) = old.get(tenant) {
            found.extend(of_replays(tenant, before, after));
        }
    }
    Ok(found)
}

fn of_replays(tenant: &str, before: &Came, after: &Came) -> Vec<Affected> {
    let row = |what: &str, old: String, new: String, change| Affected {
        tenant: tenant.to_owned(),
        plan: None,
        what: what.to_owned(),
        used: None,
        old: Some(old),
        new: Some(new),
        change,
    };
    let mut found = Vec::new();
    if after.refused() > before.refused() {
        let (old, new) = (before.refused().to_string(), after.refused().to_string());
        found.push(row("refusals", old, new, "refused"));
    }
    let meters: BTreeSet<&String> = before.billed.keys().chain(after.billed.keys()).collect();
    for meter in meters {
        let nothing = Amount::units(0);
        let of = |came: &Came| came.billed.get(meter).copied().unwrap_or(nothing);
        if of(after) > of(before) {
            let (old, new) = (of(before).to_string(), of(after).to_string());
            found.push(row(meter, old, new, "billed more"));
        }
    }
    found
}

/// Prints them.
pub(super) fn print(out: Output, found: &[Affected]) -> Result<(), Failure> {
    let mut table = Table::new(["TENANT", "PLAN", "WHAT", "USED", "OLD", "NEW", "CHANGE"]);
    let dash = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".to_owned());
    for it in found {
        if out.json {
            out.document(&json!({
                "tenant": it.tenant,
                "plan": it.plan,
                "what": it.what,
                "used": it.used,
                "old": it.old,
                "new": it.new,
                "change": it.change,
            }))?;
            continue;
        }
        let change = it.change.to_owned();
        let cells = [
            it.tenant.clone(),
            dash(&it.plan),
            it.what.clone(),
            dash(&it.used),
            dash(&it.old),
            dash(&it.new),
            change,
        ];
        table.coloured(cells, (6, Colour::Red));
    }
    if found.is_empty() {
        say("no tenant would newly be refused, or billed more");
    } else if !out.json {
        out.table(&table)?;
    }
    Ok(())
}
