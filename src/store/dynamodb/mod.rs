//! DynamoDB: one table, shared by any number of processes.
//!
//! # Laws
//!
//! - Each call of [`Store`] is one call of the service: `GetItem`, `Query`, `UpdateItem` or
//!   `DeleteItem`, on one item or one page. Reads are strong.
//! - A write is sent once. The SDK's own retries are off for it, since they would hide that an
//!   earlier copy may have been applied; so is everything else that repeats. A read is tried up to
//!   [`READ_TRIES`] times.
//! - A call that is not answered within [`WITHIN`] has failed: a write as unknown, a read as
//!   unavailable. `error.rs` holds the rules for classifying errors.
//! - At most [`IN_FLIGHT`] calls are with the service at once, and [`IN_HAND`] in all; beyond that
//!   they are refused as throttled.
//! - Expiry is the service's: it has to be enabled on the attribute `ttl`, as
//!   [`DynamoDb::create_table`] does.
//!
//! Not promised: order among writes of one process. A caller that needs it awaits each answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use tokio::sync::Semaphore;

use self::error::FailedCall;
use self::expression::Expressions;
use self::item::Attributes;
use self::units::Counters;
use super::apply::{Verdict, apply, check_key, check_query, check_write};
use super::{
    Item, Key, Page, Promise, Query, Store, StoreError, StoreErrorKind, StoreFuture, Units, Write,
    Written,
};

mod error;
mod expression;
mod item;
mod page;
mod table;
mod units;

pub use table::WarmThroughput;

/// Longest duration of one call in all, unless [`DynamoDb::within`] sets another: many times the
/// service's slowest calls (tens of milliseconds), and short enough that a write whose answer was
/// lost is repeated before its caller gives up.
const WITHIN: Duration = Duration::from_secs(3);

/// Tries of a read, together within the time of one call.
const READ_TRIES: u32 = 3;

/// Wait before the second try of a read; longer than the spread of the service's response times.
const READ_BACKOFF: Duration = Duration::from_millis(25);

/// Calls with the service at once: each takes a connection, and processes are often limited to
/// 1,024 open files.
const IN_FLIGHT: usize = 256;

/// Calls accepted: with the service, or waiting for their turn. The same limit as the embedded
/// store's.
const IN_HAND: usize = 4_096;

/// A store in a DynamoDB table. Clones share everything.
///
/// The client belongs to the host: region, endpoint, credentials and TLS are as it was built.
///
/// ```no_run
/// # async fn open(client: aws_sdk_dynamodb::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tallygate::Gate;
/// use tallygate::store::DynamoDb;
///
/// let mut builder = Gate::builder("tallygate.toml");
/// if let Some(table) = builder.dynamodb_table()? {
///     builder = builder.store(DynamoDb::new(client, table));
/// }
/// let gate = builder.open().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: Arc<str>,
    within: Duration,
    shared: Arc<TableShared>,
}

struct TableShared {
    units: Counters,
    in_hand: AtomicUsize,
    in_flight: Semaphore,
    closed: AtomicBool,
}

impl DynamoDb {
    /// A store in this table. Sends nothing to the service; a gate checks the table when it opens.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        let shared = TableShared {
            units: Counters::default(),
            in_hand: AtomicUsize::new(0),
            in_flight: Semaphore::new(IN_FLIGHT),
            closed: AtomicBool::new(false),
        };
        let table = Arc::from(table.into());
        Self { client, table, within: WITHIN, shared: Arc::new(shared) }
    }

    /// Sets how long one call may take in all; 3 s by default. A write that takes longer has an
    /// unknown outcome.
    #[must_use]
    pub fn within(mut self, longest: Duration) -> Self {
        self.within = longest;
        self
    }

    /// Units charged by the service for calls through this store and its clones.
    pub fn units(&self) -> Units {
        self.shared.units.snapshot()
    }

    async fn get(self, key: Key) -> Result<Option<Item>, StoreError> {
        check_key(&key)?;
        let call = self.client.get_item();
        let call = call.table_name(&*self.table).set_key(Some(item::key(&key)));
        let call = call.consistent_read(true).return_consumed_capacity(CAPACITY);
        let call = call.customize().config_override(self.reads()).send();
        let answer = self.answer(call).await?;
        self.shared.units.read(answer.consumed_capacity.as_ref());
        answer.item.map(item::item).transpose()
    }

    async fn page(self, query: Query) -> Result<Page, StoreError> {
        let limit = check_query(&query)?;
        if page::is_empty(&query) {
            return Ok(Page::default());
        }
        let (condition, values) = page::condition(&query);
        let call = self.client.query().table_name(&*self.table).consistent_read(true);
        let call = call.key_condition_expression(condition);
        let call = call.set_expression_attribute_values(Some(values));
        // A page has at most 1,000 items, so one more is in range.
        let call = call.limit(limit as i32 + 1).return_consumed_capacity(CAPACITY);
        let call = call.customize().config_override(self.reads()).send();
        let answer = self.answer(call).await?;
        self.shared.units.read(answer.consumed_capacity.as_ref());
        let ended_at = answer.last_evaluated_key.as_ref().map(item::sort_key).transpose()?;
        page::page(&query, limit, answer.items.unwrap_or_default(), ended_at)
    }

    async fn put(self, write: Write) -> Result<Written, StoreError> {
        check_write(&write)?;
        let expressions = Expressions::of(&write);
        let answer = match expressions.update {
            Some(_) => self.update(&write.key, expressions).await,
            None => self.delete(&write.key, expressions).await,
        };
        match answer? {
            WriteReply::Applied(None) => Ok(Written::Applied(None)),
            WriteReply::Applied(Some(item)) => match item::item(item) {
                Ok(item) => Ok(Written::Applied(Some(item))),
                // `Corrupt` would mean that it was not applied. A caller that repeats it sees the
                // current item.
                Err(error) => Err(StoreError::new(StoreErrorKind::Unknown, error.message)),
            },
            WriteReply::Refused(item) => self.refused(&write, item.map(item::item).transpose()?),
        }
    }

    /// The refusal of a write: one of its conditions failed, or our own overflow check did. The
    /// current item shows which.
    fn refused(&self, write: &Write, stands: Option<Item>) -> Result<Written, StoreError> {
        self.shared.units.refused(&write.key, stands.as_ref());
        match apply(stands.as_ref(), write)? {
            Verdict::Refuse | Verdict::Apply(_) => Ok(Written::Refused(stands)),
        }
    }

    async fn update(&self, key: &Key, with: Expressions) -> Result<WriteReply, StoreError> {
        let call = self.client.update_item();
        let call = call.table_name(&*self.table).set_key(Some(item::key(key)));
        let call = call.condition_expression(with.condition).set_update_expression(with.update);
        let call = call.set_expression_attribute_names(some(with.names));
        let call = call.set_expression_attribute_values(Some(with.values));
        let call = call.return_values(ReturnValue::AllNew).return_consumed_capacity(CAPACITY);
        let call = call.return_values_on_condition_check_failure(STANDS);
        let call = call.customize().config_override(self.writes()).send();
        match self.outcome(call).await? {
            Ok(answer) => {
                self.shared.units.written(answer.consumed_capacity.as_ref());
                Ok(WriteReply::Applied(answer.attributes))
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(WriteReply::Refused(failed.item.clone()))
                }
                _ => Err(error::of(FailedCall::Write, &error)),
            },
        }
    }

    async fn delete(&self, key: &Key, with: Expressions) -> Result<WriteReply, StoreError> {
        let call = self.client.delete_item();
        let call = call.table_name(&*self.table).set_key(Some(item::key(key)));
        let call = call.condition_expression(with.condition);
        let call = call.set_expression_attribute_names(some(with.names));
        let call = call.set_expression_attribute_values(Some(with.values));
        let call = call.return_consumed_capacity(CAPACITY);
        let call = call.return_values_on_condition_check_failure(STANDS);
        let call = call.customize().config_override(self.writes()).send();
        match self.outcome(call).await? {
            Ok(answer) => {
                self.shared.units.written(answer.consumed_capacity.as_ref());
                Ok(WriteReply::Applied(None))
            }
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(WriteReply::Refused(failed.item.clone()))
                }
                _ => Err(error::of(FailedCall::Write, &error)),
            },
        }
    }

    /// One try: disables all retries.
    fn writes(&self) -> config::Builder {
        config::Builder::new().retry_config(RetryConfig::disabled())
    }

    fn reads(&self) -> config::Builder {
        let retries = RetryConfig::standard()
            .with_max_attempts(READ_TRIES)
            .with_initial_backoff(READ_BACKOFF);
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(self.within / READ_TRIES).build();
        config::Builder::new().retry_config(retries).timeout_config(timeouts)
    }

    /// The answer to a read.
    async fn answer<T, E, R>(
        &self,
        sent: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: fmt::Debug + Send + Sync + 'static,
    {
        let answer = tokio::time::timeout(self.within, sent).await;
        let answer = answer.map_err(|_| FailedCall::Read.silence())?;
        answer.map_err(|error| error::of(FailedCall::Read, &error))
    }

    /// The outcome of a write, if the service answered in time.
    async fn outcome<T, E, R>(
        &self,
        sent: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<Result<T, SdkError<E, R>>, StoreError> {
        let answer = tokio::time::timeout(self.within, sent).await;
        answer.map_err(|_| FailedCall::Write.silence())
    }

    /// Makes a call when its turn comes. Nothing happens before the future is first polled.
    fn call<T: Send + 'static, F>(
        &self,
        make: impl FnOnce(Self) -> F + Send + 'static,
    ) -> StoreFuture<T>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let this = self.clone();
        Box::pin(async move {
            let shared = this.shared.clone();
            let _in_hand = CallPermit::take(&shared)?;
            let turn = tokio::time::timeout(this.within, shared.in_flight.acquire()).await;
            let Ok(Ok(_in_flight)) = turn else {
                return Err(throttled());
            };
            if shared.closed.load(Ordering::Acquire) {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "the store is closed"));
            }
            make(this).await
        })
    }
}

impl Store for DynamoDb {
    fn read(&self, key: Key) -> StoreFuture<Option<Item>> {
        self.call(|this| this.get(key))
    }

    fn write(&self, write: Write) -> StoreFuture<Written> {
        self.call(|this| this.put(write))
    }

    fn query(&self, query: Query) -> StoreFuture<Page> {
        self.call(|this| this.page(query))
    }

    /// Always 0 unless the store is closed: the service removes expired items.
    fn expire(&self, _now_ms: i64) -> StoreFuture<usize> {
        self.call(async |_| Ok(0))
    }

    /// Checks the table: its keys, its state, and which attribute expires its items.
    fn check(&self) -> StoreFuture<()> {
        self.call(async |this| table::check(&this.client, &this.table).await)
    }

    fn units(&self) -> Option<Units> {
        Some(self.units())
    }

    fn name(&self) -> String {
        let region = self.client.config().region().map_or("no region", |region| region.as_ref());
        let table = &self.table;
        format!("the DynamoDB table `{table}` ({region}, at the endpoint of the program's client)")
    }

    fn promise(&self) -> Promise {
        Promise { kind: "dynamodb", survives: "data centre", shared: true }
    }

    /// Calls under way finish on their own, even if their callers are gone; later ones are refused.
    /// The connections are the client's.
    fn close(&self) -> StoreFuture<()> {
        let shared = self.shared.clone();
        Box::pin(async move {
            shared.closed.store(true, Ordering::Release);
            Ok(())
        })
    }
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("table", &self.table).finish_non_exhaustive()
    }
}

const CAPACITY: ReturnConsumedCapacity = ReturnConsumedCapacity::Total;
const STANDS: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

/// The definite answer to a write, as the service gives it.
enum WriteReply {
    Applied(Option<Attributes>),
    Refused(Option<Attributes>),
}

/// A slot among the accepted calls.
struct CallPermit<'a>(&'a AtomicUsize);

impl<'a> CallPermit<'a> {
    fn take(shared: &'a TableShared) -> Result<Self, StoreError> {
        let place = Self(&shared.in_hand);
        if shared.in_hand.fetch_add(1, Ordering::AcqRel) < IN_HAND {
            return Ok(place);
        }
        Err(throttled())
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn throttled() -> StoreError {
    let message = "the table does not keep up: too many calls wait for it";
    StoreError::new(StoreErrorKind::Throttled, message)
}

/// `None` for an empty table of names, which the service refuses.
fn some<T>(
    names: std::collections::HashMap<String, T>,
) -> Option<std::collections::HashMap<String, T>> {
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Config;
    use aws_sdk_dynamodb::config::BehaviorVersion;

    use super::*;

    #[test]
    fn it_promises_at_start_what_its_documentation_says() {
        let config = Config::builder().behavior_version(BehaviorVersion::latest()).build();
        let promised = DynamoDb::new(Client::from_conf(config), "quotas").promise();
        let row = "| `dynamodb` | the loss of a data centre |";
        assert!(include_str!("../../../docs/storage.md").contains(row));
        assert_eq!(promised.survives, "data centre");
    }
}
