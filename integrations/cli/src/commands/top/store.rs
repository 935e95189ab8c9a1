//! Tenants of a store that is opened here: what they have used by what is on record. Neither the
//! state of a service nor its refusals are in a store.

use serde_json::{Value, json};
use tallygate::report::{LimitReport, UsageReport};
use tallygate::{Gate, Identified};

use super::Reading;
use crate::args::Top;
use crate::failure::Failure;

/// Tenants that a reading looks at: each costs reads of the store. A service that runs knows its
/// tenants without.
const LOOKED_AT: usize = 1_000;

/// A reader of the store.
#[derive(Clone)]
pub(super) struct StoreReader {
    gate: Gate,
    prefix: String,
    most: usize,
}

impl StoreReader {
    pub(super) fn new(gate: Gate, what: &Top) -> Self {
        let most = usize::try_from(what.limit).unwrap_or(usize::MAX);
        Self { gate, prefix: what.prefix.clone(), most }
    }

    /// Reads the first tenants with the prefix.
    pub(super) async fn read(&self) -> Result<Reading, Failure> {
        let page = self.gate.directory().list(&self.prefix, "", LOOKED_AT).await?;
        let mut rows = Vec::new();
        for tenant in &page {
            let id = &tenant.record().id;
            let who = Identified::from(&self.gate.tenant(id).await?);
            rows.extend(row(id, &self.gate.usage_report(&who).await?));
        }
        rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        rows.truncate(self.most);
        let source = match page.len() {
            LOOKED_AT => format!("the first {LOOKED_AT} tenants of the store; --prefix has others"),
            _ => "the store".to_owned(),
        };
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        Ok(Reading::of_store(&source, rows, page.len() as u64))
    }
}

/// The largest used share of a quota of the whole tenant, and the tenant in the form of `GET /top`.
fn row(id: &str, report: &UsageReport) -> Option<(f64, Value)> {
    let limits = report.meters.iter().flat_map(|meter| &meter.limits);
    let of_tenant = limits.filter(|limit| &*limit.scope == "tenant");
    let shares = of_tenant.filter_map(|limit| Some((share(limit)?, limit)));
    let (share, limit) = shares.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let row = json!({
        "id": id,
        "plan": &*report.plan,
        "status": &*report.status,
        "share": (share * 1_000.0).floor() / 1_000.0,
        "limit": serde_json::to_value(limit).unwrap_or_default(),
    });
    Some((share, row))
}

fn share(limit: &LimitReport) -> Option<f64> {
    let of = limit.limit.filter(|it| !it.is_zero())?;
    let number = |text: String| match text.split_once('/') {
        Some((over, under)) => Some(over.parse::<f64>().ok()? / under.parse::<f64>().ok()?),
        None => text.parse().ok(),
    };
    Some(number(limit.used.to_string())? / number(of.to_string())?)
}
