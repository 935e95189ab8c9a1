//! `report`: sends what is owed. Law: it exits with 0 only where all that is due was sent, and
//! otherwise says what was not, and why.

use serde_json::{Value, json};
use tallygate::Gate;
use tallygate::billing::audit::Gap;
use tallygate::billing::report::{Report as Sent, StoppedEntry};
use tallygate::billing::{ItemId, OutboxRow, SentSinceCopy};

use crate::args::{Report, Since};
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::progress::Progress;
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

pub(in crate::commands) async fn run(out: Output, settings: &Settings, how: &Report) -> Ran {
    if how.dry_run {
        return waiting(out, settings).await;
    }
    with_gate(settings, For::Billing, async |gate| {
        if let Some(since) = how.resume {
            say(match (gate.resume_reports(since.into()).await?, since) {
                (true, Since::AskStripe) => {
                    "what the copy had not sent waits until 6 h after the restore"
                }
                (true, Since::Nothing) => {
                    "what the copy had not sent is sent now; an entry that was open in it waits \
                     until 6 h after the restore"
                }
                (false, _) => "this store was never restored: there was nothing to resume",
            });
        }
        let sent = Progress::during(false, "reporting to Stripe", gate.report_now()).await?;
        let rows = open(gate, &sent).await?;
        let verdict = Verdict::of(&sent);
        match out.json {
            true => out.document(&json_of(&sent, &rows, verdict))?,
            false => out.table(&table_of(&sent))?,
        }
        explain(&sent, &rows);
        Ok(verdict.code())
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
        let audit = Progress::during(false, "reading what is owed", gate.audit()).await?;
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

/// What a report came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All that is due was sent.
    Sent,
    /// Something was not sent, or not answered: the next report goes on with it.
    Failed,
    /// No report goes on with the rest, but an operator.
    Decide,
}

impl Verdict {
    fn of(sent: &Sent) -> Self {
        let stopped = u64::try_from(sent.stopped.len()).unwrap_or(u64::MAX);
        if !sent.failed.is_empty() || !sent.unanswered.is_empty() || sent.open > stopped {
            return Self::Failed;
        }
        let named = [sent.stopped.len(), sent.doubtful.len(), sent.too_old.len()];
        if named == [0; 3] { Self::Sent } else { Self::Decide }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Decide => "decide",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Sent => code::OK,
            Self::Failed => code::FAILURE,
            Self::Decide => code::DIFFERENCES,
        }
    }
}

/// The outbox, where the report says less of an entry than that does.
async fn open(gate: &Gate, sent: &Sent) -> Result<Vec<OutboxRow>, Failure> {
    match sent.open > 0 || !sent.doubtful.is_empty() {
        true => Ok(gate.outbox().await?),
        false => Ok(Vec::new()),
    }
}

fn row<'a>(rows: &'a [OutboxRow], entry: &StoppedEntry) -> Option<&'a OutboxRow> {
    rows.iter().find(|row| row.entry == *entry)
}

/// Why an entry stands where it does.
fn why(rows: &[OutboxRow], entry: &StoppedEntry) -> Option<String> {
    row(rows, entry)?.state.why()
}

/// Says what was not sent, and who goes on with it.
fn explain(sent: &Sent, rows: &[OutboxRow]) {
    let of = |item: &ItemId| {
        let row = rows.iter().find(|row| row.entry.item == *item);
        let id = row.and_then(|row| row.tenant.as_deref()).map(str::to_owned);
        format!("tenant {}, meter {}", id.unwrap_or_else(|| item.tenant.to_string()), item.meter)
    };
    for (item, why) in &sent.failed {
        say(&format!("{}: {why}", of(item)));
    }
    for (entry, why) in &sent.unanswered {
        say(&format!("{}: no answer that counts: {why}", of(&entry.item)));
    }
    for entry in &sent.stopped {
        say(&format!("{}: {}", of(&entry.item), why(rows, entry).unwrap_or_default()));
    }
    for item in &sent.doubtful {
        say(&format!("{}: Stripe accepted an entry, and its sum is another", of(item)));
    }
    for item in &sent.too_old {
        say(&format!("{}: units are too old for Stripe, and are never sent", of(item)));
    }
    let stopped = u64::try_from(sent.stopped.len()).unwrap_or(u64::MAX);
    let open = sent.open.saturating_sub(stopped);
    if open > 0 {
        let help = "the next `tallygate report` goes on with it";
        say(&format!("{} not answered: {help}", entries(open, "was", "were")));
    }
    if stopped > 0 {
        let help = "`tallygate outbox list` has them, `outbox decide` and `outbox retry` decide";
        say(&format!("an operator must decide about {}: {help}", entries(stopped, "", "")));
    }
    if !sent.doubtful.is_empty() || !sent.too_old.is_empty() {
        say("`tallygate audit` names the gaps, and docs/billing.md what to do about each");
    }
    if sent.waiting > 0 {
        let why = "they wait for a minute of their own, or for Stripe's sums";
        say(&format!("{} units are not due yet: {why}", sent.waiting));
    }
}

fn entries(n: u64, one: &str, several: &str) -> String {
    let (noun, verb) = if n == 1 { ("entry", one) } else { ("entries", several) };
    format!("{n} {noun} {verb}").trim_end().to_owned()
}

fn json_of(sent: &Sent, rows: &[OutboxRow], verdict: Verdict) -> Value {
    let id = |item: &ItemId| {
        json!({
            "account": &*item.account,
            "tenant": item.tenant.to_string(),
            "meter": &*item.meter,
            "period": written(item.period()),
        })
    };
    let entry = |entry: &StoppedEntry, why: Option<String>| {
        let identifier = row(rows, entry).map(|row| &row.identifier);
        json!({ "entry": identifier, "item": id(&entry.item), "k": entry.k, "why": why })
    };
    let stopped = sent.stopped.iter().map(|it| entry(it, why(rows, it)));
    let unanswered = sent.unanswered.iter().map(|(it, why)| entry(it, Some(why.clone())));
    let failed = sent.failed.iter().map(|(item, why)| json!({ "item": id(item), "why": why }));
    json!({
        "dry_run": false,
        "verdict": verdict.word(),
        "sent": sent.sent,
        "units": sent.units,
        "verified": sent.verified,
        "open": sent.open,
        "waiting": sent.waiting,
        "unanswered": unanswered.collect::<Vec<_>>(),
        "stopped": stopped.collect::<Vec<_>>(),
        "doubtful": sent.doubtful.iter().map(id).collect::<Vec<_>>(),
        "too_old": sent.too_old.iter().map(id).collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
    })
}

fn table_of(sent: &Sent) -> Table {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What failed goes first: the next report may do without the operator.
    #[test]
    fn only_a_report_that_left_nothing_open_is_a_success() {
        let mut sent = Sent::default();
        assert_eq!(Verdict::of(&sent), Verdict::Sent);
        sent.waiting = 3; // not due yet
        assert_eq!(Verdict::of(&sent), Verdict::Sent);
        sent.open = 1;
        assert_eq!(Verdict::of(&sent).code(), code::FAILURE);
    }
}
