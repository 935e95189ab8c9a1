//! What many teams do instead: one `INCR` and one `EXPIRE` a request in Redis, over a socket of
//! this machine. Each request waits for it, so the figure is a round trip and not a computation;
//! a network adds its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Connection, Pipeline};

/// A server of its own, stopped when this is dropped.
pub struct Redis {
    server: Child,
    connection: Connection,
    _dir: tempfile::TempDir,
}

/// Polls of a started server, each after [`POLL`]: 5 s in all.
const POLLS: usize = 100;
const POLL: Duration = Duration::from_millis(50);

impl Redis {
    /// Starts one on a socket in a folder of its own, without persistence.
    ///
    /// # Errors
    ///
    /// Why it cannot be had here.
    pub fn start() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let binary = root.join("target/servers/bin/redis-server");
        let got = Command::new(root.join("benches/get-redis")).stderr(Stdio::null()).status();
        if !got.is_ok_and(|status| status.success()) || !binary.exists() {
            return Err("benches/get-redis needs pip and its index".into());
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let socket = dir.path().join("redis.sock");
        let mut server = Command::new(binary)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("it does not start: {error}"))?;
        let client = redis::Client::open(format!("unix://{}", socket.display()));
        let client = client.map_err(|error| error.to_string())?;
        for _ in 0..POLLS {
            if let Ok(connection) = client.get_connection() {
                return Ok(Self { server, connection, _dir: dir });
            }
            std::thread::sleep(POLL);
        }
        let _ = server.kill();
        let _ = server.wait();
        Err("it does not answer".into())
    }

    /// Counts a request of this tenant in the running second, and whether there was room.
    pub fn admits(&mut self, tenant: &str, most: u64) -> bool {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.incr(tenant, 1).expire(tenant, 1).ignore();
        let (count,): (u64,) = pipeline.query(&mut self.connection).expect("Redis answers");
        count <= most
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
