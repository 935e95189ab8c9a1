//! The task that writes the log, in batches, on a thread beside the runtime.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::file::LogFiles;
use super::{DecisionRecord, Losing, Unwritten};
use crate::config::DecisionsConfig;
use crate::task::Stop;
use crate::text_file::OffRuntime;

/// Records of one write. A write that is full is followed by the next at once.
const BATCH: usize = 1_024;

/// How long a record waits for others: about what a reader of the log lags behind, and short enough
/// that a flood of [`QUEUE`](super::QUEUE) in this time is 160,000 a second.
const EVERY: Duration = Duration::from_millis(50);

/// The files, and where they are written from. Behind a lock, since a write that the disk has not
/// answered goes on when it is no longer waited for.
pub(super) struct Files {
    files: Arc<Mutex<LogFiles>>,
    beside: OffRuntime,
}

/// Opens the files, and reads the refusals at their end.
pub(super) async fn open(config: DecisionsConfig) -> io::Result<(Files, Vec<DecisionRecord>)> {
    let beside = OffRuntime::default();
    let opened = beside.run(move || {
        let files = LogFiles::open(&config.file, config.max_bytes)?;
        let last = files.last_refusals();
        Ok::<_, io::Error>((files, last))
    });
    let (files, last) = opened.await??;
    Ok((Files { files: Arc::new(Mutex::new(files)), beside }, last))
}

/// Fails if the files could not be opened.
pub(super) async fn check(config: DecisionsConfig) -> io::Result<()> {
    OffRuntime::default().run(move || LogFiles::check(&config.file)).await?
}

/// Writes what comes until it is stopped, then what is in the queue.
pub(super) async fn write(
    files: Files,
    mut queue: mpsc::Receiver<Unwritten>,
    stop: Stop,
    losing: Arc<Losing>,
) {
    let mut stopped = std::pin::pin!(stop.signalled());
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            n = queue.recv_many(&mut batch, BATCH) => if n == 0 { return },
        }
        let is_full = batch.len() == BATCH;
        files.append(std::mem::take(&mut batch), &losing).await;
        if is_full {
            continue;
        }
        tokio::select! {
            biased;
            () = &mut stopped => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    queue.close();
    // Until each record that is being handed over is there.
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        files.append(std::mem::take(&mut batch), &losing).await;
    }
}

impl Files {
    /// Appends these, or counts them as lost.
    async fn append(&self, batch: Vec<Unwritten>, losing: &Losing) {
        let lines = batch.len();
        if lines == 0 {
            return;
        }
        let files = self.files.clone();
        let append = move || {
            let text = text_of(&batch);
            files.lock().unwrap_or_else(PoisonError::into_inner).append(&text)
        };
        match self.beside.run(append).await.and_then(|written| written) {
            Ok(()) => losing.is_over(),
            Err(error) => losing.lost(lines, "disk", &error),
        }
        losing.out_of_hand(lines as u64);
    }
}

/// A line for each.
fn text_of(batch: &[Unwritten]) -> Vec<u8> {
    let mut text = Vec::with_capacity(batch.len() * 512);
    for decision in batch {
        let begun = text.len();
        let written = match decision {
            Unwritten::Made(record) => serde_json::to_writer(&mut text, &**record),
            Unwritten::Sampled(of) => serde_json::to_writer(&mut text, &of.record()),
        };
        match written {
            Ok(()) => text.push(b'\n'),
            Err(_) => text.truncate(begun), // a record is always JSON
        }
    }
    text
}
