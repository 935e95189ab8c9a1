//! A Lambda function that counts usage events from a queue or a bus, each once.
//!
//! `--seed` creates the table and a tenant, and exits. `--letters` lists the events that could not
//! be counted, and `--replay ID` retries one: they run wherever the table can be reached. Without
//! any of them this is a function.

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use tallygate::Gate;
use tallygate::store::DynamoDb;
use tracing_subscriber::EnvFilter;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(false).with_target(false).without_time().init();

    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let gate = open(args == ["--seed"]).await?;
    match &args[..] {
        [] => return tallygate_lambda::run_ingest(&gate).await,
        ["--seed"] => seed(&gate).await?,
        ["--letters"] => {
            for letter in gate.ingest().dead_letters("").await? {
                println!("{}  {}\n    {}", letter.id, letter.why, letter.body);
            }
        }
        ["--replay", id] => match gate.ingest().replay(id).await? {
            Some(Ok(_)) => println!("counted"),
            Some(Err(why)) => println!("not counted: {why}"),
            None => println!("there is no such letter"),
        },
        _ => return Err("--seed, --letters or --replay ID".into()),
    }
    Ok(gate.close().await?)
}

/// Opens the gate on the table named in `tallygate.toml`, with a client that reads the settings of
/// every AWS tool.
async fn open(create_table: bool) -> Result<Gate, Error> {
    let builder = tallygate_lambda::builder("tallygate.toml");
    let Some(table) = builder.dynamodb_table()? else {
        return Err("sandboxes share no file: write [store] kind = \"dynamodb\"".into());
    };
    let client = Client::new(&aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await);
    if create_table {
        DynamoDb::create_table(&client, &table, None).await?;
    }
    Ok(builder.store(DynamoDb::new(client, table)).open().await?)
}

/// The demo's tenant. Yours are created at sign-up.
async fn seed(gate: &Gate) -> Result<(), Error> {
    if gate.directory().find("acme").await?.is_none() {
        gate.directory().tenant("acme").note("demo").save().await?;
    }
    Ok(())
}
