//! Tenants of a store that is opened here: what they have used by what is on record, and what is on
//! its way to Stripe. Neither the state of a service nor its refusals are in a store.
//!
//! Without a prefix they are those that have used most, by the usage logs: no other tenant is read.
//! With one they are read by their ids, and a bounded number of them.

use serde_json::Value;
use tallygate::Gate;

use super::Reading;
use super::outbox::Seldom;
use crate::args::Top;
use crate::failure::{Failure, code};

/// Tenants with a prefix that a reading looks at: each costs reads of the store.
const LOOKED_AT: usize = 1_000;

/// A reader of the store.
#[derive(Clone)]
pub(super) struct StoreReader {
    gate: Gate,
    prefix: String,
    most: usize,
    outbox: Outbox,
}

/// Whether there is an outbox to read.
#[derive(Clone)]
pub(super) enum Outbox {
    /// Nothing is billed.
    None,
    /// Why it cannot be read.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "nothing is billed"))]
    Closed(Value),
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "nothing is billed"))]
    Open(Seldom),
}

impl StoreReader {
    pub(super) fn new(gate: Gate, what: &Top, outbox: Outbox) -> Self {
        let most = usize::try_from(what.limit).unwrap_or(usize::MAX);
        Self { gate, prefix: what.prefix.clone(), most, outbox }
    }

    /// Reads the tenants that have used most, or the first ones with the prefix.
    pub(super) async fn read(&self) -> Result<Reading, Failure> {
        let tenants = async {
            match &*self.prefix {
                "" => self.busiest().await,
                prefix => self.named(prefix).await,
            }
        };
        let (read, outbox) = tokio::join!(tenants, self.outbox());
        let (rows, looked_at) = read?;
        let source = match looked_at {
            LOOKED_AT if !self.prefix.is_empty() => {
                format!("the first {LOOKED_AT} tenants of the store whose ids begin so")
            }
            _ => "the store".to_owned(),
        };
        Ok(Reading::of_store(&source, rows, looked_at as u64, outbox))
    }

    /// Those that have used most over all, in the form of `GET /top`, and of how many; where those
    /// are few, the first ones by their ids too.
    async fn busiest(&self) -> Result<(Vec<Value>, usize), Failure> {
        let top = self.gate.top(self.most).await;
        let Some(compared) = top.compared else {
            let text = "the usage logs cannot be read\nhelp: tallygate doctor";
            return Err(Failure::new(code::FAILURE, text));
        };
        let (mut rows, mut looked_at) = (top.tenants, compared);
        if rows.len() < self.most {
            let page = self.gate.directory().list("", "", self.most).await?;
            looked_at = looked_at.max(page.len());
            let others = self.gate.top_among(&page).await?.tenants;
            let is_new = |it: &Value| !rows.iter().any(|row| row["id"] == it["id"]);
            let others: Vec<Value> = others.into_iter().filter(is_new).collect();
            rows.extend(others);
            rows.truncate(self.most);
        }
        Ok((rows, looked_at))
    }

    /// The first ones with a prefix, and how many were looked at.
    async fn named(&self, prefix: &str) -> Result<(Vec<Value>, usize), Failure> {
        let page = self.gate.directory().list(prefix, "", LOOKED_AT).await?;
        let mut rows = self.gate.top_among(&page).await?.tenants;
        rows.truncate(self.most);
        Ok((rows, page.len()))
    }

    async fn outbox(&self) -> Value {
        match &self.outbox {
            Outbox::None => Value::Null,
            Outbox::Closed(why) => why.clone(),
            #[cfg(feature = "stripe")]
            Outbox::Open(seldom) => {
                let rows = async { Ok(super::outbox::of_rows(&self.gate.outbox().await?)) };
                seldom.read(rows).await
            }
            #[cfg(not(feature = "stripe"))]
            Outbox::Open(_) => Value::Null,
        }
    }
}
