//! The program in a folder of its own, and the jobs there.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use test_support::examples::Home;
use test_support::processes::Process;
use test_support::waits;

/// Longest wait for jobs, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(90);

/// A folder with the example's files, and a queue.
pub(crate) struct Folder(Home);

impl Folder {
    pub(crate) fn new() -> Self {
        let home = Home::of(env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir(home.path("jobs")).unwrap();
        Self(home)
    }

    /// The same with other words in the plan file.
    pub(crate) fn with(from: &str, to: &str) -> Self {
        let folder = Self::new();
        folder.edit(from, to);
        folder
    }

    /// Replaces words of the plan file.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        self.0.edit_plans(from, to);
    }

    /// Puts a job into the queue, whole.
    pub(crate) fn put(&self, id: &str, job: &Value) {
        std::fs::write(self.0.path("new"), job.to_string()).unwrap();
        std::fs::rename(self.0.path("new"), self.0.path(&format!("jobs/{id}.json"))).unwrap();
    }

    /// The ids of the jobs in a folder: `jobs`, or that of an outcome.
    pub(crate) fn ids(&self, of: &str) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.0.path(of)) else { return Vec::new() };
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let ids = names.map(|name| name.trim_end_matches(".json").to_owned());
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, of: &str, jobs: usize) {
        let came = || (self.ids(of).len() >= jobs).then_some(());
        let came = waits::found_within(PATIENCE, came);
        assert!(came.is_some(), "never {jobs} jobs in {of}");
    }

    /// Messages of these jobs, of one tenant.
    pub(crate) fn messages(&self, of: &str, tenant: &str) -> u64 {
        let read = |id: String| -> Value {
            serde_json::from_str(&self.0.read(&format!("{of}/{id}.json"))).unwrap()
        };
        let jobs = self.ids(of).into_iter().map(read).filter(|job| job["tenant"] == tenant);
        jobs.map(|job| job["messages"].as_u64().unwrap()).sum()
    }

    pub(crate) fn start(&self) -> Process {
        Process::start(&mut self.program())
    }

    /// What the record shows of a meter, while no worker runs.
    pub(crate) fn meter(&self, tenant: &str, meter: &str) -> Value {
        let shown = self.program().args(["usage", tenant]).output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        let usage: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let meters = usage["meters"].as_array().unwrap();
        meters.iter().find(|it| it["name"] == meter).unwrap().clone()
    }

    /// How much of it is used. None is held.
    pub(crate) fn used(&self, tenant: &str, meter: &str) -> u64 {
        let meter = self.meter(tenant, meter);
        assert_eq!(meter["held"], 0, "{meter}");
        meter["used"].as_u64().unwrap()
    }

    fn program(&self) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_worker"));
        program.current_dir(self.0.folder()).env_remove("RUST_LOG");
        program
    }
}

/// A job of some messages.
pub(crate) fn job(tenant: &str, messages: u64, takes_ms: u64) -> Value {
    json!({ "tenant": tenant, "messages": messages, "to": "someone", "takes_ms": takes_ms })
}

/// Asks it to end, as platforms do, and waits for a good end.
#[track_caller]
pub(crate) fn end(mut process: Process) {
    process.signal("-TERM");
    assert!(process.ends_well());
}

/// Kills it.
pub(crate) fn kill(mut process: Process) {
    process.signal("-KILL");
    assert!(!process.ends_well());
}
