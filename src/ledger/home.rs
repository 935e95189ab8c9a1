//! The store that a journal belongs to, by an id that is drawn when the first journal of its part
//! of the store is written, and anew when the store is restored from a backup.
//!
//! A journal of another store, or of another part of a shared table, must not be carried over: its
//! usage would be lost there and invented here. Nor may one of a time that the copy does not know:
//! what was billed since would be billed again.

use crate::random;
use crate::store::layout::{Space, format};
use crate::store::{
    Change, Item, Store, StoreError, StoreErrorKind, Value, When, Write, Written, until_known,
};

/// Format of the item.
const FORMAT: i64 = 1;
const ID: &str = "id";

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalHome([u8; 16]);

impl JournalHome {
    /// The id of this part of the store, drawn if there is none.
    pub(crate) async fn of(store: &dyn Store, space: &Space) -> Result<Self, StoreError> {
        if let Some(item) = store.read(space.journal_home()).await? {
            return Self::in_item(&item);
        }
        let drawn = Self::draw()?;
        match until_known(store, drawn.write(space, vec![When::Absent])).await? {
            Written::Applied(_) => Ok(drawn),
            // Another process's, or ours, if the answer to an earlier attempt was lost.
            Written::Refused(Some(item)) => Self::in_item(&item),
            Written::Refused(None) => Err(damaged()),
        }
    }

    /// Draws another: no journal written so far belongs to this part of the store any more.
    pub(crate) async fn renew(store: &dyn Store, space: &Space) -> Result<(), StoreError> {
        until_known(store, Self::draw()?.write(space, vec![])).await.map(drop)
    }

    pub(super) fn from_stored(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn test(n: u8) -> Self {
        Self([n; 16])
    }

    fn draw() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        random::fill(&mut bytes).map_err(|error| {
            StoreError::new(StoreErrorKind::Unavailable, format!("no randomness: {error}"))
        })?;
        Ok(Self(bytes))
    }

    fn write(self, space: &Space, when: Vec<When>) -> Write {
        let (name, version) = format(FORMAT);
        let id = Change::Set(ID.into(), Value::Bytes(self.0.to_vec()));
        Write { key: space.journal_home(), when, change: vec![Change::Set(name, version), id] }
    }

    fn in_item(item: &Item) -> Result<Self, StoreError> {
        let bytes = item.bytes(ID).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(damaged)
    }
}

fn damaged() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "the id by which its journals know the store")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[tokio::test]
    async fn is_the_same_for_a_part_of_a_store_until_that_is_restored() {
        let store = Memory::new();
        let (live, test) = (Space::new("live"), Space::new("test"));
        let first = JournalHome::of(&store, &live).await.unwrap();
        assert_eq!(JournalHome::of(&store, &live).await.unwrap(), first);
        assert_ne!(JournalHome::of(&store, &test).await.unwrap(), first);
        JournalHome::renew(&store, &live).await.unwrap();
        assert_ne!(JournalHome::of(&store, &live).await.unwrap(), first);
    }
}
