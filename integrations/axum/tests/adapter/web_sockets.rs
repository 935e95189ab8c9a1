//! WebSockets of axum behind the layer, over real sockets: refused before the upgrade, counted by
//! message and by byte, and in flight until they are over, however they end.

use std::net::{SocketAddr, TcpStream};

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{any, get};
use tallygate::{Gate, TenantHandle, testing};
use tallygate_axum::{GateLayer, Usage};
use test_support::waits::{self, PATIENCE};
use tokio::net::TcpListener;
use tungstenite::client::IntoClientRequest;
use tungstenite::{HandshakeError, Message as Sent, WebSocket as Client};

use crate::support::meter;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.messages]
    count = "reported"
    [meter.traffic]
    count = "reported"
    [route.ws]
    match = "GET /ws"
    meters = ["messages"]
    [plan.free]
    concurrency = 2
    quota.requests = "100/day"
    quota.messages = "5/day"
    quota.traffic = "1M/day"
"#;

async fn ws(usage: Usage, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| echo(socket, usage))
}

/// Sends back what comes; the word `panic` is a mistake of this program.
async fn echo(mut socket: WebSocket, usage: Usage) {
    while let Some(Ok(message)) = socket.recv().await {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            continue;
        }
        if usage.take("messages", 1).await.is_err() {
            return;
        }
        assert_ne!(message, Message::text("panic"), "as a task may");
        usage.add("messages", 1);
        usage.add("traffic", message.clone().into_data().len() as u64);
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn serve(gate: &Gate) -> SocketAddr {
    let app = Router::new().route("/ws", any(ws)).route("/a", get(async || "four"));
    let app = app.layer(GateLayer::new(gate));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Opens a connection, or returns the status and the body that refused it.
fn open(address: SocketAddr) -> Result<Client<TcpStream>, (u16, String)> {
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert("x-tenant", "acme".parse().unwrap());
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            let body = answer.body().clone().unwrap_or_default();
            Err((answer.status().as_u16(), String::from_utf8(body).unwrap()))
        }
        Err(error) => panic!("{error}"),
    }
}

fn in_flight_is(tenant: &TenantHandle, n: u32) {
    waits::until(&format!("{n} in flight"), || tenant.in_flight() == Some(n));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_that_is_refused_is_not_upgraded() {
    let (gate, _clock) = testing::gate(PLANS);
    let address = serve(&gate).await;
    let acme = gate.tenant("acme").await.unwrap();
    let sockets = [open(address).unwrap(), open(address).unwrap()];
    let (status, body) = open(address).unwrap_err();
    assert_eq!(status, 429);
    assert!(body.contains("in flight"), "{body}");
    assert_eq!(meter(&gate, "requests").await, (2, 0), "a refusal costs nothing");
    drop(sockets);
    in_flight_is(&acme, 0);
    open(address).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_and_their_bytes_are_counted_until_they_are_used_up() {
    let (gate, _clock) = testing::gate(PLANS);
    let address = serve(&gate).await;
    let acme = gate.tenant("acme").await.unwrap();
    let mut socket = open(address).unwrap();
    let mut bytes = 0;
    for n in 0..5 {
        let sent = Sent::text("x".repeat(100 * n));
        bytes += sent.len() as u64;
        socket.send(sent.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), sent);
    }
    // Each was counted before its answer.
    assert_eq!(meter(&gate, "messages").await, (5, 0));
    assert_eq!(meter(&gate, "traffic").await, (bytes, 0));
    socket.send(Sent::text("one too many")).unwrap();
    assert!(socket.read().is_err(), "it is closed");
    in_flight_is(&acme, 0);
    assert_eq!(meter(&gate, "messages").await, (5, 0));
    assert_eq!(open(address).unwrap_err().0, 429, "nor is there another today");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_place_is_free_again_however_the_connection_ends() {
    let (gate, _clock) = testing::gate(PLANS);
    let address = serve(&gate).await;
    let acme = gate.tenant("acme").await.unwrap();

    let mut closed = open(address).unwrap();
    in_flight_is(&acme, 1);
    closed.close(None).unwrap();
    in_flight_is(&acme, 0);

    let cut = open(address).unwrap();
    in_flight_is(&acme, 1);
    drop(cut);
    in_flight_is(&acme, 0);

    let mut panics = open(address).unwrap();
    in_flight_is(&acme, 1);
    panics.send(Sent::text("panic")).unwrap();
    in_flight_is(&acme, 0);
    assert_eq!(meter(&gate, "messages").await, (0, 0), "what it took goes back");

    let mut suspended = open(address).unwrap();
    let tenant = gate.directory().find("acme").await.unwrap().unwrap();
    tenant.suspend("does not pay").await.unwrap();
    suspended.send(Sent::text("hello")).unwrap();
    assert!(suspended.read().is_err(), "it is closed");
    in_flight_is(&acme, 0);
}
