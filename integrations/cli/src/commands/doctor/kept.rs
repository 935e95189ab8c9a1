//! What the store keeps for an operator: alerts that do not arrive, letters that do not count, keys
//! that end.

use std::time::Duration;

use tallygate::Gate;
use tallygate::directory::{KeyInfo, KeyState};

use super::Found;
use crate::failure::{Failure, code};
use crate::settings::Settings;
use crate::when::{now, written};

/// An alert that waits for longer is in no ordinary retry: as `gate.health()` has it.
const LATE: Duration = Duration::from_secs(15 * 60);

/// A key that ends within this time is named: as the alert `tallygate.key.expiring`.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// Tenants whose keys are read: some seconds.
const TENANTS: usize = 1_000;

pub(super) async fn alerts(gate: &Gate, settings: &Settings) -> Found {
    if !settings.table.contains_key("notify") {
        return Found::Left("no [[notify]]: alerts go nowhere".to_owned());
    }
    let waiting = match gate.waiting_alerts().await {
        Ok(waiting) => waiting,
        Err(error) => return Found::Trouble(error.into()),
    };
    let refused = waiting.iter().filter(|(.., refused)| refused.is_some()).count();
    let oldest = waiting.iter().map(|(_, of, _)| of.at).min();
    let is_late = oldest.is_some_and(|at| now().duration_since(at).is_ok_and(|age| age > LATE));
    match (oldest, refused) {
        (Some(at), _) if refused > 0 || is_late => trouble(&format!(
            "{} alerts wait since {}, {refused} of them were refused\n\
             help: `tallygate alerts list` says why, `alerts test` tries each destination",
            waiting.len(),
            written(at)
        )),
        (Some(_), _) => Found::Ok(format!("{} are on their way", waiting.len())),
        (None, _) => Found::Ok("none waits".to_owned()),
    }
}

pub(super) async fn letters(gate: &Gate) -> Found {
    match gate.ingest().dead_letters("").await {
        Err(error) => Found::Trouble(error.into()),
        Ok(page) => match page.first() {
            None => Found::Ok("none is kept".to_owned()),
            Some(first) => trouble(&format!(
                "messages of a queue were not counted, since {}: {}\n\
                 help: `tallygate dlq list`, then `replay` or `drop`",
                written(page.iter().map(|it| it.at).min().unwrap_or(first.at)),
                first.why
            )),
        },
    }
}

/// Keys of operators, and of the first tenants.
pub(super) async fn keys(gate: &Gate) -> Found {
    match ending(gate).await {
        Err(failure) => Found::Trouble(failure),
        Ok((keys, all)) if keys.is_empty() => {
            let of = if all { "no key" } else { "no key of the first 1,000 tenants" };
            Found::Ok(format!("{of} ends within 7 days"))
        }
        Ok((keys, _)) => trouble(&format!(
            "{} keys end within 7 days: {}\n\
             help: `tallygate key create` makes one in place of each",
            keys.len(),
            keys.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Keys that end soon, and whether those of all tenants were read.
async fn ending(gate: &Gate) -> Result<(Vec<String>, bool), Failure> {
    let directory = gate.directory();
    let mut ending = Vec::new();
    for it in directory.operators().await?.iter().filter(|it| is_ending(&it.token)) {
        ending.push(format!("{} of the operator {}", it.token.id, it.token.name));
    }
    let tenants = directory.list("", "", TENANTS).await?;
    for tenant in &tenants {
        for key in tenant.keys().await?.iter().filter(|key| is_ending(key)) {
            ending.push(format!("{} ({}) of {}", key.id, key.name, tenant.record().id));
        }
    }
    Ok((ending, tenants.len() < TENANTS))
}

fn is_ending(key: &KeyInfo) -> bool {
    let is_soon = |at| now().checked_add(SOON).is_some_and(|until| at < until);
    key.state == KeyState::Active && key.expires.is_some_and(is_soon)
}

fn trouble(text: &str) -> Found {
    Found::Trouble(Failure::new(code::FAILURE, text))
}
