//! Repeats of calls that did not get through, or whose outcome is unknown. A caller chooses how
//! many and at which pauses.
//!
//! # Laws
//!
//! 1. A call is repeated unchanged. A repeated write may be answered [`Written::Refused`] because
//!    of what an earlier try has written: the caller judges by the item.
//! 2. A write that may have been applied stays so: once the outcome of a try is unknown, a failed
//!    repeat says nothing about it, and the error is of kind [`StoreErrorKind::Unknown`].

use std::time::Duration;

use super::{Store, StoreError, StoreErrorKind, Write, Written};
use crate::delays::Delays;

/// Pauses of those that can afford to wait: they open a gate. A store that leaves eight tries
/// unknown is not fit to open on.
const PAUSES: Delays = Delays::doubling(Duration::from_millis(25), Duration::from_secs(1));
const REPEATS: usize = 7;

/// Repeats at once, of those that a caller waits for. The store has taken its time by then: an
/// outcome is unknown when a call was cut off or not answered.
const AT_ONCE: usize = 3;

/// Makes this call, and again after each of these pauses as long as `repeats` holds for the error.
/// Returns also whether the outcome of a try before the last was unknown.
pub(crate) async fn repeat<T, F: Future<Output = Result<T, StoreError>>>(
    pauses: impl IntoIterator<Item = Duration>,
    repeats: fn(&StoreError) -> bool,
    call: impl Fn() -> F,
) -> Result<(T, bool), StoreError> {
    let (mut pauses, mut unknown) = (pauses.into_iter(), None);
    loop {
        let error = match call().await {
            Ok(answer) => return Ok((answer, unknown.is_some())),
            Err(error) => error,
        };
        let pause = if repeats(&error) { pauses.next() } else { None };
        tracing::debug!(%error, ?pause, "a call to the store failed");
        if is_unknown(&error) {
            unknown = Some(error.clone());
        }
        match pause {
            None => return Err(unknown.unwrap_or(error)),
            Some(Duration::ZERO) => {}
            Some(pause) => tokio::time::sleep(pause).await,
        }
    }
}

/// Makes a write until its outcome is known, for callers that can afford to wait.
///
/// # Errors
///
/// The store's error; of kind [`StoreErrorKind::Unknown`] when no try has settled it.
pub(crate) async fn until_known(store: &dyn Store, write: Write) -> Result<Written, StoreError> {
    let write = || store.write(write.clone());
    Ok(repeat(PAUSES.take(REPEATS), is_unknown, write).await?.0)
}

/// The same without pauses. Also: whether an earlier try may have been applied.
pub(crate) async fn until_known_at_once(
    store: &dyn Store,
    write: Write,
) -> Result<(Written, bool), StoreError> {
    let pauses = std::iter::repeat_n(Duration::ZERO, AT_ONCE);
    repeat(pauses, is_unknown, || store.write(write.clone())).await
}

fn is_unknown(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Key, Memory, Value};
    use crate::testing::Fault::{self, LoseReply, LoseRequest, Throttled, Unavailable};
    use crate::testing::Faulty;

    async fn written(faults: &[Fault]) -> (Result<(Written, bool), StoreErrorKind>, u64) {
        let store = Faulty::scripted(Memory::new(), faults.to_vec());
        let write = Write {
            key: Key { pk: "p".into(), sk: "s".into() },
            when: vec![super::super::When::Absent],
            change: vec![Change::Set("n".into(), Value::Int(1))],
        };
        let result = until_known_at_once(&store, write).await;
        (result.map_err(|error| error.kind), store.calls())
    }

    #[tokio::test]
    async fn a_write_is_repeated_until_its_outcome_is_known() {
        let (result, calls) = written(&[]).await;
        assert!(matches!(result, Ok((Written::Applied(_), false))) && calls == 1);
        let (result, calls) = written(&[LoseRequest, LoseRequest]).await;
        assert!(matches!(result, Ok((Written::Applied(_), true))) && calls == 3);
        let (result, calls) = written(&[LoseReply, LoseRequest]).await;
        assert!(matches!(result, Ok((Written::Refused(Some(_)), true))) && calls == 3);
        assert_eq!(written(&[LoseRequest; 9]).await, (Err(StoreErrorKind::Unknown), 4));
        assert_eq!(written(&[Unavailable]).await, (Err(StoreErrorKind::Unavailable), 1));
    }

    #[tokio::test]
    async fn a_write_that_may_have_been_applied_stays_so_when_a_repeat_fails() {
        for failure in [Unavailable, Throttled] {
            let (result, calls) = written(&[LoseReply, failure]).await;
            assert_eq!((result, calls), (Err(StoreErrorKind::Unknown), 2), "{failure:?}");
        }
    }
}
