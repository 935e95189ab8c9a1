//! What a start of the service reads before its store, by the functions that the start uses.

use tallygate::GateBuilder;
use toml::{Table, Value};

use super::Found;
use crate::service::NoCallers;
use crate::settings::Settings;

pub(super) async fn check(settings: &Settings) -> Found {
    let (table, left) = as_started(&settings.table);
    let (Ok(whole), Ok(text)) = (toml::to_string(&settings.table), toml::to_string(&table)) else {
        return Found::Left("the service file cannot be written again".to_owned());
    };
    // Their clients are the program's own: only where they are is read here.
    let whole = GateBuilder::from_text(&whole);
    if let Err(error) = whole.sns_topics().and_then(|_| whole.event_buses()) {
        return Found::Trouble(error.into());
    }
    // Limits may go by scopes that only the service's own code knows.
    let builder = GateBuilder::from_text(&text).identify(NoCallers);
    match builder.plans_file(settings.plans_file()).check_start().await {
        Err(error) => Found::Trouble(error.into()),
        Ok(()) if left.is_empty() => {
            Found::Ok("secrets, certificates and the log of decisions are in place".to_owned())
        }
        Ok(()) => Found::Left(format!("this build of the command knows no {}", left.join(", no "))),
    }
}

/// The service file without what has a check of its own, the store with its journal and Stripe, and
/// without destinations whose clients the program hands in. Also: what this build cannot check,
/// which the service may well be able to do.
fn as_started(table: &Table) -> (Table, Vec<&'static str>) {
    let mut table = table.clone();
    let memory = Table::from_iter([("kind".to_owned(), Value::from("memory"))]);
    table.insert("store".to_owned(), memory.into());
    table.remove("flush");
    table.remove("stripe");
    if let Some(Value::Array(all)) = table.get_mut("notify") {
        all.retain(|it| it.get("sns").is_none() && it.get("eventbridge").is_none());
    }
    let mut left = Vec::new();
    if !cfg!(feature = "notify") && table.remove("notify").is_some() {
        left.push("[[notify]]");
    }
    if !cfg!(feature = "jwt")
        && let Some(Value::Array(ways)) = table.get_mut("identify")
    {
        let all = ways.len();
        ways.retain(|way| way.get("jwt").is_none());
        left.extend((ways.len() < all).then_some("[[identify]] jwt"));
    }
    (table, left)
}
