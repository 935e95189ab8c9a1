//! `stripe-sim [--port P] [--webhook URL] [--secret whsec_..] [--key sk_test_..]`: the simulator as
//! a process. Prints its address, and stops on Ctrl-C or SIGTERM.

use std::process::ExitCode;

use stripe_sim::{Settings, Sim};
use tokio::signal::unix::{SignalKind, signal};

/// Printed for arguments that are not understood.
const USAGE: &str = "usage: stripe-sim [--port P] [--webhook URL] [--secret whsec_..] \
                     [--key sk_test_..]";

#[tokio::main]
async fn main() -> ExitCode {
    let (port, settings) = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(port, settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(port: u16, settings: Settings) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let sim = Sim::start_on(port, settings).await?;
    println!("{}", sim.url());
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    sim.stop().await;
    Ok(())
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(u16, Settings), String> {
    let mut settings = Settings::default();
    let mut port = 0;
    let mut secrets = Vec::new();
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name}: a value is missing"))?;
        match name.as_str() {
            "--port" => port = value.parse().map_err(|_| format!("not a port: {value}"))?,
            "--webhook" => settings.webhook_url = Some(value),
            "--secret" => secrets.push(value),
            "--key" => settings.key = Some(value),
            _ => return Err(format!("unknown: {name}")),
        }
    }
    if !secrets.is_empty() {
        settings.webhook_secrets = secrets;
    }
    Ok((port, settings))
}
