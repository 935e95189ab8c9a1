//! `invoices`: a tenant's invoices at Stripe, and its usage by period against them.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tallygate::billing::{BilledPeriod, StripeInvoice};

use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

pub(in crate::commands) async fn run(out: Output, settings: &Settings, id: &str) -> Ran {
    with_gate(settings, For::Audit, async |gate| {
        let found = gate.directory().find(id).await?;
        let tenant = found.ok_or_else(|| Failure::no_tenant(id))?;
        let (periods, invoices) = gate.invoices_of(tenant.record()).await?;
        if tenant.record().account.is_none() {
            say("it has no customer at Stripe");
        }
        match out.json {
            true => print_json(out, id, &periods, &invoices)?,
            false => print(out, &periods, &invoices)?,
        }
        Ok(code::OK)
    })
    .await
}

/// The units of the invoices of a period; `None`: none has any of it. One that is void bills
/// nothing. A tenant's first period begins when its customer is known here, which is a moment after
/// its subscription began at Stripe: so an invoice is one of the period that begins within its own.
fn invoiced(period: &BilledPeriod, invoices: &[StripeInvoice]) -> Option<u64> {
    let begins = whole(period.item.period());
    let is_of = |it: &&StripeInvoice| {
        it.status != "void" && it.from <= begins && begins < it.until.max(it.from + SECOND)
    };
    let of_meter = |it: &StripeInvoice| it.units.get(&period.event).copied();
    let units: Vec<u64> = invoices.iter().filter(is_of).filter_map(of_meter).collect();
    (!units.is_empty()).then(|| units.iter().sum())
}

/// Stripe's instants are whole seconds.
const SECOND: Duration = Duration::from_secs(1);

fn whole(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn print(out: Output, periods: &[BilledPeriod], invoices: &[StripeInvoice]) -> Result<(), Failure> {
    let mut table = Table::new(["INVOICE", "NUMBER", "MADE", "STATUS", "TOTAL"]);
    for it in invoices {
        let number = it.number.clone().unwrap_or_else(|| "-".to_owned());
        let total = format!("{} {}", it.total, it.currency);
        table.row([it.id.clone(), number, written(it.made), it.status.clone(), total]);
    }
    out.table(&table)?;
    let mut table = Table::new(["METER", "PERIOD", "RECORDED", "OWED", "SENT", "INVOICED"]);
    for it in periods {
        table.row([
            it.item.meter.to_string(),
            written(it.item.period()),
            it.recorded.to_string(),
            it.owed.to_string(),
            it.sent.to_string(),
            invoiced(it, invoices).map_or_else(|| "-".to_owned(), |units| units.to_string()),
        ]);
    }
    out.table(&table)
}

fn print_json(
    out: Output,
    id: &str,
    periods: &[BilledPeriod],
    invoices: &[StripeInvoice],
) -> Result<(), Failure> {
    let listed = invoices.iter().map(|it| {
        json!({
            "id": it.id, "number": it.number, "made": written(it.made), "status": it.status,
            "total": it.total, "currency": it.currency,
        })
    });
    let usage = periods.iter().map(|it| {
        json!({
            "meter": &*it.item.meter,
            "event": it.event,
            "period": written(it.item.period()),
            "recorded": it.recorded.to_string(),
            "owed": it.owed.to_string(),
            "sent": it.sent,
            "invoiced": invoiced(it, invoices),
        })
    });
    out.document(&json!({
        "tenant": id,
        "invoices": listed.collect::<Vec<_>>(),
        "usage": usage.collect::<Vec<_>>(),
    }))
}
