//! `audit`: whether all usage has arrived in Stripe's meters. What else has to do with Stripe is in
//! files of its own.

mod event;
mod invoices;
mod outbox;
mod report;
mod stripe;

use serde_json::{Value, json};
use tallygate::billing::audit::{Audit, Gap, Line};

use super::Ran;
use crate::failure::code;
use crate::output::{Colour, Output, Table, say};
use crate::progress::Progress;
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

pub(super) use event::run as event;
pub(super) use invoices::run as invoices;
pub(super) use outbox::run as outbox;
pub(super) use report::run as report;
pub(super) use stripe::run as stripe;

/// `audit`.
pub(super) async fn audit(out: Output, settings: &Settings) -> Ran {
    with_gate(settings, For::Audit, async |gate| {
        let audit = Progress::during(false, "auditing", gate.audit()).await?;
        if out.json {
            out.document(&audit_json(&audit))?;
        } else {
            tables(out, &audit)?;
        }
        let verdict = match audit.is_clean() {
            true => "clean: what was recorded is billed, or is about to be",
            false => "there are gaps: docs/billing.md says what to do about each",
        };
        say(verdict);
        Ok(if audit.is_clean() { code::OK } else { code::DIFFERENCES })
    })
    .await
}

fn tables(out: Output, audit: &Audit) -> Result<(), crate::failure::Failure> {
    let mut lines = Table::new(["TENANT", "METER", "PERIOD", "RECORDED", "OWED", "SENT", "GAPS"]);
    for line in &audit.lines {
        let gaps: Vec<String> = line.gaps.iter().map(ToString::to_string).collect();
        let passing = line.gaps.iter().all(Gap::is_passing);
        let colour = if passing { Colour::Plain } else { Colour::Red };
        let cells = [
            line.tenant.to_string(),
            line.meter.to_string(),
            written(line.period()),
            line.recorded.to_string(),
            line.owed.to_string(),
            line.sent.to_string(),
            if gaps.is_empty() { "none".to_owned() } else { gaps.join("; ") },
        ];
        lines.coloured(cells, (6, colour));
    }
    out.table(&lines)?;
    let mut totals = Table::new(["CUSTOMER", "EVENT", "SENT", "COUNTED", "OPEN"]);
    for it in &audit.totals {
        totals.row([
            it.customer.clone(),
            it.event.clone(),
            it.sent.to_string(),
            it.counted.to_string(),
            it.open.to_string(),
        ]);
    }
    if !audit.totals.is_empty() {
        out.table(&totals)?;
    }
    for log in &audit.broken_logs {
        out.line(&format!("broken log: {log}"))?;
    }
    for (tenant, why) in &audit.failed {
        out.line(&format!("tenant {tenant}: {why}"))?;
    }
    let unbalanced = audit.pools.iter().filter(|pool| !pool.balanced);
    unbalanced
        .map(|pool| format!("tenant {}: the pool {} does not add up", pool.tenant, pool.limit))
        .try_for_each(|text| out.line(&text))
}

fn audit_json(audit: &Audit) -> Value {
    let line = |it: &Line| {
        let gap = |gap: &Gap| json!({ "text": gap.to_string(), "passing": gap.is_passing() });
        json!({
            "account": it.account.as_deref(),
            "tenant": it.tenant.to_string(),
            "meter": &*it.meter,
            "period": written(it.period()),
            "recorded": it.recorded.to_string(),
            "owed": it.owed.to_string(),
            "frozen": it.frozen.to_string(),
            "sent": it.sent,
            "gaps": it.gaps.iter().map(gap).collect::<Vec<_>>(),
        })
    };
    let totals = audit.totals.iter().map(|it| {
        json!({
            "customer": it.customer,
            "event": it.event,
            "sent": it.sent,
            "counted": it.counted,
            "open": it.open,
        })
    });
    let pools = audit.pools.iter().map(|it| {
        json!({
            "tenant": it.tenant.to_string(),
            "limit": &*it.limit,
            "start": written(it.start()),
            "taken": it.taken.to_string(),
            "recorded": it.recorded.to_string(),
            "unrecorded": it.unrecorded.to_string(),
            "balanced": it.balanced,
        })
    });
    let failed = audit
        .failed
        .iter()
        .map(|(tenant, why)| json!({ "tenant": tenant.to_string(), "why": why }));
    json!({
        "clean": audit.is_clean(),
        "lines": audit.lines.iter().map(line).collect::<Vec<_>>(),
        "totals": totals.collect::<Vec<_>>(),
        "pools": pools.collect::<Vec<_>>(),
        "broken_logs": audit.broken_logs,
        "failed": failed.collect::<Vec<_>>(),
    })
}
