//! A wire to the server that notes what is asked for, and by whom: for `dynamodb-local rights`,
//! which holds it against the policies of `tallygate infra iam`.
//!
//! It passes bytes on before it reads them, and a thread for each direction of a connection does
//! that: a server behind it is as fast, as slow and as dead as without.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The folder where calls are noted, a file for each server. Without it nothing is.
pub const RIGHTS: &str = "TALLYGATE_RIGHTS";

/// Longest head and body of a request that are read: an item is at most 400 KB, in base64.
const MOST: usize = 2 * 1024 * 1024;

/// One kind of call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The id of the access key: a test gives it the name of a role.
    pub by: String,
    /// `GetItem`.
    pub operation: String,
    /// Whether a partition key of it is outside of what `dynamodb:LeadingKeys` allows.
    pub is_foreign: bool,
}

/// Listens before the server on this port, and notes calls to a file of that folder. Returns the
/// port.
pub(crate) fn before(port: u16, folder: &Path) -> io::Result<u16> {
    fs::create_dir_all(folder)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = listener.local_addr()?.port();
    let file = File::create(folder.join(format!("{}-{own}.txt", std::process::id())))?;
    let notes = Arc::new(Notes(Mutex::new((BTreeSet::new(), file))));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // One that the server does not take is closed, as without a wire.
            if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                let _ = pass(client, server, notes.clone());
            }
        }
    });
    Ok(own)
}

/// Each kind of call once, as soon as it is seen: a process may be killed.
struct Notes(Mutex<(BTreeSet<Call>, File)>);

impl Notes {
    fn add(&self, call: Call) {
        let (seen, file) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = if call.is_foreign { "foreign" } else { "own" };
        let line = format!("{} {} {place}\n", call.by, call.operation);
        if seen.insert(call) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

fn pass(client: TcpStream, server: TcpStream, notes: Arc<Notes>) -> io::Result<()> {
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    let (mut back_from, mut back_to) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (client, server);
    std::thread::spawn(move || {
        let mut read = vec![0; 64 * 1024];
        let mut requests = Requests::default();
        while let Ok(n @ 1..) = from.read(&mut read) {
            if to.write_all(&read[..n]).is_err() {
                break;
            }
            requests.read(&read[..n], &notes);
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// The requests of a connection, of which bytes come in pieces.
#[derive(Default)]
struct Requests(Vec<u8>);

impl Requests {
    fn read(&mut self, bytes: &[u8], notes: &Notes) {
        self.0.extend_from_slice(bytes);
        while let Some(end) = self.0.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&self.0[..end]).into_owned();
            let length = header(&head, "content-length").and_then(|it| it.parse().ok());
            let whole = end + 4 + length.unwrap_or(0_usize);
            if self.0.len() < whole {
                break;
            }
            let body = String::from_utf8_lossy(&self.0[end + 4..whole]).into_owned();
            self.0.drain(..whole);
            notes.add(call(&head, &body));
        }
        if self.0.len() > MOST {
            self.0.clear();
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn call(head: &str, body: &str) -> Call {
    let target = header(head, "x-amz-target").unwrap_or_default();
    let signed = header(head, "authorization").unwrap_or_default();
    let by = signed.split("Credential=").nth(1).and_then(|it| it.split('/').next());
    Call {
        by: by.filter(|it| !it.is_empty()).unwrap_or("-").to_owned(),
        operation: target.rsplit('.').next().unwrap_or_default().to_owned(),
        is_foreign: partitions(body).any(|it| !it.starts_with("1#")),
    }
}

/// The partition keys of a call: of an item, and of a query.
fn partitions(body: &str) -> impl Iterator<Item = &str> {
    let after =
        |begin: &'static str| body.split(begin).skip(1).filter_map(|rest| rest.split('"').next());
    after("\"pk\":{\"S\":\"").chain(after("\":pk\":{\"S\":\""))
}
