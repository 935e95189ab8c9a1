//! A queue of files: `jobs/ID.json` is a job, until it is moved to the folder of its outcome. A job
//! whose worker dies is still there, and is delivered again: at least once, as from any queue.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::fs;

/// A job's file.
#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    /// Its file's name: the same whenever it is delivered.
    #[serde(skip)]
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) messages: u64,
    /// `nowhere` cannot be delivered to.
    pub(crate) to: String,
    /// How long that takes.
    #[serde(default)]
    pub(crate) takes_ms: u64,
}

/// Where a job goes that is out of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Out {
    /// Delivered and charged.
    Done,
    /// Not delivered, and not charged.
    Failed,
    /// Refused by its tenant's plan, where waiting does not help.
    Refused,
}

#[derive(Clone, Debug)]
pub(crate) struct Queue(PathBuf);

impl Queue {
    pub(crate) async fn open(home: impl AsRef<Path>) -> io::Result<Self> {
        for folder in ["jobs", "done", "failed", "refused", "delivered"] {
            fs::create_dir_all(home.as_ref().join(folder)).await?;
        }
        Ok(Self(home.as_ref().to_owned()))
    }

    /// The ids of all jobs that wait, in their order.
    pub(crate) async fn ids(&self) -> io::Result<Vec<String>> {
        let (mut ids, mut files) = (Vec::new(), fs::read_dir(self.0.join("jobs")).await?);
        while let Some(file) = files.next_entry().await? {
            let name = file.file_name();
            ids.extend(name.to_str().and_then(|it| it.strip_suffix(".json")).map(str::to_owned));
        }
        ids.sort();
        Ok(ids)
    }

    pub(crate) async fn read(&self, id: &str) -> io::Result<Job> {
        let text = fs::read(self.file("jobs", id)).await?;
        let job: Job = serde_json::from_slice(&text)?;
        Ok(Job { id: id.to_owned(), ..job })
    }

    pub(crate) async fn take_out(&self, id: &str, out: Out) -> io::Result<()> {
        let folder = match out {
            Out::Done => "done",
            Out::Failed => "failed",
            Out::Refused => "refused",
        };
        fs::rename(self.file("jobs", id), self.file(folder, id)).await
    }

    /// Delivers a job's messages; whether they could be.
    pub(crate) async fn deliver(&self, job: &Job) -> io::Result<bool> {
        tokio::time::sleep(Duration::from_millis(job.takes_ms)).await;
        if job.to == "nowhere" {
            return Ok(false);
        }
        // By its id, so that a second delivery changes nothing.
        fs::write(self.0.join("delivered").join(&job.id), &job.to).await?;
        Ok(true)
    }

    fn file(&self, folder: &str, id: &str) -> PathBuf {
        self.0.join(folder).join(format!("{id}.json"))
    }
}
