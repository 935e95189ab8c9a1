//! The slots of a writer's log, as they are stored and read.

use crate::ledger::numbers::Numbered;
use crate::ledger::record::{FromRows, Rows, Unpacked};
use crate::quota::lease::Writer;
use crate::store::layout::check_format;
use crate::store::{Item, Key, Query, Store, StoreError, StoreErrorKind};

/// Format of a log slot: 2 since pool rows carry ceilings, 3 since rows are grouped by tenant, 5
/// since rows have numbers.
pub(super) const FORMAT: i64 = 5;
pub(super) const BODY: &str = "body";

/// In the last slot of a sealed log: its writer writes no more.
pub(super) const SEAL: &str = "seal";

/// Records per page when a log is folded.
pub(super) const PAGE: usize = 256;

/// A page of a log's slots.
pub(super) struct Slots {
    pub(super) slots: Vec<Slot>,
    /// Whether there may be more. Not implied by the number of slots: a store may cut a page
    /// anywhere.
    pub(super) more: bool,
}

/// A slot of a log.
pub(super) struct Slot {
    pub(super) n: u64,
    /// When it was written, Unix milliseconds.
    pub(super) at_ms: i64,
    /// Size of its body.
    pub(super) bytes: usize,
    pub(super) seal: bool,
    item: Item,
}

impl Slot {
    /// Its rows, and their writer if it is not the log's, after those of its log that have these
    /// numbers.
    pub(super) fn rows<R: FromRows>(&self, keys: &mut Numbered) -> Result<Unpacked<R>, StoreError> {
        decode(&self.item, keys)
    }
}

/// A page of slots from `from` on.
pub(super) async fn slots(
    store: &dyn Store,
    writer: &Writer,
    from: u64,
    until: Option<u64>,
) -> Result<Slots, StoreError> {
    let key = |n| writer.space.log(writer.incarnation, n);
    let Key { pk, sk } = key(from);
    let query = Query { pk, from: sk, until: until.map(|n| key(n).sk), limit: PAGE };
    let page = store.query(query).await?;
    let more = page.next.is_some();
    let read = |(sk, item): (String, Item)| {
        let n = sk
            .parse()
            .map_err(|_| StoreError::new(StoreErrorKind::Corrupt, "a log slot has no number"))?;
        check_format(&item, FORMAT, "a usage record")?;
        let bytes = item.bytes(BODY).map_or(0, <[u8]>::len);
        Ok(Slot { n, at_ms: made_ms(&item), bytes, seal: is_seal(&item), item })
    };
    let slots = page.items.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(Slots { slots, more })
}

/// When a record was made; 0 if it does not say.
pub(super) fn made_ms(item: &Item) -> i64 {
    item.bytes(BODY).and_then(Rows::made_ms).unwrap_or(0)
}

/// Its rows, and their writer where that is not its own, after those of its log that have these
/// numbers.
pub(crate) fn decode<R: FromRows>(
    item: &Item,
    keys: &mut Numbered,
) -> Result<Unpacked<R>, StoreError> {
    check_format(item, FORMAT, "a usage record")?;
    if is_seal(item) {
        return Ok(Unpacked::Rows(R::of(R::List::default()), None));
    }
    item.bytes(BODY).and_then(|body| Rows::unpack_after(body, keys)).ok_or_else(damaged)
}

pub(super) fn damaged() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "a usage record cannot be read: damaged")
}

/// Whether it is the last of a sealed log.
pub(crate) fn is_seal(item: &Item) -> bool {
    item.int(SEAL).is_some()
}
