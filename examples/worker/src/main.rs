//! A worker that delivers messages: jobs from a queue, each admitted by its tenant's plan and
//! charged once, however often the queue delivers it.

use std::error::Error;
use std::io;

use tallygate::{Gate, Identified};
use tracing_subscriber::EnvFilter;

use crate::queue::Queue;

mod job;
mod queue;
mod worker;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    log();
    let gate = Gate::open("tallygate.toml").await?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = match &arguments[..] {
        [] => run(&gate).await,
        ["usage", tenant] => print_usage(&gate, tenant).await,
        _ => Err("worker, or worker usage TENANT".into()),
    };
    gate.close().await?; // what was charged is on record, leases are given back
    ran
}

async fn run(gate: &Gate) -> Result<(), Box<dyn Error>> {
    for (tenant, plan) in [("acme", "free"), ("globex", "pro")] {
        if gate.directory().find(tenant).await?.is_none() {
            gate.directory().tenant(tenant).plan(plan).save().await?; // yours sign up
        }
    }
    worker::run(gate, Queue::open(".").await?).await
}

/// Prints what `GET /usage` would answer. A redb file belongs to one process: the worker has to be
/// stopped.
async fn print_usage(gate: &Gate, tenant: &str) -> Result<(), Box<dyn Error>> {
    let tenant = gate.tenant(tenant).await?;
    let reply = gate.usage_reply(&Identified::from(&tenant), None).await;
    println!("{}", String::from_utf8(reply.body)?);
    Ok(())
}

/// Logs to stderr; `RUST_LOG` sets the level.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
}
