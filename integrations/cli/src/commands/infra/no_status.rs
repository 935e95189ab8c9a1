//! `infra status` of a build without DynamoDB.

use crate::commands::Ran;
use crate::output::Output;
use crate::service::no_dynamodb;
use crate::settings::{Settings, StoreAt};

#[allow(clippy::unused_async, reason = "it waits where the feature is on")]
pub(super) async fn run(_: Output, settings: &Settings) -> Ran {
    match settings.store() {
        StoreAt::Dynamodb(_) => Err(no_dynamodb()),
        _ => Err(super::no_table()),
    }
}
