//! `plans simulate`: what another plan file would have decided, beside the one in force.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::PlanFile;
use super::legal;
use super::page;
use super::replay::{self, Came, Replayed};
use super::traffic::Traffic;
use crate::args::Simulate;
use crate::commands::Ran;
use crate::decisions;
use crate::failure::{Failure, code};
use crate::new_file::NewFile;
use crate::output::{Output, Table, say};
use crate::prices::{Money, Prices};
use crate::settings::Settings;

/// A plan file, and what came under it.
pub(super) struct Under {
    pub(super) file: String,
    pub(super) replayed: Replayed,
    prices: Option<Prices>,
}

impl Under {
    pub(super) fn of(&self, tenant: &str) -> Option<&Came> {
        self.replayed.came.get(tenant)
    }

    /// What a tenant pays, if there are prices.
    pub(super) fn revenue(&self, came: &Came) -> Option<Money> {
        Some(self.prices.as_ref()?.revenue(&came.billed, &came.periods))
    }

    pub(super) fn is_priced(&self) -> bool {
        self.prices.is_some()
    }

    /// Decisions that are not those of the log.
    pub(super) fn otherwise(&self) -> u64 {
        self.replayed.came.values().map(|it| it.otherwise).sum()
    }
}

pub(super) async fn run(out: Output, settings: &Settings, how: Simulate) -> Ran {
    // Before the work: it must not be there yet.
    let html = how.html.as_deref().map(NewFile::begin).transpose()?;
    let (log, traffic) = match &how.access_log {
        Some(path) => (path.clone(), Traffic::of_access_log(path, &how)?),
        None => {
            let log = decisions::named(settings, how.log.clone())?;
            let records = decisions::read(&log)?;
            (log, Traffic::of_decisions(&records))
        }
    };
    let no_scope = settings.text("identity", "no-scope").unwrap_or("tenant");
    let mut all = Vec::new();
    for (path, file, prices) in plan_files(settings, &how)? {
        all.push(under(&path, &file, prices, no_scope, &traffic).await?);
    }
    say_left_out(&traffic);
    if let [now, ..] = &*all
        && how.access_log.is_none()
        && now.otherwise() > 0
    {
        say(&format!(
            "{} of {} decisions differ from the log under {}: its counters began before the log, \
             or its plans or tenants were others then",
            now.otherwise(),
            traffic.calls.len(),
            now.file
        ));
    }
    let currency = how.sold.currency.as_deref();
    print(out, &all, currency)?;
    if let (Some(html), Some(path)) = (html, &how.html) {
        let text = page::Page { log: &log, traffic: &traffic, files: &all, currency }.html();
        let written = html.writer()?.write_all(text.as_bytes());
        written.map_err(|error| Failure::of_file(path, &error))?;
        html.finish()?;
        say(&format!("{}: the page is written", path.display()));
    }
    Ok(code::OK)
}

type Priced = (PathBuf, PlanFile, Option<Prices>);

/// The plan file in force, and the other one, with their prices.
fn plan_files(settings: &Settings, how: &Simulate) -> Result<Vec<Priced>, Failure> {
    let mut paths = vec![settings.plans_file()];
    paths.extend(how.plans.clone());
    let files = paths.iter().map(|path| legal(path)).collect::<Result<Vec<_>, _>>()?;
    let prices = Prices::of(&how.sold)?;
    if let Some([_, new]) = &prices {
        let catalogs = || files.iter().map(|file| &file.catalog);
        let meters = catalogs().flat_map(|it| it.meter_names().map(str::to_owned));
        let plans = catalogs().flat_map(|it| it.plans().iter().map(|plan| plan.name.to_string()));
        new.check(&meters.collect::<Vec<_>>(), &plans.collect::<Vec<_>>())?;
    }
    let [now, new] = prices.map_or([None, None], |it| it.map(Some));
    let each = paths.into_iter().zip(files).zip([now, new]);
    Ok(each.map(|((path, file), prices)| (path, file, prices)).collect())
}

async fn under(
    path: &Path,
    plan_file: &PlanFile,
    prices: Option<Prices>,
    no_scope: &str,
    traffic: &Traffic,
) -> Result<Under, Failure> {
    let file = path.display().to_string();
    let plans = plan_file.catalog.plans();
    let known: Vec<String> = plans.iter().map(|plan| plan.name.to_string()).collect();
    replay::missing_plans(&known, &traffic.calls, &file)?;
    let replayed = replay::run(plan_file, no_scope, &traffic.calls, &file).await?;
    Ok(Under { file, replayed, prices })
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

const COLUMNS: [&str; 8] =
    ["TENANT", "PLAN FILE", "CALLS", "ADMITTED", "REFUSED", "REFUSED BY", "OVER", "NOT AS LOGGED"];

fn print(out: Output, all: &[Under], currency: Option<&str>) -> Result<(), Failure> {
    let is_priced = all.iter().any(Under::is_priced);
    let revenue = currency.map_or_else(|| "REVENUE".to_owned(), |it| format!("REVENUE, {it}"));
    let mut table = Table::default();
    table.row(COLUMNS.map(str::to_owned).into_iter().chain(is_priced.then_some(revenue)));
    let tenants = all.first().map(|it| it.replayed.came.keys().cloned().collect::<Vec<_>>());
    for tenant in tenants.unwrap_or_default() {
        let each = all.iter().filter_map(|under| Some((under, under.of(&tenant)?)));
        if out.json {
            let files: Vec<Value> = each.map(|(under, came)| json_of(under, came)).collect();
            let mut document = json!({ "tenant": tenant, "files": files });
            if let Some(currency) = currency {
                document["currency"] = currency.into();
            }
            out.document(&document)?;
            continue;
        }
        for (under, came) in each {
            let row = row(&tenant, under, came).into_iter();
            let revenue = under.revenue(came).map(|it| it.to_string());
            table.row(row.chain(revenue));
        }
    }
    if out.json { Ok(()) } else { out.table(&table) }
}

fn row(tenant: &str, under: &Under, came: &Came) -> [String; 8] {
    let listed = |pairs: Vec<String>| match pairs.is_empty() {
        true => "-".to_owned(),
        false => pairs.join(", "),
    };
    let by = came.refused_by.iter().map(|(by, n)| format!("{by}: {n}"));
    let over = came.over.iter().map(|(meter, n)| format!("{n} {meter}"));
    [
        tenant.to_owned(),
        under.file.clone(),
        came.calls.to_string(),
        came.admitted.to_string(),
        came.refused().to_string(),
        listed(by.collect()),
        listed(over.collect()),
        came.otherwise.to_string(),
    ]
}

fn json_of(under: &Under, came: &Came) -> Value {
    let amounts = |all: &BTreeMap<String, tallygate::Amount>| {
        let texts = all.iter().map(|(meter, n)| (meter.clone(), json!(n.to_string())));
        Value::Object(texts.collect())
    };
    let mut document = json!({
        "file": under.file,
        "calls": came.calls,
        "admitted": came.admitted,
        "refused": came.refused(),
        "refused_by": came.refused_by,
        "over": amounts(&came.over),
        "billed": amounts(&came.billed),
        "periods": came.periods,
        "not_as_logged": came.otherwise,
    });
    if let Some(revenue) = under.revenue(came) {
        document["revenue"] = revenue.exact().into();
    }
    document
}
