//! A TCP proxy in front of a DynamoDB that applies its script to requests, one fault for each, in
//! order; after the script, requests pass.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// The connection is cut in the middle of the request.
    CutInRequest,
    /// It is cut once the request is here, before it has reached the server.
    CutBefore,
    /// It is cut once the server has answered, before the answer is sent on.
    CutAfter,
    /// It is cut in the middle of the answer.
    CutInReply,
    /// The server answers, and the answer never comes.
    Silence,
    /// It is cut, and the request reaches the server after the next one was answered.
    Late,
    /// The request reaches the server twice, and the second answer is sent on.
    Twice,
    /// A 500 instead of the answer to the request, which was applied or not.
    Error500 { applied: bool },
    /// The service's own refusal of excess requests.
    Throttled,
}

/// Requests wait here for the next one to be answered.
type Parked = Arc<Mutex<Vec<Vec<u8>>>>;

pub(crate) struct Proxy {
    endpoint: String,
    script: Arc<Mutex<VecDeque<Fault>>>,
    /// The operation of each request.
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// In front of the server at this endpoint.
    pub(crate) async fn before(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::<Mutex<VecDeque<Fault>>>::default();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let wire = Wire {
            server,
            script: script.clone(),
            requests: requests.clone(),
            parked: Parked::default(),
        };
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let wire = wire.clone();
                // A failed connection is closed, which is all its client is to see.
                tokio::spawn(async move { drop(wire.serve(client).await) });
            }
        });
        Self { endpoint: format!("http://{address}"), script, requests, task }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Adds faults for the next requests.
    pub(crate) fn then(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().unwrap().extend(faults);
    }

    /// Number of requests so far, complete or not.
    pub(crate) fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Number of requests for this operation.
    pub(crate) fn asked_for(&self, operation: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|of| *of == operation).count()
    }

    /// Stops listening.
    pub(crate) async fn close(self) {
        self.task.abort();
        let _ = self.task.await; // it was aborted, and says so
    }
}

#[derive(Clone)]
struct Wire {
    server: String,
    script: Arc<Mutex<VecDeque<Fault>>>,
    /// The operation of each request.
    requests: Arc<Mutex<Vec<String>>>,
    parked: Parked,
}

impl Wire {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        while let Some(head) = read_head(&mut client).await? {
            self.requests.lock().unwrap().push(operation(&head));
            let fault = self.script.lock().unwrap().pop_front().unwrap_or(Fault::Pass);
            if fault == Fault::CutInRequest {
                return Ok(());
            }
            let request = read_body(&mut client, head).await?;
            let reply = match fault {
                Fault::CutInRequest | Fault::CutBefore => return Ok(()),
                Fault::Late => {
                    self.parked.lock().unwrap().push(request);
                    return Ok(());
                }
                Fault::Throttled => error(400, "ThrottlingException"),
                Fault::Error500 { applied: false } => error(500, "InternalServerError"),
                Fault::Error500 { applied: true } => {
                    self.forward(&request).await?;
                    error(500, "InternalServerError")
                }
                Fault::Twice => {
                    self.forward(&request).await?;
                    self.forward(&request).await?
                }
                _ => self.forward(&request).await?,
            };
            match fault {
                Fault::CutAfter => return Ok(()),
                Fault::CutInReply => {
                    client.write_all(&reply[..reply.len() / 2]).await?;
                    return Ok(());
                }
                Fault::Silence => std::future::pending().await,
                _ => client.write_all(&reply).await?,
            }
            self.release().await?;
        }
        Ok(())
    }

    /// Sends the parked requests to the server. Their answers are ignored.
    async fn release(&self) -> io::Result<()> {
        let parked = std::mem::take(&mut *self.parked.lock().unwrap());
        for request in parked {
            self.forward(&request).await?;
        }
        Ok(())
    }

    /// The server's answer to a request, over a connection of its own.
    async fn forward(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.server).await?;
        server.write_all(request).await?;
        let head = read_head(&mut server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        read_body(&mut server, head).await
    }
}

/// A message up to the empty line; `None` if the connection ends before one begins.
async fn read_head(from: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match from.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(head))
}

/// A request's operation, from its target header: `DynamoDB_20120810.PutItem`.
fn operation(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let target = lines.find(|(name, _)| name.eq_ignore_ascii_case("x-amz-target"));
    target.and_then(|(_, target)| target.split('.').next_back()).unwrap_or_default().to_owned()
}

/// The message of this head with its body.
async fn read_body(from: &mut TcpStream, mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let head = String::from_utf8_lossy(&message).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|n| n.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let begin = message.len();
    message.resize(begin + length, 0);
    from.read_exact(&mut message[begin..]).await?;
    Ok(message)
}

fn error(status: u16, code: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"by the proxy"}}"#
    );
    let length = body.len();
    let kind = "application/x-amz-json-1.0";
    format!("HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}
