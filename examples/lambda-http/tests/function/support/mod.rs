//! A function under the emulator or on a Managed Instance, and its table as a test sees it: of
//! `lambda-http`, and of `lambda-ingest`, which includes this file.

#![allow(dead_code, reason = "each of the two uses its part")]

mod proxy;
pub(crate) mod runtime_api;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use proxy::Proxy;
use runtime_api::RuntimeApi;
use serde_json::Value;
use tallygate::store::DynamoDb;
use tallygate::testing;
use test_support::examples::Home;
use test_support::gates::ByHeader;
use test_support::processes::{Process, signal};
use test_support::{dynamodb, http, waits};

/// The function whose package includes this file.
pub(crate) const PROGRAM: &str =
    match (option_env!("CARGO_BIN_EXE_lambda-http"), option_env!("CARGO_BIN_EXE_lambda-ingest")) {
        (Some(path), _) | (None, Some(path)) => path,
        (None, None) => panic!("only these two include this file"),
    };
const PEPPER: &str = "a pepper for tests, of 32 bytes or more";

/// The service file of the gate that looks at the table.
const SERVICE: &str = r#"
    [store]
    kind = "memory"             # stands back behind the one that is handed in
    [[identify]]
    claim = "tenant"
    [flush]
    mode = "fast"
"#;

/// A table with the demo's tenants, and the example's files beside it.
pub(crate) struct Table {
    name: String,
    home: Home,
    proxy: Proxy,
    endpoint: String,
    runtime: tokio::runtime::Runtime,
}

/// A `bootstrap` under the emulator. Killed when dropped.
pub(crate) struct Function {
    emulator: Child,
    address: String,
    log: PathBuf,
}

/// What the front door would send on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) took: Duration,
    pub(crate) event: Value,
}

impl Table {
    /// A new one, with these words of the plan file replaced.
    pub(crate) fn new(plans: &[(&str, &str)]) -> Result<Self, String> {
        let server = dynamodb_local::shared()?;
        let home = Home::of(env!("CARGO_MANIFEST_DIR"));
        for (from, to) in plans {
            home.edit_plans(from, to);
        }
        static TABLES: AtomicU32 = AtomicU32::new(0);
        let name = format!("emulated-{}", TABLES.fetch_add(1, Ordering::Relaxed));
        let endpoint = server.endpoint().to_owned();
        let proxy = Proxy::before(&endpoint);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let table = Self { name, home, proxy, endpoint, runtime };
        table.run(&["--seed"]);
        Ok(table)
    }

    /// From now on what the table answers is late by so much, for functions.
    pub(crate) fn delay(&self, by: Duration) {
        self.proxy.delay(by);
    }

    /// From now on the table does not answer functions at all, or does so again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.proxy.cut(is_cut);
    }

    /// Waits until the table says that the tenant has used so many requests: read by a gate that
    /// knows nothing but the table.
    #[track_caller]
    pub(crate) fn until_used(&self, tenant: &str, requests: u64) {
        waits::until(&format!("{tenant} has used {requests}"), || {
            let used = self.used(tenant, "requests");
            assert!(used <= requests, "{tenant} has used {used}, more than {requests}");
            used == requests
        });
    }

    /// What the table says is used of a meter.
    pub(crate) fn used(&self, tenant: &str, meter: &str) -> u64 {
        self.runtime.block_on(self.read_used(tenant, meter))
    }

    /// Runs the function's program with these arguments, and returns what it prints.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let ran = self.command(PROGRAM).args(args).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    async fn read_used(&self, tenant: &str, meter: &str) -> u64 {
        let store = DynamoDb::new(dynamodb::client(&self.endpoint), self.name.clone());
        let plans = self.home.read("plans.toml");
        let builder = tallygate::GateBuilder::from_text(SERVICE).plans(&plans).store(store);
        let gate = builder.identify(ByHeader).open().await.unwrap();
        let who = testing::identified(&gate, tenant).await;
        let usage = gate.usage_reply(&who, None).await;
        gate.close().await.unwrap();
        let usage: Value = serde_json::from_slice(&usage.body).unwrap();
        let meters = usage["meters"].as_array().unwrap();
        meters.iter().find(|m| m["name"] == meter).unwrap()["used"].as_u64().unwrap()
    }

    /// A program with the environment that a function on this table has.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.home.folder())
            .envs(dynamodb::env(self.proxy.endpoint()))
            .env("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true")
            .env("TALLYGATE_PEPPER", PEPPER)
            .env("TALLYGATE__STORE__TABLE", &self.name);
        command
    }
}

impl Function {
    pub(crate) fn start(table: &Table) -> Self {
        let (invoke, api) = (http::free_port(), http::free_port());
        let address = format!("127.0.0.1:{invoke}");
        let log = table.home.path(&format!("emulator.{invoke}.log"));
        let output = std::fs::File::create(&log).unwrap();
        let emulator = table
            .command(emulator().unwrap().to_str().unwrap())
            .args(["--runtime-interface-emulator-address", &address])
            .args(["--runtime-api-address", &format!("127.0.0.1:{api}")])
            .arg(PROGRAM)
            .env("AWS_LAMBDA_FUNCTION_NAME", "lambda-http")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_FUNCTION_TIMEOUT", "20")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let function = Self { emulator, address, log };
        function.until("the emulator listens", |f| TcpStream::connect(&f.address).is_ok());
        function
    }

    /// One invocation. A table that has just begun may be slower than a request waits for its
    /// units: then the answer says to try again, and that nothing was counted.
    pub(crate) fn invoke_patiently(&self, event: &str) -> Answer {
        (0..20).map(|_| self.invoke(event)).find(|answer| answer.status() != 503).unwrap()
    }

    /// One invocation.
    pub(crate) fn invoke(&self, event: &str) -> Answer {
        let begun = Instant::now();
        let path = "/2015-03-31/functions/function/invocations";
        let answer = http::send(&self.address, "POST", path, &[], event).unwrap_or_default();
        let took = begun.elapsed();
        let event = serde_json::from_str(&answer.body);
        Answer { took, event: event.unwrap_or_else(|e| panic!("{e}: {answer:?}\n{}", self.log())) }
    }

    /// Invokes it until it is refused, and says how often it was not.
    pub(crate) fn admitted(&self, event: &str) -> u64 {
        let mut admitted = 0;
        loop {
            let answer = self.invoke_patiently(event);
            match answer.status() {
                200 => admitted += 1,
                429 => return admitted,
                _ => panic!("{answer:?}\n{}", self.log()),
            }
        }
    }

    /// As Lambda freezes a sandbox that has nothing to do.
    pub(crate) fn freeze(&self) {
        signal(self.bootstrap(), "-STOP");
    }

    pub(crate) fn thaw(&self) {
        signal(self.bootstrap(), "-CONT");
    }

    /// As Lambda ends a sandbox, and waits for its end.
    pub(crate) fn terminate(&self) {
        let bootstrap = self.bootstrap();
        signal(bootstrap, "-TERM");
        self.until("the bootstrap has ended", |_| {
            let state = std::fs::read_to_string(format!("/proc/{bootstrap}/stat"));
            state.map_or(true, |state| state.contains(") Z "))
        });
    }

    fn bootstrap(&self) -> u32 {
        self.child().expect("it runs since its first invocation")
    }

    fn child(&self) -> Option<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.emulator.id())).ok()?;
        let children = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        children.collect::<String>().split_whitespace().next()?.parse().ok()
    }

    /// How long the runtime took from the last event until it had posted its answer, as the
    /// emulator tells. (It holds the answer back until the extension is done, which Lambda does
    /// not.)
    pub(crate) fn answered_in(&self) -> Duration {
        let log = self.log();
        let done = log.lines().rev().find(|line| line.contains("INVOKE RTDONE")).unwrap();
        let ms = done.rsplit("duration: ").next().unwrap().split("ms").next().unwrap();
        Duration::from_secs_f64(ms.parse::<f64>().unwrap() / 1_000.0)
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let is = waits::found_within(waits::PATIENCE, || is(self).then_some(()));
        assert!(is.is_some(), "never: {what}\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // The bootstrap outlives an emulator that is killed, so it goes first.
        if let Some(id) = self.child() {
            signal(id, "-KILL");
        }
        // It may have ended already.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u64 {
        self.event["statusCode"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub(crate) fn body(&self) -> Value {
        serde_json::from_str(self.event["body"].as_str().unwrap()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let header = &self.event["headers"][name];
        header.as_str().unwrap_or_default().to_owned()
    }
}

/// A `bootstrap` on a Managed Instance: killed when dropped.
pub(crate) struct Instance {
    process: Process,
    pub(crate) api: RuntimeApi,
}

impl Instance {
    /// One that takes so many invocations at once.
    pub(crate) fn start(table: &Table, at_once: u32) -> Self {
        Self::run(&mut table.command(PROGRAM), at_once)
    }

    /// One that streams its answers.
    pub(crate) fn streaming(table: &Table, at_once: u32) -> Self {
        Self::run(table.command(PROGRAM).env("RESPONSE_STREAM", "1"), at_once)
    }

    fn run(program: &mut Command, at_once: u32) -> Self {
        let api = RuntimeApi::managed();
        program
            .env("AWS_LAMBDA_RUNTIME_API", api.address())
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "lambda-managed-instances")
            .env("AWS_LAMBDA_MAX_CONCURRENCY", at_once.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "lambda-http")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2048")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .stdin(Stdio::null());
        Self { process: Process::start(program), api }
    }

    /// Tells it to end.
    pub(crate) fn terminate(&self) {
        self.process.signal("-TERM");
    }

    /// Waits for its end, and says whether it was a good one.
    pub(crate) fn ended_well(&mut self) -> bool {
        self.process.ends_well()
    }
}

/// The emulator, where `tests/servers/get-lambda-rie` has put it.
pub(crate) fn emulator() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("target/servers/bin/aws-lambda-rie");
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => Err("Lambda emulator: run tests/servers/get-lambda-rie".into()),
    }
}
