//! Classification of SDK errors for a [`Write`](super::super::Write): not applied, or unknown.
//!
//! A write counts as **not applied** only where that is certain: the request was never built, the
//! connection was refused, or the service itself refused it. Every other failure on the way (a cut
//! connection, silence, a malformed answer, a 5xx) leaves its outcome unknown. A failed read is
//! unavailable or throttled: it has no outcome.

use std::error::Error;
use std::io;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::super::{StoreError, StoreErrorKind};

/// The kind of call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailedCall {
    Read,
    Write,
}

impl FailedCall {
    /// The error kind of this call when its outcome is unknown.
    fn unknown(self) -> StoreErrorKind {
        match self {
            Self::Read => StoreErrorKind::Unavailable,
            Self::Write => StoreErrorKind::Unknown,
        }
    }

    /// The error for a call that timed out.
    pub(super) fn silence(self) -> StoreError {
        StoreError::new(self.unknown(), "dynamodb: no answer in time")
    }
}

/// The error of a call.
pub(super) fn of<E, R>(call: FailedCall, error: &SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let unsent = match error {
        SdkError::ServiceError(refused) => {
            let (code, said) = (refused.err().code(), refused.err().message());
            let kind = kind_of(call, code);
            let (code, said) = (code.unwrap_or("an error without a code"), said.unwrap_or("-"));
            return StoreError::new(kind, format!("dynamodb: {code}: {said}"));
        }
        SdkError::ConstructionFailure(_) => true,
        SdkError::DispatchFailure(_) => nobody_listened(error),
        _ => false,
    };
    let (kind, what) = match unsent {
        true => (StoreErrorKind::Unavailable, "nothing was sent"),
        false => (call.unknown(), "no answer"),
    };
    StoreError::new(kind, format!("dynamodb: {what}: {}", messages(error)))
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The messages of an error chain. Not their `Debug`, which shows the response.
fn messages(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whether the connection was refused, which happens before anything is sent on it. Other failures
/// to connect may be certain too, but no client distinguishes them from later failures.
fn nobody_listened(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// The kind for the service's error code. Codes with which it refuses a request before touching the
/// item are certain; any other code is not.
fn kind_of(call: FailedCall, code: Option<&str>) -> StoreErrorKind {
    match code.unwrap_or_default() {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TransactionConflictException"
        | "ReplicatedWriteConflictException" => StoreErrorKind::Throttled,
        "ValidationException"
        | "SerializationException"
        | "ItemCollectionSizeLimitExceededException" => StoreErrorKind::Invalid,
        // The table or our access to it. Both can come back without a change on our side.
        "ResourceNotFoundException"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "ExpiredTokenException"
        | "NotAuthorizedException"
        | "OptInRequired"
        | "InvalidEndpointException" => StoreErrorKind::Unavailable,
        _ => call.unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_counts_as_not_applied() {
        for (code, read, write) in [
            ("ThrottlingException", StoreErrorKind::Throttled, StoreErrorKind::Throttled),
            ("ValidationException", StoreErrorKind::Invalid, StoreErrorKind::Invalid),
            ("AccessDeniedException", StoreErrorKind::Unavailable, StoreErrorKind::Unavailable),
            ("InternalServerError", StoreErrorKind::Unavailable, StoreErrorKind::Unknown),
            ("ServiceUnavailable", StoreErrorKind::Unavailable, StoreErrorKind::Unknown),
            ("SomethingOfNextYear", StoreErrorKind::Unavailable, StoreErrorKind::Unknown),
        ] {
            assert_eq!(kind_of(FailedCall::Read, Some(code)), read, "{code}");
            assert_eq!(kind_of(FailedCall::Write, Some(code)), write, "{code}");
        }
        assert_eq!(kind_of(FailedCall::Write, None), StoreErrorKind::Unknown);
    }
}
