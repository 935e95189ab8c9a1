//! What stays open: server-sent events, whose bytes are counted as they flow, and WebSockets, whose
//! messages are. Both are in flight until they are closed.

use std::io::BufRead;
use std::net::TcpStream;

use test_support::http::{self, Socket};
use test_support::waits::{self, PATIENCE};
use tungstenite::client::IntoClientRequest;
use tungstenite::{HandshakeError, Message, WebSocket};

use crate::support::{App, Session, WITH_PLANS, home};

/// Opens the stream of events; its status, and the stream.
fn events(session: &Session<'_>) -> (u16, Socket) {
    let mut socket = session.open("/api/events");
    (http::head(&mut socket).expect("it answers").status, socket)
}

/// The next event, with the empty line at its end, without the lines of its chunk.
fn next_event(socket: &mut Socket) -> String {
    let mut event = String::new();
    while !event.ends_with("\n\n") {
        let mut line = String::new();
        assert_ne!(socket.read_line(&mut line).unwrap(), 0, "the stream goes on");
        if !line.ends_with("\r\n") {
            event += &line;
        }
    }
    event
}

/// Opens the WebSocket, or returns the status that it was refused with.
fn web_socket(session: &Session<'_>) -> Result<WebSocket<TcpStream>, u16> {
    let address = &session.app.address;
    let mut request = format!("ws://{address}/api/ws").into_client_request().unwrap();
    request.headers_mut().insert("cookie", session.cookie.parse().unwrap());
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            Err(answer.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn events_are_counted_as_they_flow_and_settled_when_the_client_goes_away() {
    let home = home();
    let app = App::start(WITH_PLANS, &home);
    let [ada, alan, ian] = ["ada", "alan", "ian"].map(|user| app.sign_in(user));
    let (status, mut stream) = events(&ada);
    assert_eq!(status, 200);
    let mut bytes = 0;
    for note in ["milk", "tea", "two\nlines"] {
        bytes += alan.send("POST", "/api/notes", note).body.len() as u64;
        let event = next_event(&mut stream);
        assert_eq!(event, format!("event: note\ndata: {note:?}\n\n"));
        bytes += event.len() as u64;
    }
    let (used, held) = ada.meter("egress");
    assert_eq!(used, bytes);
    assert!(held > 0, "for what may come");
    assert_eq!(ian.meter("egress"), (0, 0));

    drop(stream);
    waits::until("it is settled", || ada.meter("egress") == (bytes, 0));
    assert_eq!(ada.requests(), 4, "one stream, three notes");
}

#[test]
fn a_socket_echoes_until_its_messages_are_used_up() {
    let home = home();
    let app = App::start(WITH_PLANS, &home);
    let ada = app.sign_in("ada");
    let mut socket = web_socket(&ada).unwrap();
    for n in 0..10 {
        let message = Message::text(format!("message {n}"));
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    waits::until("the last is counted", || ada.meter("messages") == (10, 0));
    socket.send(Message::text("one too many")).unwrap();
    assert!(socket.read().is_err(), "it is closed");
    assert_eq!(web_socket(&ada).unwrap_err(), 429);
    assert_eq!((ada.meter("messages"), ada.requests()), ((10, 0), 1));
    assert_eq!(ada.get("/api/notes").status, 200, "which sends no messages");

    assert_eq!(ada.send("POST", "/api/upgrade", "").status, 200);
    let mut socket = web_socket(&ada).unwrap();
    socket.send(Message::text("more")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("more"));
    assert!(!app.stderr().contains("WARN"), "{}", app.stderr());
}

#[test]
fn streams_and_sockets_are_in_flight_until_they_are_closed() {
    let home = home();
    let app = App::start(WITH_PLANS, &home);
    let [ada, ian] = ["ada", "ian"].map(|user| app.sign_in(user));
    let (status, stream) = events(&ada);
    assert_eq!(status, 200);
    let socket = web_socket(&ada).unwrap();
    assert_eq!(events(&ada).0, 429, "two at once");
    assert_eq!(web_socket(&ada).unwrap_err(), 429);
    assert_eq!(ada.get("/api/notes").status, 429, "nor anything else");
    assert_eq!(events(&ian).0, 200, "another organisation");

    drop(socket);
    waits::until("the socket's place is free", || ada.get("/api/notes").status == 200);
    drop(stream);
    waits::until("both are", || {
        let (one, other) = (web_socket(&ada), web_socket(&ada));
        one.is_ok() && other.is_ok()
    });
}
