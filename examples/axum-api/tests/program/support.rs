//! The example as it is shipped, started on a free port with files of its own. The example is the
//! one whose package includes this file: `axum-api` or `actix-api`.

#![allow(dead_code, reason = "each of the two uses its part")]

use std::ops::Deref;
use std::process::Command;

use test_support::examples;
pub(crate) use test_support::http::{Answer, Socket};
use test_support::processes::Process;
use test_support::{http, waits};

/// The program.
pub(crate) const PROGRAM: &str =
    match (option_env!("CARGO_BIN_EXE_axum-api"), option_env!("CARGO_BIN_EXE_actix-api")) {
        (Some(path), _) | (None, Some(path)) => path,
        (None, None) => panic!("only these two include this file"),
    };

/// A running API; killed when dropped.
pub(crate) struct Api {
    process: Process,
    address: String,
}

/// A folder with the example's files.
pub(crate) struct Home(examples::Home);

impl Deref for Home {
    type Target = examples::Home;

    fn deref(&self) -> &examples::Home {
        &self.0
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(examples::Home::of(env!("CARGO_MANIFEST_DIR")))
    }

    pub(crate) fn start(&self) -> Api {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, env: &[(&str, &str)]) -> Api {
        self.start_with_args(env, &[])
    }

    pub(crate) fn start_with_args(&self, env: &[(&str, &str)], args: &[&str]) -> Api {
        let process = Process::start(self.program().args(args).envs(env.iter().copied()));
        let address = process.first_line().rsplit('/').next().unwrap().to_owned();
        assert!(address.contains(':'), "it prints no address");
        Api { process, address }
    }

    /// The program on a free port, with these files and nothing of the test's environment.
    pub(crate) fn program(&self) -> Command {
        let mut program = Command::new(PROGRAM);
        program.current_dir(self.folder()).env("PORT", "0");
        for name in ["CARGO_MANIFEST_DIR", "PLANS", "RUST_LOG"] {
            program.env_remove(name);
        }
        program
    }
}

impl Api {
    /// Sends a request with an API key.
    pub(crate) fn send(&self, method: &str, path: &str, key: &str) -> Answer {
        let send = || self.raw(method, path, &[("x-api-key", key)], "");
        // A lease on a disk that stands still for 250 ms is late: such a request is not counted,
        // and its client sends it again.
        let is_late = |answer: &Answer| answer.status == 503;
        let again = |answer: Answer| if is_late(&answer) { send() } else { answer };
        again(again(send()))
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

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request with an API key, and reads nothing yet.
    pub(crate) fn open(&self, method: &str, path: &str, key: &str) -> Socket {
        http::open(&self.address, method, path, &[("x-api-key", key)], "")
    }

    /// What `/usage` says is used of a meter.
    pub(crate) fn used(&self, meter: &str, key: &str) -> u64 {
        self.meter(meter, key, "used")
    }

    /// One number of a meter in `/usage`.
    pub(crate) fn meter(&self, meter: &str, key: &str, field: &str) -> u64 {
        let usage = self.send("GET", "/usage", key);
        assert_eq!(usage.status, 200, "{usage:?}");
        let usage: serde_json::Value = serde_json::from_str(&usage.body).unwrap();
        let meters = usage["meters"].as_array().unwrap();
        let meter = meters.iter().find(|m| m["name"] == meter).unwrap();
        meter[field].as_u64().unwrap()
    }

    /// What it prints after these words, to the end of the line.
    pub(crate) fn printed_after(&self, words: &str) -> String {
        waits::found(words, || {
            let printed = self.process.printed_so_far();
            let (line, _) = printed.split_once(words)?.1.split_once('\n')?;
            Some(line.to_owned())
        })
    }

    /// All that it prints until it is asked to end.
    pub(crate) fn printed(mut self) -> String {
        self.terminate();
        self.process.printed()
    }

    pub(crate) fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        waits::until(what, || is(self));
    }

    /// Asks it to end, as platforms do.
    pub(crate) fn terminate(&self) {
        self.process.signal("-TERM");
    }

    /// Waits for its end and returns whether it was a good one.
    pub(crate) fn ends_well(mut self) -> bool {
        self.process.ends_well()
    }
}
