//! What an answer of AWS says about the alert, or about who asked and what was asked.

use std::future::Future;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tallygate::notify::NotDelivered;

/// Longest wait for an answer, with the client's own retries: less than a delivery may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(9);

/// Longest code of an error that is repeated: it is the server's text.
const MAX_CODE: usize = 64;

/// Parts of the codes that are about the caller, its rights, the topic or bus, or the moment. With
/// JSON, AWS answers 400 to these as well, so that the status does not set them apart from an alert
/// that is not wanted.
const NOT_OF_THE_ALERT: [&str; 20] = [
    "AccessDenied",
    "AccountId",
    "Authoriz",
    "Concurrent",
    "Disabled",
    "Expired",
    "Internal",
    "KMS",
    "LimitExceeded",
    "NotFound",
    "OptIn",
    "Security",
    "Signature",
    "SlowDown",
    "Throttl",
    "Timeout",
    "Token",
    "TooMany",
    "Unavailable",
    "UnrecognizedClient",
];

/// Waits for the answer to a call.
pub(crate) async fn of<T, E: ProvideErrorMetadata>(
    service: &str,
    sent: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, NotDelivered> {
    match tokio::time::timeout(ANSWER_WITHIN, sent).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(service, &error)),
        Err(_) => Err(later(service, &format!("has not answered within {ANSWER_WITHIN:?}"))),
    }
}

/// Without the error's own text: it may hold the signed request, or what a provider of credentials
/// has read.
fn failed<E: ProvideErrorMetadata>(
    service: &str,
    error: &SdkError<E, HttpResponse>,
) -> NotDelivered {
    match error {
        SdkError::ServiceError(refused) => {
            refusal(service, Some(refused.raw().status().as_u16()), refused.err().code())
        }
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            later(service, &format!("answered {status}, and nothing that can be read"))
        }
        SdkError::TimeoutError(_) => later(service, "has not answered in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            later(service, "has not answered in time")
        }
        SdkError::DispatchFailure(failure) if failure.is_io() => {
            later(service, "cannot be reached, or has hung up")
        }
        _ => later(service, "was not asked: its client lacks credentials, a region or a connector"),
    }
}

/// The verdict of an error with this code, of an answer with this status; `None`: of one entry of
/// an answer.
pub(crate) fn refusal(service: &str, status: Option<u16>, code: Option<&str>) -> NotDelivered {
    let is_plain = |it: &char| it.is_ascii_alphanumeric() || *it == '.';
    let code = code.map(|it| it.chars().take_while(is_plain).take(MAX_CODE).collect::<String>());
    let mut why = format!("{service} answered");
    for word in [status.map(|it| it.to_string()), code.clone()].into_iter().flatten() {
        why = format!("{why} {word}");
    }
    let code = code.unwrap_or_default();
    let may_be = status.is_none_or(|it| matches!(it, 400 | 413 | 415 | 422));
    if may_be && !NOT_OF_THE_ALERT.iter().any(|part| code.contains(part)) {
        return NotDelivered::Refused(why);
    }
    NotDelivered::Later(why)
}

pub(crate) fn later(service: &str, why: &str) -> NotDelivered {
    NotDelivered::Later(format!("{service} {why}"))
}
