//! A gate opened on the service's own store, for as long as a command runs.
//!
//! # Laws
//!
//! 1. A command that has nothing to do with Stripe opens the gate without `[stripe]`: it needs no
//!    key of Stripe's. No usage is sent to Stripe but by `report`, however long a command runs.
//! 2. A command that makes no key opens it without the ways of identifying callers: no pepper, no
//!    secret of a JWT.
//! 3. A command writes the alerts of what it does, and the service sends them: it needs no secret
//!    of `[[notify]]`. `alerts test` sends past all queues, from a gate in memory.
//! 4. No command but `tenant create` makes a store where none is: it would be an empty one in the
//!    wrong folder.

use std::path::Path;

use tallygate::identity::{Identify, Identity, RequestView};
use tallygate::{Gate, GateBuilder};
use toml::{Table, Value};

use crate::failure::{Failure, code};
use crate::settings::{Settings, StoreAt};

/// What is said of a store in memory.
const IN_MEMORY: &str = "store.kind is \"memory\": the data are in the service's process alone\n\
                         help: do this within it, through `gate.directory()`";

/// What a command does with the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Read and change tenants and usage.
    Tenants,
    /// The same; where the store is missing it is made, with its pepper.
    FirstTenant,
    /// Make API keys.
    Keys,
    /// Report to Stripe.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "it is the one that bills"))]
    Billing,
    /// Ask Stripe, and send it nothing.
    #[cfg_attr(not(feature = "stripe"), allow(dead_code, reason = "it is the one that bills"))]
    Audit,
    /// Read tenants, usage and what is on its way to Stripe, for as long as it is looked at.
    #[cfg_attr(not(feature = "top"), allow(dead_code, reason = "it is the one that looks"))]
    Top,
}

/// Runs a command on a gate, and closes the gate in any case.
pub(crate) async fn with_gate<T>(
    settings: &Settings,
    what: For,
    run: impl AsyncFnOnce(&Gate) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let gate = open(settings, what).await?;
    let done = run(&gate).await;
    // What only looks has nothing of its own to write, and ends with the process.
    let closed = if what == For::Audit { Ok(()) } else { gate.close().await };
    let done = done?;
    closed?;
    Ok(done)
}

/// A gate in memory, for its destinations of alerts alone.
pub(crate) async fn for_alerts(settings: &Settings) -> Result<Gate, Failure> {
    let mut table = table_for(&settings.table, For::Tenants);
    let memory = Table::from_iter([("kind".to_owned(), Value::from("memory"))]);
    table.insert("store".to_owned(), memory.into());
    table.remove("flush");
    let text =
        toml::to_string(&table).map_err(|error| Failure::new(code::FILE, error.to_string()))?;
    let builder = hand_in_aws(GateBuilder::from_text(&text).work_only()).await?;
    Ok(builder.open().await?)
}

/// Whether the service file names a topic of SNS, or a bus of EventBridge.
fn names_aws(builder: &GateBuilder) -> Result<bool, Failure> {
    Ok(!builder.sns_topics()?.is_empty() || !builder.event_buses()?.is_empty())
}

/// Hands in what sends to them.
#[cfg(feature = "notify-aws")]
async fn hand_in_aws(builder: GateBuilder) -> Result<GateBuilder, Failure> {
    if !names_aws(&builder)? {
        return Ok(builder);
    }
    let version = aws_config::BehaviorVersion::v2026_01_12();
    Ok(tallygate_notify_aws::hand_in(builder, &aws_config::load_defaults(version).await)?)
}

#[cfg(not(feature = "notify-aws"))]
#[allow(clippy::unused_async, reason = "it waits where the feature is on")]
async fn hand_in_aws(builder: GateBuilder) -> Result<GateBuilder, Failure> {
    without_aws(builder)
}

/// Refuses what a build without the feature does not send to.
#[cfg(any(test, not(feature = "notify-aws")))]
fn without_aws(builder: GateBuilder) -> Result<GateBuilder, Failure> {
    if !names_aws(&builder)? {
        return Ok(builder);
    }
    Err(Failure::new(
        code::FILE,
        "[[notify]] names SNS or EventBridge, which this build does not send to\nhelp: cargo \
         install tallygate-cli --features notify-aws",
    ))
}

/// Opens the gate.
pub(crate) async fn open(settings: &Settings, what: For) -> Result<Gate, Failure> {
    if settings.store() == StoreAt::Memory {
        return Err(no_store(&StoreAt::Memory));
    }
    let is_first = !is_made(&settings.store());
    let what = match what {
        // As a first start of the service: a pepper is made with the store, or never.
        For::FirstTenant if is_first => For::Keys,
        For::FirstTenant => For::Tenants,
        _ if is_first => return Err(no_store(&settings.store())),
        _ => what,
    };
    let text = toml::to_string(&table_for(&settings.table, what))
        .map_err(|error| Failure::new(code::FILE, error.to_string()))?;
    // What a command does is sent by the service.
    let builder = GateBuilder::from_text(&text).sends_alerts(false);
    // `report` makes its report itself, and says what came of it: the gate none as it closes.
    #[cfg(feature = "stripe")]
    let builder = builder.sends_reports(false);
    let builder = match what {
        // Limits may go by scopes that only the service's own code knows.
        For::Keys => builder.identify(NoCallers),
        _ => builder.work_only(),
    };
    let builder = hand_in(builder, &settings.store()).await?;
    Ok(builder.open().await?)
}

/// Whether the store is there, or was: then the library says what became of it.
pub(crate) fn is_made(store: &StoreAt) -> bool {
    match store {
        StoreAt::Memory => false,
        StoreAt::Dynamodb(_) => true,
        StoreAt::Redb(path) => {
            let mut made = path.as_os_str().to_owned();
            made.push(".made");
            path.exists() || Path::new(&made).exists()
        }
    }
}

pub(crate) fn no_store(store: &StoreAt) -> Failure {
    let text = match store {
        StoreAt::Redb(path) => format!(
            "{}: there is no store here\nhelp: run this in the service's working directory, or \
             name its service file with --service; `tallygate tenant create` makes a store",
            path.display()
        ),
        _ => IN_MEMORY.to_owned(),
    };
    Failure::not_found(text)
}

/// The service file as a command needs it.
fn table_for(table: &Table, what: For) -> Table {
    let mut table = table.clone();
    if let Some(Value::Table(ingest)) = table.get_mut("ingest") {
        ingest.remove("token"); // no request reaches a command
    }
    // A log of the service's decisions, not of the command's.
    table.remove("decisions");
    if !matches!(what, For::Billing | For::Audit | For::Top) {
        table.remove("stripe");
    }
    if what == For::Keys
        && let Some(Value::Array(ways)) = table.get_mut("identify")
    {
        let is_key = |way: &Value| way.as_table().is_some_and(|way| way.contains_key("api-key"));
        ways.retain(is_key);
    }
    table
}

/// Hands in a store that needs a client.
#[cfg(feature = "dynamodb")]
pub(crate) async fn hand_in(builder: GateBuilder, store: &StoreAt) -> Result<GateBuilder, Failure> {
    let StoreAt::Dynamodb(table) = store else { return Ok(builder) };
    let store = tallygate::store::DynamoDb::new(dynamodb_client().await, table.clone());
    // A process of a moment does not join those that share the rates.
    Ok(builder.store(store).strict_rates(true))
}

/// A client with region, endpoint and credentials from where the AWS tools look for them.
#[cfg(feature = "dynamodb")]
pub(crate) async fn dynamodb_client() -> aws_sdk_dynamodb::Client {
    let version = aws_config::BehaviorVersion::v2026_01_12();
    aws_sdk_dynamodb::Client::new(&aws_config::load_defaults(version).await)
}

#[cfg(not(feature = "dynamodb"))]
#[allow(clippy::unused_async, reason = "it waits where the feature is on")]
pub(crate) async fn hand_in(builder: GateBuilder, store: &StoreAt) -> Result<GateBuilder, Failure> {
    match store {
        StoreAt::Dynamodb(_) => Err(no_dynamodb()),
        _ => Ok(builder),
    }
}

/// What is said where a build lacks the feature.
#[cfg(any(test, not(feature = "dynamodb")))]
pub(crate) fn no_dynamodb() -> Failure {
    Failure::new(
        code::FILE,
        "store.kind is \"dynamodb\", which this build does not have\nhelp: cargo install \
         tallygate-cli --features dynamodb",
    )
}

/// No request reaches a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoCallers;

impl Identify for NoCallers {
    fn identify(&self, _: &dyn RequestView) -> Identity {
        Identity::Absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sees_the_tables_that_it_needs() {
        let file = "[ingest]\ntoken = \"x\"\nproducts = {}\n[stripe]\nmode = \"test\"\n\
                    [[identify]]\n\
                    header = \"x\"\n[[identify]]\napi-key = \"x-api-key\"\n";
        let table: Table = file.parse().unwrap();
        let keys = table_for(&table, For::Keys);
        assert_eq!(keys["identify"].as_array().map(Vec::len), Some(1));
        assert!(!keys.contains_key("stripe") && !keys["ingest"].to_string().contains("token"));
        assert!(table_for(&table, For::Billing).contains_key("stripe"));
        assert!(table_for(&table, For::Top).contains_key("stripe"));
        assert!(!table_for(&table, For::Tenants).contains_key("stripe"));
    }
    #[test]
    fn a_build_that_does_not_send_to_aws_says_which_does() {
        let of = |line: &str| without_aws(GateBuilder::from_text(&format!("[[notify]]\n{line}")));
        for line in ["sns = \"arn:aws:sns:eu-west-1:123456789012:a\"", "eventbridge = \"default\""]
        {
            let failure = of(line).unwrap_err();
            assert_eq!(failure.code, code::FILE);
            assert!(failure.text.contains("--features notify-aws"), "{}", failure.text);
        }
        assert!(of("slack = { env = \"SLACK\" }").is_ok());
    }
}
