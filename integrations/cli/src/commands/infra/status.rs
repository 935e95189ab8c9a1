//! `infra status`: the table of the service file, compared with what the template makes.
//!
//! It reads no item and changes nothing. What a right or an emulator does not let it see is left
//! out, with the reason.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    BillingMode, PointInTimeRecoveryStatus, SseType, TableDescription, TimeToLiveStatus,
};
use tallygate::store::{DynamoDb, Item, Store as _};

use super::no_table;
use crate::commands::Ran;
use crate::commands::found::{Found, print};
use crate::failure::{Failure, code};
use crate::output::Output;
use crate::service::dynamodb_client;
use crate::settings::{Settings, StoreAt};

pub(super) async fn run(out: Output, settings: &Settings) -> Ran {
    let StoreAt::Dynamodb(table) = settings.store() else { return Err(no_table()) };
    print(out, checks(&dynamodb_client().await, &table).await)
}

/// What makes a table throttle, or grow without end; for `doctor`, with the rights of the service.
pub(in crate::commands) async fn table_checks(client: &Client, table: &str) -> Vec<Found> {
    match described(client, table).await {
        Ok(description) => vec![expiry(client, table).await, billing(table, &description)],
        Err(failure) => vec![Found::Trouble(failure)],
    }
}

async fn checks(client: &Client, table: &str) -> Vec<(&'static str, Found)> {
    let description = match described(client, table).await {
        Ok(description) => description,
        Err(failure) => return vec![("table", Found::Trouble(failure))],
    };
    // As a gate does when it opens: its keys, its state, the attribute that expires its items.
    let opens = match DynamoDb::new(client.clone(), table).check().await {
        Ok(()) => Found::Ok(format!("a gate opens on {table}")),
        Err(error) => differs(&error.message, "a table of other keys cannot be changed into one"),
    };
    vec![
        ("table", opens),
        ("expiry", expiry(client, table).await),
        ("recovery", recovery(client, table).await),
        ("protection", protection(table, &description)),
        ("billing", billing(table, &description)),
        ("encryption", encryption(&description)),
        ("replicas", replicas(&description)),
    ]
}

async fn described(client: &Client, table: &str) -> Result<TableDescription, Failure> {
    match client.describe_table().table_name(table).send().await {
        Ok(described) => Ok(described.table.unwrap_or_else(|| TableDescription::builder().build())),
        Err(error) => Err(not_described(table, &error)),
    }
}

async fn expiry(client: &Client, table: &str) -> Found {
    let described = match client.describe_time_to_live().table_name(table).send().await {
        Ok(described) => described.time_to_live_description,
        Err(error) => return unseen(&error),
    };
    let (ttl, status) = (Item::TTL, described.as_ref().and_then(|it| it.time_to_live_status()));
    let by = described.as_ref().and_then(|it| it.attribute_name()).unwrap_or_default();
    match status {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) if by == ttl => {
            Found::Ok(format!("by the attribute {ttl}"))
        }
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => {
            differs(&format!("by the attribute {by}, not {ttl}"), "switch it off, then on by `ttl`")
        }
        _ => differs(
            "off: pools of past windows stay, and are paid for",
            &format!(
                "aws dynamodb update-time-to-live --table-name {table} \
                 --time-to-live-specification Enabled=true,AttributeName={ttl}"
            ),
        ),
    }
}

async fn recovery(client: &Client, table: &str) -> Found {
    let described = match client.describe_continuous_backups().table_name(table).send().await {
        Ok(described) => described.continuous_backups_description,
        Err(error) => return unseen(&error),
    };
    let recovery = described.and_then(|it| it.point_in_time_recovery_description);
    let days = recovery.as_ref().and_then(|it| it.recovery_period_in_days());
    match recovery.and_then(|it| it.point_in_time_recovery_status) {
        Some(PointInTimeRecoveryStatus::Enabled) => match days {
            Some(days) => Found::Ok(format!("to any second of the last {days} days")),
            None => Found::Ok("to any second of the last 35 days".to_owned()),
        },
        _ => differs(
            "off: what is deleted or overwritten cannot be restored",
            &format!(
                "aws dynamodb update-continuous-backups --table-name {table} \
                 --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
            ),
        ),
    }
}

fn protection(table: &str, description: &TableDescription) -> Found {
    match description.deletion_protection_enabled() {
        Some(true) => Found::Ok("the table cannot be deleted by a slip".to_owned()),
        _ => differs(
            "off: one call deletes the table",
            &format!(
                "aws dynamodb update-table --table-name {table} --deletion-protection-enabled"
            ),
        ),
    }
}

fn billing(table: &str, description: &TableDescription) -> Found {
    // Without a summary the table was never on demand.
    match description.billing_mode_summary().and_then(|it| it.billing_mode()) {
        Some(BillingMode::PayPerRequest) => Found::Ok("on demand".to_owned()),
        _ => differs(
            "provisioned: it throttles what is above its capacity",
            &format!(
                "aws dynamodb update-table --table-name {table} --billing-mode PAY_PER_REQUEST"
            ),
        ),
    }
}

/// Every table is encrypted; by which key is the operator's to decide.
fn encryption(description: &TableDescription) -> Found {
    let sse = description.sse_description();
    match sse.and_then(|it| it.sse_type()) {
        Some(SseType::Kms) => {
            let key = sse.and_then(|it| it.kms_master_key_arn()).unwrap_or("a key of KMS");
            Found::Ok(format!("by {key}"))
        }
        _ => Found::Ok("by a key of DynamoDB's".to_owned()),
    }
}

fn replicas(description: &TableDescription) -> Found {
    match description.replicas() {
        [] => Found::Ok("none".to_owned()),
        some => {
            let regions: Vec<_> = some.iter().filter_map(|it| it.region_name()).collect();
            differs(
                &format!("in {}: each region would grant the same units", regions.join(", ")),
                "remove the replicas: global tables are not supported",
            )
        }
    }
}

fn differs(what: &str, help: &str) -> Found {
    Found::Trouble(Failure::new(code::DIFFERENCES, format!("{what}\nhelp: {help}")))
}

/// Why something cannot be seen. It is no difference.
fn unseen<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Found {
    match error.as_service_error().and_then(|it| it.code()) {
        Some(code) => Found::Left(format!("it cannot be seen: {code}")),
        None => Found::Left("it cannot be seen: no answer".to_owned()),
    }
}

/// Why there is no description of the table.
fn not_described<E, R>(table: &str, error: &SdkError<E, R>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let code = error.as_service_error().and_then(|it| it.code()).unwrap_or_default();
    match code {
        "ResourceNotFoundException" => Failure::not_found(format!(
            "there is no table {table} in this account and region\n\
             help: `tallygate infra template` makes it, and so does `DynamoDb::create_table`"
        )),
        "AccessDeniedException" => Failure::new(
            code::NOT_PERMITTED,
            format!(
                "{table} may not be described\nhelp: `tallygate infra iam --role status` prints \
                 the rights"
            ),
        ),
        _ => {
            let causes =
                std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
            let causes: Vec<_> = causes.map(ToString::to_string).collect();
            Failure::new(code::FAILURE, format!("{table}: {}", causes.join(": ")))
        }
    }
}
