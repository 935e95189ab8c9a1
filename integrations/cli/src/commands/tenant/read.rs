//! What only reads: `list`, `show`, `history`.

use serde_json::json;
use tallygate::TenantFilter;

use super::kept::with_tenants;
use super::shown::{self, Entry};
use crate::args::TenantList;
use crate::commands::Ran;
use crate::failure::code;
use crate::output::{Output, Table, say};
use crate::place::Place;
use crate::service::For;

/// Tenants of one page of the library, and of a service.
const PAGE: usize = 1_000;

/// Tenants that a list reads by itself, whatever it finds: a search among more is asked for.
const MOST_READ: usize = 10_000;

/// `tenant list`.
pub(super) async fn list(out: Output, place: &Place, which: &TenantList) -> Ran {
    let mut left = match which.all {
        true => usize::MAX,
        false => usize::try_from(which.limit).unwrap_or(usize::MAX),
    };
    let filter = TenantFilter {
        prefix: which.prefix.clone(),
        plan: which.plan.clone(),
        status: which.status.clone(),
        payment: which.payment.clone(),
    };
    with_tenants(place, For::Tenants, async |tenants| {
        let (mut after, mut table) = (which.after.clone(), shown::list_head());
        let (mut read, mut listed) = (0, 0);
        let more = loop {
            let page = tenants.list(&filter, &after, left.min(PAGE)).await?;
            for tenant in &page.tenants {
                match out.json {
                    true => out.document(tenant)?,
                    false => shown::list_row(&mut table, tenant),
                }
            }
            left -= page.tenants.len().min(left);
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
pub(super) async fn show(out: Output, place: &Place, id: &str) -> Ran {
    with_tenants(place, For::Tenants, async |tenants| {
        let (mut document, now) = tenants.show(id).await?;
        if !out.json {
            out.table(&shown::table_of(&document, now.as_ref()))?;
            return Ok(code::OK);
        }
        document["effective"] = json!({
            "plan": now.as_ref().map(|(plan, _)| plan),
            "status": now.as_ref().map(|(_, status)| status),
        });
        out.document(&document)?;
        Ok(code::OK)
    })
    .await
}

/// `tenant history`.
pub(super) async fn history(out: Output, place: &Place, id: &str) -> Ran {
    with_tenants(place, For::Tenants, async |tenants| {
        print_history(out, &tenants.history(id).await?)
    })
    .await
}

/// Prints a history, the oldest entry first.
pub(in crate::commands) fn print_history(out: Output, entries: &[Entry]) -> Ran {
    let mut table = Table::new(["AT", "ACTOR", "OUTCOME", "CHANGES", "REASON"]);
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for entry in entries {
        if out.json {
            out.document(&entry.json())?;
            continue;
        }
        table.row([
            entry.at.clone(),
            or(&entry.actor),
            entry.outcome.clone(),
            entry.changes().join("; "),
            or(&entry.note),
        ]);
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(code::OK)
}
