//! The DynamoDB table under a service: what makes it throttle or grow, and what time it has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;

use super::Found;
use crate::commands::infra::table_checks;
use crate::service::dynamodb_client;
use crate::when::now;

/// The table's expiry and billing, of all that `infra status` looks at; and how far its clock is
/// ahead of this one.
pub(super) async fn checks(table: &str) -> (Found, Option<Ahead>) {
    let (client, heard) = (dynamodb_client().await, TheirTime::default());
    let asked = now();
    let call = client.describe_table().table_name(table).customize().interceptor(heard.clone());
    // The answer's head has the time, whatever it says of the table.
    let _ = call.send().await;
    let ahead = heard.take().map(|theirs| Ahead::between(theirs, asked, now()));
    let mut all = table_checks(&client, table).await.into_iter();
    let found = all.find(|found| matches!(found, Found::Trouble(_)));
    let fine = || Found::Ok("expiry is on, and it is billed on demand".to_owned());
    (found.unwrap_or_else(fine), ahead)
}

/// How far another clock is from this one, less what the question may have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead(pub(super) Duration);

impl Ahead {
    fn between(theirs: SystemTime, asked: SystemTime, answered: SystemTime) -> Self {
        let before = asked.duration_since(theirs).unwrap_or_default();
        let after = theirs.duration_since(answered).unwrap_or_default();
        Self(before.max(after))
    }
}

/// Hears the time in the answer's head.
#[derive(Clone, Debug, Default)]
struct TheirTime(Arc<Mutex<Option<SystemTime>>>);

impl TheirTime {
    fn take(&self) -> Option<SystemTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Intercept for TheirTime {
    fn name(&self) -> &'static str {
        "TheirTime"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let said = context.response().headers().get("date").and_then(read);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
        Ok(())
    }
}

/// An HTTP date.
fn read(text: &str) -> Option<SystemTime> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(at.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clock_is_off_by_what_the_call_cannot_explain() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let between = |theirs| Ahead::between(at(theirs), at(100), at(103)).0.as_secs();
        assert_eq!([90, 99, 100, 102, 103, 110].map(between), [10, 1, 0, 0, 0, 7]);
        assert_eq!(read("Thu, 01 Jan 1970 00:01:40 GMT"), Some(at(100)));
        assert_eq!(read("yesterday"), None);
    }
}
