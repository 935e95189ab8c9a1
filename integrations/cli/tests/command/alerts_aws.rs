//! `alerts test` to SNS and EventBridge, which are a server on loopback here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::home::Home;

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alerts";

/// What is in no output: it is an answer's text, or a part of the credentials.
const HUSH: &str = "hush";

/// Answers each request by what asks: SNS names its action in the body, EventBridge in a header.
struct Aws {
    endpoint: String,
    got: mpsc::Receiver<String>,
}

impl Aws {
    /// With an answer of each: status and body.
    fn start(sns: (u16, String), events: (u16, String)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (say, got) = mpsc::channel();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let request = read(&mut socket);
                let (status, body) = if request.contains("AWSEvents") { &events } else { &sns };
                let n = body.len();
                let head = format!("HTTP/1.1 {status} It\r\nconnection: close\r\n");
                let answer = format!("{head}content-length: {n}\r\n\r\n{body}");
                socket.write_all(answer.as_bytes()).unwrap();
                if say.send(request).is_err() {
                    break;
                }
            }
        });
        Self { endpoint, got }
    }

    /// A folder with a service that names both, and the environment of a program on AWS.
    fn home(&self) -> Home {
        let mut home = Home::empty();
        home.set("AWS_ENDPOINT_URL_SNS", &self.endpoint);
        home.set("AWS_ENDPOINT_URL_EVENTBRIDGE", &self.endpoint);
        home.set("AWS_REGION", "us-east-1");
        home.set("AWS_ACCESS_KEY_ID", "x");
        home.set("AWS_SECRET_ACCESS_KEY", HUSH);
        home.set("AWS_MAX_ATTEMPTS", "1");
        home.set("ALERTS_TOPIC", TOPIC);
        home.run(&["init"]).ok();
        home.write("tallygate.toml", &service());
        home
    }
}

/// A service file with a topic in a variable, and a bus.
fn service() -> String {
    let identify = "identify = []\n[store]\nkind = \"memory\"\n";
    let topic = "[[notify]]\nname = \"topic\"\nsns = { env = \"ALERTS_TOPIC\" }\n";
    format!("{identify}{topic}[[notify]]\neventbridge = \"ops\"\n")
}

fn read(socket: &mut TcpStream) -> String {
    let (mut all, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let n = socket.read(&mut chunk).unwrap();
        assert!(n > 0, "the request was cut off");
        all.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().filter_map(|line| line.split_once(": "));
        let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if body.len() >= length.next().unwrap().1.parse::<usize>().unwrap() {
            return text;
        }
    }
}

fn published() -> (u16, String) {
    let result = "<PublishResult><MessageId>567910cd</MessageId></PublishResult>";
    (200, format!("<PublishResponse>{result}</PublishResponse>"))
}

fn put() -> (u16, String) {
    let entry = json!({"EventId": "11710aed-b79e-4468-a20b-bb3c0c3b4860"});
    (200, json!({"FailedEntryCount": 0, "Entries": [entry]}).to_string())
}

/// What was said of each destination, by its name.
fn states(stdout: &str) -> Vec<(String, String, String)> {
    let lines = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |of: &Value, key: &str| of[key].as_str().unwrap().to_owned();
    let parts = |of: Value| ["destination", "state", "detail"].map(|key| text(&of, key));
    lines.map(parts).map(|[name, state, detail]| (name, state, detail)).collect()
}

#[test]
fn a_test_reaches_the_topic_and_the_bus_of_the_service_file() {
    let aws = Aws::start(published(), put());
    let home = aws.home();
    let said = home.run(&["alerts", "test"]).ok();
    assert!(said.contains("topic") && said.contains("eventbridge"), "{said}");
    assert_eq!(said.matches("it took the test").count(), 2, "{said}");
    let (mut got, mut wanted) = (Vec::new(), ["Action=Publish", "AWSEvents.PutEvents"].to_vec());
    for _ in 0..2 {
        got.push(aws.got.recv().unwrap());
        wanted.retain(|it| !got.iter().any(|request| request.contains(it)));
    }
    assert!(wanted.is_empty(), "{wanted:?}: {got:?}");
    let all = got.concat();
    // The topic's region is its ARN's, the bus's the program's.
    for word in ["eu-west-1%3A123456789012%3Aalerts", "/eu-west-1/sns/", "/us-east-1/events/"] {
        assert!(all.contains(word), "{word}: {all}");
    }
    assert!(all.contains(r#""EventBusName":"ops""#) && all.contains("tallygate.test"), "{all}");
}

#[test]
fn what_does_not_take_the_test_is_said_without_what_it_answered() {
    let about = format!("<Code>AuthorizationError</Code><Message>{HUSH}</Message>");
    let denied = format!("<ErrorResponse><Error>{about}</Error></ErrorResponse>");
    let failed = json!({"ErrorCode": "MalformedDetail", "ErrorMessage": HUSH});
    let failed = json!({"FailedEntryCount": 1, "Entries": [failed]}).to_string();
    let ran = Aws::start((403, denied), (200, failed)).home().run(&["alerts", "test", "--json"]);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    let owned = |of: [&str; 3]| (of[0].to_owned(), of[1].to_owned(), of[2].to_owned());
    let expected = [
        owned(["topic", "failed", "SNS answered 403 AuthorizationError"]),
        owned(["eventbridge", "refused", "EventBridge answered MalformedDetail"]),
    ];
    assert_eq!(states(&ran.stdout), expected);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(HUSH), "{}", ran.stderr);
}

/// A command writes alerts; it needs no client, and no variable, for what the service sends.
#[test]
fn commands_that_change_something_need_nothing_of_aws() {
    let home = Home::empty();
    home.run(&["init"]).ok();
    home.write("tallygate.toml", &service().replace("memory", "redb"));
    home.run(&["tenant", "create", "acme", "--plan", "pro"]).ok();
    home.run(&["tenant", "set-plan", "acme", "free"]).ok();
    let waits = home.run(&["alerts", "list"]).ok();
    assert_eq!(waits.matches("acme goes from pro to free").count(), 2, "{waits}");
    let said = home.run(&["alerts", "test"]).fails(3);
    assert!(said.contains("the environment variable ALERTS_TOPIC is not set"), "{said}");
}
