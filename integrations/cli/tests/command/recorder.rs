//! A wire to a DynamoDB that notes what is asked for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What each request begins with in its header of the operation.
const TARGET: &str = "x-amz-target: DynamoDB_20120810.";

/// What the partition key of an item begins with.
const KEY: &str = "\"pk\":{\"S\":\"";

/// See the [module](self).
pub(crate) struct Recorder {
    endpoint: String,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    operations: BTreeSet<String>,
    /// The partition keys of items.
    keys: BTreeSet<String>,
}

impl Recorder {
    /// A wire to the server at this endpoint, `http://` with a port.
    pub(crate) async fn before(server: &str) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Asked>>::default();
        let notes = asked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, notes.clone()));
            }
        });
        Self { endpoint, asked }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The operations since the last call, as rights are called.
    pub(crate) fn take_operations(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.asked.lock().unwrap().operations)
    }

    /// The partition keys so far.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.asked.lock().unwrap().keys.clone()
    }
}

/// Passes bytes both ways, and reads those of the client.
async fn pass(client: TcpStream, server: TcpStream, asked: Arc<Mutex<Asked>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut read = vec![0; 64 * 1024];
    let (mut targets, mut keys) = (Words::after(TARGET, '\n'), Words::after(KEY, '"'));
    while let Ok(n @ 1..) = from_client.read(&mut read).await {
        {
            let mut asked = asked.lock().unwrap();
            let named = targets.of(&read[..n]).into_iter();
            asked.operations.extend(named.map(|it| format!("dynamodb:{}", it.trim())));
            asked.keys.extend(keys.of(&read[..n]));
        }
        if to_server.write_all(&read[..n]).await.is_err() {
            break;
        }
    }
    drop(to_server);
    let _ = back.await;
}

/// The words between two marks in a stream, which may come in pieces.
struct Words {
    begin: &'static str,
    end: char,
    rest: String,
}

impl Words {
    fn after(begin: &'static str, end: char) -> Self {
        Self { begin, end, rest: String::new() }
    }

    fn of(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.push_str(&String::from_utf8_lossy(bytes));
        let mut words = Vec::new();
        while let Some((_, after)) = self.rest.split_once(self.begin) {
            let Some((word, after)) = after.split_once(self.end) else { break };
            words.push(word.to_owned());
            self.rest = after.to_owned();
        }
        words
    }
}
