//! `GET /billing`: what is on its way to Stripe, and what waits for an operator. Stripe is not
//! asked, and nothing is decided here: that is the command's.

use std::time::Duration;

use serde_json::{Value, json};

use super::look::PageQuery;
use super::{Admin, written};
use crate::billing::result::ReportError;
use crate::billing::{BilledPeriod, OutboxRow};
use crate::gate::outbox::OutboxPage;
use crate::ids::Surrogate;
use crate::patience;
use crate::wire::{Reply, plain_problem};

/// Items that are read for a page, where the request does not say how many.
const PAGE: usize = 200;
/// Most of them: each is a read of the store.
const MAX_PAGE: usize = 1_000;
/// How long a page may take.
const WITHIN: Duration = Duration::from_secs(40);

impl Admin {
    pub(super) async fn billing(&self, query: &str) -> Result<Reply, Reply> {
        let asked = PageQuery::parse(query, &["tenant", "after", "limit"], MAX_PAGE)?;
        let after = match &*asked.after {
            "" => None,
            text => Some(Surrogate::parse(text).ok_or_else(|| {
                let detail = "after is the `next` of the page before.";
                plain_problem(400, "Bad query", detail)
            })?),
        };
        let Some(reporting) = self.gate.reporting() else {
            return Ok(written::json(200, &written::bills_nothing()));
        };
        let alone = match &asked.tenant {
            Some(id) => Some(self.find(id).await?.record().surrogate),
            None => None,
        };
        let read = self.read(alone, after, asked.limit.unwrap_or(PAGE));
        let Some(read) = patience::within(WITHIN, read).await else {
            return Err(self.unavailable(&"the outbox was not read in time"));
        };
        let (page, until, periods) = read.map_err(|error| self.unavailable(&error))?;
        Ok(written::json(
            200,
            &json!({
                "stripe": true,
                "last-report": reporting.succeeded.map(written::at),
                "error": reporting.error,
                "reporter-until": until.map(written::at),
                "states": page.states,
                "oldest": page.oldest.map(written::at),
                "entries": page.rows.iter().map(entry).collect::<Vec<_>>(),
                "periods": periods.iter().map(period).collect::<Vec<_>>(),
                "items": page.items,
                "next": page.next.map(|tenant| tenant.to_string()),
            }),
        ))
    }

    async fn read(
        &self,
        alone: Option<Surrogate>,
        after: Option<Surrogate>,
        most: usize,
    ) -> Result<(OutboxPage, Option<std::time::SystemTime>, Vec<BilledPeriod>), ReportError> {
        let page = self.gate.outbox_page(alone, after, most).await?;
        let until = self.gate.reporter_until().await?;
        let periods = match alone {
            Some(tenant) => self.gate.billed_of(tenant).await?,
            None => Vec::new(),
        };
        Ok((page, until, periods))
    }
}

fn entry(row: &OutboxRow) -> Value {
    let item = &row.entry.item;
    json!({
        "entry": row.identifier,
        "tenant": row.tenant,
        "account": item.account,
        "meter": item.meter,
        "event": row.event,
        "period": written::at(item.period()),
        "minute": written::at(row.minute),
        "units": row.units,
        "state": row.state.word(),
        "why": row.state.why(),
        "retry": row.was_refused(),
    })
}

fn period(of: &BilledPeriod) -> Value {
    json!({
        "meter": of.item.meter,
        "event": of.event,
        "period": written::at(of.item.period()),
        "recorded": of.recorded.to_string(),
        "owed": of.owed.to_string(),
        "sent": of.sent,
    })
}
