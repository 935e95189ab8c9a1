//! Retries a write whose outcome is unknown, with backoff, for callers that can afford to wait:
//! those opening a gate.

use std::time::Duration;

use super::{Store, StoreError, StoreErrorKind, Write, Written};

/// Tries in all. A store that leaves all of them unknown is not fit to open on.
const TRIES: u32 = 8;

/// Pauses between tries: the first value, doubling up to the second.
const PAUSES: std::ops::Range<Duration> = Duration::from_millis(25)..Duration::from_secs(1);

/// Makes this write, repeated unchanged after an unknown outcome until the answer is definite.
///
/// A repeat may be answered [`Written::Refused`] because of what the first try has written: the
/// caller judges by the item.
///
/// # Errors
///
/// The store's error; of kind [`StoreErrorKind::Unknown`] when the last try ended so.
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
