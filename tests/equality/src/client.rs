//! An HTTP/1.1 client over a socket, so that a request is exactly what the trace says.

use std::net::{SocketAddr, TcpStream};

use test_support::http;

use crate::answer::Answer;
use crate::trace::{Body, Request};

/// Sends a request and reads its answer to the end.
pub fn send(address: SocketAddr, request: &Request) -> Answer {
    open(address, request, usize::MAX).0
}

/// Sends a request, reads so many bytes of the answer's body, and keeps the connection open for as
/// long as the socket lives.
pub fn open(address: SocketAddr, request: &Request, bytes: usize) -> (Answer, TcpStream) {
    let mut socket = http::open_raw(address, request.method, &request.target, &rest(request));
    let came = http::read_some(&mut socket, request.method, bytes).unwrap_or_default();
    let head = Answer::head(came.status, came.headers);
    (Answer { body: came.body, is_whole: came.is_whole, ..head }, socket.into_inner())
}

/// What follows the host.
fn rest(request: &Request) -> String {
    let mut out = "connection: close\r\n".to_owned();
    if let Some(tenant) = request.tenant {
        out.push_str(&format!("x-tenant: {tenant}\r\n"));
    }
    if let Some(permission) = request.permission() {
        out.push_str(&format!("x-permission: {permission}\r\n"));
    }
    if let Some(origin) = request.origin() {
        out.push_str(&format!("origin: {origin}\r\n"));
    }
    out.push_str(&match &request.body {
        Body::None => "\r\n".to_owned(),
        Body::Sized(n) => format!("content-length: {n}\r\n\r\n{}", "y".repeat(*n)),
        Body::Chunked(n) => {
            let bytes = "y".repeat(*n);
            format!("transfer-encoding: chunked\r\n\r\n{n:x}\r\n{bytes}\r\n0\r\n\r\n")
        }
    });
    out
}
