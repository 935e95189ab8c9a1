//! Webhooks and Slack messages to receivers that answer, and misbehave, over sockets.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::clock::ManualClock;
use crate::config::{Config, NotifyTarget};
use crate::notify::kinds;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The path of every URL here: it may be a secret, and is in no error.
const PATH: &str = "/T0/B0/hush";

/// A request as a receiver has it.
#[derive(Debug)]
struct Got {
    head: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A receiver that writes this for each request, and then closes the connection; `None`: it keeps
/// it open and writes nothing.
async fn receiver(answer: Option<&'static str>) -> (u16, mpsc::UnboundedReceiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (say, got) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = say.send(request(&mut socket).await);
            match answer {
                Some(answer) => socket.write_all(answer.as_bytes()).await.unwrap(),
                None => open.push(socket),
            }
        }
    });
    (port, got)
}

async fn request(socket: &mut tokio::net::TcpStream) -> Got {
    let (mut all, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let n = socket.read(&mut chunk).await.unwrap();
        all.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let (first, rest) = head.split_once("\r\n").unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: BTreeMap<_, _> = rest.lines().map(header).collect();
        if body.len() >= headers["content-length"].parse::<usize>().unwrap() {
            return Got { head: first.to_owned(), headers, body: body.to_owned() };
        }
    }
}

/// The destination of this table, with these variables.
fn notifier(table: &str, env: &[(&str, &str)]) -> Result<HttpNotifier, String> {
    let config = Config::parse("tallygate.toml", table, []).unwrap();
    let env = |name: &str| {
        let (_, value) = env.iter().find(|(known, _)| *known == name)?;
        Some((*value).to_owned())
    };
    let clock = Arc::new(ManualClock::at_unix_ms(1_614_265_330_500));
    let config = &config.notify[0];
    let NotifyTarget::Http(to) = &config.to else { panic!("{config:?}") };
    HttpNotifier::new(config, to, &env, clock)
}

fn webhook(port: u16) -> HttpNotifier {
    let url = format!("http://127.0.0.1:{port}{PATH}");
    let table = "[[notify]]\nwebhook = { env = \"URL\" }\nsecret = { env = \"KEY\" }";
    notifier(table, &[("URL", &url), ("KEY", SECRET)]).unwrap()
}

fn alert() -> Notification {
    kinds::test(1_614_265_330_000, 1).notification
}

#[tokio::test]
async fn a_webhook_is_signed_over_what_it_says() {
    let (port, mut got) = receiver(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let alert = alert();
    assert_eq!(webhook(port).deliver(alert.clone()).await, Ok(()));
    let got = got.recv().await.unwrap();
    assert_eq!(got.head, format!("POST {PATH} HTTP/1.1"));
    assert_eq!(got.body, alert.payload);
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(got.headers["webhook-id"], alert.id);
    assert_eq!(got.headers["webhook-timestamp"], "1614265330");
    let keys = SigningKeys::read(&Secret::new(SECRET)).unwrap();
    let signature = keys.sign(&alert.id, 1_614_265_330, &got.body);
    assert_eq!(got.headers["webhook-signature"], signature);
}

#[tokio::test]
async fn a_slack_message_is_the_sentence_alone_and_mentions_no_channel() {
    let (port, mut got) = receiver(Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).await;
    let url = format!("http://127.0.0.1:{port}{PATH}");
    let slack = notifier("[[notify]]\nslack = { env = \"URL\" }", &[("URL", &url)]).unwrap();
    assert!(!format!("{slack:?}").contains("hush"));
    let text = "<!channel> & <https://evil.example|acme> has used all".to_owned();
    assert_eq!(slack.deliver(Notification { text, ..alert() }).await, Ok(()));
    let got = got.recv().await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&got.body).unwrap();
    let escaped = "&lt;!channel&gt; &amp; &lt;https://evil.example|acme&gt; has used all";
    assert_eq!(body, json!({"text": escaped}));
    assert!(!got.headers.contains_key("webhook-signature"));
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status_alone() {
    use NotDelivered::{Later, NotBefore, Refused};
    // What comes after the head, or does not, decides nothing.
    for taken in [
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\ncontent-length: 900000\r\n\r\ntorn",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz",
    ] {
        let (port, _got) = receiver(Some(taken)).await;
        assert_eq!(webhook(port).deliver(alert()).await, Ok(()), "{taken}");
    }
    for (answer, is_refused) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", true),
        ("HTTP/1.1 413 Content Too Large\r\n\r\n", true),
        ("HTTP/1.1 422 Unprocessable Content\r\n\r\n", true),
        ("HTTP/1.1 401 Unauthorized\r\n\r\n", false),
        ("HTTP/1.1 404 Not Found\r\n\r\n", false),
        ("HTTP/1.1 410 Gone\r\n\r\n", false),
        ("HTTP/1.1 429 Too Many Requests\r\nretry-after: 9\r\n\r\n", false),
        ("HTTP/1.1 500 Internal Server Error\r\n\r\n", false),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
        ("HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\n\r\n", false),
        ("HTTP/1.1 2", false),
        ("nothing that is HTTP\r\n\r\n", false),
        ("", false),
    ] {
        let (port, _got) = receiver(Some(answer)).await;
        let failed = webhook(port).deliver(alert()).await.unwrap_err();
        match &failed {
            Refused(_) => assert!(is_refused, "{answer}"),
            Later(_) | NotBefore(..) => assert!(!is_refused, "{answer}"),
        }
        let text = failed.to_string();
        assert!(!text.contains("hush") && !text.contains("whsec"), "{text}");
    }
}

#[tokio::test]
async fn a_receiver_says_for_how_long_it_takes_none() {
    use NotDelivered::{Later, NotBefore};
    let why = |status: u16| format!("the receiver answered {status}");
    // It is 2021-02-25T15:02:10.5Z.
    for (answer, expected) in [
        (
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 90\r\n\r\n",
            NotBefore(Duration::from_secs(90), why(429)),
        ),
        (
            "HTTP/1.1 503 Busy\r\nRetry-After: Sun, 28 Feb 2021 15:02:10 GMT\r\n\r\n",
            NotBefore(Duration::from_millis(3 * 86_400_000 - 500), why(503)),
        ),
        (
            "HTTP/1.1 503 Busy\r\nretry-after: Thu, 25 Feb 2021 09:00:00 GMT\r\n\r\n",
            NotBefore(Duration::ZERO, why(503)),
        ),
        ("HTTP/1.1 503 Service Unavailable\r\nretry-after: soon\r\n\r\n", Later(why(503))),
        ("HTTP/1.1 429 Too Many Requests\r\nretry-after: -1\r\n\r\n", Later(why(429))),
    ] {
        let (port, _got) = receiver(Some(answer)).await;
        assert_eq!(webhook(port).deliver(alert()).await, Err(expected), "{answer}");
    }
    let (port, _got) = receiver(Some("HTTP/1.1 410 Gone\r\n\r\n")).await;
    let gone = webhook(port).deliver(alert()).await.unwrap_err();
    assert!(matches!(gone, NotBefore(GONE, _)) && gone.to_string().contains("take it out"));
}

#[tokio::test]
async fn a_receiver_that_is_not_there_or_says_nothing_is_tried_later() {
    let closed = test_support::http::free_port();
    let failed = webhook(closed).deliver(alert()).await.unwrap_err();
    assert!(matches!(failed, NotDelivered::Later(_)) && !failed.to_string().contains("hush"));
    let (port, _got) = receiver(None).await;
    let begun = tokio::time::Instant::now();
    let failed = webhook(port).deliver(alert()).await.unwrap_err();
    assert_eq!(failed, NotDelivered::Later("no answer within 9s".into()));
    assert!(begun.elapsed() < crate::notify::SEND_WITHIN, "{:?}", begun.elapsed());
}

#[test]
fn a_secret_that_cannot_be_used_is_named_by_its_key_alone() {
    let table = "[[notify]]\nwebhook = { env = \"URL\" }\nsecret = { env = \"KEY\" }";
    let of = |url, key| notifier(table, &[("URL", url), ("KEY", key)]).unwrap_err();
    assert!(of("https://a.example/hush", "hush").starts_with("notify.secret: "));
    for url in ["http://a.example/hush", "ftp://a.example/hush", "hush", "https://"] {
        let error = of(url, SECRET);
        assert!(error.contains("https://") && !error.contains("hush"), "{error}");
    }
    for url in ["https://a.example:99999/hush", "https://a.example:0/hush"] {
        let error = of(url, SECRET);
        assert!(error.contains("1 to 65535") && !error.contains("hush"), "{error}");
    }
    let error = notifier(table, &[("KEY", SECRET)]).unwrap_err();
    assert!(error.contains("URL is not set"), "{error}");
}
