//! Writes whose reply may be lost.

use crate::store::{Item, Store, StoreError, StoreErrorKind, Write, Written};

/// How often an identical write is tried before its outcome is given up as unknown. The store's own
/// client has waited in between.
const TRIES: usize = 4;

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
    let mut lost = false;
    for _ in 1..TRIES {
        match store.write(write.clone()).await {
            Err(error) if error.kind == StoreErrorKind::Unknown => lost = true,
            answer => return judge(answer?, lost),
        }
    }
    // The last try's error is the caller's.
    let answer = store.write(write).await?;
    judge(answer, lost)
}

fn judge(answer: Written, lost: bool) -> Result<Made, StoreError> {
    match answer {
        Written::Applied(Some(item)) => Ok(Made::Yes(item)),
        Written::Applied(None) => {
            let message = "a write that deletes nothing left no item";
            Err(StoreError::new(StoreErrorKind::Corrupt, message))
        }
        Written::Refused(item) if lost => Ok(Made::Perhaps(item)),
        Written::Refused(item) => Ok(Made::No(item)),
    }
}
