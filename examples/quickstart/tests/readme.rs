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

/// What a README shows, indented, after this line.
fn shown_after(readme: &'static str, line: &str) -> Vec<&'static str> {
    let after = readme.lines().skip_while(|l| !l.ends_with(line)).skip(1);
    let shown = after.take_while(|line| line.is_empty() || line.starts_with("    "));
    let shown: Vec<_> = shown.filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(!shown.is_empty(), "nothing after {line:?}");
    shown
}

#[test]
fn the_lines_of_the_readme_are_the_program_and_its_plans() {
    let (head, program) = PROGRAM.split_once("\n\n").unwrap();
    assert!(head.starts_with("//! ") && !head.contains('\n'), "{head}");
    assert_eq!(block("rust"), program);
    assert_eq!(block("toml"), include_str!("../plans.toml"));
}

/// A folder with the files of this program, which it is started in.
fn home() -> Home {
    Home::of(env!("CARGO_MANIFEST_DIR"))
}

fn program(home: &Home) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    program.current_dir(home.folder()).env_remove("TALLYGATE_PEPPER");
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

    /// Head and body of the answer to one request. A lease on a disk that stands still for 250 ms
    /// is late: such a request is not counted, and its client sends it again.
    fn get(&self, path: &str) -> String {
        let is_late = |answer: &String| answer.starts_with("HTTP/1.1 503 ");
        Some(self.get_once(path)).filter(|it| !is_late(it)).unwrap_or_else(|| self.get_once(path))
    }

    fn get_once(&self, path: &str) -> String {
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
    let shown = shown_after(README, "With it:");
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
    for line in shown_after(README, "The sixth within a second:").into_iter().skip(1) {
        assert!(refused.contains(part_that_stays(line)), "no {line:?} in {refused}");
    }
    let usage = running.get("/usage");
    for part in
        shown_after(README, "their key there:")[1].split(",...,").flat_map(|it| it.split(",..."))
    {
        assert!(usage.contains(part), "no {part:?} in {usage}");
    }
    assert!(running.get("/usage-page").contains("<title>"), "and a page");

    assert!(running.ends_well_at("-INT"), "ctrl-c is a good end");
}

#[test]
fn it_ends_well_at_the_signal_that_platforms_send() {
    let home = home();
    let mut running = Running::start(&home);
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(running.ends_well_at("-TERM"));
}

#[test]
fn a_client_that_has_sent_half_a_head_does_not_keep_it_from_its_end() {
    let home = home();
    let mut running = Running::start(&home);
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    let mut stream = TcpStream::connect(running.address()).unwrap();
    stream.write_all(b"GET /v1/hello HTTP/1.1\r\nhost: te").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(running.ends_well_at("-TERM"), "within 30 s");
}

#[test]
fn its_first_start_says_what_it_made_and_its_key_is_good_for_all_later_ones() {
    let home = home();
    let mut running = Running::start(&home);
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(running.ends_well_at("-TERM"));
    let folder = format!("{}/", home.folder().canonicalize().unwrap().display());
    let said = running.process.stderr().replace(&folder, "");
    let shown = shown_after(OWN_README, "with the full paths:");
    assert_eq!(said.lines().collect::<Vec<_>>(), shown);
    assert!(!said.contains(home.read("tallygate.redb.pepper").trim()), "but not the secret");

    let mut again = Running::start_without_a_key(&home);
    again.key = running.key.clone();
    assert!(again.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(again.ends_well_at("-TERM"));
    assert_eq!(again.process.printed(), "", "no other key is made");
    assert!(!again.process.stderr().contains("pepper"), "nor another pepper");
}

#[test]
fn several_first_starts_at_once_end_in_one_pepper() {
    let home = home();
    let mut all: Vec<Running> = (0..4).map(|_| Running::start_without_a_key(&home)).collect();
    // One has the store, and the others end.
    waits::until("one is left", || {
        let left = |it: &mut Running| it.process.is_running();
        all.iter_mut().filter_map(|it| left(it).then_some(())).count() == 1
    });
    let said: String = all.iter().map(|it| it.process.stderr()).collect();
    assert_eq!(said.matches("no pepper is configured").count(), 1, "{said}");
    let mut running =
        all.into_iter().find_map(|mut it| it.process.is_running().then_some(it)).unwrap();
    running.key = running.process.first_line();
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(running.ends_well_at("-TERM"));
    let mut again = Running::start_without_a_key(&home);
    again.key = running.key.clone();
    assert!(again.get("/v1/hello").starts_with("HTTP/1.1 200 "), "with the pepper in the file");
    assert!(again.ends_well_at("-TERM"));
}

#[test]
fn a_plan_file_that_is_broken_while_it_runs_is_logged_until_it_is_not() {
    let home = home();
    let running = Running::start(&home);
    let says = |text: &str| waits::until(text, || running.process.stderr().contains(text));
    home.edit_plans("10k/month", "10k/moon");
    says("the plan file is broken");
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "), "the one before stays");
    home.edit_plans("10k/moon", "10k/month");
    says("tallygate: warn: the plan file is in force again\n");
    home.edit_plans("10k/month", "20k/month");
    says("tallygate: info: a changed plan file is in force revision=2\n");
    home.edit_plans("[plan.free]", "[plan.trial]\n[plan.free]");
    says("tallygate: info: a changed plan file is in force revision=3\n");
    home.edit_plans("[plan.trial]\n", "");
    says("tallygate: warn: the plan file no longer has this plan: its tenants are on free from");
}

#[test]
fn what_its_plans_do_not_promise_is_printed_for_it_has_no_subscriber() {
    let home = home();
    home.edit_plans("[plan.free]", "[plan.free]\nconcurrency = 3");
    let mut running = Running::start(&home);
    assert!(running.get("/v1/hello").starts_with("HTTP/1.1 200 "));
    assert!(running.ends_well_at("-TERM"));
    let said = running.process.stderr();
    let line = "tallygate: info: concurrency 3 is per process: with n processes a tenant may have \
                n x 3 plan=free\n";
    assert!(said.contains(line), "{said}");
}

#[test]
fn without_a_plan_file_it_says_what_its_readme_shows() {
    let home = home();
    std::fs::remove_file(home.path("plans.toml")).unwrap();
    let ended = program(&home).output().unwrap();
    assert!(!ended.status.success());
    let folder = format!("{}/", home.folder().canonicalize().unwrap().display());
    let said = String::from_utf8(ended.stderr).unwrap().replace(&folder, "");
    let said: Vec<&str> = said.trim_end().lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(said, shown_after(OWN_README, "says what to write:"));
    assert!(!home.path("tallygate.redb.pepper").exists(), "and has made nothing");
}

#[test]
fn without_its_pepper_a_store_is_not_opened_with_another() {
    let home = home();
    let mut running = Running::start(&home);
    assert!(running.ends_well_at("-TERM"));
    std::fs::remove_file(home.path("tallygate.redb.pepper")).unwrap();
    let ended = program(&home).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && said.contains("TALLYGATE_PEPPER is not set"), "{said}");
    assert!(said.contains("the one that they were made with"), "{said}");
    assert!(!home.path("tallygate.redb.pepper").exists());
}

#[test]
fn a_pepper_that_is_named_or_empty_is_not_made() {
    let named = "[[identify]]\napi-key = \"x-api-key\"\n\
                 pepper = [{ id = \"1\", env = \"TALLYGATE_PEPPER\" }]";
    for (service, value) in [(named, None), ("", Some("")), ("", Some("short"))] {
        let home = home();
        std::fs::write(home.path("tallygate.toml"), service).unwrap();
        let mut program = program(&home);
        let ended = program.envs(value.map(|value| ("TALLYGATE_PEPPER", value))).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success() && said.contains("pepper"), "{said}");
        assert!(!home.path("tallygate.redb.pepper").exists(), "{said}");
    }
}
