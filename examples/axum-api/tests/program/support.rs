//! The example as it is shipped, started on a free port with files of its own, and a plain HTTP/1.1
//! client over a socket, so that a request is exactly what a test writes. The example is the one
//! whose package includes this file: `axum-api` or `actix-api`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    dead_code,
    reason = "a test that panics has failed, and says where; another process is waited for by \
              looking; each file uses its part"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Longest wait for something that should happen at once or within the plan file's poll.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// The program.
pub(crate) const PROGRAM: &str =
    match (option_env!("CARGO_BIN_EXE_axum-api"), option_env!("CARGO_BIN_EXE_actix-api")) {
        (Some(path), _) | (None, Some(path)) => path,
        (None, None) => panic!("only these two include this file"),
    };

/// A running API; killed when dropped.
pub(crate) struct Api {
    child: Child,
    address: String,
    stderr: Arc<Mutex<String>>,
}

/// A folder with the example's files, which a test may edit.
pub(crate) struct Home(tempfile::TempDir);

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in ["tallygate.toml", "plans.toml"] {
            std::fs::copy(example.join(file), home.path().join(file)).unwrap();
        }
        Self(home)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Replaces words of the plan file.
    pub(crate) fn edit_plans(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("plans.toml")).unwrap();
        assert!(text.contains(from), "the plan file has no `{from}`");
        std::fs::write(self.path("plans.toml"), text.replace(from, to)).unwrap();
    }

    pub(crate) fn start(&self) -> Api {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, env: &[(&str, &str)]) -> Api {
        self.start_with_args(env, &[])
    }

    pub(crate) fn start_with_args(&self, env: &[(&str, &str)], args: &[&str]) -> Api {
        let mut child = Command::new(PROGRAM)
            .args(args)
            .current_dir(self.0.path())
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("PLANS")
            .env_remove("RUST_LOG")
            .env("PORT", "0")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (BufReader::new(child.stderr.take().unwrap()), stderr.clone());
        thread::spawn(move || {
            let mut line = String::new();
            while from.read_line(&mut line).is_ok_and(|n| n > 0) {
                to.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut first).unwrap();
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let address = first.trim().rsplit('/').next().unwrap().to_owned();
        assert!(address.contains(':'), "{first}\n{}", stderr.lock().unwrap());
        Api { child, address, stderr }
    }
}

impl Api {
    /// Sends a request with an API key.
    pub(crate) fn send(&self, method: &str, path: &str, key: &str) -> Answer {
        let send = || self.raw(method, path, &[("x-api-key", key)], "");
        // A lease on a disk that stands still for 250 ms is late: such a request is not counted,
        // and its client sends it again.
        let is_late = |answer: &Answer| answer.status == 503;
        let again = |answer: Answer| if is_late(&answer) { send() } else { answer };
        again(again(send()))
    }

    /// Sends a request with exactly these headers beside `host` and the length of the body.
    pub(crate) fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        request(&self.address, method, path, headers, body)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request and reads nothing yet.
    pub(crate) fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> BufReader<TcpStream> {
        open(&self.address, method, path, headers, body)
    }

    /// What `/usage` says is used of a meter.
    pub(crate) fn used(&self, meter: &str, key: &str) -> u64 {
        self.meter(meter, key, "used")
    }

    /// One number of a meter in `/usage`.
    pub(crate) fn meter(&self, meter: &str, key: &str, field: &str) -> u64 {
        let usage = self.send("GET", "/usage", key);
        assert_eq!(usage.status, 200, "{usage:?}");
        let usage: serde_json::Value = serde_json::from_str(&usage.body).unwrap();
        let meters = usage["meters"].as_array().unwrap();
        let meter = meters.iter().find(|m| m["name"] == meter).unwrap();
        meter[field].as_u64().unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until something is so, and fails with what stderr holds if it does not come.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if is(self) {
                return;
            }
            thread::sleep(LOOK);
        }
        panic!("never: {what}\n{}", self.stderr());
    }

    /// Asks it to end, as platforms do.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end and returns whether it was a good one.
    pub(crate) fn ends_well(mut self) -> bool {
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            thread::sleep(LOOK);
        }
        panic!("it does not end\n{}", self.stderr());
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value)
    }
}

/// Sends a request to whoever listens there, and reads the answer.
pub(crate) fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut socket = open(address, method, path, headers, body);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(socket.read_line(&mut head).unwrap() > 0, "no answer:\n{head}");
    }
    let (first, fields) = head.split_once("\r\n").unwrap();
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    let fields = fields.lines().filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> =
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    let chunked = headers.contains_key("transfer-encoding");
    let rest = if chunked { unchunk(&rest) } else { rest };
    let body = String::from_utf8(rest).unwrap();
    Answer { status, headers, body }
}

fn open(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = match body.len() {
        0 => String::new(),
        n => format!("content-length: {n}\r\n"),
    };
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         {headers}{length}\r\n{body}"
    )
    .unwrap();
    BufReader::new(socket)
}

/// The content of a body in chunks (RFC 9112, section 7.1).
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
