//! The program on a free port, with files of its own, and its streams.

use std::io::BufRead;
use std::process::Command;

use serde_json::{Value, json};
use test_support::examples::Home;
use test_support::http::{self, Answer, Socket};
use test_support::processes::Process;

/// A running program; killed when dropped.
pub(crate) struct App {
    process: Process,
    address: String,
}

/// What a stream has delivered.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Tokens of its pieces, as the provider counts them.
    pub(crate) tokens: u64,
    /// Its last event, if it has come.
    pub(crate) end: Value,
}

/// A folder with the example's files.
pub(crate) fn home() -> Home {
    Home::of(env!("CARGO_MANIFEST_DIR"))
}

/// The program, to be started in this folder.
pub(crate) fn program(home: &Home) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_llm-chat"));
    program.current_dir(home.folder()).env("PORT", "0");
    program.env_remove("RUST_LOG").env_remove("TALLYGATE_PEPPER");
    program
}

impl App {
    pub(crate) fn start(home: &Home) -> Self {
        let process = Process::start(&mut program(home));
        let address = process.first_line().rsplit('/').next().unwrap().to_owned();
        assert!(address.contains(':'), "it prints no address: {}", process.stderr());
        Self { process, address }
    }

    /// Asks for an answer as the tenant of this plan, and reads nothing yet.
    pub(crate) fn open(&self, path: &str, plan: &str, request: &Value) -> Socket {
        let key = format!("tg_demo_{plan}");
        let headers = [("x-api-key", &*key), ("content-type", "application/json")];
        http::open(&self.address, "POST", path, &headers, &request.to_string())
    }

    /// The head of an answer, or all of it if it is no stream.
    pub(crate) fn chat(&self, plan: &str, request: &Value) -> (Answer, Socket) {
        let open = || {
            let mut socket = self.open("/v1/chat", plan, request);
            let answer = http::head(&mut socket).expect("it answers");
            (answer, socket)
        };
        // A lease on a disk that stands still for 250 ms is late: such a request is not counted,
        // and its client sends it again.
        let first = open();
        if first.0.status == 503 { open() } else { first }
    }

    /// An answer from its first event to its last.
    pub(crate) fn whole(&self, plan: &str, request: &Value) -> Delivered {
        let (answer, socket) = self.chat(plan, request);
        Delivered::whole(answer, socket)
    }

    /// What `/usage` says of a meter.
    pub(crate) fn meter(&self, plan: &str, name: &str) -> Value {
        let key = format!("tg_demo_{plan}");
        let answer = http::send(&self.address, "GET", "/usage", &[("x-api-key", &key)], "");
        let usage: Value = serde_json::from_str(&answer.unwrap().body).unwrap();
        let meters = usage["meters"].as_array().unwrap();
        meters.iter().find(|meter| meter["name"] == name).unwrap().clone()
    }

    /// Units used of a meter, and held for what is open.
    pub(crate) fn used(&self, plan: &str, name: &str) -> (u64, u64) {
        let meter = self.meter(plan, name);
        (meter["used"].as_u64().unwrap(), meter["held"].as_u64().unwrap())
    }

    /// Thousandths of a credit used.
    pub(crate) fn credits(&self, plan: &str) -> u64 {
        let meter = self.meter(plan, "credits");
        let text = meter["used_text"].as_str().map(str::to_owned);
        let text = text.unwrap_or_else(|| meter["used"].to_string());
        (text.parse::<f64>().unwrap() * 1000.0).round() as u64
    }

    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    pub(crate) fn ends_well(mut self) -> bool {
        self.process.signal("-TERM");
        self.process.ends_well()
    }
}

impl Delivered {
    /// The rest of a stream, to its last event.
    pub(crate) fn whole(answer: Answer, mut socket: Socket) -> Self {
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut delivered = Self::default();
        while delivered.end.is_null() {
            delivered.read(&mut socket);
        }
        delivered
    }

    /// Reads one event, past the lines of its chunk.
    pub(crate) fn read(&mut self, socket: &mut Socket) {
        let (mut name, mut data) = (String::new(), String::new());
        while data.is_empty() {
            let mut line = String::new();
            assert_ne!(socket.read_line(&mut line).unwrap(), 0, "the stream goes on");
            let line = line.trim_end();
            name = line.strip_prefix("event: ").map_or(name, str::to_owned);
            data = line.strip_prefix("data: ").unwrap_or_default().to_owned();
        }
        let data: Value = serde_json::from_str(&data).unwrap();
        if name == "end" {
            self.end = data;
        } else {
            self.tokens += data["text"].as_str().unwrap().len().div_ceil(4) as u64;
        }
    }

    /// Why it ended.
    pub(crate) fn why(&self) -> &str {
        self.end["why"].as_str().unwrap()
    }

    /// Input and output tokens that it says were charged.
    pub(crate) fn charged(&self) -> (u64, u64) {
        let tokens = |of: &str| self.end["usage"][of].as_u64().unwrap();
        (tokens("input_tokens"), tokens("output_tokens"))
    }
}

/// A request for an answer of so many words.
pub(crate) fn words(n: u64) -> Value {
    json!({ "prompt": format!("say {n} words") })
}

/// The same with more members.
pub(crate) fn with(mut request: Value, more: Value) -> Value {
    let members = more.as_object().unwrap().clone();
    request.as_object_mut().unwrap().extend(members);
    request
}
