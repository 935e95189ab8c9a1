//! The DynamoDB table, if `tallygate.toml`, or `TALLYGATE__STORE__KIND` over it, says `dynamodb`.
//! Its client reads the settings of every AWS tool (`AWS_REGION`, credentials,
//! `AWS_ENDPOINT_URL_DYNAMODB`).

use std::error::Error;

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use tallygate::GateBuilder;
use tallygate::store::DynamoDb;

/// Passes the store to the builder if the service file asks for it. `--create-table` creates the
/// table first, if it is missing.
pub(crate) async fn hand_in(builder: GateBuilder) -> Result<GateBuilder, Box<dyn Error>> {
    let Some(table) = builder.dynamodb_table()? else {
        return Ok(builder);
    };
    let client = Client::new(&aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await);
    if std::env::args().any(|arg| arg == "--create-table") {
        DynamoDb::create_table(&client, &table, None).await?;
    }
    Ok(builder.store(DynamoDb::new(client, table)))
}
