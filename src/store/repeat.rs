//! A write made again while nobody knows what became of it, for those who have nothing better to do
//! than wait: whoever opens.

use std::time::Duration;

use super::{Store, StoreError, StoreErrorKind, Write, Written};

/// Tries in all. A store that keeps all of them unknown is not one to open on.
const TRIES: u32 = 8;

/// Waits between them, doubled up to the second.
const PAUSES: std::ops::Range<Duration> = Duration::from_millis(25)..Duration::from_secs(1);

/// Makes this write, the same again after an unknown outcome, until the answer is definite.
///
/// The answer to a repetition may be [`Written::Refused`] by what the first try has written: the
/// caller judges by the item.
///
/// # Errors
///
/// What the store said; of kind [`StoreErrorKind::Unknown`] when all tries have ended so.
pub(crate) async fn until_known(store: &dyn Store, write: Write) -> Result<Written, StoreError> {
    let mut pause = PAUSES.start;
    for _ in 1..TRIES {
        match store.write(write.clone()).await {
            Err(error) if error.kind == StoreErrorKind::Unknown => {}
            answer => return answer,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.end);
    }
    store.write(write).await
}
