//! An actix-web server with two workers on a free port, and its gate on a runtime of its own.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::{App, Error, HttpServer, rt};
use tallygate::{Gate, ManualClock, testing};
pub(crate) use test_support::http::Answer;
use test_support::http::Socket;
use test_support::{gates, http, waits};

/// The header that says who calls.
pub(crate) const ACME: (&str, &str) = ("x-tenant", "acme");

/// A gate in memory, on a runtime of its own.
pub(crate) struct Gated {
    pub(crate) gate: Gate,
    runtime: tokio::runtime::Runtime,
}

impl Gated {
    pub(crate) fn new(plans: &str) -> Self {
        Self::with(|| testing::gate(plans))
    }

    pub(crate) fn with(make: impl FnOnce() -> (Gate, ManualClock)) -> Self {
        Self::with_opened(async { make().0 })
    }

    pub(crate) fn with_opened(open: impl Future<Output = Gate>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let gate = runtime.block_on(open);
        Self { gate, runtime }
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// `(used, held)` of a meter of `acme`.
    pub(crate) fn meter(&self, name: &str) -> (u64, u64) {
        self.run(gates::meter(&self.gate, name))
    }

    pub(crate) fn in_flight(&self) -> u32 {
        let tenant = self.run(self.gate.tenant("acme")).unwrap();
        tenant.in_flight().expect("the plans of these tests limit it")
    }

    /// Waits until no request of `acme` is in flight.
    #[track_caller]
    pub(crate) fn settled(&self) {
        self.until_in_flight(0);
    }

    /// Waits until so many requests of `acme` are in flight.
    #[track_caller]
    pub(crate) fn until_in_flight(&self, n: u32) {
        waits::until(&format!("{n} in flight"), || self.in_flight() == n);
    }
}

/// A running server; stopped when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
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

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request of `acme`.
    pub(crate) fn send(&self, method: &str, path: &str) -> Answer {
        self.raw(method, path, &[ACME], "").unwrap()
    }

    /// Sends a request with exactly these headers beside `host` and the length of the body;
    /// `None` if the connection was closed without an answer.
    pub(crate) fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        http::send(self.address, method, path, headers, body)
    }

    /// Sends a request of `acme` and reads nothing yet.
    pub(crate) fn open(&self, method: &str, path: &str) -> Socket {
        http::open(self.address, method, path, &[ACME], "")
    }

    /// Sends what follows the line with the host, and reads nothing yet.
    pub(crate) fn open_raw(&self, method: &str, path: &str, rest: &str) -> Socket {
        http::open_raw(self.address, method, path, rest)
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
