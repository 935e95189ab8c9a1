//! `doctor`: whether the service could start here, check by check, each with what to do.
//!
//! It sends nothing to Stripe and makes no store and no pepper.

//!
//! | file | looks at |
//! |---|---|
//! | this one | the files, the store, the pepper, Stripe's key, the clock |
//! | `start` | secrets, certificates, the proxy, the log of decisions |
//! | `table` | the DynamoDB table, and its clock |
//! | `machine` | the journal, the disk, memory |
//! | `kept` | what the store keeps for an operator: alerts, dead letters, keys that end |
//! | `billed` | what is on its way to Stripe |
//!
//! docs/runbook.md has each check under a symptom, and each symptom a check.

#[cfg(feature = "stripe")]
mod billed;
mod kept;
mod machine;
mod start;
#[cfg(feature = "dynamodb")]
mod table;

use std::path::Path;
use std::time::{Duration, SystemTime};

use tallygate::{Gate, GateBuilder};

use super::found::{Found, print};
use super::{Ran, plans};
use crate::args::Global;
use crate::failure::{Failure, code};
use crate::output::Output;
use crate::service::{For, is_made, open};
use crate::settings::{Settings, StoreAt};
use crate::when::{now, written};

/// How far another clock may be ahead of this one.
const AHEAD: Duration = Duration::from_secs(60);

/// How far the table's may be from it: windows turn by each process's own.
const APART: Duration = Duration::from_secs(5);

/// No release is older.
const FIRST: u64 = 1_767_225_600;

type Checks = Vec<(&'static str, Found)>;

pub(super) async fn run(out: Output, global: &Global) -> Ran {
    print(out, checks(global).await)
}

async fn checks(global: &Global) -> Checks {
    let settings = match Settings::read(&global.service) {
        Ok(settings) => settings,
        Err(failure) => return vec![("service file", Found::Trouble(failure))],
    };
    let plan_file = plan_file(&settings);
    let is_legal = matches!(plan_file, Found::Ok(_));
    let mut checks = vec![("service file", service_file(&settings)), ("plan file", plan_file)];
    let left = || Found::Left("repair the plan file first".to_owned());
    checks.push(("start", if is_legal { start::check(&settings).await } else { left() }));
    let kept = match is_legal {
        true => of_store(&settings).await,
        false => KEPT.map(|name| (name, left())).into(),
    };
    let is_open = kept.iter().any(|it| it.0 == "store" && matches!(it.1, Found::Ok(_)));
    checks.extend(kept);
    let (table, apart) = of_table(&settings).await;
    checks.push(("table", table));
    checks.push(("journal", machine::journal(&settings)));
    checks.push(("disk", machine::disk(&settings)));
    checks.push(("memory", machine::memory()));
    if is_legal {
        checks.push(("pepper", pepper(&settings, is_open).await));
        checks.extend(billing(&settings, is_open).await);
    } else {
        checks.extend(["pepper", "stripe", "outbox", "reports"].map(|name| (name, left())));
    }
    checks.push(("clock", clock(&settings, apart)));
    checks
}

fn service_file(settings: &Settings) -> Found {
    let shown = settings.path.display();
    match (settings.is_there, settings.variables.len()) {
        (false, 0) => Found::Ok(format!("{shown} is missing: every key has its default")),
        (false, n) => Found::Ok(format!("{shown} is missing; {n} keys from the environment")),
        (true, 0) => Found::Ok(shown.to_string()),
        (true, n) => Found::Ok(format!("{shown}, and {n} keys from the environment over it")),
    }
}

fn plan_file(settings: &Settings) -> Found {
    let path = settings.plans_file();
    let shown = path.display();
    match plans::read(&path) {
        Ok(Ok(file)) => match file.catalog.warnings.len() {
            0 => Found::Ok(shown.to_string()),
            n => Found::Ok(format!("{shown}, with {n} warnings: `tallygate plans check`")),
        },
        Ok(Err(errors)) => Found::Trouble(Failure::new(code::FILE, errors.to_string())),
        Err(failure) => Found::Trouble(failure),
    }
}

/// What is checked on the open store.
const KEPT: [&str; 4] = ["store", "keys", "dead letters", "alerts"];

/// The store, and what it keeps.
async fn of_store(settings: &Settings) -> Checks {
    let at = settings.store();
    let alone = |store: Found| {
        let [name, rest @ ..] = KEPT;
        let left = || Found::Left("it is checked with the store".to_owned());
        [(name, store)].into_iter().chain(rest.map(|name| (name, left()))).collect()
    };
    let shown = match &at {
        StoreAt::Memory => {
            return alone(Found::Left("in memory: it ends with the service's process".to_owned()));
        }
        StoreAt::Redb(path) if !is_made(&at) => {
            let text = "is not there yet: the service's first start makes it";
            return alone(Found::Left(format!("{} {text}", path.display())));
        }
        StoreAt::Redb(path) => path.display().to_string(),
        StoreAt::Dynamodb(table) => format!("the DynamoDB table {table}"),
    };
    let gate = match open(settings, For::Tenants).await {
        Err(failure) => return alone(Found::Trouble(failure)),
        Ok(gate) => gate,
    };
    let kept =
        [kept::keys(&gate).await, kept::letters(&gate).await, kept::alerts(&gate, settings).await];
    let store = closed(gate, shown).await;
    KEPT.into_iter().zip([store].into_iter().chain(kept)).collect()
}

/// What an open gate says of itself, which is closed then.
async fn closed(gate: Gate, shown: String) -> Found {
    let (health, listed) = (gate.health(), gate.directory().list("", "", 1).await);
    let closed = gate.close().await;
    match (listed, closed) {
        (Err(error), _) => Found::Trouble(error.into()),
        (_, Err(error)) => Found::Trouble(error.into()),
        _ if !health.troubles.is_empty() => {
            Found::Trouble(Failure::new(code::FAILURE, health.to_string()))
        }
        _ => Found::Ok(shown),
    }
}

/// The table, and how far its clock is from this one.
#[cfg(feature = "dynamodb")]
async fn of_table(settings: &Settings) -> (Found, Option<Duration>) {
    match settings.store() {
        StoreAt::Dynamodb(table) => {
            let (found, apart) = table::checks(&table).await;
            (found, apart.map(|it| it.0))
        }
        _ => (no_table(), None),
    }
}

#[cfg(not(feature = "dynamodb"))]
#[allow(clippy::unused_async, reason = "it waits where the feature is on")]
async fn of_table(_: &Settings) -> (Found, Option<Duration>) {
    (no_table(), None)
}

fn no_table() -> Found {
    Found::Left("the store is no DynamoDB table".to_owned())
}

/// Stripe's key, and with it what is on its way to Stripe.
#[cfg_attr(not(feature = "stripe"), allow(unused_variables, reason = "there is no outbox"))]
async fn billing(settings: &Settings, is_open: bool) -> Checks {
    let stripe = stripe(settings).await;
    let left = || match &stripe {
        Found::Left(why) => Found::Left(why.clone()),
        Found::Trouble(_) => Found::Left("repair Stripe's key first".to_owned()),
        Found::Ok(_) => Found::Left("it is checked with the store".to_owned()),
    };
    let (outbox, reports) = match &stripe {
        #[cfg(feature = "stripe")]
        Found::Ok(_) if is_open => billed::checks(settings).await,
        _ => (left(), left()),
    };
    vec![("stripe", stripe), ("outbox", outbox), ("reports", reports)]
}

/// The pepper is that of the store's keys.
async fn pepper(settings: &Settings, is_open: bool) -> Found {
    let ways = settings.table.get("identify").and_then(|it| it.as_array());
    let has_keys = ways.is_none_or(|it| it.iter().any(|way| way.get("api-key").is_some()));
    if !has_keys {
        return Found::Left("callers have no API keys: none is needed".to_owned());
    }
    if !is_open {
        return Found::Left("it is checked with the store".to_owned());
    }
    match open(settings, For::Keys).await {
        Err(failure) => Found::Trouble(failure),
        Ok(gate) => closed(gate, "the one that the keys were made with".to_owned()).await,
    }
}

/// The key is there, and of the mode that the file says. Stripe is not asked.
async fn stripe(settings: &Settings) -> Found {
    let Some(table) = settings.table.get("stripe") else {
        return Found::Left("no [stripe]: nothing is billed".to_owned());
    };
    let mut service = toml::Table::new();
    service.insert("stripe".to_owned(), table.clone());
    // In memory in every respect: with the store of the service it would read its journal.
    let memory = toml::Table::from_iter([("kind".to_owned(), "memory".into())]);
    service.insert("store".to_owned(), memory.into());
    let Ok(text) = toml::to_string(&service) else {
        return Found::Left("[stripe] cannot be written again".to_owned());
    };
    let builder = GateBuilder::from_text(&text).work_only();
    // It is dropped without a close, which would report.
    match builder.plans_file(settings.plans_file()).open().await {
        Err(error) => Found::Trouble(error.into()),
        Ok(_) => {
            let mode = settings.text("stripe", "mode").unwrap_or("test");
            Found::Ok(format!("the key is there, in mode {mode}"))
        }
    }
}

/// The clock is neither before this release nor before what was written last, nor is it apart from
/// the table's.
fn clock(settings: &Settings, apart: Option<Duration>) -> Found {
    let now = now();
    let trouble = |text: String| {
        let help = "\nhelp: set the clock (timedatectl), and keep it with NTP";
        Found::Trouble(Failure::new(code::FAILURE, text + help))
    };
    if now < SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST) {
        return trouble(format!("it says {}: before this release was made", written(now)));
    }
    if let Some(apart) = apart.filter(|apart| *apart > APART) {
        let (now, apart) = (written(now), apart.as_secs());
        return trouble(format!("it says {now}: {apart} s from the table's"));
    }
    let mut files = vec![settings.plans_file(), settings.path.clone()];
    if let StoreAt::Redb(path) = settings.store() {
        files.push(path);
    }
    let changed = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified()).ok();
    let later = files.iter().find(|path| changed(path).is_some_and(|at| at > now + AHEAD));
    match later {
        Some(path) => {
            let path = path.display();
            trouble(format!("it says {}: {path} was changed after that", written(now)))
        }
        None => Found::Ok(written(now)),
    }
}
