//! Clients that call as fast as they may and note when each answer came.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Of one process.
pub(crate) const CLIENTS: usize = 8;

/// The tenant that all clients are, where nothing else is said.
pub(crate) const SHARED: &str = "acme";

/// One HTTP/1.1 connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    tenant: &'static str,
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: JoinSet<Seen>,
}

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests that may have reached the server: written, whole or in part.
    pub(crate) sent: u64,
    /// When each 200 had come, in order.
    pub(crate) served: Vec<Instant>,
    /// Answers 429.
    pub(crate) refused: u64,
    /// Answers 503: units that did not come in time, or a store that is away.
    pub(crate) unavailable: u64,
}

/// How a client goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Until it is stopped or the server is gone, with a pause after each answer.
    Stopped(Duration),
    /// Until it is refused, without a pause.
    Refused,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), tenant: SHARED })
    }

    /// The same for another tenant.
    pub(crate) fn of(self, tenant: &'static str) -> Self {
        Self { tenant, ..self }
    }

    /// One call: status and body.
    pub(crate) async fn call(&mut self, method: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
        let Self { tenant, .. } = self;
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: test\r\nx-tenant: {tenant}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let length: Option<usize> =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let (Some(status), Some(length)) = (status, length) else {
            return Err(io::Error::other(format!("cannot read the answer {head:?}")));
        };
        while self.buffer.len() < head_end + length {
            self.more().await?;
        }
        Ok((status, self.buffer.split_off(head_end)))
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Load {
    pub(crate) fn start(address: SocketAddr, until: Until) -> Self {
        Self::of(SHARED, CLIENTS, address, until)
    }

    /// So many clients of this tenant.
    pub(crate) fn of(tenant: &'static str, n: usize, address: SocketAddr, until: Until) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..n {
            clients.spawn(client(tenant, address, until, stop.clone(), served.clone()));
        }
        Self { stop, served, clients }
    }

    /// Answers 200 so far.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Stops the clients and adds up what they saw.
    pub(crate) async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.end().await
    }

    /// Waits until the clients end by themselves.
    pub(crate) async fn end(mut self) -> Seen {
        let mut all = Seen::default();
        while let Some(seen) = self.clients.join_next().await {
            all.add(seen.unwrap());
        }
        all.served.sort();
        all
    }
}

impl Seen {
    /// Adds what others saw, in whatever order.
    pub(crate) fn add(&mut self, others: Self) {
        self.sent += others.sent;
        self.refused += others.refused;
        self.unavailable += others.unavailable;
        self.served.extend(others.served);
    }
}

async fn client(
    tenant: &'static str,
    address: SocketAddr,
    until: Until,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
) -> Seen {
    let mut seen = Seen::default();
    let Ok(connection) = Connection::open(address).await else {
        return seen;
    };
    let mut connection = connection.of(tenant);
    while !stop.load(Ordering::Relaxed) {
        seen.sent += 1;
        let Ok((status, _)) = connection.call("POST", "/work").await else {
            break; // the server is gone
        };
        match status {
            200 => {
                seen.served.push(Instant::now());
                served.fetch_add(1, Ordering::Relaxed);
            }
            429 => seen.refused += 1,
            503 => seen.unavailable += 1,
            other => panic!("an answer nobody expects: {other}"),
        }
        match until {
            Until::Refused if status == 429 => break,
            Until::Refused | Until::Stopped(Duration::ZERO) => {}
            Until::Stopped(pause) => tokio::time::sleep(pause).await,
        }
    }
    seen
}
