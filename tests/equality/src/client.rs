//! An HTTP/1.1 client over a socket, so that a request is exactly what the trace says.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::answer::Answer;
use crate::trace::{Body, Request};

/// Longest wait for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a request and reads its answer to the end.
pub fn send(address: SocketAddr, request: &Request) -> Answer {
    exchange(address, request, None).0
}

/// Sends a request, reads so many bytes of the answer's body, and keeps the connection open for as
/// long as the socket lives.
pub fn open(address: SocketAddr, request: &Request, bytes: usize) -> (Answer, TcpStream) {
    exchange(address, request, Some(bytes))
}

fn exchange(address: SocketAddr, request: &Request, bytes: Option<usize>) -> (Answer, TcpStream) {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(socket);
    reader.get_mut().write_all(&written(request)).unwrap();
    let answer = read(&mut reader, request.method == "HEAD", bytes).unwrap_or_default();
    (answer, reader.into_inner())
}

fn written(request: &Request) -> Vec<u8> {
    let Request { method, target, tenant, body } = request;
    let mut out = format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    if let Some(tenant) = tenant {
        out.push_str(&format!("x-tenant: {tenant}\r\n"));
    }
    if let Some(origin) = request.origin() {
        out.push_str(&format!("origin: {origin}\r\n"));
    }
    out.push_str(&match body {
        Body::None => "\r\n".to_owned(),
        Body::Sized(n) => format!("content-length: {n}\r\n\r\n{}", "y".repeat(*n)),
        Body::Chunked(n) => {
            let bytes = "y".repeat(*n);
            format!("transfer-encoding: chunked\r\n\r\n{n:x}\r\n{bytes}\r\n0\r\n\r\n")
        }
    });
    out.into_bytes()
}

/// An answer, unless the connection was closed before its head had come.
fn read(reader: &mut BufReader<TcpStream>, is_head: bool, bytes: Option<usize>) -> Option<Answer> {
    let first = line(reader)?;
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let field = line(reader)?;
        let Some((name, value)) = field.split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let is = |name: &str| headers.iter().find(|(known, _)| known == name);
    let is_chunked = is("transfer-encoding").is_some();
    let length = is("content-length").map(|(_, length)| length.parse::<usize>().unwrap());
    let mut answer = Answer::head(status, headers);
    if is_head || matches!(status, 204 | 304) {
        answer.is_whole = true;
        return Some(answer);
    }
    let mut body = Vec::new();
    answer.is_whole = match (is_chunked, length) {
        (true, _) => chunks(reader, &mut body, bytes),
        (false, Some(length)) => bytes_of(reader, &mut body, length),
        // Without a length it lasts until the connection is closed: no cut shows.
        (false, None) => reader.read_to_end(&mut body).is_ok(),
    };
    answer.body = String::from_utf8(body).unwrap();
    Some(answer)
}

/// The chunks of a body (RFC 9112, section 7.1), to its end or to so many bytes; whether the end
/// has come.
fn chunks(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>, bytes: Option<usize>) -> bool {
    while bytes.is_none_or(|bytes| body.len() < bytes) {
        let Some(size) = line(reader) else { return false };
        let size = usize::from_str_radix(&size, 16).unwrap();
        if !bytes_of(reader, body, size) || line(reader).is_none() {
            return false;
        }
        if size == 0 {
            return true;
        }
    }
    false
}

/// So many bytes more; whether they came.
fn bytes_of(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>, n: usize) -> bool {
    let came = reader.take(n as u64).read_to_end(body);
    came.is_ok_and(|came| came == n)
}

/// A line without its end; none if the connection was closed.
fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(_) => Some(line.strip_suffix("\r\n")?.to_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("no answer: {error}"),
    }
}
