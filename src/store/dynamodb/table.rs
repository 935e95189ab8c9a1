//! The table itself: creating it, waiting for it, and checking it before it is trusted.

use std::ops::RangeInclusive;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
    WarmThroughput as Warm,
};

use super::super::{Item, StoreError, StoreErrorKind};
use super::DynamoDb;
use super::error::{self, FailedCall};
use super::item::{PK, SK};

/// How long to wait for a new table. Most are ready after some 10 s; one created warm takes
/// minutes.
const MADE_WITHIN: Duration = Duration::from_secs(300);

/// Length of a table name in characters, by DynamoDB's own rules.
const NAME: RangeInclusive<usize> = 3..=255;

/// Interval between polls of a table that is being created.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The load a new table takes at once, before it has grown by use. AWS charges once for it; a plain
/// table begins with 12,000 reads and 4,000 writes a second, and takes no less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmThroughput {
    /// Read units a second.
    pub read: u32,
    /// Write units a second.
    pub write: u32,
}

impl DynamoDb {
    /// Creates the table, billed on demand, with expiry by the attribute `ttl`, and returns when it
    /// is usable, within 5 minutes. An existing table stays as it is, except that expiry is
    /// switched on if it is off: several processes may call this at once. `warm` applies only to a
    /// new table, and so do its deletion protection and its point-in-time recovery (35 days back,
    /// which AWS charges for by the size of the table). A failure to switch that on is logged.
    ///
    /// The call needs the rights `dynamodb:CreateTable`, `DescribeTable`, `DescribeTimeToLive`,
    /// `UpdateTimeToLive` and `UpdateContinuousBackups`.
    ///
    /// # Errors
    ///
    /// `Invalid` where the name is illegal or a table of that name has another shape; otherwise the
    /// service's own error.
    pub async fn create_table(
        client: &Client,
        table: &str,
        warm: Option<WarmThroughput>,
    ) -> Result<(), StoreError> {
        check_name(table)?;
        let made = async {
            let is_new = create(client, table, warm).await?;
            while describe(client, table).await?.table_status == Some(TableStatus::Creating) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if is_new {
                back_up(client, table).await;
            }
            expire_by_ttl(client, table).await?;
            check(client, table).await
        };
        tokio::time::timeout(MADE_WITHIN, made).await.unwrap_or_else(|_| {
            let message = format!("the table `{table}` is still being created: try again later");
            Err(StoreError::new(StoreErrorKind::Unavailable, message))
        })
    }
}

/// Fails if the table cannot hold our items, and says why. A missing right to describe it is no
/// fault of the table: it is logged.
pub(super) async fn check(client: &Client, table: &str) -> Result<(), StoreError> {
    check_name(table)?;
    // Concurrently: the opening gate waits for both.
    let (description, expiry) = tokio::join!(describe(client, table), expiry(client, table));
    let description = match description {
        Err(error) if is_denied(&error) => {
            tracing::warn!(%error, "the table cannot be described: it is used unchecked");
            return Ok(());
        }
        description => description?,
    };
    check_shape(table, &description)?;
    let ttl = Item::TTL;
    match expiry {
        Ok(Expiry::By(attribute)) if attribute != ttl => Err(wrong(format!(
            "the table `{table}` expires items by `{attribute}`: items would disappear at the \
             wrong time. Switch its expiry (TTL) to `{ttl}`"
        ))),
        Ok(Expiry::By(_)) => Ok(()),
        Ok(Expiry::Off) => {
            tracing::warn!(table, "expiry (TTL) by `{ttl}` is off: pools of past windows stay");
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, "whether the table expires items cannot be seen");
            Ok(())
        }
    }
}

/// Refuses an illegal table name before any call: the service reports only that a pattern does not
/// match. An ARN is passed on.
fn check_name(table: &str) -> Result<(), StoreError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if table.starts_with("arn:") || NAME.contains(&table.len()) && table.chars().all(legal) {
        return Ok(());
    }
    Err(wrong(format!(
        "no table can be called {table:?}: DynamoDB takes names of {} to {} characters, each a \
         letter of a-z or A-Z, a digit, `_`, `-` or `.`",
        NAME.start(),
        NAME.end()
    )))
}

/// Checks that the keys are ours and that the table is not being deleted.
fn check_shape(table: &str, description: &TableDescription) -> Result<(), StoreError> {
    let key = |kind: KeyType| {
        let mut schema = description.key_schema().iter();
        let name = schema.find(|element| element.key_type == kind)?.attribute_name();
        let mut types = description.attribute_definitions().iter();
        let is = types.find(|attribute| attribute.attribute_name() == name)?;
        Some((name, is.attribute_type.clone()))
    };
    for (kind, name) in [(KeyType::Hash, PK), (KeyType::Range, SK)] {
        let wanted = format!("{} key `{name}` of type S", word(&kind));
        match key(kind) {
            Some((found, ScalarAttributeType::S)) if found == name => {}
            Some((found, of)) => {
                let found = format!("`{found}` of type {}", of.as_str());
                return Err(wrong(format!(
                    "the table `{table}` needs a {wanted} and has {found}: make another table with \
                     `DynamoDb::create_table`"
                )));
            }
            None => {
                return Err(wrong(format!(
                    "the table `{table}` needs a {wanted} and has none: make another table with \
                     `DynamoDb::create_table`"
                )));
            }
        }
    }
    match &description.table_status {
        Some(TableStatus::Active | TableStatus::Updating) | None => Ok(()),
        Some(other) => {
            let message = format!("the table `{table}` cannot be used yet: it is {other}");
            Err(StoreError::new(StoreErrorKind::Unavailable, message))
        }
    }
}

fn word(kind: &KeyType) -> &'static str {
    if *kind == KeyType::Hash { "partition" } else { "sort" }
}

/// Requests the table; an existing one is fine. Returns whether it is new.
async fn create(
    client: &Client,
    table: &str,
    warm: Option<WarmThroughput>,
) -> Result<bool, StoreError> {
    let attribute = |name: &str| {
        let text = AttributeDefinition::builder().attribute_type(ScalarAttributeType::S);
        text.attribute_name(name).build().map_err(built)
    };
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().map_err(built)
    };
    let warm = warm.map(|warm| {
        let units = Warm::builder().read_units_per_second(warm.read.into());
        units.write_units_per_second(warm.write.into()).build()
    });
    let made = client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(PK)?)
        .attribute_definitions(attribute(SK)?)
        .key_schema(key(PK, KeyType::Hash)?)
        .key_schema(key(SK, KeyType::Range)?)
        .set_warm_throughput(warm)
        .deletion_protection_enabled(true)
        .send()
        .await;
    match made {
        Ok(_) => Ok(true),
        Err(error) => match error.as_service_error() {
            Some(CreateTableError::ResourceInUseException(_)) => Ok(false),
            _ => Err(error::of(FailedCall::Read, &error)),
        },
    }
}

/// Switches point-in-time recovery on. DynamoDB emulators have none, and it may be forbidden: the
/// table serves without it.
async fn back_up(client: &Client, table: &str) {
    let on = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true);
    let on = match on.build() {
        Ok(on) => on,
        Err(error) => return tracing::warn!(%error, "point-in-time recovery is not asked for"),
    };
    let call = client.update_continuous_backups().table_name(table);
    if let Err(error) = call.point_in_time_recovery_specification(on).send().await {
        let error = error::of(FailedCall::Read, &error);
        tracing::warn!(
            table, %error,
            "point-in-time recovery is off: what is deleted or overwritten cannot be restored"
        );
    }
}

async fn describe(client: &Client, table: &str) -> Result<TableDescription, StoreError> {
    let described = client.describe_table().table_name(table).send().await;
    let described = match described {
        Err(error) if is_missing(error.as_service_error()) => {
            return Err(wrong(format!(
                "there is no table `{table}` in this account and region: make it with \
                 `DynamoDb::create_table`"
            )));
        }
        described => described.map_err(|error| error::of(FailedCall::Read, &error))?,
    };
    described.table.ok_or_else(|| wrong(format!("DynamoDB does not describe the table `{table}`")))
}

/// The table's expiry setting.
enum Expiry {
    By(String),
    Off,
}

async fn expiry(client: &Client, table: &str) -> Result<Expiry, StoreError> {
    let described = client.describe_time_to_live().table_name(table).send().await;
    let described = described.map_err(|error| error::of(FailedCall::Read, &error))?;
    let on = described.time_to_live_description.and_then(|now| {
        let status = now.time_to_live_status?;
        let on = matches!(status, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling);
        on.then_some(now.attribute_name).flatten()
    });
    Ok(on.map_or(Expiry::Off, Expiry::By))
}

/// Switches expiry on where it is off.
async fn expire_by_ttl(client: &Client, table: &str) -> Result<(), StoreError> {
    if let Expiry::By(_) = expiry(client, table).await? {
        return Ok(()); // by another attribute: the check says so
    }
    let by = TimeToLiveSpecification::builder().enabled(true).attribute_name(Item::TTL);
    let by = by.build().map_err(built)?;
    let call = client.update_time_to_live().table_name(table).time_to_live_specification(by);
    match call.send().await {
        Ok(_) => Ok(()),
        // Another process may have been first; the service refuses to enable it a second time.
        Err(error) => match expiry(client, table).await? {
            Expiry::By(_) => Ok(()),
            Expiry::Off => Err(error::of(FailedCall::Read, &error)),
        },
    }
}

fn is_missing(
    error: Option<&aws_sdk_dynamodb::operation::describe_table::DescribeTableError>,
) -> bool {
    error.is_some_and(|error| error.is_resource_not_found_exception())
}

fn is_denied(error: &StoreError) -> bool {
    error.message.contains("AccessDenied")
}

fn built(error: aws_sdk_dynamodb::error::BuildError) -> StoreError {
    wrong(format!("an incomplete request: {error}"))
}

fn wrong(message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, message)
}
