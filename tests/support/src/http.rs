//! HTTP/1.1 over a socket, so that a request is exactly what a test writes.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

pub use dynamodb_local::free_port;

use crate::waits::PATIENCE;

/// A connection on which a request was sent.
pub type Socket = BufReader<TcpStream>;

/// An answer, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// What came of its body.
    pub body: String,
    /// Whether the body came to its end.
    pub is_whole: bool,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Sends a request as [`open`] does, and reads the answer as [`read`] does.
pub fn send(
    address: impl ToSocketAddrs,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    read(&mut open(address, method, path, headers, body), method)
}

/// Sends a request with exactly these headers beside `host`, the connection's end and, unless it
/// has a `transfer-encoding`, the length of the body. Reads nothing yet.
pub fn open(
    address: impl ToSocketAddrs,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Socket {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let mut lines: String = lines.collect();
    if !body.is_empty() && !lines.contains("transfer-encoding") {
        lines += &format!("content-length: {}\r\n", body.len());
    }
    open_raw(address, method, path, &format!("connection: close\r\n{lines}\r\n{body}"))
}

/// Sends the request line and `host`, and then these bytes.
pub fn open_raw(address: impl ToSocketAddrs, method: &str, path: &str, rest: &str) -> Socket {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{rest}");
    socket.write_all(sent.as_bytes()).unwrap();
    BufReader::new(socket)
}

/// Reads the answer to a request of this method to its end; `None` if the connection was closed
/// before its head had come.
pub fn read(socket: &mut Socket, method: &str) -> Option<Answer> {
    read_some(socket, method, usize::MAX)
}

/// The same, and of a body in chunks no more than those up to this number of bytes.
pub fn read_some(socket: &mut Socket, method: &str, bytes: usize) -> Option<Answer> {
    let mut answer = head(socket)?;
    if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
        answer.is_whole = true;
        return Some(answer);
    }
    let mut body = Vec::new();
    answer.is_whole = match (answer.header("transfer-encoding"), answer.header("content-length")) {
        // Without a length it lasts until the connection is closed: no cut shows.
        ("", "") => socket.read_to_end(&mut body).is_ok(),
        ("", length) => bytes_of(socket, &mut body, length.parse().unwrap()),
        _ => chunks(socket, &mut body, bytes),
    };
    answer.body = String::from_utf8(body).unwrap();
    Some(answer)
}

/// Reads the head of an answer, whose body follows on the socket.
pub fn head(socket: &mut Socket) -> Option<Answer> {
    let first = line(socket)?;
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let field = line(socket)?;
        let Some((name, value)) = field.split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    Some(Answer { status, headers, ..Answer::default() })
}

/// The chunks of a body (RFC 9112, section 7.1), to its end or to so many bytes; whether the end
/// has come.
fn chunks(socket: &mut Socket, body: &mut Vec<u8>, bytes: usize) -> bool {
    while body.len() < bytes {
        let Some(size) = line(socket) else { return false };
        let size = usize::from_str_radix(&size, 16).unwrap();
        if !bytes_of(socket, body, size) || line(socket).is_none() {
            return false;
        }
        if size == 0 {
            return true;
        }
    }
    false
}

/// So many bytes more; whether they came.
fn bytes_of(socket: &mut Socket, body: &mut Vec<u8>, n: usize) -> bool {
    socket.take(n as u64).read_to_end(body).is_ok_and(|came| came == n)
}

/// A line without its end; `None` if the connection was closed.
fn line(socket: &mut Socket) -> Option<String> {
    let mut line = String::new();
    match socket.read_line(&mut line) {
        Ok(_) => Some(line.strip_suffix("\r\n")?.to_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("no answer: {error}"),
    }
}
