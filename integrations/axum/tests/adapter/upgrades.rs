//! Connections that become another protocol's (101) behind the layer, over real sockets: each keeps
//! its place in flight until the last handle on its request is gone, and holds nothing besides.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tallygate::{Gate, testing};
use tallygate_axum::{GateLayer, Usage};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};

use crate::support::meter;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [route.echo]
    match = "GET /echo"
    cost = { requests = 1, tokens = 0 }
    [plan.free]
    concurrency = 3
    quota.requests = "100/day"
    quota.tokens = "100/day"
"#;

/// Sends back what comes until the client goes away; five tokens are used then.
async fn echo(usage: Usage, mut request: Request) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut from, mut to) = split(TokioIo::new(upgraded.await.unwrap()));
        let _ = copy(&mut from, &mut to).await;
        usage.add("tokens", 5);
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "echo")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn serve(gate: &Gate) -> SocketAddr {
    let app = Router::new().route("/echo", get(echo)).route("/a", get(async || "four"));
    let app = app.layer(GateLayer::new(gate));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Asks for the other protocol: the status, and the connection.
async fn open(address: SocketAddr) -> (u16, TcpStream) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let ask = "GET /echo HTTP/1.1\r\nhost: test\r\nx-tenant: acme\r\n\
               connection: upgrade\r\nupgrade: echo\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0, "closed early");
    }
    let head = String::from_utf8(head).unwrap();
    (head[9..12].parse().unwrap(), socket)
}

async fn in_flight_is(gate: &Gate, n: u32) {
    let tenant = gate.tenant("acme").await.unwrap();
    let reached = async {
        while tenant.in_flight() != Some(n) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "{:?} in flight, not {n}", tenant.in_flight());
}

#[tokio::test]
async fn an_upgraded_connection_counts_as_in_flight_until_it_is_closed() {
    let (gate, _clock) = testing::gate(PLANS);
    let address = serve(&gate).await;
    let mut sockets = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let (status, socket) = open(address).await;
        statuses.push(status);
        sockets.push(socket);
    }
    assert_eq!(statuses, [101, 101, 101, 429, 429]);
    in_flight_is(&gate, 3).await;
    // Charged by its head, and nothing is held while it lasts.
    assert_eq!(meter(&gate, "requests").await, (3, 0));
    assert_eq!(meter(&gate, "tokens").await, (0, 0));
    sockets[0].write_all(b"four").await.unwrap();
    let mut echoed = [0; 4];
    sockets[0].read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"four");

    sockets.remove(0);
    in_flight_is(&gate, 2).await;
    assert_eq!(meter(&gate, "tokens").await, (5, 0));
    sockets.push(open(address).await.1);
    in_flight_is(&gate, 3).await;
    sockets.clear();
    in_flight_is(&gate, 0).await;
    assert_eq!(meter(&gate, "requests").await, (4, 0));
    assert_eq!(meter(&gate, "tokens").await, (20, 0));
}
