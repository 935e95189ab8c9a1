//! Connections that become another protocol's (101) behind the middleware, over real sockets: each
//! keeps its place in flight until its body and the last handle on its request are gone, and holds
//! nothing besides.

use std::io::{Read, Write};

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Payload};
use actix_web::{App, HttpResponse};
use tallygate_actix_web::{GateMiddleware, Usage};
use test_support::http::{self, Socket};
use test_support::plans::UPGRADES;
use tokio_stream::StreamExt;

use crate::support::{Gated, Server};

/// Five tokens are used when it is let go.
struct Used(Usage);

impl Drop for Used {
    fn drop(&mut self) {
        self.0.add("tokens", 5);
    }
}

/// Sends back what comes until the client goes away.
async fn echo(usage: Usage, payload: Payload) -> HttpResponse {
    let used = Used(usage);
    let echoed = payload.map(move |chunk| {
        let _kept = &used;
        chunk
    });
    HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS).upgrade("websocket").streaming(echoed)
}

/// Keeps no handle, and sends nothing.
async fn silent() -> HttpResponse {
    let never = tokio_stream::pending::<Result<Bytes, actix_web::Error>>();
    HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS).upgrade("websocket").streaming(never)
}

fn start(gated: &Gated) -> Server {
    let gate = gated.gate.clone();
    Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/echo", web::get().to(echo))
            .route("/silent", web::get().to(silent))
    })
}

/// Asks for the other protocol: the status, and the connection.
fn open(server: &Server, path: &str) -> (u16, Socket) {
    let asks = "x-tenant: acme\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut socket = server.open_raw("GET", path, asks);
    (http::head(&mut socket).expect("it answers").status, socket)
}

#[test]
fn an_upgraded_connection_counts_as_in_flight_until_it_is_closed() {
    let gated = Gated::new(UPGRADES);
    let server = start(&gated);
    let opened = || open(&server, "/echo");
    let (statuses, mut sockets): (Vec<_>, Vec<_>) = (0..5).map(|_| opened()).unzip();
    assert_eq!(statuses, [101, 101, 101, 429, 429]);
    gated.until_in_flight(3);
    // Charged by its head, and nothing is held while it lasts.
    assert_eq!(gated.meter("requests"), (3, 0));
    assert_eq!(gated.meter("tokens"), (0, 0));
    assert_eq!(gated.meter("egress").1, 0);
    sockets[0].get_mut().write_all(b"four").unwrap();
    let mut echoed = [0; 4];
    sockets[0].read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"four");

    sockets.remove(0);
    gated.until_in_flight(2);
    assert_eq!(gated.meter("tokens"), (5, 0));
    assert_eq!(gated.meter("egress").1, 0);
    sockets.push(opened().1);
    gated.until_in_flight(3);
    sockets.clear();
    gated.until_in_flight(0);
    assert_eq!(gated.meter("requests"), (4, 0));
    assert_eq!(gated.meter("tokens"), (20, 0));
}

#[test]
fn the_body_of_an_upgraded_connection_keeps_its_place_by_itself() {
    let gated = Gated::new(UPGRADES);
    let server = start(&gated);
    let (statuses, sockets): (Vec<_>, Vec<_>) = (0..5).map(|_| open(&server, "/silent")).unzip();
    assert_eq!(statuses, [101, 101, 101, 429, 429]);
    gated.until_in_flight(3);
    assert_eq!(gated.meter("tokens"), (0, 0));
    drop(sockets);
    gated.until_in_flight(0);
}
