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

/// actix-web writes a body after a 2xx to `CONNECT` as it does to any other method.
#[test]
fn the_bytes_of_an_answer_to_connect_are_counted_and_cut() {
    let plans = "default-plan = \"free\"\n[meter.egress]\ncount = \"response-bytes\"\n\
                 cut = true\n[plan.free]\nquota.egress = \"100KB/day\"\n";
    let gated = Gated::new(plans);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let page = async || {
            let chunks =
                (0..200).map(|_| Ok::<_, actix_web::Error>(Bytes::from("#".repeat(1_000))));
            HttpResponse::Ok().streaming(tokio_stream::iter(chunks))
        };
        App::new().wrap(GateMiddleware::new(&gate)).route("/page", web::route().to(page))
    });
    let mut socket = server.open_raw("CONNECT", "/page", "x-tenant: acme\r\n\r\n");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer); // a body that is cut ends with an error
    let sent = answer.iter().filter(|byte| **byte == b'#').count();
    assert!(sent <= 100_000, "{sent}");
    let text = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
    assert_eq!(gated.meter("egress").0, sent as u64, "{text}");
}

/// To actix-web the rest of the connection is the body of such a request, whatever is answered.
#[test]
fn bytes_that_a_handler_reads_of_a_request_for_another_protocol_are_counted() {
    let plans = "default-plan = \"free\"\n[meter.ingress]\ncount = \"request-bytes\"\n\
                 [plan.free]\nquota.ingress = \"100KB/day\"\n";
    let gated = Gated::new(plans);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        let read = async |mut payload: Payload| {
            let mut left = 80_000_usize;
            while let Some(Ok(bytes)) = payload.next().await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    break;
                }
            }
            HttpResponse::Ok().finish()
        };
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .route("/read", web::post().to(read))
            .route("/echo", web::get().to(echo))
    });
    let status = || {
        let mut socket =
            server.open_raw("POST", "/read", "x-tenant: acme\r\nupgrade: websocket\r\n\r\n");
        let _ = socket.get_mut().write_all(&[b'x'; 80_000]); // a refusal does not read it
        http::head(&mut socket).map_or(0, |head| head.status)
    };
    let chunked = "x-tenant: acme\r\nupgrade: other\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut socket = server.open_raw("POST", "/read", chunked);
    assert_eq!(http::head(&mut socket).unwrap().status, 411, "chunks end it");
    assert_eq!([status(), status()], [200, 200]);
    assert_eq!(gated.meter("ingress").0, 160_000, "what is beyond the quota is owed");
    assert_eq!(status(), 429);

    // A connection that does become another protocol's is not counted.
    let gated = Gated::new(plans);
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new().wrap(GateMiddleware::new(&gate)).route("/echo", web::get().to(echo))
    });
    let (status, mut socket) = open(&server, "/echo");
    assert_eq!(status, 101);
    socket.get_mut().write_all(b"abc").unwrap();
    socket.read_exact(&mut [0; 3]).unwrap();
    drop(socket);
    assert_eq!(gated.meter("ingress"), (0, 0));
}
