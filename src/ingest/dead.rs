//! Dead letters: messages of a queue that are no usage events, or that can never count. They are
//! kept for inspection, and then replayed or discarded. A repeated message is kept once.
//!
//! Not promised: an order. Ids are hashes of the messages' content.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::{Counted, Ingest, NotCounted, UnreadableEvent, UsageEvent};
use crate::clock::time_at;
use crate::error::Error;
use crate::events::claim::repeated;
use crate::identity::hex;
use crate::repeated::repeated;
use crate::store::layout::{self, check_format};
use crate::store::{Change, Item, Query, StoreError, StoreErrorKind, Value, Write};

/// Longest message kept, in bytes: the limit of SQS and EventBridge.
pub const MAX_LETTER: usize = 256 * 1024;

/// Format of an item.
const FORMAT: i64 = 1;

const BODY: &str = "body";
const WHY: &str = "why";
const AT: &str = "at_ms";

/// Most letters listed at once.
const AT_ONCE: usize = 100;

/// A message that could not be counted. [`Ingest::dead_letters`] lists them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its id, for [`Ingest::replay`] and [`Ingest::discard`].
    pub id: String,
    /// The raw message.
    pub body: String,
    /// The reason it did not count.
    pub why: String,
    /// Time of its last arrival.
    pub at: SystemTime,
}

/// Without the message, which is tenant data.
impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, why, at, .. } = self;
        f.debug_struct("DeadLetter")
            .field("id", id)
            .field("why", why)
            .field("at", at)
            .finish_non_exhaustive()
    }
}

impl Ingest {
    /// Reads an event from JSON, in any of the shapes that `docs/ingest.md` lists, with the product
    /// codes of `[ingest.products]`.
    ///
    /// # Errors
    ///
    /// The missing or invalid field.
    pub fn read(&self, json: &str) -> Result<UsageEvent, UnreadableEvent> {
        let value: Json = serde_json::from_str(json)
            .map_err(|error| UnreadableEvent(format!("not JSON, at column {}", error.column())))?;
        UsageEvent::read(&value, self.products())
    }

    pub(super) fn products(&self) -> &BTreeMap<String, String> {
        &self.0.inner.settings.ingest.products
    }

    /// Counts messages of a queue, each one event in JSON, with the results in their order.
    /// Messages that can never count are kept as dead letters before this returns
    /// ([`dead_letters`](Self::dead_letters)).
    pub async fn messages(&self, bodies: &[&str]) -> Vec<Result<Counted, NotCounted>> {
        let (mut answers, mut events, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (at, body) in bodies.iter().enumerate() {
            answers.push(match self.read(body) {
                Ok(event) => {
                    places.push(at);
                    events.push(event);
                    Err(NotCounted::Unavailable) // until it has its own
                }
                Err(malformed) => Err(malformed.into()),
            });
        }
        for (at, answer) in places.into_iter().zip(self.events(events).await) {
            answers[at] = answer;
        }
        for (body, answer) in bodies.iter().zip(&mut answers) {
            if let Err(why) = answer
                && !why.is_retryable()
                && let Err(error) = self.keep(body, why).await
            {
                let now_ms = self.0.inner.clock.now().wall_ms;
                repeated!(warn, now_ms, "ingest: a dead letter could not be kept"; %error);
                *answer = Err(NotCounted::Unavailable);
            }
        }
        answers
    }

    /// Keeps a message as a dead letter, truncated to [`MAX_LETTER`].
    async fn keep(&self, body: &str, why: &NotCounted) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        let id = hex(&Sha256::digest(body)[..16]);
        let kept = &body.as_bytes()[..body.len().min(MAX_LETTER)];
        let now_ms = inner.clock.now().wall_ms;
        repeated!(warn, now_ms, "ingest: kept as a dead letter"; letter = %id, %why);
        let (name, version) = layout::format(FORMAT);
        let change = vec![
            Change::Set(name, version),
            Change::Set(BODY.into(), Value::Bytes(kept.to_vec())),
            Change::Set(WHY.into(), Value::Text(why.to_string())),
            Change::Set(AT.into(), Value::Int(inner.clock.now().wall_ms)),
        ];
        let key = inner.leasing.writer.space.dead_letter(&id);
        repeated(&*inner.leasing.ctx.store, Write { key, when: vec![], change }).await.map(|_| ())
    }

    /// Dead letters after this id (`""` for the first), at most 100 at once; fewer means there are
    /// no more.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn dead_letters(&self, after: &str) -> Result<Vec<DeadLetter>, Error> {
        let inner = &self.0.inner;
        let pk = inner.leasing.writer.space.dead_letter("").pk;
        // The first key after this one.
        let from = if after.is_empty() { String::new() } else { format!("{after}\0") };
        let mut query = Query { pk, from, until: None, limit: AT_ONCE };
        let mut letters = Vec::new();
        loop {
            let page = inner.leasing.ctx.store.query(query.clone()).await?;
            for (id, item) in &page.items {
                letters.push(letter(id, item)?);
            }
            query.limit = AT_ONCE.saturating_sub(letters.len());
            match page.next {
                // Letters are long, and a store may end a page after a few of them.
                Some(next) if query.limit > 0 => query.from = next,
                _ => return Ok(letters),
            }
        }
    }

    /// Counts a dead letter after all, for example once the plan file has its meter, and removes
    /// it. `None` if there is no such letter.
    ///
    /// # Errors
    ///
    /// The store's error. A letter that still cannot count stays, and the result has the reason.
    pub async fn replay(&self, id: &str) -> Result<Option<Result<Counted, NotCounted>>, Error> {
        let inner = &self.0.inner;
        let Some(item) =
            inner.leasing.ctx.store.read(inner.leasing.writer.space.dead_letter(id)).await?
        else {
            return Ok(None);
        };
        let letter = letter(id, &item)?;
        let event = match self.read(&letter.body) {
            Ok(event) => event,
            Err(malformed) => return Ok(Some(Err(malformed.into()))),
        };
        let answer = self.events(vec![event]).await.pop().unwrap_or(Err(NotCounted::Unavailable));
        if answer.is_ok() {
            self.discard(id).await?;
        }
        Ok(Some(answer))
    }

    /// Removes a dead letter.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn discard(&self, id: &str) -> Result<(), Error> {
        let inner = &self.0.inner;
        let key = inner.leasing.writer.space.dead_letter(id);
        let write = Write { key, when: vec![], change: vec![Change::Delete] };
        repeated(&*inner.leasing.ctx.store, write).await?;
        Ok(())
    }
}

fn letter(id: &str, item: &Item) -> Result<DeadLetter, StoreError> {
    check_format(item, FORMAT, "a dead letter")?;
    let parts = || {
        let body = String::from_utf8_lossy(item.bytes(BODY)?).into_owned();
        let (why, at_ms) = (item.text(WHY)?.to_owned(), item.int(AT)?);
        Some(DeadLetter { id: id.to_owned(), body, why, at: time_at(at_ms) })
    };
    parts().ok_or_else(|| {
        StoreError::new(StoreErrorKind::Corrupt, "a dead letter cannot be read: damaged")
    })
}
