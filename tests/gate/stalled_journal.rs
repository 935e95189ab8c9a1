//! A local journal whose disk does not answer.

use std::io::Read;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use tallygate::{Ask, GateBuilder};

const PLANS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"1000/day\"\n";

/// The journal's segments are pipes without a reader: opening one does not return. One thread runs
/// the whole server.
#[test]
fn a_journal_whose_disk_stalls_keeps_neither_requests_nor_the_end_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    // Which of them it writes first depends on the flushes before.
    let segments: Vec<_> = (0..10).map(|n| folder.path().join(format!("j.{n}"))).collect();
    let service = format!(
        "[store]\nkind = \"memory\"\n[[identify]]\nclaim = \"tenant\"\n\
         [flush]\nmode = \"journal\"\njournal-path = {path:?}\n"
    );
    let (done, ended) = mpsc::channel();
    let pipes = segments.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gate = GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap();
            assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
            gate.directory().tenant("acme").note("test").save().await.unwrap();
            let acme = gate.tenant("acme").await.unwrap();
            for _ in 0..30 {
                let ask = Ask::new(&acme, "job").cost("requests", 1);
                gate.admit(ask).await.unwrap().settle();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            gate.close_within(Duration::from_secs(3)).await.unwrap();
        });
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(20));
    // The disk answers again, and writing goes on where it was.
    let (read, head) = mpsc::channel();
    for segment in segments {
        let read = read.clone();
        std::thread::spawn(move || {
            let mut head = [0; 6];
            // Only one of the segments is written to.
            let file = std::fs::File::open(&segment);
            if file.and_then(|mut file| file.read_exact(&mut head)).is_ok() {
                let _ = read.send(head);
            }
        });
    }
    assert_eq!(&head.recv_timeout(Duration::from_secs(20)).unwrap(), b"tgjrnl");
    assert!(ended.is_ok(), "it waits for the disk");
}
