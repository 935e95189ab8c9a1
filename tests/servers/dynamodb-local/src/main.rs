//! By hand, and for scripts:
//!
//! ```text
//! cargo run -p dynamodb-local -- get          # downloads it, once
//! cargo run -p dynamodb-local -- run [PORT]   # until it is interrupted
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match (args.next().as_deref(), args.next()) {
        (Some("get"), None) => dynamodb_local::get().map(drop),
        (Some("run"), port) => run(port.as_deref()),
        _ => Err("usage: dynamodb-local get | run [PORT]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("dynamodb-local: {why}");
            ExitCode::FAILURE
        }
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
