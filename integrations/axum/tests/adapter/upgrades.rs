//! Connections that become another protocol's (101) behind the layer, over real sockets: each keeps
//! its place in flight until the last handle on its request is gone, and holds nothing besides.

use std::io::{Read, Write};
use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tallygate::{Gate, testing};
use tallygate_axum::{GateLayer, Usage};
use test_support::http::{Socket, head, open_raw};
use test_support::plans::UPGRADES;
use test_support::waits;
use tokio::io::{copy, split};
use tokio::net::TcpListener;

use crate::support::meter;

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
fn open(address: SocketAddr) -> (u16, Socket) {
    let asks = "x-tenant: acme\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let mut socket = open_raw(address, "GET", "/echo", asks);
    (head(&mut socket).expect("it answers").status, socket)
}

/// The server has a thread of its own: this one waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upgraded_connection_counts_as_in_flight_until_it_is_closed() {
    let (gate, _clock) = testing::gate(UPGRADES);
    let address = serve(&gate).await;
    let tenant = gate.tenant("acme").await.unwrap();
    let in_flight_is = |n| {
        waits::until(&format!("{n} in flight"), || tenant.in_flight() == Some(n));
    };
    let (statuses, mut sockets): (Vec<_>, Vec<_>) = (0..5).map(|_| open(address)).unzip();
    assert_eq!(statuses, [101, 101, 101, 429, 429]);
    in_flight_is(3);
    // Charged by its head, and nothing is held while it lasts.
    assert_eq!(meter(&gate, "requests").await, (3, 0));
    assert_eq!(meter(&gate, "tokens").await, (0, 0));
    sockets[0].get_mut().write_all(b"four").unwrap();
    let mut echoed = [0; 4];
    sockets[0].read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"four");

    sockets.remove(0);
    in_flight_is(2);
    assert_eq!(meter(&gate, "tokens").await, (5, 0));
    sockets.push(open(address).1);
    in_flight_is(3);
    sockets.clear();
    in_flight_is(0);
    assert_eq!(meter(&gate, "requests").await, (4, 0));
    assert_eq!(meter(&gate, "tokens").await, (20, 0));
}
