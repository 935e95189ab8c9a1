//! `report` and `audit`: usage into Stripe's meters, and whether all of it arrived. What lies
//! between is in files of its own.

mod event;
mod invoices;
mod outbox;
mod stripe;

use serde_json::{Value, json};
use tallygate::billing::SentSinceCopy;
use tallygate::billing::audit::{Audit, Gap, Line};
use tallygate::billing::report::Report as Sent;

use super::Ran;
use crate::args::{Report, Since};
use crate::failure::code;
use crate::output::{Colour, Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

pub(super) use event::run as event;
pub(super) use invoices::run as invoices;
pub(super) use outbox::run as outbox;
pub(super) use stripe::run as stripe;

/// `report`.
pub(super) async fn report(out: Output, settings: &Settings, how: &Report) -> Ran {
    if how.dry_run {
        return waiting(out, settings).await;
    }
    with_gate(settings, For::Billing, async |gate| {
        if let Some(since) = how.resume
            && !gate.resume_reports(since.into()).await?
        {
            say("this store was never restored: there was nothing to resume");
        }
        let sent = gate.report_now().await?;
        match out.json {
            true => out.document(&report_json(&sent))?,
            false => out.table(&report_table(&sent))?,
        }
        for (item, why) in &sent.failed {
            let (tenant, meter) = (item.tenant, &item.meter);
            say(&format!("tenant {tenant}, meter {meter}: {why}"));
        }
        Ok(if sent.failed.is_empty() { code::OK } else { code::FAILURE })
    })
    .await
}

impl From<Since> for SentSinceCopy {
    fn from(since: Since) -> Self {
        match since {
            Since::AskStripe => Self::AskStripe,
            Since::Nothing => Self::Nothing,
        }
    }
}

/// What the next report would send.
async fn waiting(out: Output, settings: &Settings) -> Ran {
    with_gate(settings, For::Audit, async |gate| {
        let audit = gate.audit().await?;
        let waits = |gap: &Gap| match gap {
            Gap::Waiting { units } => *units,
            _ => 0,
        };
        let units: u64 = audit.gaps().map(|(_, gap)| waits(gap)).sum();
        say("dry run: nothing was sent");
        match out.json {
            true => out.document(&json!({ "dry_run": true, "units": units }))?,
            false => out.line(&format!("{units} units would be sent"))?,
        }
        Ok(code::OK)
    })
    .await
}

fn report_json(sent: &Sent) -> Value {
    let id = |item: &tallygate::billing::ItemId| {
        json!({
            "account": &*item.account,
            "tenant": item.tenant.to_string(),
            "meter": &*item.meter,
            "period": written(item.period()),
        })
    };
    let stopped = sent.stopped.iter().map(|entry| json!({ "item": id(&entry.item), "k": entry.k }));
    let failed = sent.failed.iter().map(|(item, why)| json!({ "item": id(item), "why": why }));
    json!({
        "dry_run": false,
        "sent": sent.sent,
        "units": sent.units,
        "verified": sent.verified,
        "open": sent.open,
        "stopped": stopped.collect::<Vec<_>>(),
        "doubtful": sent.doubtful.iter().map(id).collect::<Vec<_>>(),
        "too_old": sent.too_old.iter().map(id).collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
    })
}

fn report_table(sent: &Sent) -> Table {
    let mut table = Table::of_pairs();
    table.pair("sent", format!("{} entries of {} units", sent.sent, sent.units));
    table.pair("verified", sent.verified.to_string());
    table.pair("open", sent.open.to_string());
    for (name, number) in [
        ("stopped", sent.stopped.len()),
        ("doubtful", sent.doubtful.len()),
        ("too old", sent.too_old.len()),
        ("failed", sent.failed.len()),
    ] {
        let colour = if number > 0 { Colour::Red } else { Colour::Plain };
        table.coloured([name.to_owned(), number.to_string()], (1, colour));
    }
    table
}

/// `audit`.
pub(super) async fn audit(out: Output, settings: &Settings) -> Ran {
    with_gate(settings, For::Audit, async |gate| {
        let audit = gate.audit().await?;
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
