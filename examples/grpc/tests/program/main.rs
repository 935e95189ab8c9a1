//! The example as a program, called over gRPC: by the client of its README, and by a client here.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::process::Command;

use test_support::examples::Home;
use test_support::processes::Process;
use tokio_stream::StreamExt;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use api::Text;
use api::translation_client::TranslationClient;

/// What build.rs makes from the .proto.
mod api {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    tonic::include_proto!("translation.v1");
}

const README: &str = include_str!("../../README.md");

/// The running service, and its address; killed when dropped.
struct Service {
    process: Process,
    address: String,
}

impl Service {
    fn start(home: &Home) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_grpc-api"));
        program.current_dir(home.folder()).env("PORT", "0").env_remove("CARGO_MANIFEST_DIR");
        let process = Process::start(&mut program);
        let address = process.first_line().rsplit(' ').next().unwrap().trim().to_owned();
        assert!(address.starts_with("http://127.0.0.1:"), "it prints {address:?}");
        Self { process, address }
    }

    /// What the client of the README prints, and whether it is pleased.
    fn ask(&self, args: &[&str]) -> (String, bool) {
        let mut client = Command::new(env!("CARGO_BIN_EXE_ask"));
        let ran = client.arg(&self.address).args(args).output().unwrap();
        (String::from_utf8(ran.stdout).unwrap(), ran.status.success())
    }

    async fn client(&self) -> TranslationClient<tonic::transport::Channel> {
        TranslationClient::connect(self.address.clone()).await.unwrap()
    }

    fn ends_well(mut self) -> bool {
        self.process.signal("-TERM");
        self.process.ends_well()
    }
}

fn home() -> Home {
    Home::of(env!("CARGO_MANIFEST_DIR"))
}

fn of(key: &'static str, text: &str) -> Request<Text> {
    let mut request = Request::new(Text { text: text.to_owned() });
    request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    request
}

/// Texts with their numbers replaced, which depend on the time of day.
fn without_seconds(text: &str) -> String {
    let is_number = |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_digit());
    let words = text.split(' ').map(|word| if is_number(&word) { "N" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// What the README shows after the command that ends like this.
fn shown(command_end: &str) -> String {
    let lines = README.lines().skip_while(|line| !line.ends_with(command_end)).skip(1);
    let shown: Vec<_> = lines.map_while(|line| line.strip_prefix("    ")).collect();
    assert!(!shown.is_empty(), "nothing after {command_end:?}");
    shown.join("\n") + "\n"
}

#[test]
fn the_client_prints_what_the_readme_shows() {
    let home = home();
    let service = Service::start(&home);
    let many = (1..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    let all: [(&str, &[&str], bool); 5] = [
        ("tg_demo_acme 'good morning'", &["tg_demo_acme", "good morning"], true),
        ("Ishmael')\"", &["tg_demo_acme", "--book", "call me\nIshmael"], true),
        ("--book 'call me'", &["tg_demo_solo", "--book", "call me"], false),
        ("$(seq -s ' ' 21)\"", &["tg_demo_solo", &many], false),
        ("nope 'good morning'", &["nope", "good morning"], false),
    ];
    for (command_end, args, is_good) in all {
        let (printed, was_good) = service.ask(args);
        let (printed, expected) = (without_seconds(&printed), without_seconds(&shown(command_end)));
        assert_eq!(printed, expected, "{command_end}");
        assert_eq!(was_good, is_good, "{command_end}");
    }
    assert!(service.ends_well());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn words_are_used_up_within_a_stream_and_stay_used_after_a_restart() {
    let home = home();
    home.edit_plans("quota.words   = \"10k/month\"", "quota.words   = \"5/month\"");
    let service = Service::start(&home);
    let mut client = service.client().await;
    let book = of("tg_demo_acme", "one two\nthree four\nfive six\nseven");
    let mut lines = client.translate_book(book).await.unwrap().into_inner();
    for expected in ["ONE TWO", "THREE FOUR"] {
        assert_eq!(lines.next().await.unwrap().unwrap().text, expected);
    }
    let refused = lines.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_retry_info().is_some());
    assert!(lines.next().await.is_none());
    assert!(service.ends_well());

    let again = Service::start(&home);
    let mut client = again.client().await;
    let refused = client.translate(of("tg_demo_acme", "two words")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let answer = client.translate(of("tg_demo_acme", "one")).await.unwrap();
    assert_eq!(answer.into_inner().text, "ONE");
}
