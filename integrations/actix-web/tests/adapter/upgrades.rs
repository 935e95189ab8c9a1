//! Connections that become another protocol's (101) behind the middleware, over real sockets: each
//! keeps its place in flight until its body and the last handle on its request are gone, and holds
//! nothing besides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Payload};
use actix_web::{App, HttpResponse};
use tallygate_actix_web::{GateMiddleware, Usage};
use tokio_stream::StreamExt;

use crate::support::{Gated, Server};

const PLANS: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [meter.egress]
    count = "response-bytes"
    hold = "1KB"
    [route.echo]
    match = ["GET /echo", "GET /silent"]
    cost = { requests = 1, tokens = 0 }
    [plan.free]
    concurrency = 3
    quota.requests = "100/day"
    quota.tokens = "100/day"
    quota.egress = "1MB/day"
"#;

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
fn open(server: &Server, path: &str) -> (u16, BufReader<TcpStream>) {
    let mut socket = server.open_with(
        "GET",
        path,
        "x-tenant: acme\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
    );
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(socket.read_line(&mut head).unwrap(), 0, "closed early");
    }
    (head[9..12].parse().unwrap(), socket)
}

fn in_flight_is(gated: &Gated, n: u32) {
    for _ in 0..4_000 {
        if gated.in_flight() == n {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a bound of the test's own wait")]
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} in flight, not {n}", gated.in_flight());
}

#[test]
fn an_upgraded_connection_counts_as_in_flight_until_it_is_closed() {
    let gated = Gated::new(PLANS);
    let server = start(&gated);
    let opened = || open(&server, "/echo");
    let (statuses, mut sockets): (Vec<_>, Vec<_>) = (0..5).map(|_| opened()).unzip();
    assert_eq!(statuses, [101, 101, 101, 429, 429]);
    in_flight_is(&gated, 3);
    // Charged by its head, and nothing is held while it lasts.
    assert_eq!(gated.meter("requests"), (3, 0));
    assert_eq!(gated.meter("tokens"), (0, 0));
    assert_eq!(gated.meter("egress").1, 0);
    sockets[0].get_mut().write_all(b"four").unwrap();
    let mut echoed = [0; 4];
    sockets[0].read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"four");

    sockets.remove(0);
    in_flight_is(&gated, 2);
    assert_eq!(gated.meter("tokens"), (5, 0));
    assert_eq!(gated.meter("egress").1, 0);
    sockets.push(opened().1);
    in_flight_is(&gated, 3);
    sockets.clear();
    in_flight_is(&gated, 0);
    assert_eq!(gated.meter("requests"), (4, 0));
    assert_eq!(gated.meter("tokens"), (20, 0));
}

#[test]
fn the_body_of_an_upgraded_connection_keeps_its_place_by_itself() {
    let gated = Gated::new(PLANS);
    let server = start(&gated);
    let (statuses, sockets): (Vec<_>, Vec<_>) = (0..5).map(|_| open(&server, "/silent")).unzip();
    assert_eq!(statuses, [101, 101, 101, 429, 429]);
    in_flight_is(&gated, 3);
    assert_eq!(gated.meter("tokens"), (0, 0));
    drop(sockets);
    in_flight_is(&gated, 0);
}
