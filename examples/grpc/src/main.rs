//! A gRPC service behind tallygate: two methods, limits by plan, usage counted word by word.
//!
//! Runs in the folder of its `tallygate.toml`: this example's when started by cargo, else the
//! current one. `PORT` (50051) is read from the environment.

use std::error::Error;
use std::pin::Pin;

use sha2::{Digest, Sha256};
use tallygate_tonic::tallygate::Gate;
use tallygate_tonic::{GatedRequest, layer, status};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use api::Text;
use api::translation_server::{Translation, TranslationServer};

/// What build.rs makes from the .proto.
mod api {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    tonic::include_proto!("translation.v1");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(home) = std::env::var_os("CARGO_MANIFEST_DIR") {
        std::env::set_current_dir(home)?; // started by cargo
    }
    let gate = Gate::open("tallygate.toml").await?;
    seed(&gate).await?;

    let port = std::env::var("PORT").map_or(Ok(50051), |port| port.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("grpc-api listens on http://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut server = Server::builder().layer(layer(&gate));
    let server = server.add_service(TranslationServer::new(Shouting));
    server.serve_with_incoming_shutdown(incoming, stop).await?;
    gate.close().await?; // usage is in the store, leases are back
    Ok(())
}

/// Translates into capital letters.
struct Shouting;

#[tonic::async_trait]
impl Translation for Shouting {
    type TranslateBookStream = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

    async fn translate(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        let usage = request.usage()?;
        let Text { text } = request.into_inner();
        usage.take("words", words(&text)).await.map_err(status)?; // a refusal is a status
        usage.add("words", words(&text));
        Ok(Response::new(Text { text: text.to_uppercase() }))
    }

    /// Takes words as it goes: when they run out, the stream ends with a status that says why.
    async fn translate_book(
        &self,
        request: Request<Text>,
    ) -> Result<Response<Self::TranslateBookStream>, Status> {
        let usage = request.usage()?;
        let lines: Vec<String> = request.get_ref().text.lines().map(str::to_owned).collect();
        let translated = tokio_stream::iter(lines).then(move |line| {
            let usage = usage.clone();
            async move {
                usage.take("words", words(&line)).await.map_err(status)?;
                usage.add("words", words(&line));
                Ok(Text { text: line.to_uppercase() })
            }
        });
        Ok(Response::new(Box::pin(translated)))
    }
}

fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// Creates the demo's tenants, each once, with well-known keys. Yours come from
/// `tenant.ensure_key(name)`: random, shown once.
async fn seed(gate: &Gate) -> Result<(), Box<dyn Error>> {
    for (id, plan) in [("acme", "team"), ("solo", "free")] {
        if gate.directory().find(id).await?.is_none() {
            let tenant = gate.directory().tenant(id).plan(plan).note("demo").save().await?;
            let hash = Sha256::digest(format!("tg_demo_{id}"));
            tenant.import_key_sha256("demo", hash.into()).await?;
        }
    }
    Ok(())
}
