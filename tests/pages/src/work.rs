//! docs/work.md.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::WebSocket;
use axum::response::Response;
use tallygate::{Admitted, Ask, Gate, Permit, Refusal};
use tallygate_axum::Usage;

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn post(url: &str) -> Result<(), Error> {
    Ok(())
}

fn requeue(after: Option<Duration>) {}

async fn deliver(gate: Gate, url: String) -> Result<(), Error> {
    let acme = gate.tenant("acme").await?;
    let ask = Ask::new(&acme, "deliver").cost("deliveries", 1);
    match gate.admit(ask).await {
        Ok(permit) => match post(&url).await {
            Ok(_) => permit.settle(),
            Err(_) => permit.cancel(),
        },
        Err(refusal) => requeue(refusal.retry_after),
    }
    Ok(())
}

async fn open() -> Result<Gate, tallygate::Error> {
    let gate = Gate::builder("tallygate.toml").work_only().open().await?;
    Ok(gate)
}

fn start(gate: &Gate) -> Result<(), Error> {
    gate.check_operations(["deliver"])?;
    Ok(())
}

struct Queue;

impl Queue {
    fn forget(&self, job: Job) {}
}

async fn once(gate: Gate, queue: Queue, job: Job, url: String) -> Result<(), Error> {
    let acme = gate.tenant("acme").await?;
    let ask = Ask::new(&acme, "deliver").cost("deliveries", 1).once(&job.id);
    let permit = gate.admit(ask).await?;
    if !permit.is_repeat() {
        post(&url).await?;
    }
    permit.settle();
    gate.flush_now().await?;
    queue.forget(job);
    Ok(())
}

struct Job {
    id: String,
    key_id: String,
    ip: IpAddr,
}

async fn left(gate: Gate, request: &Admitted) -> Result<Permit, Refusal> {
    let permit = gate.admit(request.ask("convert").cost("pages", 12)).await?;
    Ok(permit)
}

async fn on_behalf(gate: Gate, job: Job) -> Result<Ask, Error> {
    let acme = gate.tenant("acme").await?;
    Ok(Ask::new(&acme, "convert")
        .user("ann")
        .key(&job.key_id)
        .scope("project", "7")
        .address(job.ip))
}

struct Answer {
    tokens: u64,
}

async fn model(job: &Job) -> Result<Answer, Error> {
    Ok(Answer { tokens: 812 })
}

async fn summarise(gate: Gate, job: Job) -> Result<(), Error> {
    let acme = gate.tenant("acme").await?;
    let permit = gate.admit(Ask::new(&acme, "summarise").cost("tokens", 1_000)).await?;
    let answer = model(&job).await?;
    permit.settle_with("tokens", answer.tokens);
    Ok(())
}

async fn translate(page: String) -> Result<u64, Error> {
    Ok(812)
}

async fn translated(gate: Gate, pages: Vec<String>) -> Result<(), Error> {
    let acme = gate.tenant("acme").await?;
    let permit = gate.admit(Ask::new(&acme, "translate")).await?;
    let usage = permit.usage();
    for page in pages {
        usage.take("tokens", 500).await?;
        let tokens = translate(page).await?;
        usage.add("tokens", tokens);
    }
    permit.settle();
    Ok(())
}

async fn ws(usage: Usage, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| echo(socket, usage))
}

async fn echo(mut socket: WebSocket, usage: Usage) {
    while let Some(Ok(message)) = socket.recv().await {
        if usage.take("messages", 1).await.is_err() {
            return;
        }
        usage.add("messages", 1);
        usage.add("traffic", message.clone().into_data().len() as u64);
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

struct Hello {
    key_id: String,
}

async fn serve(socket: u8, usage: tallygate::Usage) {}

async fn connect(gate: Gate, socket: u8, hello: Hello) -> Result<(), Error> {
    let acme = gate.tenant("acme").await?;
    let permit = gate.admit(Ask::new(&acme, "connect").key(&hello.key_id)).await?;
    serve(socket, permit.usage()).await;
    permit.settle();
    Ok(())
}
