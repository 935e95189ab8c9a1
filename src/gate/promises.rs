//! The promises of a gate under its settings, logged once when it opens.

use crate::amount::Amount;
use crate::catalog::{Catalog, OnDirectoryError, OnLeaseError, Over, Quota};
use crate::config::{Config, FlushMode};
use crate::notice::notice;
use crate::policy::Together;
use crate::policy::resolve::LiveCatalog;
use crate::rates;
use crate::store::Store;

/// Logs, once, what is promised here.
pub(super) fn promises(config: &Config, store: &dyn Store, live: &LiveCatalog) {
    let store = store.promise();
    let mode = format!("{:?}", config.flush.mode);
    let loss = match config.flush.mode {
        _ if store.survives == "nothing" => "all use, which is in memory alone".to_owned(),
        FlushMode::Fast => format!("at most {:?} of use", config.flush.every),
        FlushMode::Journal => "at most 50 ms of use".to_owned(),
        FlushMode::Durable => "nothing that was answered".to_owned(),
    };
    notice!(
        info,
        store = store.kind,
        survives = store.survives,
        mode = mode,
        "a crash of this process loses {loss}; hard quotas are exact in every mode",
    );
    if live.together == Together::Leased {
        notice!(
            info,
            "rates are leased by the slot: no slot admits more than its rate gives in it"
        );
    } else if store.shared {
        let (calm, churn) = rates::bound();
        notice!(
            info,
            nodes = live.together.nodes(),
            "rates are shared by all nodes: within ten seconds they admit at most {calm} % of a \
             rate together, and {churn} % while nodes join or crash; one whose burst is less than \
             one request of each node is leased by the slot",
        );
    }
    for plan in &live.catalog.plans {
        if let Some(most) = plan.concurrency {
            notice!(
                info,
                plan = plan.name,
                "concurrency {most} is per process: with n processes a tenant may have n x {most}",
            );
        }
        if let OnLeaseError::Allow { basis_points } = plan.on_lease_error {
            for quota in plan.quotas.values().flatten() {
                let Some(limit) = quota.limit else { continue };
                let beyond = u128::from(limit) * u128::from(basis_points) / 10_000;
                let beyond = u64::try_from(beyond).unwrap_or(u64::MAX);
                notice!(
                    info,
                    plan = plan.name,
                    limit = quota.id,
                    "while the store is away a process may serve {} beyond its lease",
                    amount(&live.catalog, quota, beyond),
                );
            }
        }
        let soft = plan.quotas.values().flatten().filter(|q| q.over != Over::Deny);
        for quota in soft {
            let bound = match quota.stop {
                Some(stop) => format!("stops at {}", amount(&live.catalog, quota, stop)),
                None => "has no stop: it is counted and never refused".to_owned(),
            };
            notice!(info, plan = plan.name, limit = quota.id, "soft limit: {bound}");
        }
    }
    if live.catalog.on_directory_error != OnDirectoryError::Deny {
        match config.flush.mode {
            FlushMode::Durable => notice!(
                warn,
                "on-directory-error = \"default-plan\" does nothing in mode durable: what such a \
                 tenant uses could not be recorded before it is answered"
            ),
            _ => notice!(
                info,
                "while the directory is away a tenant that is not in memory and that a proxy, a \
                 claim or a JWT names is served on the default plan; what it uses is in memory \
                 only until the directory answers"
            ),
        }
    }
    notice!(info, "while the store is away: leases are served to their end, then on-lease-error");
}

/// So much of what a quota counts, in units: `150 credits`.
fn amount(catalog: &Catalog, quota: &Quota, atoms: u64) -> String {
    let meter = &catalog.meters[usize::from(quota.meter.0)];
    format!("{} {}", Amount::new(atoms, meter.scale), meter.name)
}
