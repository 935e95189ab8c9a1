//! Alerts across SIGKILL: a receiver that fails for an hour gets each once afterwards, in order,
//! and again under the same id only the one that was on its way when the process died.
//!
//! The hour is the server's clock's: each process is started with its clock further ahead.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use test_support::waits;

use crate::load::Connection;
use crate::server::{Files, Server};

/// Tenants, of which each passes 80 and 100 % of its quota.
const TENANTS: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];

const PLANS: &str = "default-plan = \"free\"\n[meter.tokens]\n[plan.free]\n\
                     quota.requests = \"10/month\"\n";

/// A webhook receiver: 503 while it fails.
struct Receiver {
    address: SocketAddr,
    fails: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    tries: usize,
    /// Ids and documents, in the order in which they were taken.
    taken: Vec<(String, Value)>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fails = Arc::new(AtomicBool::new(true));
        let seen = Arc::<Mutex<Seen>>::default();
        let (failing, into) = (fails.clone(), seen.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                answer(socket, &failing, &into);
            }
        });
        Self { address, fails, seen }
    }

    fn tries(&self) -> usize {
        self.seen.lock().unwrap().tries
    }

    fn taken(&self) -> Vec<(String, Value)> {
        self.seen.lock().unwrap().taken.clone()
    }
}

/// One request on a connection. A process may be killed in the middle of it.
fn answer(mut socket: TcpStream, fails: &AtomicBool, seen: &Mutex<Seen>) {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut all, mut chunk) = (Vec::new(), [0; 4_096]);
    let (id, body) = loop {
        let Ok(n @ 1..) = socket.read(&mut chunk) else { return };
        all.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let value = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        if body.len() >= value("content-length:").parse().unwrap_or(usize::MAX) {
            assert!(value("webhook-signature:").starts_with("v1,"), "{head}");
            break (value("webhook-id:"), body.to_owned());
        }
    };
    let mut seen = seen.lock().unwrap();
    seen.tries += 1;
    let status = if fails.load(Ordering::Relaxed) { "503 No" } else { "200 OK" };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    if socket.write_all(head.as_bytes()).is_ok() && status == "200 OK" {
        seen.taken.push((id, serde_json::from_str(&body).unwrap()));
    }
}

/// Uses up a tenant's quota.
async fn use_up(server: &Server, tenant: &'static str) {
    let mut connection = Connection::open(server.address).await.unwrap().of(tenant);
    for _ in 0..10 {
        let (status, _) = connection.call("POST", "/work").await.unwrap();
        assert_eq!(status, 200, "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_for_an_hour_gets_each_once_afterwards_across_kills() {
    let _turn = crate::TURN.lock().await;
    let receiver = Receiver::start();
    let address = receiver.address;
    let notify = format!(
        "[[notify]]\nwebhook = \"http://{address}/hook\"\nsecret = {{ env = \"CRASH_SECRET\" }}\n"
    );
    let files = Files::notifying("mode = \"durable\"", PLANS, &notify);
    let mut expected = Vec::new();
    for (kill, pair) in TENANTS.chunks(2).enumerate() {
        // Later than its predecessor's lock, which died with it.
        let server = Server::start_ahead(&files, kill as u64 * 1_200);
        let tries = receiver.tries();
        for tenant in pair {
            use_up(&server, tenant).await;
            // The alerts follow the record of what was used.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            expected.extend([(*tenant, 80), (*tenant, 100)]);
        }
        waits::until("a try that fails", || receiver.tries() > tries);
        server.kill();
    }
    assert!(receiver.taken().is_empty());
    receiver.fails.store(false, Ordering::Relaxed);
    let server = Server::start_ahead(&files, 3_600);
    waits::until("some alerts", || receiver.taken().len() >= 4);
    server.kill();
    let server = Server::start_ahead(&files, 7_200);
    waits::until("all alerts", || distinct(&receiver.taken()).len() >= expected.len());
    server.terminate().await;
    // And nothing more comes of another.
    let server = Server::start_ahead(&files, 10_800);
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.terminate().await;
    let taken = receiver.taken();
    let once = distinct(&taken);
    let found: Vec<_> = once
        .iter()
        .map(|(_, document)| {
            let data = &document["data"];
            let tenant = data["tenant"].as_str().unwrap_or_default();
            (tenant, data["percent"].as_i64().unwrap_or_default())
        })
        .collect();
    assert_eq!(found, expected, "each once, in order");
    // One may have been taken but not yet noted as delivered at the kill: it comes once more, next.
    let repeated = taken.len() - once.len();
    let at_once = taken.windows(2).filter(|pair| pair[0].0 == pair[1].0).count();
    assert!(repeated == at_once && repeated <= 1, "{repeated} repeated, {at_once} of them next");
    println!(
        "alerts: 4 kills, {} tries that failed, {} alerts once each, {repeated} repeated",
        receiver.tries() - taken.len(),
        once.len()
    );
}

/// What a receiver keeps that drops the ids it has, as docs/alerts.md asks.
fn distinct(taken: &[(String, Value)]) -> Vec<&(String, Value)> {
    let mut ids = BTreeSet::new();
    taken.iter().filter(|(id, _)| ids.insert(id)).collect()
}
