//! A server that answers as it is scripted, clients of it, and an alert to send there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sns::config::retry::RetryConfig;
use aws_sdk_sns::config::{Credentials, SharedCredentialsProvider};
use tallygate::notify::{Notification, Notifier, NotifierFuture};
use tallygate::testing;
use tallygate_notify_aws::{EventBridgeNotifier, SnsNotifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Part of the credentials and of the texts of errors: it is in no verdict.
pub(crate) const HUSH: &str = "hush";

const PLANS: &str = "default-plan = \"free\"\n[plan.free]";

pub(crate) const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alerts";

/// Longest wait for a request: a failed one is repeated after some 5 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as a service has it.
#[derive(Debug)]
pub(crate) struct Got {
    headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Got {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it)
    }

    /// The fields of a form; attributes of a message by their name and type, for their order is the
    /// client's.
    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        let mut form: BTreeMap<_, _> =
            form_urlencoded::parse(self.body.as_bytes()).into_owned().collect();
        for at in 1.. {
            let entry = format!("MessageAttributes.entry.{at}");
            let Some(name) = form.remove(&format!("{entry}.Name")) else { break };
            let mut part = |of: &str| form.remove(&format!("{entry}.Value.{of}")).unwrap();
            let (of_type, value) = (part("DataType"), part("StringValue"));
            form.insert(format!("{name}: {of_type}"), value);
        }
        form
    }
}

/// See the [module](self).
pub(crate) struct Server {
    config: SdkConfig,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Server {
    /// Answers with these statuses and bodies in turn, and then always with the last; status 0:
    /// it keeps the connection open and says nothing.
    pub(crate) async fn start<const N: usize>(script: [(u16, String); N]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(listener.local_addr().unwrap().port());
        let (say, got) = mpsc::unbounded_channel();
        let mut script = VecDeque::from(script);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = say.send(request(&mut socket).await);
                let (status, body) = script[0].clone();
                if script.len() > 1 {
                    script.pop_front();
                }
                if status == 0 {
                    open.push(socket);
                    continue;
                }
                let n = body.len();
                let head = format!("HTTP/1.1 {status} It\r\nconnection: close\r\n");
                let answer = format!("{head}content-length: {n}\r\n\r\n{body}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { config, got }
    }

    /// What a host has of the SDK, with this server as every service.
    pub(crate) fn sdk(&self) -> &SdkConfig {
        &self.config
    }

    pub(crate) fn topic(&self, arn: &str) -> SnsNotifier {
        SnsNotifier::new("topic", aws_sdk_sns::Client::new(&self.config), arn)
    }

    pub(crate) fn bus(&self) -> EventBridgeNotifier {
        EventBridgeNotifier::new("bus", aws_sdk_eventbridge::Client::new(&self.config), "ops")
    }

    /// The next request.
    pub(crate) async fn got(&mut self) -> Got {
        timeout(PATIENCE, self.got.recv()).await.expect("no request").unwrap()
    }

    /// Whether there was a request that was not read.
    pub(crate) fn has_more(&mut self) -> bool {
        self.got.try_recv().is_ok()
    }
}

/// Of clients that ask once: what comes of a single answer is to be seen.
pub(crate) fn config(port: u16) -> SdkConfig {
    let credentials = Credentials::new("id", HUSH, Some(HUSH.to_owned()), None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-west-1"))
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

async fn request(socket: &mut TcpStream) -> Got {
    let (mut all, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let n = socket.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the request was cut off");
        all.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&all);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: BTreeMap<_, _> = head.lines().skip(1).map(header).collect();
        if body.len() >= headers["content-length"].parse::<usize>().unwrap() {
            return Got { headers, body: body.to_owned() };
        }
    }
}

/// Keeps the last alert that it was sent.
struct Inbox(mpsc::UnboundedSender<Notification>);

impl Notifier for Inbox {
    fn name(&self) -> &str {
        "inbox"
    }

    fn deliver(&self, alert: Notification) -> NotifierFuture {
        self.0.send(alert).unwrap();
        Box::pin(async { Ok(()) })
    }
}

/// An alert as a gate makes it.
pub(crate) async fn alert() -> Notification {
    let (say, mut got) = mpsc::unbounded_channel();
    let gate = testing::builder(PLANS).notifier(Inbox(say)).open().await.unwrap();
    assert_eq!(gate.test_alerts().await, [("inbox".to_owned(), Ok(()))]);
    gate.close().await.unwrap();
    got.recv().await.unwrap()
}
