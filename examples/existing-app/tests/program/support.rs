//! The programs on a free port, with files of their own, and users who sign in.

use std::process::Command;

use serde_json::Value;
use test_support::examples;
use test_support::http::{self, Answer, Socket};
use test_support::processes::Process;

pub(crate) const BEFORE: &str = env!("CARGO_BIN_EXE_before");
pub(crate) const WITH_PLANS: &str = env!("CARGO_BIN_EXE_existing-app");

/// A running app; killed when dropped.
pub(crate) struct App {
    process: Process,
    pub(crate) address: String,
}

/// A user's session.
pub(crate) struct Session<'a> {
    pub(crate) app: &'a App,
    pub(crate) cookie: String,
}

/// A folder with the example's files.
pub(crate) fn home() -> examples::Home {
    examples::Home::of(env!("CARGO_MANIFEST_DIR"))
}

impl App {
    pub(crate) fn start(program: &str, home: &examples::Home) -> Self {
        let mut command = Command::new(program);
        command.current_dir(home.folder()).env("PORT", "0").env_remove("RUST_LOG");
        let process = Process::start(&mut command);
        let address = process.first_line().rsplit('/').next().unwrap().to_owned();
        assert!(address.contains(':'), "it prints no address: {}", process.stderr());
        Self { process, address }
    }

    /// Sends a request with exactly these headers beside `host` and the length of the body.
    pub(crate) fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        http::send(&self.address, method, path, headers, body).expect("it answers")
    }

    /// Signs in; every user has the same password.
    pub(crate) fn sign_in(&self, user: &str) -> Session<'_> {
        let login = serde_json::json!({ "user": user, "password": "demo" }).to_string();
        let answer = self.raw("POST", "/login", &[("content-type", "application/json")], &login);
        assert_eq!(answer.status, 200, "{answer:?}");
        let (cookie, _) = answer.header("set-cookie").split_once(';').unwrap();
        Session { app: self, cookie: cookie.to_owned() }
    }

    /// Asks it to end, as platforms do, and returns whether it ends well.
    pub(crate) fn ends_well(mut self) -> bool {
        self.process.signal("-TERM");
        self.process.ends_well()
    }

    pub(crate) fn stderr(&self) -> String {
        self.process.stderr()
    }
}

impl Session<'_> {
    /// Sends a request with the session's cookie.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let send = || self.app.raw(method, path, &[("cookie", &self.cookie)], body);
        // A lease on a disk that stands still for 250 ms is late: such a request is not counted,
        // and its client sends it again.
        let again = |answer: Answer| if answer.status == 503 { send() } else { answer };
        again(again(send()))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    /// Sends a request with the session's cookie, and reads nothing yet.
    pub(crate) fn open(&self, path: &str) -> Socket {
        http::open(&self.app.address, "GET", path, &[("cookie", &self.cookie)], "")
    }

    /// What `/api/usage` says.
    pub(crate) fn usage(&self) -> Value {
        let usage = self.get("/api/usage");
        assert_eq!(usage.status, 200, "{usage:?}");
        serde_json::from_str(&usage.body).unwrap()
    }

    /// How much of a meter is used, and held for what is open.
    pub(crate) fn meter(&self, name: &str) -> (u64, u64) {
        let usage = self.usage();
        let meter = usage["meters"].as_array().unwrap().iter().find(|it| it["name"] == name);
        let meter = meter.unwrap();
        (meter["used"].as_u64().unwrap(), meter["held"].as_u64().unwrap())
    }

    /// How many requests are used.
    pub(crate) fn requests(&self) -> u64 {
        self.meter("requests").0
    }
}

/// The members of a JSON body.
pub(crate) fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}
