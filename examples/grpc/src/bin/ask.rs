//! A client of the service, in the place of grpcurl: it sends a text and prints what comes back, or
//! the status with its details.
//!
//! `ask ADDRESS KEY TEXT` calls `Translate`, and `ask ADDRESS KEY --book TEXT` calls
//! `TranslateBook`.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;

use tokio_stream::StreamExt;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use api::Text;
use api::translation_client::TranslationClient;

/// What build.rs makes from the .proto.
mod api {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    tonic::include_proto!("translation.v1");
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (address, key, is_book, text) = match &args[..] {
        [address, key, text] => (address, key, false, text),
        [address, key, book, text] if book == "--book" => (address, key, true, text),
        _ => return Err("usage: ask ADDRESS KEY [--book] TEXT".into()),
    };
    let mut client = TranslationClient::connect(address.clone()).await?;
    let mut request = Request::new(Text { text: text.clone() });
    request.metadata_mut().insert("x-api-key", key.parse()?);
    if !is_book {
        return Ok(told(client.translate(request).await.map(|it| it.into_inner())));
    }
    let mut lines = match client.translate_book(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(told(Err(status))),
    };
    let mut code = ExitCode::SUCCESS;
    while let Some(line) = lines.next().await {
        code = told(line);
    }
    Ok(code)
}

/// Prints a text, or why there is none.
fn told(answer: Result<Text, Status>) -> ExitCode {
    let status = match answer {
        Ok(Text { text }) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(status) => status,
    };
    println!("{:?}: {}", status.code(), status.message());
    if let Some(wait) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        println!("retry in {} s", wait.as_secs());
    }
    if let Some(info) = status.get_details_error_info() {
        println!("{} {:?}", info.reason, BTreeMap::from_iter(info.metadata));
    }
    ExitCode::FAILURE
}
