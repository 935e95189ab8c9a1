//! By hand, and for scripts:
//!
//! ```text
//! cargo run -p dynamodb-local -- get          # downloads it, once
//! cargo run -p dynamodb-local -- run [PORT]   # until it is interrupted
//! cargo run -p dynamodb-local -- rights FOLDER # what tests have noted, against the policies
//! ```

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match (args.next().as_deref(), args.next()) {
        (Some("get"), None) => dynamodb_local::get().map(drop),
        (Some("run"), port) => run(port.as_deref()),
        (Some("rights"), Some(folder)) => rights(Path::new(&folder)),
        _ => Err("usage: dynamodb-local get | run [PORT] | rights FOLDER".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("dynamodb-local: {why}");
            ExitCode::FAILURE
        }
    }
}

fn rights(folder: &Path) -> Result<(), String> {
    let calls = dynamodb_local::rights::noted(folder)?;
    for call in &calls {
        let place = if call.is_foreign { " (outside of LeadingKeys)" } else { "" };
        println!("{}: dynamodb:{}{place}", call.by, call.operation);
    }
    match dynamodb_local::rights::faults(&calls) {
        faults if faults.is_empty() => Ok(()),
        faults => Err(faults.join("\n")),
    }
}

fn run(port: Option<&str>) -> Result<(), String> {
    let port = port.map(str::parse).transpose().map_err(|_| "a port is a number".to_owned())?;
    let server = dynamodb_local::start(port)?;
    println!("export AWS_ENDPOINT_URL_DYNAMODB={}", server.endpoint());
    println!("export AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x");
    loop {
        std::thread::park();
    }
}
