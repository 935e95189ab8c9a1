//! The server's process: started on files that outlive it, asked over HTTP, ended in two ways.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use test_support::processes::Process;

use crate::load::{Connection, SHARED};

/// Units the tenant has: more than all rounds use, less than the last one can.
pub(crate) const LIMIT: u64 = 12_000;

/// Sets the part of the store.
const SPACE: &str = "TALLYGATE__STORE__SPACE";

/// A plan file with this in its one plan.
pub(crate) fn plans(limits: &str) -> String {
    format!("default-plan = \"free\"\n[meter.tokens]\n[plan.free]\n{limits}\n")
}

/// What the processes of one service are started with.
pub(crate) struct Files {
    folder: TempDir,
    program: &'static str,
    env: Vec<(&'static str, String)>,
}

/// One process.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
}

/// What the ledger shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
}

impl Files {
    /// Of one process on a file. `flush` is the lines of that table of the service file.
    pub(crate) fn new(flush: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("kind = \"redb\"\npath = {:?}", folder.path().join("service.redb"));
        Self::write(folder, &store, flush, &plans(&format!("quota.requests = \"{LIMIT}/month\"")))
    }

    /// The same with these plans, and destinations of alerts.
    pub(crate) fn notifying(flush: &str, plans: &str, notify: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("kind = \"redb\"\npath = {:?}", folder.path().join("service.redb"));
        let mut files = Self::write(folder, &store, &format!("{flush}\n{notify}"), plans);
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
        files.env = vec![("CRASH_SECRET", secret)];
        files
    }

    /// Of several processes on this table, which is there, at a DynamoDB.
    pub(crate) fn on_table(endpoint: &str, table: &str, flush: &str, plans: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("tallygate.journal");
        let store = format!("kind = \"dynamodb\"\ntable = {table:?}");
        let flush = format!("journal-path = {journal:?}\n{flush}");
        let mut files = Self::write(folder, &store, &flush, plans);
        files.env = vec![("AWS_ENDPOINT_URL_DYNAMODB", endpoint.to_owned())];
        files
    }

    /// Of several processes that synchronise counters on this table once a second.
    pub(crate) fn periodic(endpoint: &str, table: &str, limit: u64) -> Self {
        let env = vec![
            ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.to_owned()),
            ("PERIODIC_TABLE", table.to_owned()),
            ("PERIODIC_LIMIT", limit.to_string()),
        ];
        let folder = tempfile::tempdir().unwrap();
        Self { folder, program: env!("CARGO_BIN_EXE_periodic-server"), env }
    }

    fn write(folder: TempDir, store: &str, flush: &str, plans: &str) -> Self {
        let plans_file = folder.path().join("plans.toml");
        let service = format!(
            "[store]\n{store}\n\
             [plans]\nfile = {plans_file:?}\n\
             [[identify]]\nheader = \"x-tenant\"\n\
             [identity]\nunknown = \"create\"\n\
             [proxy]\ntrust = [\"127.0.0.1\"]\n\
             [flush]\n{flush}\n",
        );
        std::fs::write(folder.path().join("tallygate.toml"), service).unwrap();
        std::fs::write(plans_file, plans).unwrap();
        Self { folder, program: env!("CARGO_BIN_EXE_crash-server"), env: Vec::new() }
    }

    /// The part of the store that the next process is given; `None`: that of the service file.
    pub(crate) fn space(&mut self, name: Option<&str>) {
        self.env.retain(|(known, _)| *known != SPACE);
        self.env.extend(name.map(|name| (SPACE, name.to_owned())));
    }

    pub(crate) fn service_file(&self) -> PathBuf {
        self.folder.path().join("tallygate.toml")
    }
}

impl Server {
    /// Starts a process on these files; it serves when this returns.
    pub(crate) fn start(files: &Files) -> Self {
        Self::start_ahead(files, 0)
    }

    /// The same with its clock so many seconds ahead.
    pub(crate) fn start_ahead(files: &Files, seconds: u64) -> Self {
        let mut program = Command::new(files.program);
        program.arg(files.service_file()).envs(files.env.iter().map(|(name, value)| (name, value)));
        program.env("CRASH_CLOCK_AHEAD", seconds.to_string());
        let process = Process::start(&mut program);
        let address = process.first_line().parse().expect("it prints its address");
        Self { process, address }
    }

    /// What the ledger shows. Ask a process that has served nothing yet: then it is the store's
    /// word.
    pub(crate) async fn recorded(&self) -> Recorded {
        self.recorded_of(SHARED).await
    }

    /// The same for another tenant.
    pub(crate) async fn recorded_of(&self, tenant: &'static str) -> Recorded {
        let mut connection = Connection::open(self.address).await.unwrap().of(tenant);
        let (status, body) = connection.call("GET", "/usage").await.unwrap();
        assert_eq!(status, 200);
        let report: Value = serde_json::from_slice(&body).unwrap();
        let used = |name: &str| {
            let meters = report["meters"].as_array().unwrap();
            let meter = meters.iter().find(|meter| meter["name"] == name).unwrap();
            meter["used"].as_u64().unwrap()
        };
        Recorded { requests: used("requests"), tokens: used("tokens") }
    }

    /// SIGKILL.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// SIGTERM, and what a platform allows: it drains and ends by itself, without an error.
    pub(crate) async fn terminate(mut self) {
        self.process.signal("-TERM");
        let ended = tokio::task::spawn_blocking(move || self.process.ends_well());
        assert!(ended.await.unwrap());
    }
}
