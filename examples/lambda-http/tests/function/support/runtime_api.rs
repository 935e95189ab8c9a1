//! The Runtime API of Lambda as a function sees it, with several invocations at once: what the
//! emulator, which takes one at a time, cannot be.
//!
//! As Lambda does on Managed Instances, it hands events to as many polls as there are, and refuses
//! an extension that wants to be told of invocations.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use test_support::waits::PATIENCE;

/// How long an invocation may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// See the [module](self). It lasts as long as the test's process.
pub(crate) struct RuntimeApi {
    address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Seen>,
    changed: Condvar,
    takes_invoke: bool,
}

/// What has happened so far.
#[derive(Default)]
struct Seen {
    waiting: VecDeque<(String, String)>,
    answers: HashMap<String, Vec<u8>>,
    invoked: usize,
    in_flight: usize,
    most_in_flight: usize,
    first_poll: Option<Instant>,
    registered: Vec<Value>,
}

impl RuntimeApi {
    /// That of a Managed Instance.
    pub(crate) fn managed() -> Self {
        Self::start(false)
    }

    /// That of a sandbox which takes one invocation at a time. It does not freeze.
    pub(crate) fn sandbox() -> Self {
        Self::start(true)
    }

    fn start(takes_invoke: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State { takes_invoke, ..State::default() });
        let shared = state.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let state = shared.clone();
                // Ends with the connection.
                thread::spawn(move || serve(&state, &socket));
            }
        });
        Self { address, state }
    }

    /// What stands in `AWS_LAMBDA_RUNTIME_API`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Gives it an event, and says by which id its answer will be known.
    pub(crate) fn invoke(&self, event: &str) -> String {
        let mut seen = self.state.seen();
        seen.invoked += 1;
        let id = format!("invocation-{}", seen.invoked);
        seen.waiting.push_back((id.clone(), event.to_owned()));
        self.state.changed.notify_all();
        id
    }

    /// The answer to an invocation, in one piece.
    pub(crate) fn answer(&self, id: &str) -> Value {
        serde_json::from_slice(&self.bytes(id)).unwrap_or_default()
    }

    /// The streamed answer to an invocation: its prelude, and its body.
    pub(crate) fn stream(&self, id: &str) -> (Value, Vec<u8>) {
        let bytes = self.bytes(id);
        let end = bytes.windows(8).position(|eight| eight == [0; 8]).expect("a prelude's end");
        (serde_json::from_slice(&bytes[..end]).unwrap(), bytes[end + 8..].to_vec())
    }

    fn bytes(&self, id: &str) -> Vec<u8> {
        self.until(|seen| seen.answers.remove(id))
    }

    /// Waits until the function has taken every event it was given.
    pub(crate) fn until_taken(&self) {
        self.until(|seen| seen.waiting.is_empty().then_some(()));
    }

    /// When it was ready: an event was asked for.
    pub(crate) fn first_poll(&self) -> Instant {
        self.until(|seen| seen.first_poll)
    }

    /// Most that were at work at once.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.state.seen().most_in_flight
    }

    /// What extensions have asked to be told of.
    pub(crate) fn registered(&self) -> Vec<Value> {
        self.state.seen().registered.clone()
    }

    fn until<T>(&self, is: impl FnMut(&mut Seen) -> Option<T>) -> T {
        self.state.until(PATIENCE, is).expect("a function that does what is waited for")
    }
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn until<T>(&self, most: Duration, mut is: impl FnMut(&mut Seen) -> Option<T>) -> Option<T> {
        let mut found = None;
        let waits = |seen: &mut Seen| {
            found = is(seen);
            found.is_none()
        };
        drop(self.changed.wait_timeout_while(self.seen(), most, waits).unwrap());
        found
    }

    /// An event for a poll, as soon as there is one.
    fn next(&self) -> Option<(String, String)> {
        self.seen().first_poll.get_or_insert_with(Instant::now);
        self.changed.notify_all();
        self.until(Duration::from_secs(3_600), |seen| {
            let next = seen.waiting.pop_front()?;
            seen.in_flight += 1;
            seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
            Some(next)
        })
    }

    fn answered(&self, id: &str, body: &[u8]) {
        let mut seen = self.seen();
        seen.in_flight -= 1;
        seen.answers.insert(id.to_owned(), body.to_vec());
        self.changed.notify_all();
    }

    fn registers(&self, body: &[u8]) -> bool {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let wants_invoke =
            asked["events"].as_array().is_some_and(|of| of.contains(&"INVOKE".into()));
        self.seen().registered.push(asked["events"].clone());
        self.takes_invoke || !wants_invoke
    }
}

/// One connection, request by request.
fn serve(state: &State, socket: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(socket);
    loop {
        let (path, body) = request(&mut reader)?;
        let mut parts = path.split('/').skip(1);
        let (reply, head, body) = match (parts.nth(1)?, parts.next()?, parts.next()) {
            ("extension", "register", None) if state.registers(&body) => {
                let body = r#"{"functionName":"f","functionVersion":"1","handler":"bootstrap"}"#;
                ("200 OK", "lambda-extension-identifier: e-1\r\n".to_owned(), body.to_owned())
            }
            ("extension", "register", None) => ("403 Forbidden", String::new(), "{}".to_owned()),
            ("extension", ..) => {
                // It waits for its next event, and is told of none here.
                state.until::<()>(Duration::from_secs(3_600), |_| None)?;
                return None;
            }
            ("runtime", "invocation", Some("next")) => {
                let (id, event) = state.next()?;
                let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + TIMEOUT;
                let head = format!(
                    "lambda-runtime-aws-request-id: {id}\r\nlambda-runtime-deadline-ms: {}\r\n\
                     lambda-runtime-invoked-function-arn: arn:aws:lambda:x\r\n\
                     lambda-runtime-trace-id: Root=1\r\n",
                    deadline.as_millis(),
                );
                ("200 OK", head, event)
            }
            ("runtime", "invocation", Some(id)) => {
                state.answered(id, &body);
                ("202 Accepted", String::new(), String::new())
            }
            _ => ("202 Accepted", String::new(), String::new()),
        };
        let length = body.len();
        let mut socket = socket;
        write!(socket, "HTTP/1.1 {reply}\r\n{head}content-length: {length}\r\n\r\n{body}").ok()?;
    }
}

/// The next request's path and body; `None` at the connection's end.
fn request(reader: &mut BufReader<&TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    let mut head = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_ascii_lowercase()),
        }
    }
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if value("transfer-encoding:").is_some() {
        return Some((path, chunked(reader)?));
    }
    let length = value("content-length:").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

/// A body in chunks (RFC 9112, section 7.1).
fn chunked(reader: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..length]);
        if length == 0 {
            return Some(body);
        }
    }
}
