//! The id of one part of a store: drawn when it is first asked for, and anew when the store is
//! restored from a backup. What is kept or sent outside of the store names it by this: the journals
//! of its processes, and the alerts that are of no tenant.

use super::layout::{Space, format};
use super::{
    Change, Item, Store, StoreError, StoreErrorKind, Value, When, Write, Written, until_known,
};
use crate::random;

/// Format of the item.
const FORMAT: i64 = 1;
const ID: &str = "id";

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId([u8; 16]);

impl StoreId {
    /// The id of this part of the store, drawn if there is none.
    pub(crate) async fn of(store: &dyn Store, space: &Space) -> Result<Self, StoreError> {
        if let Some(item) = store.read(space.store_id()).await? {
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

    /// Draws another: what was written under the one before is not of this part of the store any
    /// more.
    pub(crate) async fn renew(store: &dyn Store, space: &Space) -> Result<(), StoreError> {
        until_known(store, Self::draw()?.write(space, vec![])).await.map(drop)
    }

    pub(crate) fn from_stored(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
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
        Write { key: space.store_id(), when, change: vec![Change::Set(name, version), id] }
    }

    fn in_item(item: &Item) -> Result<Self, StoreError> {
        let bytes = item.bytes(ID).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(damaged)
    }
}

fn damaged() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "the id of this part of the store")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[tokio::test]
    async fn is_the_same_for_a_part_of_a_store_until_that_is_restored() {
        let store = Memory::new();
        let (live, test) = (Space::new("live"), Space::new("test"));
        let first = StoreId::of(&store, &live).await.unwrap();
        assert_eq!(StoreId::of(&store, &live).await.unwrap(), first);
        assert_ne!(StoreId::of(&store, &test).await.unwrap(), first);
        StoreId::renew(&store, &live).await.unwrap();
        assert_ne!(StoreId::of(&store, &live).await.unwrap(), first);
    }
}
