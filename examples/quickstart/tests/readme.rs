//! What the README of the repository and the one beside this program say: the lines are this
//! program, and it answers as it says there.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed; another process is waited for by looking"
)]
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use test_support::examples::Home;
use test_support::processes::Process;
use test_support::{http, waits};

const README: &str = include_str!("../../../README.md");
const OWN_README: &str = include_str!("../README.md");
const PROGRAM: &str = include_str!("../src/main.rs");

/// The block of the README in this language.
fn block(language: &str) -> &str {
    let (_, rest) = README.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

/// What the other README shows, indented, after this line.
fn shown_after(line: &str) -> Vec<&'static str> {
    let after = OWN_README.lines().skip_while(|l| *l != line).skip(1);
    let shown = after.take_while(|line| line.is_empty() || line.starts_with("    "));
    let shown: Vec<_> = shown.filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(!shown.is_empty(), "nothing after {line:?}");
    shown
}

#[test]
fn the_lines_of_the_readme_are_the_program() {
    let lines = |text: &str| -> Vec<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect()
    };
    let at = PROGRAM.find("#[tokio::main]").unwrap();
    let (before, body) = PROGRAM.split_at(at);
    assert_eq!(lines(block("rust")), lines(body));
    let import = |line: &&str| !line.is_empty() && !line.starts_with("//!");
    assert!(before.lines().filter(import).all(|line| line.starts_with("use ")), "{before}");
}

/// A folder with the files of this program, which it is started in.
fn home() -> Home {
    Home::of(env!("CARGO_MANIFEST_DIR"))
}

fn program(home: &Home) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    program.current_dir(home.folder());
    program
}

/// The program, the port it was given, and the key it printed; killed when dropped.
struct Running {
    process: Process,
    port: u16,
    key: String,
}

impl Running {
    /// Its first start, at which it prints a key.
    fn start(home: &Home) -> Self {
        let mut running = Self::start_without_a_key(home);
        running.key = running.process.first_line();
        running
    }

    fn start_without_a_key(home: &Home) -> Self {
        let port = http::free_port();
        let mut program = program(home);
        program.env("TALLYGATE_PEPPER", "no secret in a test, but 32 bytes");
        let process = Process::start(program.env("PORT", port.to_string()));
        Self { process, port, key: String::new() }
    }

    fn ends_well_at(&mut self, signal: &str) -> bool {
        self.process.signal(signal);
        self.process.ends_well()
    }

    fn address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    /// Head and body of the answer to one request.
    fn get(&self, path: &str) -> String {
        // It prints the key before it listens.
        waits::until("it listens", || TcpStream::connect(self.address()).is_ok());
        let mut answer = String::new();
        let mut socket = http::open(self.address(), "GET", path, &[("x-api-key", &self.key)], "");
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// What is the same in every answer: the name of a field, and all before a number that varies.
fn part_that_stays(line: &str) -> &str {
    ["t=", "\"resets-at\""].iter().fold(line, |line, varies| {
        let at = line.rfind(varies);
        at.map_or(line, |at| &line[..at])
    })
}

#[test]
fn it_answers_as_its_readme_says() {
    let home = home();
    let mut running = Running::start(&home);
    assert!(running.key.starts_with("tg_"), "{}", running.key);
    let first = running.get("/v1/hello");
    let shown = shown_after("It prints a key; with it:");
    assert!(shown[0].contains("localhost:3000/v1/hello -H 'x-api-key: tg_"), "{shown:?}");
    for line in &shown[1..] {
        assert!(first.contains(part_that_stays(line)), "no {line:?} in {first}");
    }

    let mut served = 1;
    let refused = loop {
        let answer = running.get("/v1/hello");
        if !answer.starts_with("HTTP/1.1 200 ") {
            break answer;
        }
        served += 1;
        assert!(served < 100, "the rate holds");
    };
    // More than five only if this took half a second.
    assert!(served >= 5, "{served}: {refused}");
    for line in shown_after("The sixth within a second:") {
        assert!(refused.contains(part_that_stays(line)), "no {line:?} in {refused}");
    }
    assert!(running.get("/usage").contains("\"plan\":\"free\""));

    assert!(running.ends_well_at("-INT"), "ctrl-c is a good end");
}

#[test]
fn it_ends_well_at_the_signal_that_platforms_send() {
    let mut running = Running::start(&home());
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(running.ends_well_at("-TERM"));
}

#[test]
fn a_client_that_has_sent_half_a_head_does_not_keep_it_from_its_end() {
    let mut running = Running::start(&home());
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    let mut stream = TcpStream::connect(running.address()).unwrap();
    stream.write_all(b"GET /v1/hello HTTP/1.1\r\nhost: te").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(running.ends_well_at("-TERM"), "within 30 s");
}

#[test]
fn an_empty_service_file_is_enough() {
    let home = home();
    std::fs::write(home.path("tallygate.toml"), "").unwrap();
    let mut running = Running::start(&home);
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(running.ends_well_at("-TERM"));

    // Its store is a file now: the key of the first start is good for all.
    let mut again = Running::start_without_a_key(&home);
    again.key = running.key.clone();
    assert!(again.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(again.ends_well_at("-TERM"));
    let printed = again.process.printed();
    assert_eq!(printed, "", "no other key is made");
}

#[test]
fn a_plan_file_that_is_broken_while_it_runs_is_logged() {
    let home = home();
    let running = Running::start(&home);
    home.edit_plans("10k/month", "10k/moon");
    let broken = "the plan file is broken";
    waits::until("it says so", || running.process.stderr().contains(broken));
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "), "the one before stays");
}

#[test]
fn without_a_pepper_it_says_what_its_readme_shows() {
    let home = home();
    let ended = program(&home).env_remove("TALLYGATE_PEPPER").output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    let shown = shown_after("Without the pepper it does not start, and says why:");
    assert_eq!(said.lines().collect::<Vec<_>>(), shown);
}

#[test]
fn the_plans_of_the_readme_are_plans() {
    let home = home();
    std::fs::write(home.path("plans.toml"), block("toml")).unwrap();
    let answer = Running::start(&home).get("/v1/hello");
    assert!(answer.contains("\"default\";q=10;w=2"), "{answer}");
}
