//! `dlq`: messages of a queue that could not be counted, kept for an operator.

use serde_json::json;
use tallygate::Gate;
use tallygate::ingest::DeadLetter;

use super::{Ran, usage};
use crate::args::{Destroy, Dlq};
use crate::ask;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::written;

pub(super) async fn run(out: Output, settings: &Settings, what: Dlq) -> Ran {
    if let Dlq::Drop { id, how } = &what {
        ask::allowed(&format!("drop the letter {id}: its usage is never counted"), how)?;
    }
    with_gate(settings, For::Tenants, async |gate| match &what {
        Dlq::List { after, limit } => list(out, gate, after, *limit).await,
        Dlq::Show { id } => show(out, &found(gate, id).await?),
        Dlq::Replay { id, dry_run } => replay(out, gate, id, *dry_run).await,
        Dlq::Drop { id, how } => discard(out, gate, id, how).await,
    })
    .await
}

async fn list(out: Output, gate: &Gate, after: &str, limit: u64) -> Ran {
    let (mut after, mut left) = (after.to_owned(), limit);
    let mut table = Table::new(["ID", "AT", "BYTES", "WHY"]);
    while left > 0 {
        let page = gate.ingest().dead_letters(&after).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.id);
        for it in page.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            after.clone_from(&it.id);
            let (at, bytes) = (written(it.at), it.body.len());
            match out.json {
                true => out.document(&json!({
                    "id": it.id, "at": at, "bytes": bytes, "why": it.why,
                }))?,
                false => table.row([it.id, at, bytes.to_string(), it.why]),
            }
        }
    }
    match left {
        it if it == limit => say("no letter is kept"),
        _ if !out.json => out.table(&table)?,
        _ => {}
    }
    if left == 0 {
        say(&format!("there may be more: --after {after}"));
    }
    Ok(code::OK)
}

fn show(out: Output, it: &DeadLetter) -> Ran {
    let at = written(it.at);
    if out.json {
        out.document(&json!({ "id": it.id, "at": at, "why": it.why, "message": it.body }))?;
        return Ok(code::OK);
    }
    let mut table = Table::of_pairs();
    table.pair("id", &it.id);
    table.pair("last came", at);
    table.pair("why", &it.why);
    table.pair("message", &it.body);
    out.table(&table)?;
    Ok(code::OK)
}

async fn replay(out: Output, gate: &Gate, id: &str, dry_run: bool) -> Ran {
    let letter = found(gate, id).await?;
    let word = if dry_run {
        let event = gate.ingest().read(&letter.body);
        let event = event.map_err(|error| Failure::usage(error.to_string()))?;
        usage::tenant(gate, &event.tenant).await?;
        gate.meter(&event.meter)?;
        say("dry run: nothing was counted");
        "no"
    } else {
        usage::counted(gate.ingest().replay(id).await?)?
    };
    match out.json {
        true => out.document(&json!({ "id": id, "counted": word, "dry_run": dry_run }))?,
        false => out.line(&format!("{id}: {}", usage::counted_words(word)))?,
    }
    Ok(code::OK)
}

async fn discard(out: Output, gate: &Gate, id: &str, how: &Destroy) -> Ran {
    let letter = found(gate, id).await?;
    match how.write.dry_run {
        true => say("dry run: nothing was dropped"),
        false => gate.ingest().discard(&letter.id).await?,
    }
    match out.json {
        true => out.document(&json!({ "id": id, "dry_run": how.write.dry_run }))?,
        false => out.line(id)?,
    }
    Ok(code::OK)
}

/// The letter with this id. Ids come in their order, in pages.
async fn found(gate: &Gate, id: &str) -> Result<DeadLetter, Failure> {
    let mut after = String::new();
    loop {
        let page = gate.ingest().dead_letters(&after).await?;
        let end = page.last().map(|it| it.id.clone());
        if let Some(letter) = page.into_iter().find(|it| it.id == id) {
            return Ok(letter);
        }
        match end {
            Some(end) if *end < *id => after = end,
            _ => {
                let text = format!("there is no letter {id:?}\nhelp: `tallygate dlq list`");
                return Err(Failure::not_found(text));
            }
        }
    }
}
