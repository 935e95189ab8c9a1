//! One writer's numbered log: slots that are written once, in order.

use crate::catalog::{Zone, local_day};
use crate::ids::WriterId;
use crate::ledger::compact;
use crate::ledger::numbers::{Numbered, NumbersGiven};
use crate::ledger::record::{ByWriter, FromRows, Rows, Unpacked};
use crate::ledger::slots::{BODY, FORMAT, SEAL, damaged, is_seal, slots};
use crate::quota::lease::Writer;
use crate::store::layout::{self, Space};
use crate::store::{
    Change, Store, StoreError, StoreErrorKind, Value, When, Write, Written, until_known,
};

/// Format of a registry entry, and of the mark of a month in it.
pub(super) const REGISTRY_FORMAT: i64 = 1;

/// Attribute of a month's mark: who has registered in it last.
pub(super) const LAST: &str = "last";

/// A writer's position in its own log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    writer: Writer,
    next: u64,
    numbers: NumbersGiven,
    /// The months (yyyymm) under which it has registered, and those of them that it has marked.
    registered: Vec<u32>,
    marked: Vec<u32>,
}

impl LogWriter {
    pub(crate) fn new(writer: Writer) -> Self {
        let (registered, marked) = (Vec::new(), Vec::new());
        Self { writer, next: 0, numbers: NumbersGiven::default(), registered, marked }
    }

    /// The bodies of the next slots, with these rows by their writer. Each is read after those
    /// before it, so they are written in this order, and none is packed before all have been.
    pub(crate) fn pack(&mut self, rows: &ByWriter, at_ms: i64) -> Vec<Vec<u8>> {
        let (own, mut slot) = (self.incarnation(), self.next);
        let mut begin = |numbers: &mut NumbersGiven| {
            if slot.is_multiple_of(compact::RUN) {
                numbers.clear(); // a run is folded by itself
            }
            slot += 1;
        };
        let mut bodies = Vec::new();
        for (of, rows) in rows {
            let carried = (*of != own).then_some(*of);
            bodies.extend(rows.pack_after(at_ms, carried, &mut self.numbers, &mut begin));
        }
        bodies
    }

    /// Draws and registers a new incarnation, with an empty log. Its month is marked before its
    /// first record.
    pub(crate) async fn begin(
        store: &dyn Store,
        space: Space,
        at_ms: i64,
    ) -> Result<Self, StoreError> {
        let incarnation = WriterId::draw().map_err(|error| {
            StoreError::new(StoreErrorKind::Unavailable, format!("no randomness: {error}"))
        })?;
        let writer = Writer { space, incarnation };
        let mut log = Self::new(writer);
        // An unconditional put: repeating it changes nothing.
        until_known(store, Self::registration(&log.writer, utc_day(at_ms), at_ms)).await?;
        log.registered_at(at_ms);
        Ok(log)
    }

    /// The next write that is due before a record at this time, if any: a clock that has been set
    /// registers its writer under another month, where a reader with that clock looks for it. The
    /// mark comes last, because it says that there is something new to find. Report its success to
    /// [`registered_at`](Self::registered_at).
    pub(crate) fn due_registration(&self, at_ms: i64) -> Option<Write> {
        let day = utc_day(at_ms);
        let month = day / 100;
        if !self.registered.contains(&month) {
            return Some(Self::registration(&self.writer, day, at_ms));
        }
        (!self.marked.contains(&month)).then(|| self.mark(month))
    }

    /// The write that was due at this time is in the store.
    pub(crate) fn registered_at(&mut self, at_ms: i64) {
        let month = utc_day(at_ms) / 100;
        let is_registered = self.registered.contains(&month);
        if is_registered { &mut self.marked } else { &mut self.registered }.push(month);
    }

    /// Makes the writes that are due before a record at this time.
    pub(crate) async fn register(
        &mut self,
        store: &dyn Store,
        at_ms: i64,
    ) -> Result<(), StoreError> {
        while let Some(write) = self.due_registration(at_ms) {
            until_known(store, write).await?;
            self.registered_at(at_ms);
        }
        Ok(())
    }

    /// The write that lists a month of the registry.
    fn mark(&self, month: u32) -> Write {
        let (name, version) = layout::format(REGISTRY_FORMAT);
        let last = Value::Text(self.writer.incarnation.to_string());
        Write {
            key: self.writer.space.registry_month(month),
            when: vec![],
            change: vec![Change::Set(name, version), Change::Set(LAST.into(), last)],
        }
    }

    /// The write that registers this writer, before its first lease or record: readers find every
    /// log through the registry.
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

    /// The write of the next slot. Repeat it unchanged until [`wrote`](Self::wrote) gets the
    /// outcome.
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

    /// Handles the definite outcome of a slot's write and moves on to the next.
    pub(crate) fn wrote(&mut self, body: &[u8], answer: Written) -> Result<Wrote, StoreError> {
        match answer {
            Written::Applied(_) => {}
            // Exists already: ours, if an earlier attempt was applied and its answer lost.
            Written::Refused(Some(item)) if item.bytes(BODY) == Some(body) => {}
            Written::Refused(Some(item)) if is_seal(&item) => return Ok(Wrote::Sealed),
            Written::Refused(_) => {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    "another process wrote to this process's log: was this one cloned while it \
                     ran?",
                ));
            }
        }
        self.next += 1;
        Ok(Wrote::Slot)
    }

    /// Nothing was recorded for a while: what was is in full again when it is next.
    pub(crate) fn is_quiet(&mut self) {
        self.numbers.clear();
    }

    /// Seals this log, because its writer has closed: readers need not look at it again, and units
    /// that could not be given back are taken back without waiting. A seal by another process is as
    /// good.
    pub(crate) async fn end(self, store: &dyn Store) -> Result<(), StoreError> {
        until_known(store, seal(&self.writer, self.next)).await.map(|_| ())
    }

    /// The next slot to write.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The log's writer.
    pub(crate) fn incarnation(&self) -> WriterId {
        self.writer.incarnation
    }

    /// The part of the table that holds the log.
    pub(crate) fn space(&self) -> Space {
        self.writer.space.clone()
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }
}

/// The day of this time, yyyymmdd.
pub(super) fn utc_day(at_ms: i64) -> u32 {
    local_day(at_ms, &Zone::utc())
}

/// Outcome of writing a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    Slot,
    /// Another process sealed this log earlier: the record is not in it.
    Sealed,
}

/// The write that seals a log at slot `next`, which must be its end.
pub(crate) fn seal(writer: &Writer, next: u64) -> Write {
    let (name, version) = layout::format(FORMAT);
    Write {
        key: writer.space.log(writer.incarnation, next),
        when: vec![When::Absent],
        change: vec![Change::Set(name, version), Change::Set(SEAL.into(), Value::Int(1))],
    }
}

/// The end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The first slot that does not exist yet.
    pub(crate) next: u64,
    /// The last slot is a seal. Only set if it was read.
    pub(crate) sealed: bool,
}

/// Reads a log from slot `from` on, passing each record's rows to `fold`. Folded slots are read
/// from their fold.
pub(crate) async fn read(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    mut fold: impl FnMut(Rows, WriterId),
) -> Result<End, StoreError> {
    read_dated(store, writer, from, |_, rows, of| fold(rows, of)).await
}

/// Finds the end of a log from slot `from` on, and reads none of its rows.
pub(crate) async fn read_end(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
) -> Result<End, StoreError> {
    // The last slot is never folded.
    let mut end = End { next: from, sealed: false };
    loop {
        let page = slots(store, writer, end.next, None).await?;
        if let Some(last) = page.slots.last() {
            end = End { next: last.n + 1, sealed: last.seal };
        }
        if !page.more {
            return Ok(end);
        }
    }
}

/// The same with the time of each record, Unix milliseconds; of a fold, that of its last.
pub(crate) async fn read_dated(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    fold: impl FnMut(i64, Rows, WriterId),
) -> Result<End, StoreError> {
    read_on(store, writer, from, &mut Numbered::default(), fold).await
}

/// The same, after an earlier reading that has left these numbers. Without them a log is read from
/// the beginning of a run: what that has is had again, and changes nothing.
pub(crate) async fn read_on<R: FromRows>(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    keys: &mut Numbered,
    mut fold: impl FnMut(i64, R, WriterId),
) -> Result<End, StoreError> {
    let (mut next, mut sealed, mut is_again) = (from, false, false);
    if from == 0 {
        next = compact::read(store, writer, from, &mut fold).await?;
    }
    loop {
        let page = slots(store, writer, next, None).await?;
        let (more, mut is_whole) = (page.more, true);
        let mut lacking = false;
        for slot in page.slots {
            is_whole = slot.n == next;
            if !is_whole {
                break;
            }
            let Unpacked::Rows(rows, carried) = slot.rows(keys)? else {
                lacking = true;
                break;
            };
            fold(slot.at_ms, rows, carried.unwrap_or(writer.incarnation));
            sealed = slot.seal;
            next += 1;
        }
        if lacking {
            let first = next - next % compact::RUN;
            if first == next || std::mem::replace(&mut is_again, true) {
                return Err(damaged());
            }
            next = first;
        } else if !is_whole {
            // Slots are removed once their fold exists, and never the last: it says what they held.
            let behind = compact::read(store, writer, next, &mut fold).await?;
            if behind == next {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    format!("slot {next} of a usage log is missing: run the audit"),
                ));
            }
            next = behind;
        } else if !more {
            return Ok(End { next, sealed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Surrogate;
    use crate::ledger::record::PoolRow;
    use crate::ledger::slots::PAGE;
    use crate::quota::pool::PoolId;
    use crate::store::Memory;
    use crate::testing::Faulty;

    fn pool() -> PoolId {
        let limit = "requests/month".into();
        PoolId { tenant: Surrogate::test(1), limit, scope: 0, start_ms: 0 }
    }

    /// A reader needs a log's end, and the last ceiling in it: units above that are taken back.
    #[tokio::test]
    async fn a_log_is_read_to_its_end_over_pages_that_are_cut() {
        let store = Faulty::scripted(Memory::new(), []);
        let writer = Writer { space: Space::new("test"), incarnation: WriterId::test(7) };
        let mut log = LogWriter::new(writer.clone());
        let slots = 2 * PAGE as u64 + 9;
        for ceiling in 1..=slots {
            let row = PoolRow { total: 1, ceiling };
            let rows = Rows { pools: [(pool(), row)].into(), ..Rows::default() };
            let body = rows.pack(0, None).remove(0);
            let written = store.write(log.slot(&body)).await.unwrap();
            log.wrote(&body, written).unwrap();
        }
        store.write(seal(&writer, slots)).await.unwrap();
        for most in [1, 40, PAGE - 1] {
            store.cut_pages(most);
            for from in [0, 5, slots - 1, slots] {
                let mut ceiling = 0;
                let fold = |rows: Rows, _| {
                    let row = rows.pools.get(&pool()).copied().unwrap_or_default();
                    ceiling = ceiling.max(row.ceiling);
                };
                let end = read(&store, &writer, from, fold).await.unwrap();
                assert_eq!(end, End { next: slots + 1, sealed: true }, "from {from}, by {most}");
                assert_eq!(ceiling, if from < slots { slots } else { 0 });
            }
        }
    }
}
