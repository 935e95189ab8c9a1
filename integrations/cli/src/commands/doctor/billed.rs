//! What is on its way to Stripe, by what the store has of it. Stripe is not asked.

use std::time::Duration;

use tallygate::Gate;
use tallygate::billing::{EntryState, OutboxRow};

use super::Found;
use crate::failure::{Failure, code};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::{now, written};

/// After 24 h Stripe's sums decide about an entry, and the next reports ask for them: one that is
/// open for longer is in nothing that ends by itself.
const OLD: Duration = Duration::from_secs(28 * 3_600);

/// The outbox, and whether reports are made.
pub(super) async fn checks(settings: &Settings) -> (Found, Found) {
    let found = with_gate(settings, For::Audit, async |gate| {
        Ok((outbox(&gate.outbox().await?), reports(gate).await?))
    });
    found.await.unwrap_or_else(|failure| {
        (Found::Trouble(failure), Found::Left("the outbox cannot be read".to_owned()))
    })
}

fn outbox(rows: &[OutboxRow]) -> Found {
    let of = |is: fn(&EntryState) -> bool| rows.iter().filter(|it| is(&it.state)).count();
    let stopped = of(|state| matches!(state, EntryState::Stopped(_)));
    let doubtful = of(|state| matches!(state, EntryState::Doubtful(_)));
    if stopped + doubtful > 0 {
        return trouble(&format!(
            "{stopped} entries wait for a decision, {doubtful} were accepted and do not count\n\
             help: `tallygate outbox list` says why; then `outbox decide`, `outbox retry`"
        ));
    }
    let is_open = |row: &&OutboxRow| matches!(row.state, EntryState::Waits | EntryState::Uncertain);
    let open: Vec<_> = rows.iter().filter(is_open).collect();
    match open.iter().map(|row| row.minute).min() {
        Some(at) if now().duration_since(at).is_ok_and(|age| age > OLD) => trouble(&format!(
            "{} entries are without an outcome, the oldest is of {}\n\
             help: `tallygate report` sends what is owed, and says what Stripe answers",
            open.len(),
            written(at)
        )),
        Some(_) => Found::Ok(format!("{} entries are on their way", open.len())),
        None => Found::Ok("nothing is on its way".to_owned()),
    }
}

async fn reports(gate: &Gate) -> Result<Found, Failure> {
    Ok(match gate.reporter_until().await? {
        None => Found::Ok("no process reports at the moment".to_owned()),
        Some(until) if until < now() => trouble(&format!(
            "the process that reported was silent at {}, and no other has taken its place\n\
             help: start the service, or run `tallygate report` from a timer",
            written(until)
        )),
        Some(until) => Found::Ok(format!("the next is due by {}", written(until))),
    })
}

fn trouble(text: &str) -> Found {
    Found::Trouble(Failure::new(code::FAILURE, text))
}
