//! `plans show`: what each plan gives.

use std::path::Path;

use serde_json::{Map, Value, json};
use tallygate::Feature;

use super::given::{self, Given, Limit};
use super::{feature_word, legal, warn};
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Output, Table};

/// Shows all plans of a file, or one.
pub(super) async fn run(out: Output, path: &Path, only: Option<&str>) -> Ran {
    let file = legal(path)?;
    warn(&path.display().to_string(), &file.catalog.warnings);
    let mut plans = given::of_file(&file).await?;
    if let Some(only) = only {
        plans.retain(|it| it.plan == only);
        if plans.is_empty() {
            let text = format!("{}: there is no plan {only:?}", path.display());
            return Err(Failure::not_found(text));
        }
    }
    let mut table = Table::new(["PLAN", "WHAT", "GIVES"]);
    for plan in &plans {
        if out.json {
            out.document(&json_of(plan))?;
            continue;
        }
        for (what, value) in rows(plan) {
            table.row([plan.plan.clone(), what, value]);
        }
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(code::OK)
}

/// What a plan gives, in words.
fn rows(plan: &Given) -> Vec<(String, String)> {
    let mut rows: Vec<_> =
        plan.limits.iter().map(|(id, limit)| (id.clone(), limit.to_string())).collect();
    let features = plan.features.iter();
    rows.extend(features.map(|(name, it)| (format!("feature {name}"), feature_word(it))));
    rows.extend(plan.concurrency.map(|n| ("concurrency".to_owned(), n.to_string())));
    rows.extend(plan.expires.map(|it| ("expires after".to_owned(), format!("{it:?}"))));
    rows
}

fn json_of(plan: &Given) -> Value {
    let limits: Map<String, Value> =
        plan.limits.iter().map(|(id, limit)| (id.clone(), limit_json(limit))).collect();
    let features: Map<String, Value> =
        plan.features.iter().map(|(name, it)| (name.clone(), feature_json(it))).collect();
    json!({
        "plan": plan.plan,
        "limits": limits,
        "features": features,
        "concurrency": plan.concurrency,
        "expires_seconds": plan.expires.map(|it| it.as_secs()),
    })
}

/// Amounts are text: a number of JSON may not hold them exactly.
fn limit_json(limit: &Limit) -> Value {
    match limit {
        Limit::Quota(amount) => json!({ "amount": amount.map(|it| it.to_string()) }),
        Limit::Once(amount) => json!({ "amount": amount.to_string(), "once": true }),
        Limit::Rate { amount, per, burst } => json!({
            "amount": amount.to_string(),
            "per_seconds": per.as_secs(),
            "burst": burst.to_string(),
        }),
    }
}

fn feature_json(feature: &Feature) -> Value {
    match feature {
        Feature::Flag(on) => json!(on),
        Feature::Number(number) => json!(number),
        Feature::Text(text) => json!(&**text),
        Feature::Unlimited => json!("unlimited"),
    }
}
