//! What only reads: `list`, `show`, `history`.

use serde_json::json;
use tallygate::TenantFilter;
use tallygate::directory::{HistoryEntry, Tenant};

use super::shown;
use crate::args::TenantList;
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::{written, written_or};

/// Tenants of one page of the library.
const PAGE: usize = 1_000;

/// Tenants that a list reads by itself, whatever it finds: a search among more is asked for.
const MOST_READ: usize = 10_000;

/// `tenant list`.
pub(super) async fn list(out: Output, settings: &Settings, which: &TenantList) -> Ran {
    let mut left = match which.all {
        true => usize::MAX,
        false => usize::try_from(which.limit).unwrap_or(usize::MAX),
    };
    with_gate(settings, For::Tenants, async |gate| {
        let filter = TenantFilter {
            prefix: which.prefix.clone(),
            plan: which.plan.clone(),
            status: which.status.clone(),
            payment: which.payment.clone(),
        };
        if let Some(mistake) = gate.filter_mistake(&filter) {
            return Err(Failure::usage(mistake));
        }
        let (mut after, mut table) = (which.after.clone(), shown::list_head());
        let (mut read, mut listed) = (0, 0);
        let more = loop {
            let page = gate.filtered(&filter, &after, left.min(PAGE)).await?;
            for tenant in &page.tenants {
                match out.json {
                    true => out.document(&shown::json_of(tenant.record()))?,
                    false => shown::list_row(&mut table, tenant.record()),
                }
            }
            left -= page.tenants.len();
            (read, listed) = (read + page.read, listed + page.tenants.len());
            let Some(next) = page.next else { break false };
            after = next;
            // A filter reads tenants that it does not show.
            if left == 0 || (read >= MOST_READ && !which.all) {
                break true;
            }
        };
        if !out.json {
            out.table(&table)?;
        }
        if more {
            let of =
                if read > listed { format!("{read} tenants were read, ") } else { String::new() };
            say(&format!("{of}there may be more: --after {after:?}, or --all"));
        }
        Ok(code::OK)
    })
    .await
}

/// `tenant show`.
pub(super) async fn show(out: Output, settings: &Settings, id: &str) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        let tenant = found(gate.directory().find(id).await?, id)?;
        let now = gate.entitlements(id).await?;
        if out.json {
            let mut document = shown::json_of(tenant.record());
            let plan = now.as_ref().map(|it| &*it.plan);
            document["effective"] = json!({
                "plan": plan,
                "status": now.as_ref().map(|it| &*it.status),
            });
            out.document(&document)?;
        } else {
            out.table(&shown::table_of(tenant.record(), now.as_ref()))?;
        }
        Ok(code::OK)
    })
    .await
}

/// `tenant history`.
pub(super) async fn history(out: Output, settings: &Settings, id: &str) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        let tenant = found(gate.directory().find(id).await?, id)?;
        print_history(out, tenant.history().await?)
    })
    .await
}

/// Prints a history, the oldest entry first.
pub(in crate::commands) fn print_history(out: Output, entries: Vec<HistoryEntry>) -> Ran {
    let mut table = Table::new(["AT", "ACTOR", "OUTCOME", "CHANGES", "REASON"]);
    for entry in entries {
        if out.json {
            out.document(&shown::entry_json(&entry))?;
            continue;
        }
        table.row([
            written(entry.at),
            entry.actor.clone().unwrap_or_else(|| "-".to_owned()),
            shown::outcome(entry.outcome).to_owned(),
            shown::changes(&entry.edits).join("; "),
            entry.note.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(code::OK)
}

/// The tenant, or that there is none.
pub(super) fn found(tenant: Option<Tenant>, id: &str) -> Result<Tenant, Failure> {
    tenant.ok_or_else(|| Failure::no_tenant(id))
}

/// An end, or that there is none.
pub(super) fn end(at: Option<std::time::SystemTime>) -> String {
    written_or(at, "no end")
}
