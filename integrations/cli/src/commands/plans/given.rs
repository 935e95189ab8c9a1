//! What a plan gives, as the library resolves it: the report of a new tenant on that plan, in a
//! gate in memory. So nothing here knows what `extends` or a rate's words mean.

use std::collections::BTreeMap;
use std::time::Duration;

use tallygate::directory::PaymentState;
use tallygate::{Amount, Feature, Gate, GateBuilder, Identified, Plan};

use super::PlanFile;
use crate::failure::Failure;
use crate::service::NoCallers;

/// A limit of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// So much in each window, or without a limit.
    Quota(Option<Amount>),
    /// So much once.
    Once(Amount),
    /// So much in a time, and a burst.
    Rate {
        /// Calls, or units of a meter.
        amount: Amount,
        /// The time.
        per: Duration,
        /// The burst.
        burst: Amount,
    },
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quota(None) => f.write_str("unlimited"),
            Self::Quota(Some(amount)) => write!(f, "{amount}"),
            Self::Once(amount) => write!(f, "{amount} once"),
            Self::Rate { amount, per, burst } => {
                write!(f, "{amount} / {} s, burst {burst}", per.as_secs())
            }
        }
    }
}

/// What a plan gives.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) plan: String,
    /// By kind and id: `quota requests/month`, `rate default/s`.
    pub(super) limits: BTreeMap<String, Limit>,
    pub(super) features: BTreeMap<String, Feature>,
    pub(super) concurrency: Option<u32>,
    pub(super) expires: Option<Duration>,
}

/// What each plan of a file gives, in its order.
pub(super) async fn of_file(file: &PlanFile) -> Result<Vec<Given>, Failure> {
    let service = "[store]\nkind = \"memory\"\n[identity]\nno-scope = \"tenant\"\n";
    let gate = GateBuilder::from_text(service).identify(NoCallers).plans(&file.text).open().await?;
    let mut given = Vec::new();
    for plan in file.catalog.plans() {
        given.push(of_plan(&gate, plan).await?);
    }
    gate.close().await?;
    Ok(given)
}

async fn of_plan(gate: &Gate, plan: &Plan) -> Result<Given, Failure> {
    // No exception of the file is of a tenant of this name.
    let id = format!("the plan {} as it is sold", plan.name);
    let tenant = gate.directory().tenant(&id).plan(&*plan.name).payment(PaymentState::Good);
    tenant.save().await?;
    let report = gate.usage_report(&Identified::from(&gate.tenant(&id).await?)).await?;
    let mut limits = BTreeMap::new();
    for meter in &report.meters {
        for it in &meter.limits {
            limits.insert(format!("quota {}", it.id), Limit::Quota(it.limit));
        }
        for it in &meter.grants {
            limits.insert(format!("once {}", meter.name), Limit::Once(it.limit));
        }
    }
    for it in &report.rates {
        let (amount, per, burst) = (it.limit, it.per, it.burst);
        limits.insert(format!("rate {}", it.id), Limit::Rate { amount, per, burst });
    }
    let features = plan.features.iter().map(|(name, it)| (name.to_string(), it.clone()));
    Ok(Given {
        plan: plan.name.to_string(),
        limits,
        features: features.collect(),
        concurrency: plan.concurrency,
        expires: plan.expires,
    })
}
