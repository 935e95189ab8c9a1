//! Ports for servers that take a number and not a socket.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below all that a system gives out itself: Linux from 32768, macOS and Windows from 49152.
const PORTS: std::ops::Range<u32> = 15_000..32_000;

/// A free port of the loopback interface. A system gives it to no outgoing connection and no bind
/// of port 0, so nothing takes it before the server that it is meant for; a process is given each
/// once, and processes begin at different ones.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // A prime, so that processes started one after another do not begin at neighbours.
    let first = std::process::id().wrapping_mul(997);
    loop {
        let place = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = (PORTS.start + place % (PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
