//! A journal that a killed process left behind is carried over by the next process on the same
//! store, and by no other: neither on another part of it, nor on a copy that was restored.

use std::time::Duration;

use tallygate::{Gate, SinceCopy};

use crate::load::{Connection, SHARED};
use crate::server::{Files, Server};

/// Little goes to the store before the process is killed: it is in the journal.
const FLUSH: &str = "mode = \"journal\"\nevery = \"5s\"";

/// Several times what the journal takes.
const JOURNALLED: Duration = Duration::from_millis(200);

/// A process that has answered so many requests, and was killed.
async fn killed_after(files: &Files, requests: u64) {
    let server = Server::start(files);
    serves(&server, requests).await;
    tokio::time::sleep(JOURNALLED).await;
    server.kill();
}

async fn serves(server: &Server, requests: u64) {
    let mut connection = Connection::open(server.address).await.unwrap().of(SHARED);
    for _ in 0..requests {
        assert_eq!(connection.call("POST", "/work").await.unwrap().0, 200);
    }
}

async fn recorded(files: &Files) -> u64 {
    let server = Server::start(files);
    let requests = server.recorded().await.requests;
    server.terminate().await;
    requests
}

#[tokio::test]
async fn a_journal_is_carried_over_only_into_its_own_part_of_the_store() {
    let _turn = crate::TURN.lock().await;
    let mut files = Files::new(FLUSH);
    killed_after(&files, 10).await;
    files.space(Some("test"));
    assert_eq!(recorded(&files).await, 0, "another space");
    killed_after(&files, 3).await;
    files.space(None);
    assert_eq!(recorded(&files).await, 10);
    assert_eq!(recorded(&files).await, 10, "once");
    files.space(Some("test"));
    assert_eq!(recorded(&files).await, 3);
}

#[tokio::test]
async fn two_services_on_files_of_their_own_may_have_one_journal_path() {
    let _turn = crate::TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let flush = format!("{FLUSH}\njournal-path = {:?}", folder.path().join("shared"));
    let (one, other) = (Files::new(&flush), Files::new(&flush));
    const ROUNDS: u64 = 3;
    for _ in 0..ROUNDS {
        let (first, second) = (Server::start(&one), Server::start(&other));
        for server in [&first, &second, &first, &second] {
            serves(server, 10).await;
        }
        tokio::time::sleep(JOURNALLED).await;
        first.kill();
        second.kill();
    }
    assert_eq!((recorded(&one).await, recorded(&other).await), (20 * ROUNDS, 20 * ROUNDS));
}

#[tokio::test]
async fn a_journal_from_before_a_restore_is_not_carried_into_the_copy() {
    let _turn = crate::TURN.lock().await;
    let files = Files::new(FLUSH);
    killed_after(&files, 4).await;
    assert_eq!(recorded(&files).await, 4);
    killed_after(&files, 10).await;
    Gate::builder(files.service_file()).restore(SinceCopy::Free).await.unwrap();
    assert_eq!(recorded(&files).await, 4, "what the copy has");
    killed_after(&files, 2).await;
    assert_eq!(recorded(&files).await, 6, "and what its own processes have served");
}
