//! The outbox as `top` shows it: how much is on its way to Stripe, and what waits for an operator.
//!
//! # Laws
//!
//! 1. It is read at most every [`EVERY`], however often a reading is taken, and within [`WITHIN`]:
//!    it costs a read of the usage logs, and the rest is not kept waiting.
//! 2. Where it cannot be read, that is shown, and the rest all the same.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
#[cfg(feature = "stripe")]
use tallygate::billing::{EntryState, OutboxRow};
use tallygate::{Clock, SystemClock};

use crate::failure::Failure;
use crate::output::{Colour, escaped};
use crate::when;

/// Shortest time between two reads.
const EVERY: Duration = Duration::from_secs(10);
/// Longest time that one may take.
const WITHIN: Duration = Duration::from_secs(3);

/// What was read last, for those who read more often.
#[derive(Clone)]
pub(super) struct Seldom {
    clock: Arc<dyn Clock>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// When it was asked for: one that was given up counts too.
    asked_ns: Option<u64>,
    found: Value,
}

impl Default for Seldom {
    fn default() -> Self {
        Self::by(SystemClock::new())
    }
}

impl Seldom {
    fn by(clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), kept: Arc::default() }
    }

    /// The outbox by this call, if it is due; else as it was read last.
    pub(super) async fn read(&self, call: impl Future<Output = Result<Value, Failure>>) -> Value {
        {
            let now_ns = self.clock.now().mono_ns;
            let mut kept = self.kept();
            let since = |at_ns| Duration::from_nanos(now_ns.saturating_sub(at_ns));
            if kept.asked_ns.is_some_and(|at_ns| since(at_ns) < EVERY) {
                return kept.found.clone();
            }
            kept.asked_ns = Some(now_ns);
        }
        let found = match tokio::time::timeout(WITHIN, call).await {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) => unread(&failure.text),
            Err(_) => unread(&format!("no answer within {} s", WITHIN.as_secs())),
        };
        self.kept().found = found.clone();
        found
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Of an answer of `GET /billing`; null where nothing is billed.
pub(super) fn of_page(page: &Value) -> Value {
    if page["stripe"] != true {
        return Value::Null;
    }
    let count = |word: &str| page["states"][word].as_u64().unwrap_or(0);
    json!({
        "waiting": count("waits") + count("uncertain"),
        "decide": count("stopped"),
        "oldest": page["oldest"],
        "partial": !page["next"].is_null(),
    })
}

/// Of all entries of a store.
#[cfg(feature = "stripe")]
pub(super) fn of_rows(rows: &[OutboxRow]) -> Value {
    let stopped = |row: &&OutboxRow| matches!(row.state, EntryState::Stopped(_));
    let waits = |row: &&OutboxRow| matches!(row.state, EntryState::Waits | EntryState::Uncertain);
    let oldest = rows.iter().filter(|row| waits(row) || stopped(row)).map(|row| row.minute).min();
    json!({
        "waiting": rows.iter().filter(waits).count(),
        "decide": rows.iter().filter(stopped).count(),
        "oldest": oldest.map(when::written),
        "partial": false,
    })
}

/// Of an outbox that cannot be read.
pub(super) fn unread(why: &str) -> Value {
    json!({ "error": why.lines().next().unwrap_or_default() })
}

/// The outbox in a line.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    pub(super) text: String,
    pub(super) colour: Colour,
}

impl Outbox {
    /// Of any of the forms above; `None` where nothing is billed.
    pub(super) fn of(read: &Value, now: SystemTime) -> Option<Self> {
        if let Some(why) = read["error"].as_str() {
            return Some(Self {
                text: format!("not read: {}", escaped(why)),
                colour: Colour::Yellow,
            });
        }
        let (waiting, decide) = (read["waiting"].as_u64()?, read["decide"].as_u64()?);
        let more = if read["partial"] == true { "+" } else { "" };
        let mut parts = Vec::new();
        if decide > 0 {
            parts.push(format!("{decide}{more} to decide: tallygate outbox list"));
        }
        parts.push(match (waiting, more) {
            (0, "") => "none waits".to_owned(),
            (1, "") => "1 waits".to_owned(),
            _ => format!("{waiting}{more} wait"),
        });
        parts.extend(age(&read["oldest"], now).map(|age| format!("oldest {age}")));
        let colour = if decide > 0 { Colour::Red } else { Colour::Plain };
        Some(Self { text: parts.join(", "), colour })
    }
}

/// How long ago an instant is, in one unit.
fn age(of: &Value, now: SystemTime) -> Option<String> {
    let at = when::instant(of.as_str()?).ok()?.from(now)?;
    let seconds = now.duration_since(at).unwrap_or_default().as_secs();
    Some(match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tallygate::ManualClock;

    use super::*;
    use crate::failure::code;

    #[tokio::test]
    async fn it_is_read_seldom_and_what_was_given_up_counts() {
        let clock = ManualClock::at_unix_ms(0);
        let (seldom, one) = (Seldom::by(clock.clone()), json!({ "waiting": 1 }));
        assert_eq!(seldom.read(async { Ok(one.clone()) }).await, one);
        clock.advance(EVERY - Duration::from_millis(1));
        assert_eq!(seldom.read(async { panic!("too soon") }).await, one);
        clock.advance(Duration::from_millis(1));
        assert_eq!(seldom.read(async { Ok(json!({ "waiting": 2 })) }).await["waiting"], 2);
        let given_up = Seldom::default();
        let never =
            tokio::time::timeout(Duration::from_millis(1), given_up.read(std::future::pending()));
        never.await.unwrap_err();
        assert_eq!(given_up.read(async { panic!("too soon") }).await, Value::Null);
        let failing = Seldom::default();
        let call = async { Err(Failure::new(code::FAILURE, "away\nhelp: wait")) };
        assert_eq!(failing.read(call).await, json!({ "error": "away" }));
    }

    #[test]
    fn a_line_says_what_waits_and_for_how_long() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let line = |read: Value| Outbox::of(&read, now).map(|it| it.text);
        let page = |states: Value, oldest: Value, next: Value| {
            line(of_page(
                &json!({ "stripe": true, "states": states, "oldest": oldest, "next": next }),
            ))
        };
        assert_eq!(page(json!({ "sent": 9 }), Value::Null, Value::Null).unwrap(), "none waits");
        let states = json!({ "waits": 1, "uncertain": 2, "stopped": 4, "doubtful": 8, "sent": 16 });
        let told = page(states, json!("1970-01-12T11:46:40Z"), json!("ab")).unwrap();
        let wanted = "4+ to decide: tallygate outbox list, 3+ wait, oldest 2 h";
        assert_eq!(told, wanted);
        assert_eq!(line(of_page(&json!({ "stripe": false }))), None);
        assert_eq!(line(Value::Null), None);
        assert_eq!(line(unread("a\u{1b}[2J\nhelp: b")).unwrap(), "not read: a\\u{1b}[2J");
        for (at, told) in [("1970-01-12T13:46:39Z", "1 s"), ("1970-01-12T13:44:40Z", "2 min")] {
            assert_eq!(age(&json!(at), now).unwrap(), told);
        }
    }
}
