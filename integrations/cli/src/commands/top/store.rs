//! Tenants of a store that is opened here: what they have used by what is on record, and what is on
//! its way to Stripe. Neither the state of a service nor its refusals are in a store.

use serde_json::{Value, json};
use tallygate::report::{LimitReport, UsageReport};
use tallygate::{Gate, Identified};

use super::Reading;
use super::outbox::Seldom;
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
    outbox: Outbox,
}

/// Whether there is an outbox to read.
#[derive(Clone)]
pub(super) enum Outbox {
    /// Nothing is billed.
    None,
    /// Why it cannot be read.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "nothing is billed"))]
    Closed(Value),
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "nothing is billed"))]
    Open(Seldom),
}

impl StoreReader {
    pub(super) fn new(gate: Gate, what: &Top, outbox: Outbox) -> Self {
        let most = usize::try_from(what.limit).unwrap_or(usize::MAX);
        Self { gate, prefix: what.prefix.clone(), most, outbox }
    }

    /// Reads the first tenants with the prefix.
    pub(super) async fn read(&self) -> Result<Reading, Failure> {
        let (read, outbox) = tokio::join!(self.tenants(), self.outbox());
        let (rows, looked_at) = read?;
        let source = match looked_at {
            LOOKED_AT => format!("the first {LOOKED_AT} tenants of the store; --prefix has others"),
            _ => "the store".to_owned(),
        };
        Ok(Reading::of_store(&source, rows, looked_at as u64, outbox))
    }

    /// The tenants in the form of `GET /top`, and how many were looked at.
    async fn tenants(&self) -> Result<(Vec<Value>, usize), Failure> {
        let page = self.gate.directory().list(&self.prefix, "", LOOKED_AT).await?;
        let mut rows = Vec::new();
        for tenant in &page {
            let id = &tenant.record().id;
            let who = Identified::from(&self.gate.tenant(id).await?);
            rows.extend(row(id, &self.gate.usage_report(&who).await?));
        }
        rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        rows.truncate(self.most);
        Ok((rows.into_iter().map(|(_, row)| row).collect(), page.len()))
    }

    async fn outbox(&self) -> Value {
        match &self.outbox {
            Outbox::None => Value::Null,
            Outbox::Closed(why) => why.clone(),
            #[cfg(feature = "stripe")]
            Outbox::Open(seldom) => {
                let rows = async { Ok(super::outbox::of_rows(&self.gate.outbox().await?)) };
                seldom.read(rows).await
            }
            #[cfg(not(feature = "stripe"))]
            Outbox::Open(_) => Value::Null,
        }
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
