//! Writes whose reply may be lost.

use crate::store::{Item, Store, StoreError, StoreErrorKind, Write, Written, until_known_at_once};

/// The outcome of a write.
pub(super) enum Made {
    /// It was applied: the current item.
    Yes(Item),
    /// A condition failed, and no reply was lost: it was not applied.
    No(Option<Item>),
    /// A condition failed after a lost reply: it was applied if the item shows it.
    Perhaps(Option<Item>),
}

/// Repeats a write that does not delete, while its outcome is unknown.
pub(super) async fn make(store: &dyn Store, write: Write) -> Result<Made, StoreError> {
    match until_known_at_once(store, write).await? {
        (Written::Applied(Some(item)), _) => Ok(Made::Yes(item)),
        (Written::Applied(None), _) => {
            let message = "a write that deletes nothing left no item";
            Err(StoreError::new(StoreErrorKind::Corrupt, message))
        }
        (Written::Refused(item), true) => Ok(Made::Perhaps(item)),
        (Written::Refused(item), false) => Ok(Made::No(item)),
    }
}
