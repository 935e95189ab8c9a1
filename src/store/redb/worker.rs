//! The threads of the store. Two of them serve: each takes the queued jobs, does them in one
//! transaction, answers.
//!
//! A thread ends when every sender of its queue is gone and the queue is empty. It drops the file
//! before it drops `alive`, so that a caller waiting for `alive` can reopen the file.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use tokio::sync::{mpsc, watch};

use super::file::StoreFile;
use super::{BATCH_MAX, LOOK_EVERY, ReadJob, WriteJob};

/// The writer: group commit.
pub(super) fn write(
    file: Arc<StoreFile>,
    mut queue: mpsc::Receiver<WriteJob>,
    alive: Arc<watch::Sender<()>>,
) {
    let mut batch = Vec::new();
    while queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        let (writes, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|WriteJob(write, answer)| (write, answer)).unzip();
        for (answer, result) in answers.into_iter().zip(file.write(&writes)) {
            // The caller may be gone: the write stands regardless.
            let _ = answer.send(result);
        }
    }
    drop(file);
    drop(alive);
}

/// Checks for the file until the store is closed, even without calls: losses are logged and show in
/// the metrics.
pub(super) fn look(file: Arc<StoreFile>, ends: &Receiver<()>, alive: Arc<watch::Sender<()>>) {
    while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(LOOK_EVERY) {
        let _ = file.look(); // it logs by itself
    }
    drop(file);
    drop(alive);
}

/// The reader: one snapshot for all waiting jobs. It is taken after the calls came, so it includes
/// every write that was answered before one of them began.
pub(super) fn read(
    file: Arc<StoreFile>,
    mut queue: mpsc::Receiver<ReadJob>,
    alive: Arc<watch::Sender<()>>,
) {
    let mut batch = Vec::new();
    while queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        file.read(|snapshot| {
            for job in batch.drain(..) {
                let snapshot = snapshot.clone();
                match job {
                    ReadJob::Read(key, answer) => {
                        let _ = answer.send(snapshot.and_then(|snapshot| snapshot.item(&key)));
                    }
                    ReadJob::Query(query, answer) => {
                        let _ = answer.send(snapshot.and_then(|snapshot| snapshot.page(query)));
                    }
                    ReadJob::Expired(now_ms, place, answer) => {
                        let found = snapshot.and_then(|snapshot| snapshot.expired(now_ms, place));
                        let _ = answer.send(found);
                    }
                }
            }
        });
    }
    drop(file);
    drop(alive);
}
