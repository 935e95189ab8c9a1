//! `tenant refusals`: why a tenant was refused, from the log of decisions, or from what a service
//! remembers. The store is not opened, so the service may run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tallygate::DecisionRecord;

use crate::commands::Ran;
use crate::decisions;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::place::Place;
use crate::when::written;

/// Most refusals that a service answers at once.
const MOST: u64 = 1_000;

pub(super) async fn run(
    out: Output,
    place: &Place,
    id: &str,
    limit: u64,
    log: Option<PathBuf>,
) -> Ran {
    let last: Vec<DecisionRecord> = match place {
        Place::Store(settings) => {
            last(&decisions::named(settings, log)?, id, limit)?.into_values().rev().collect()
        }
        Place::Service(_) if log.is_some() => {
            let text = "--log is a file, which is read without a service: leave --url out";
            return Err(Failure::usage(text));
        }
        Place::Service(client) => {
            let path = format!("/refusals?limit={}", limit.min(MOST));
            let mut answer = client.get_of(id, &path).await?;
            serde_json::from_value(answer["refusals"].take()).map_err(no_json)?
        }
    };
    let mut table = Table::new([
        "AT", "ROUTE", "REASON", "LIMIT", "ASKED", "LEFT", "STATUS", "RETRY", "PLAN", "USER", "KEY",
    ]);
    for record in &last {
        match out.json {
            true => out.document(&serde_json::to_value(record).map_err(no_json)?)?,
            false => table.row(row(record)),
        }
    }
    if last.is_empty() {
        say(&format!("no refusal of {id:?} is in the log"));
    } else if !out.json {
        out.table(&table)?;
    }
    Ok(code::OK)
}

/// The last refusals of a tenant, by their instants and then as the log has them. No more are kept.
fn last(log: &Path, id: &str, most: u64) -> Result<Newest, Failure> {
    let (mut newest, mut number) = (Newest::new(), 0_u64);
    decisions::each(log, |record| {
        if record.is_refusal() && record.tenant.as_deref() == Some(id) {
            newest.insert((record.at(), number), record);
            number += 1;
            if newest.len() as u64 > most {
                newest.pop_first();
            }
        }
    })?;
    Ok(newest)
}

/// Records by instant, and by their number in the log.
type Newest = BTreeMap<(SystemTime, u64), DecisionRecord>;

fn no_json(error: serde_json::Error) -> Failure {
    Failure::new(code::FAILURE, error.to_string())
}

fn row(it: &DecisionRecord) -> [String; 11] {
    let or = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let refused = it.limits.iter().find(|limit| Some(&limit.name) == it.limit.as_ref());
    let retry = it.retry_after_seconds.map_or_else(|| "-".to_owned(), |s| format!("{s} s"));
    let reason = match &it.about {
        Some(about) => format!("{}: {about}", or(it.reason.as_deref())),
        None => or(it.reason.as_deref()),
    };
    [
        written(it.at()),
        or(it.route.as_deref()),
        reason,
        or(it.limit.as_deref()),
        refused.map_or_else(|| "-".to_owned(), |limit| limit.asked.to_string()),
        refused.map_or_else(|| "-".to_owned(), |limit| limit.remaining.to_string()),
        it.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        retry,
        or(it.plan.as_deref()),
        or(it.user.as_deref()),
        or(it.key.as_deref()),
    ]
}
