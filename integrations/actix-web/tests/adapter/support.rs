//! An actix-web server with two workers on a free port, and a plain HTTP/1.1 client over a socket,
//! so that a request is exactly what a test writes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a test that panics has failed, and says where; another thread is waited for by \
              looking; each file uses its part"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::{App, Error, HttpServer, rt};
use tallygate::{Gate, ManualClock, testing};

/// Longest wait for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PLANS: &str = r#"
    default-plan = "free"
    [meter.egress]
    count = "response-bytes"
    hold = "1KB"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [route.search]
    match = "GET /api/search"
    cost = { requests = 5 }
    [route.export]
    match = "POST /export"
    needs = "exports"
    [route.chat]
    match = "POST /chat"
    cost = { tokens = 0 }
    [route.open]
    match = "GET /healthz"
    auth = "none"
    [plan.free]
    concurrency = 100
    quota.requests = "100/day"
    quota.egress = "1MB/day"
    quota.tokens = "100/day"
    feature.seats = 3
    [plan.pro]
    extends = "free"
    feature.exports = true
"#;

/// A gate in memory and its clock, on a runtime of their own.
pub(crate) struct Gated {
    pub(crate) gate: Gate,
    pub(crate) clock: ManualClock,
    runtime: tokio::runtime::Runtime,
}

impl Gated {
    pub(crate) fn new(plans: &str) -> Self {
        Self::with(|| testing::gate(plans))
    }

    pub(crate) fn with(make: impl FnOnce() -> (Gate, ManualClock)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (gate, clock) = runtime.block_on(async { make() });
        Self { gate, clock, runtime }
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// `(used, held)` of a meter of `acme`.
    pub(crate) fn meter(&self, name: &str) -> (u64, u64) {
        self.run(async {
            let who = testing::identified(&self.gate, "acme").await;
            let report = self.gate.usage_report(&who).await.unwrap();
            let meter = report.meters.iter().find(|meter| &*meter.name == name).unwrap();
            (meter.used, meter.held)
        })
    }

    pub(crate) fn in_flight(&self) -> u32 {
        let tenant = self.run(self.gate.tenant("acme")).unwrap();
        tenant.in_flight().expect("the plans of these tests limit it")
    }

    /// Waits until no request of `acme` is in flight.
    #[track_caller]
    pub(crate) fn settled(&self) {
        for _ in 0..PATIENCE.as_millis() / 5 {
            if self.in_flight() == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("{} requests are in flight still", self.in_flight());
    }
}

/// A running server; stopped when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

/// A response, read to its end: to what was sent of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// Whether the body came to its end, by its length or its last chunk.
    pub(crate) is_whole: bool,
}

impl Server {
    /// A server that ends what its client has gone away from.
    pub(crate) fn start<T, B>(app: impl Fn() -> App<T> + Send + Clone + 'static) -> Self
    where
        T: ServiceFactory<
                ServiceRequest,
                Config = (),
                Response = ServiceResponse<B>,
                Error = Error,
                InitError = (),
            > + 'static,
        B: MessageBody + 'static,
    {
        Self::start_with(app, false)
    }

    pub(crate) fn start_with<T, B>(
        app: impl Fn() -> App<T> + Send + Clone + 'static,
        half_closed: bool,
    ) -> Self
    where
        T: ServiceFactory<
                ServiceRequest,
                Config = (),
                Response = ServiceResponse<B>,
                Error = Error,
                InitError = (),
            > + 'static,
        B: MessageBody + 'static,
    {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            rt::System::new().block_on(async move {
                let server = HttpServer::new(app).workers(2).disable_signals();
                let server = server.h1_allow_half_closed(half_closed);
                let server = server.shutdown_timeout(1).bind(("127.0.0.1", 0)).unwrap();
                let address = server.addrs()[0];
                let running = server.run();
                tell.send((address, running.handle())).unwrap();
                running.await.unwrap();
            });
        });
        let (address, handle) = told.recv().unwrap();
        Self { address, handle, thread: Some(thread) }
    }

    /// Sends a request of `acme`.
    pub(crate) fn send(&self, method: &str, path: &str) -> Answer {
        self.raw(method, path, "x-tenant: acme\r\n", "").unwrap()
    }

    /// Sends a request with exactly these header lines beside `host` and the length of the body;
    /// `None` if the connection was closed without an answer.
    pub(crate) fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Option<Answer> {
        read(&mut self.open(method, path, headers, body))
    }

    /// Sends a request and reads nothing yet.
    pub(crate) fn open(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> BufReader<TcpStream> {
        let length = match body.len() {
            n if n > 0 && !headers.contains("transfer-encoding") => {
                format!("content-length: {n}\r\n")
            }
            _ => String::new(),
        };
        let rest = format!("connection: close\r\n{headers}{length}\r\n{body}");
        self.open_raw(method, path, &rest)
    }

    /// Sends a head with exactly these header lines beside `host`, and reads nothing yet.
    pub(crate) fn open_with(
        &self,
        method: &str,
        path: &str,
        headers: &str,
    ) -> BufReader<TcpStream> {
        self.open_raw(method, path, &format!("{headers}\r\n"))
    }

    /// Sends what follows the line with the host.
    pub(crate) fn open_raw(&self, method: &str, path: &str, rest: &str) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{rest}");
        socket.write_all(sent.as_bytes()).unwrap();
        BufReader::new(socket)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The command goes through a channel; what it answers is of no interest.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value)
    }
}

/// Reads an answer to its end; `None` if the connection was closed without one.
pub(crate) fn read(socket: &mut BufReader<TcpStream>) -> Option<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if socket.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let (first, fields) = head.split_once("\r\n").unwrap();
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    let fields = fields.lines().filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> =
        fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let mut rest = Vec::new();
    let closed = socket.read_to_end(&mut rest);
    let chunked = headers.contains_key("transfer-encoding");
    let (rest, is_whole) = if chunked { unchunk(&rest) } else { (rest, closed.is_ok()) };
    Some(Answer { status, headers, body: String::from_utf8(rest).unwrap(), is_whole })
}

/// What came of a body in chunks (RFC 9112, section 7.1), and whether that is all of it.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (whole, true);
        }
        let chunk = &rest[end + 2..];
        whole.extend(&chunk[..size.min(chunk.len())]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    (whole, false)
}
