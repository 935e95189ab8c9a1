//! Amazon's DynamoDB Local for tests: downloads it once, starts it on a free port, stops it by its
//! pid.
//!
//! It needs Java and, the first time, Maven and a network: if one is missing, [`start`] says so,
//! and the test that needed it prints `skipped`. Downloads stay in `target/servers/`.
//!
//! A server ends with its parent process, even if that is killed: it runs under a shell that waits
//! for the end of a pipe whose other end this process holds.
//!
//! With `TALLYGATE_RIGHTS=FOLDER` each [notes](wire) there what is asked of it, and
//! `dynamodb-local rights FOLDER` holds that against the policies of `tallygate infra iam`.
//!
//! Not promised: what DynamoDB Local cannot do. It never throttles, loses no reply, and always
//! reads strongly.

#![allow(clippy::disallowed_methods, reason = "a tool of the tests that waits for a process")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

mod ports;
pub mod rights;
pub mod wire;

pub use ports::free_port;

/// The release named in `pom.xml`: the newest whose dependencies are available.
pub const VERSION: &str = "3.1.0";

/// Time for a started server to answer: 1.5 s on an idle machine.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// Poll interval.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the server until standard input ends. The first line of output is the server's pid.
const UNDER_A_SHELL: &str = r#"
exec 3<&0
java -Djava.library.path="$1" -cp "$1/*" software.amazon.dynamodb.services.local.main.ServerRunner \
    -inMemory -sharedDb -disableTelemetry -port "$2" </dev/null >"$3" 2>&1 3<&- &
echo $!
exec >/dev/null
cat <&3
kill $! 2>/dev/null
wait
"#;

/// A running server. Stopped when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Server {
    shell: Child,
    pid: u32,
    endpoint: String,
}

impl Server {
    /// Its endpoint, for `AWS_ENDPOINT_URL_DYNAMODB`. Any region and credentials work.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its process id, for tests that suspend and resume it.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // The shell kills the server before it ends. If the shell is gone, so is the server.
        let _ = self.shell.wait();
    }
}

/// Starts an empty server, on this port or a free one, and waits until it answers.
///
/// # Errors
///
/// Why it is not available here.
pub fn start(port: Option<u16>) -> Result<Server, String> {
    let jars = get()?;
    let port = port.unwrap_or_else(free_port);
    let log = jars.with_file_name(format!("dynamodb-local.{port}.log"));
    let mut shell = Command::new("sh")
        .args(["-c", UNDER_A_SHELL, "sh"])
        .arg(&jars)
        .arg(port.to_string())
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("no shell: {error}"))?;
    let mut line = String::new();
    if let Some(output) = shell.stdout.take() {
        // Without a line there is no pid, which is reported below.
        let _ = BufReader::new(output).read_line(&mut line);
    }
    let pid = line.trim().parse().map_err(|_| "the server has no pid".to_owned())?;
    let mut server = Server { shell, pid, endpoint: format!("http://127.0.0.1:{port}") };
    let begun = Instant::now();
    while !answers(port) {
        if begun.elapsed() > UP_WITHIN {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("no answer within {UP_WITHIN:?}: {}", said.trim()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = fs::remove_file(&log);
    if let Some(folder) = std::env::var_os(wire::RIGHTS) {
        let wire = wire::before(port, Path::new(&folder));
        let wire = wire.map_err(|error| format!("a wire to note what is asked: {error}"))?;
        server.endpoint = format!("http://127.0.0.1:{wire}");
    }
    Ok(server)
}

/// One server for all tests of this process, started by the first caller.
///
/// # Errors
///
/// As [`start`], the same for all callers.
pub fn shared() -> Result<&'static Server, String> {
    static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
    SHARED.get_or_init(|| start(None)).as_ref().map_err(String::clone)
}

/// The folder with the server's files, downloaded with Maven if missing. Concurrent processes wait
/// for the first.
///
/// # Errors
///
/// What is missing on this machine.
pub fn get() -> Result<PathBuf, String> {
    let servers = target().join("servers");
    let jars = servers.join(format!("dynamodb-local-{VERSION}"));
    let said = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let java = Command::new("java").arg("-version").stderr(Stdio::null()).status();
    if !java.is_ok_and(|status| status.success()) {
        return Err("it needs Java 17".into());
    }
    fs::create_dir_all(&servers).map_err(said("target/servers"))?;
    let lock = File::create(servers.join("dynamodb-local.lock")).map_err(said("its lock"))?;
    lock.lock().map_err(said("its lock"))?;
    if jars.is_dir() {
        return Ok(jars);
    }
    // Moved into place when complete.
    let part = servers.join("dynamodb-local.part");
    let _ = fs::remove_dir_all(&part);
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("pom.xml");
    let got = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", part.display()))
        .arg("-DincludeScope=runtime")
        .output()
        .map_err(said("it is got with Maven (mvn)"))?;
    if !got.status.success() {
        let said = String::from_utf8_lossy(&got.stdout);
        return Err(format!("Maven could not get it: {}", said.lines().next().unwrap_or("-")));
    }
    fs::rename(&part, &jars).map_err(said("its place"))?;
    Ok(jars)
}

/// Cargo's target folder: downloads are cached with it and removed with it.
fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let root = root.canonicalize().unwrap_or(root);
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target),
        None => root.join("target"),
    }
}

/// Whether the server answers a trivial request.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let asked = stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .and_then(|()| stream.write_all(b"GET / HTTP/1.0\r\n\r\n"));
    let mut begin = [0; 5];
    asked.is_ok() && stream.read_exact(&mut begin).is_ok() && &begin == b"HTTP/"
}
