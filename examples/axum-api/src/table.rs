//! Where `tallygate.toml`, or `TALLYGATE__STORE__KIND` over it, says `dynamodb`: the table, with a
//! client from where every AWS tool takes its settings (`AWS_REGION`, credentials,
//! `AWS_ENDPOINT_URL_DYNAMODB`).

use std::error::Error;

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use tallygate::GateBuilder;
use tallygate::store::DynamoDb;

/// Hands the store to the builder if the service file asks for it. `--create-table` makes the
/// table first, for whom it is missing.
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
