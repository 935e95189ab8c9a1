//! The numbered log of one writer: slots that are written once, in order.

use crate::admission::lease::Writer;
use crate::store::layout::{self, check_format};
use crate::store::{
    Change, Item, Query, Store, StoreError, StoreErrorKind, Value, When, Write, Written,
};
use crate::usage::record::Rows;

/// Format of a log slot.
const FORMAT: i64 = 1;
const BODY: &str = "body";

/// Format of a registry entry.
const REGISTRY_FORMAT: i64 = 1;

/// Records read in one page when a log is folded.
const PAGE: usize = 256;

/// Where a writer stands in its own log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    writer: Writer,
    next: u64,
}

impl LogWriter {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer, next: 0 }
    }

    /// The write that registers this writer, before its first lease or record: a reader finds every
    /// log there is by the registry.
    pub(crate) fn registration(writer: &Writer, day: u32, at_ms: i64) -> Write {
        let (name, version) = layout::format(REGISTRY_FORMAT);
        Write {
            key: writer.space.registry(day, writer.incarnation),
            when: vec![],
            change: vec![
                Change::Set(name, version),
                Change::Set("at_ms".into(), Value::Int(at_ms)),
                Change::Set(
                    "version".into(),
                    Value::Text(env!("CARGO_PKG_VERSION").to_owned()),
                ),
            ],
        }
    }

    /// The write of the next slot. Repeated as it is until [`wrote`](Self::wrote) is told how it went.
    pub(crate) fn slot(&self, body: &[u8]) -> Write {
        let (name, version) = layout::format(FORMAT);
        Write {
            key: self.writer.space.log(self.writer.incarnation, self.next),
            when: vec![When::Absent],
            change: vec![
                Change::Set(name, version),
                Change::Set(BODY.into(), Value::Bytes(body.to_vec())),
            ],
        }
    }

    /// Takes in the definite answer to a slot's write: on to the next.
    pub(crate) fn wrote(&mut self, body: &[u8], answer: Written) -> Result<(), StoreError> {
        match answer {
            Written::Applied(_) => {}
            // There already: ours, if an earlier try was applied and its answer lost.
            Written::Refused(Some(item)) if item.bytes(BODY) == Some(body) => {}
            Written::Refused(_) => {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    "somebody else wrote a slot of this writer's log: was its memory copied?",
                ));
            }
        }
        self.next += 1;
        Ok(())
    }
}

/// Reads a log from slot `from` on, handing each record's rows to `fold`. Returns the first slot that
/// is not there yet.
pub(crate) async fn read(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    mut fold: impl FnMut(Rows, u128),
) -> Result<u64, StoreError> {
    let mut next = from;
    loop {
        let start = writer.space.log(writer.incarnation, next);
        let query = Query { pk: start.pk, from: start.sk, until: None, limit: PAGE };
        let page = store.query(query).await?;
        for (sk, item) in &page.items {
            if *sk != format!("{next:020}") {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    format!("a usage log has a hole at slot {next}: run the audit"),
                ));
            }
            let (rows, carried) = decode(item)?;
            fold(rows, carried.unwrap_or(writer.incarnation));
            next += 1;
        }
        if page.next.is_none() {
            return Ok(next);
        }
    }
}

fn decode(item: &Item) -> Result<(Rows, Option<u128>), StoreError> {
    check_format(item, FORMAT, "a usage record")?;
    item.bytes(BODY).and_then(Rows::unpack).ok_or_else(|| {
        StoreError::new(StoreErrorKind::Corrupt, "a usage record cannot be read: damaged")
    })
}
