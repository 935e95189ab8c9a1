//! The numbered log of one writer: slots that are written once, in order.

use crate::admission::lease::Writer;
use crate::store::layout::{self, check_format};
use crate::store::{
    Change, Item, Key, Query, Store, StoreError, StoreErrorKind, Value, When, Write, Written,
};
use crate::usage::compact;
use crate::usage::record::Rows;

/// Format of a log slot.
pub(super) const FORMAT: i64 = 1;
pub(super) const BODY: &str = "body";

/// Format of a registry entry.
const REGISTRY_FORMAT: i64 = 1;

/// Records read in one page when a log is folded.
pub(super) const PAGE: usize = 256;

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
                Change::Set("version".into(), Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
            ],
        }
    }

    /// The write of the next slot. Repeated as it is until [`wrote`](Self::wrote) is told how it
    /// went.
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

/// Reads a log from slot `from` on, handing each record's rows to `fold`. Slots that stand folded
/// are read as their fold. Returns the first slot that is not there yet.
pub(crate) async fn read(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    mut fold: impl FnMut(Rows, u128),
) -> Result<u64, StoreError> {
    let mut next = compact::read(store, writer, from, &mut fold).await?;
    loop {
        let page = slots(store, writer, next, None).await?;
        let full = page.len() == PAGE;
        for (n, rows, of) in page {
            if n != next {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    format!("a usage log has a hole at slot {next}: run the audit"),
                ));
            }
            fold(rows, of);
            next += 1;
        }
        if !full {
            return Ok(next);
        }
    }
}

/// A page of slots from `from` on: number, rows, and whose they are.
pub(super) async fn slots(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    until: Option<u64>,
) -> Result<Vec<(u64, Rows, u128)>, StoreError> {
    let key = |n| writer.space.log(writer.incarnation, n);
    let Key { pk, sk } = key(from);
    let query = Query { pk, from: sk, until: until.map(|n| key(n).sk), limit: PAGE };
    let page = store.query(query).await?;
    let read = |(sk, item): &(String, Item)| {
        let n = sk
            .parse()
            .map_err(|_| StoreError::new(StoreErrorKind::Corrupt, "a log slot has no number"))?;
        let (rows, carried) = decode(item)?;
        Ok((n, rows, carried.unwrap_or(writer.incarnation)))
    };
    page.items.iter().map(read).collect()
}

pub(crate) fn decode(item: &Item) -> Result<(Rows, Option<u128>), StoreError> {
    check_format(item, FORMAT, "a usage record")?;
    item.bytes(BODY).and_then(Rows::unpack).ok_or_else(|| {
        StoreError::new(StoreErrorKind::Corrupt, "a usage record cannot be read: damaged")
    })
}
