//! Refused openings, and their error texts.

use std::path::Path;
use std::time::Duration;

use tallygate::directory::DirectoryError;
use tallygate::store::{
    Item, Key, Memory, Page, Promise, Query, Store, StoreFuture, Write, Written,
};
use tallygate::{Error, Gate, GateBuilder, testing};
use test_support::gates::Acme;
use test_support::stores::Shared;

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\n";

/// A gate over a store, with these peppers by id, newest first.
async fn with_peppers(store: &Memory, peppers: &[(&str, &str)]) -> Result<Gate, Error> {
    let folder = tempfile::tempdir().unwrap();
    let written = peppers.iter().map(|(id, secret)| {
        let path = folder.path().join(id);
        std::fs::write(&path, secret).unwrap();
        format!("{{ id = {id:?}, file = {path:?} }}")
    });
    let written: Vec<String> = written.collect();
    let service = format!(
        "[store]\nkind = \"memory\"\n[[identify]]\napi-key = \"authorization\"\n\
         pepper = [{}]\n[flush]\nmode = \"fast\"\n",
        written.join(", ")
    );
    GateBuilder::from_text(&service).plans(PLANS).store(store.clone()).open().await
}

#[tokio::test]
async fn another_pepper_under_the_same_id_is_refused() {
    let store = Memory::new();
    let (old, new) = ("the pepper that keys were made with", "a pepper of somebody's new machine");
    for _ in 0..2 {
        with_peppers(&store, &[("1", old)]).await.unwrap().close().await.unwrap();
    }
    let error = with_peppers(&store, &[("1", new)]).await.unwrap_err().to_string();
    assert!(error.contains("\"1\"") && error.contains("another id"), "{error}");
    assert!(!error.contains(new) && !error.contains(old), "{error}");
    // The documented way to change it.
    let both = [("2", new), ("1", old)];
    with_peppers(&store, &both).await.unwrap().close().await.unwrap();
    let error = with_peppers(&store, &[("2", old), ("1", old)]).await.unwrap_err().to_string();
    assert!(error.contains("\"2\""), "{error}");
}

#[tokio::test]
async fn a_short_token_of_ingest_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let open = async |path: &Path| {
        let service = format!(
            "[store]\nkind = \"memory\"\n[[identify]]\nclaim = \"org\"\n\
             [ingest]\ntoken = {{ file = {path:?} }}\n[flush]\nmode = \"fast\"\n"
        );
        GateBuilder::from_text(&service).plans(PLANS).open().await
    };
    std::fs::write(&path, "s3cret").unwrap();
    let error = open(&path).await.unwrap_err().to_string();
    assert!(error.contains("ingest.token has 6 bytes and needs at least 16"), "{error}");
    assert!(error.contains("openssl rand") && !error.contains("s3cret"), "{error}");
    std::fs::write(&path, "0123456789abcdef").unwrap();
    assert!(open(&path).await.is_ok());
}

/// Accepts every call and answers none.
struct Silent;

impl Store for Silent {
    fn read(&self, _: Key) -> StoreFuture<Option<Item>> {
        Box::pin(std::future::pending())
    }

    fn write(&self, _: Write) -> StoreFuture<Written> {
        Box::pin(std::future::pending())
    }

    fn query(&self, _: Query) -> StoreFuture<Page> {
        Box::pin(std::future::pending())
    }

    fn check(&self) -> StoreFuture<()> {
        Box::pin(std::future::pending())
    }

    fn name(&self) -> String {
        "the table `acme` at http://127.0.0.1:8000".to_owned()
    }

    fn promise(&self) -> Promise {
        Memory::new().promise()
    }

    fn close(&self) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_named_within_half_a_minute() {
    let opening = testing::builder(PLANS).store(Silent).open();
    let opened = tokio::time::timeout(Duration::from_secs(30), opening).await;
    let error = opened.expect("opening ends").unwrap_err().to_string();
    assert!(error.contains("the table `acme` at http://127.0.0.1:8000"), "{error}");
    assert!(error.contains("has not answered within"), "{error}");
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_is_refused_and_says_which_key_names_another_place() {
    let folder = tempfile::tempdir().unwrap();
    // Simulates a read-only folder, even for users who may write everywhere.
    std::fs::create_dir(folder.path().join("j.probe")).unwrap();
    for (n, journal) in ["j", "gone/j"].into_iter().enumerate() {
        let journal = folder.path().join(journal);
        let service = format!(
            "[store]\nkind = \"redb\"\npath = {:?}\n[[identify]]\nclaim = \"org\"\n\
             [flush]\nmode = \"journal\"\njournal-path = {journal:?}\n",
            folder.path().join(format!("{n}.redb"))
        );
        let opened = GateBuilder::from_text(&service).plans(PLANS).open().await;
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(&*journal.to_string_lossy()), "{error}");
        assert!(
            error.contains("`flush.journal-path`") && error.contains("`flush.mode`"),
            "{error}"
        );
    }
}

/// A pipe that nothing writes to: opening it would wait forever.
#[cfg(unix)]
fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_place_of_a_file_is_refused_by_its_name_and_not_opened() {
    let names =
        ["tallygate.toml", "plans.toml", "pepper", "token", "store.redb", "j.0", "j.7", "j.probe"];
    for name in names {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let service = format!(
            "[store]\nkind = \"redb\"\npath = {:?}\n[plans]\nfile = {:?}\n\
             [[identify]]\napi-key = \"authorization\"\npepper = [{{ id = \"1\", file = {:?} }}]\n\
             [ingest]\ntoken = {{ file = {:?} }}\n\
             [flush]\nmode = \"journal\"\njournal-path = {:?}\n",
            at("store.redb"),
            at("plans.toml"),
            at("pepper"),
            at("token"),
            at("j"),
        );
        std::fs::write(at("tallygate.toml"), service).unwrap();
        std::fs::write(at("plans.toml"), PLANS).unwrap();
        std::fs::write(at("pepper"), "a pepper of at least thirty-two bytes").unwrap();
        std::fs::write(at("token"), "0123456789abcdef").unwrap();
        let _ = std::fs::remove_file(at(name));
        pipe(&at(name));
        let path = at("tallygate.toml").to_string_lossy().into_owned();
        let opening = tokio::spawn(async move { Gate::open(&path).await.map(|_| ()) });
        let opened = tokio::time::timeout(Duration::from_secs(4), opening).await;
        let Ok(opened) = opened else {
            // Lets the thread that hangs go.
            let _ = std::fs::OpenOptions::new().read(true).write(true).open(at(name));
            panic!("{name}: opening hangs");
        };
        let error = opened.unwrap().expect_err(name).to_string();
        assert!(error.contains(&*at(name).to_string_lossy()), "{name}: {error}");
        assert!(error.contains("not a regular file"), "{name}: {error}");
    }
}

/// The lock of a journal that several processes may keep.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_place_of_a_journals_lock_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, lock) = (folder.path().join("j"), folder.path().join("j.lock"));
    pipe(&lock);
    let service = format!(
        "[store]\nkind = \"memory\"\n[[identify]]\nclaim = \"org\"\n\
         [flush]\nmode = \"journal\"\njournal-path = {journal:?}\n"
    );
    let opening = tokio::spawn(async move {
        let builder = GateBuilder::from_text(&service).plans(PLANS).store(Shared(Memory::new()));
        builder.open().await.map(|_| ())
    });
    let opened = tokio::time::timeout(Duration::from_secs(4), opening).await;
    let Ok(opened) = opened else {
        let _ = std::fs::OpenOptions::new().read(true).write(true).open(&lock);
        panic!("opening hangs");
    };
    let error = opened.unwrap().expect_err("a pipe").to_string();
    assert!(error.contains(&*lock.to_string_lossy()), "{error}");
    assert!(error.contains("not a regular file"), "{error}");
}

#[tokio::test]
async fn the_functions_of_the_examples_that_share_a_table_share_a_plan_file() {
    let api = include_str!("../../examples/lambda-http/plans.toml");
    assert_eq!(include_str!("../../examples/lambda-ingest/plans.toml"), api);
    let gate = testing::builder(api).open().await.unwrap();
    gate.directory().tenant("acme").save().await.unwrap();
    let who = (&gate.tenant("acme").await.unwrap()).into();
    let report = gate.usage_report(&who).await.unwrap();
    let has_minutes = report.meters.iter().any(|meter| &*meter.name == "minutes");
    assert!(has_minutes, "the meter that its events are of");
}

#[tokio::test]
async fn a_mistake_is_reported_as_the_readme_of_axum_api_shows_it() {
    let plans = include_str!("../../examples/axum-api/plans.toml");
    let broken = plans.replace("rate.search    = \"30/min\"", "rate.serch     = \"30/min\"");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plans.toml");
    std::fs::write(&file, broken).unwrap();
    let error = testing::builder("").plans_file(&file).open().await.unwrap_err().to_string();
    let error = error.replace(&*file.to_string_lossy(), "plans.toml");
    let readme = include_str!("../../examples/axum-api/README.md");
    for line in error.trim_end().lines() {
        assert!(readme.contains(&format!("\n    {line}\n")), "no {line:?} in it");
    }
}

/// A store that the program hands in, as DynamoDB's: none is known to be new, so no pepper is made.
async fn without_pepper(store: &Memory, service: &str, by_code: bool) -> Result<Gate, Error> {
    let plans = "default-plan = \"free\"\n[plan.free]\nrate.all = \"5/s\"";
    let builder = GateBuilder::from_text(service).plans(plans).store(store.clone());
    let builder = if by_code { builder.identify(Acme) } else { builder };
    builder.open().await
}

#[tokio::test]
async fn nothing_asks_for_a_pepper_where_the_program_names_its_callers() {
    let store = Memory::new();
    let error = without_pepper(&store, "", false).await.unwrap_err().to_string();
    assert!(error.contains("TALLYGATE_PEPPER") && error.contains("`identify = []`"), "{error}");
    for (service, by_code) in [("", true), ("identify = []", true), ("identify = []", false)] {
        let gate = without_pepper(&store, service, by_code).await.unwrap();
        let acme = gate.directory().tenant("acme").note("signed up").save().await.unwrap();
        let error = acme.new_key("ci").await.unwrap_err();
        assert!(matches!(error, DirectoryError::NoPepper), "{error}");
        gate.close().await.unwrap();
    }
    // A way that the file names keeps its pepper, whatever the program does beside it.
    let written = "[[identify]]\napi-key = \"x-api-key\"";
    assert!(without_pepper(&store, written, true).await.is_err());
}

#[tokio::test]
async fn keys_that_were_in_use_do_not_go_off_unnoticed() {
    let store = Memory::new();
    let used = [("1", "the pepper that keys were made with")];
    with_peppers(&store, &used).await.unwrap().close().await.unwrap();
    let error = without_pepper(&store, "", true).await.unwrap_err().to_string();
    assert!(error.contains("TALLYGATE_PEPPER is not set"), "{error}");
    without_pepper(&store, "identify = []", true).await.unwrap().close().await.unwrap();
}
