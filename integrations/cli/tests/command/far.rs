//! Commands while a service runs: two processes, one redb file. The service is this test's own
//! program, started again for [`a_service`] alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command};

use axum::Router;
use axum::routing::get;
use serde_json::Value;
use tallygate::Gate;
use tallygate::directory::Role;
use tallygate_axum::{GateLayer, admin_router, admin_socket};
use test_support::waits::until;

use crate::home::Home;
use crate::session::plays;

/// Says that this process is the service.
const ROLE: &str = "SERVICE_OF_A_TEST";
const SOCKET: &str = "admin.sock";

/// In the process that is started for it, a service: its API, the operator's routes and the admin
/// socket, until its standard input ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_service() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let gate = Gate::open("tallygate.toml").await.unwrap();
    let kim = gate.directory().new_operator("kim", Role::Write).await.unwrap();
    let ada = gate.directory().new_operator("ada", Role::Read).await.unwrap();
    let app = Router::new()
        .route("/v1/work", get(async || "done"))
        .layer(GateLayer::new(&gate))
        .nest("/admin", admin_router(&gate));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let socket = admin_socket(&gate, SOCKET).await.unwrap();
    println!("\nready {address} {} {}", kim.expose(), ada.expose());
    let ended = || drop(std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::task::spawn_blocking(ended).await.unwrap();
    socket.close().await;
    serving.abort();
    gate.close().await.unwrap();
}

/// That process. It ends when this is dropped, for then its standard input does.
pub(crate) struct Service {
    child: Child,
    /// What it prints: it ends with an error where that cannot be written.
    _printed: BufReader<ChildStdout>,
    address: String,
    write: String,
    read: String,
}

impl Service {
    pub(crate) fn begin(home: &Home) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "far::a_service", "--nocapture"]).env(ROLE, "1");
        let mut child = home.start_other(&mut command);
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        let mut lines = printed.by_ref().lines().map(Result::unwrap);
        let ready = lines.find(|line| line.starts_with("ready "));
        let ready = ready.expect("the service has ended");
        let words: Vec<String> = ready.split(' ').map(str::to_owned).collect();
        let [_, address, write, read] = <[String; 4]>::try_from(words).unwrap();
        Self { child, _printed: printed, address, write, read }
    }

    fn url(&self) -> String {
        format!("http://{}/admin", self.address)
    }

    pub(crate) fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The status of a call of the API with this key.
    fn call(&self, key: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let ask = "GET /v1/work HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
        write!(stream, "{ask}x-api-key: {key}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    }
}

/// A folder with a store in which globex has used 12 requests.
fn home() -> Home {
    let home = Home::empty();
    home.run(&["init"]).ok();
    home.run(&["tenant", "create", "globex", "--reason", "signed up"]).ok();
    home.run(&["usage", "record", "globex", "requests", "12", "--id", "e1"]).ok();
    home
}

fn session() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions/far.txt")
}

#[test]
fn over_the_store_a_session_prints_this() {
    plays(&home(), &session());
}

#[test]
fn over_the_url_of_a_service_it_prints_the_same() {
    let mut home = home();
    let service = Service::begin(&home);
    home.set("TALLYGATE_URL", &service.url());
    home.set("TALLYGATE_OPERATOR_TOKEN", &service.write);
    plays(&home, &session());
    service.end();
}

/// With a token, so that the history has the same actor.
#[test]
fn over_the_socket_of_a_service_it_prints_the_same() {
    let mut home = home();
    let service = Service::begin(&home);
    home.set("TALLYGATE_URL", &format!("unix:{SOCKET}"));
    home.set("TALLYGATE_OPERATOR_TOKEN", &service.write);
    plays(&home, &session());
    service.end();
}

/// The socket's owner needs no token, and the history names the user.
#[test]
fn at_the_socket_the_user_is_the_operator() {
    let home = home();
    let service = Service::begin(&home);
    let mode = std::fs::metadata(home.path(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let at = ["--url", "unix:admin.sock"];
    let run = |args: &[&str]| home.run(&[args, &at].concat());
    run(&["tenant", "suspend", "globex", "--yes", "--reason", "abuse"]).ok();
    run(&["key", "create", "globex"]).ok();
    let history = run(&["tenant", "history", "globex"]).ok();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(home.path(SOCKET)).unwrap());
    for wanted in ["suspended", "key k"] {
        let line = history.lines().find(|line| line.contains(wanted)).unwrap();
        assert!(line.contains(&format!("uid {uid}  happened")), "{history}");
    }
    let health = run(&["health"]).ok();
    assert!(health.starts_with("of           unix:admin.sock\nstate        healthy"), "{health}");
    assert_eq!(run(&["health", "--json"]).json()["ready"], true);
    // Without it the store is another's, and that is said with what to do.
    let said = home.run(&["tenant", "list"]).fails(6);
    assert!(said.contains("already open in another process") && said.contains("--url"), "{said}");
    service.end();
    assert!(!home.path(SOCKET).exists(), "it goes with its service");
    assert!(home.run(&["tenant", "show", "globex"]).ok().contains("suspended"));
}

#[test]
fn what_a_service_refuses_has_the_exit_code_of_its_kind() {
    let home = home();
    let service = Service::begin(&home);
    home.write("write", &service.write);
    home.write("read", &service.read);
    home.write("wrong", "tgop_0000000000000000000000000000000000000000000000000");
    home.write("file", "no socket");
    let (url, elsewhere) = (service.url(), format!("http://{}/elsewhere", service.address));
    let api = format!("http://{}/v1/work", service.address);
    let list = ["tenant", "list"];
    for (code, url, token, args, wanted) in [
        (5, &*url, "wrong", &list[..], "the token is no operator's"),
        (5, "unix:admin.sock", "wrong", &list, "the token is no operator's"),
        (5, &url, "read", &["tenant", "resume", "globex", "--reason", "x"], "may look"),
        (5, &url, "read", &["tenant", "resume", "globex", "--reason", "x", "--dry-run"], "look"),
        (5, &url, "read", &["key", "create", "globex"], "this token may look, and not change"),
        (1, "unix:admin.sock:/elsewhere", "write", &list, "the operator's routes are not here"),
        (5, &elsewhere, "write", &list, "the operator's routes are not here, or"),
        (5, &api, "write", &list, "the operator's routes are not here, or"),
        (1, "http://127.0.0.1:9/admin", "write", &list, "Connection refused"),
        (1, "unix:nothing.sock", "write", &list, "No such file"),
        (1, "unix:file", "write", &list, "unix:file/tenants"),
        (2, "unix:", "write", &list, "names no socket"),
        (2, "http://10.0.0.1/admin", "write", &list, "unencrypted"),
        (2, &url, "write", &["tenant", "resume", "globex"], "write --reason"),
        (2, &url, "write", &["tenant", "resume", "globex", "--actor", "lee"], "leave --actor out"),
        (2, &url, "write", &["key", "create", "globex", "--actor", "lee"], "leave --actor out"),
    ] {
        let args = [args, &["--url", url, "--token-file", token]].concat();
        let said = home.run(&args).fails(code);
        assert!(said.contains(wanted) && !said.contains("tgop_"), "{args:?}\n{said}");
    }
    assert!(home.run(&["tenant", "list", "--url", &url]).fails(5).contains("TALLYGATE_OPERATOR"));
    let as_reader = ["tenant", "list", "--url", &url, "--token-file", "read"];
    assert!(home.run(&as_reader).ok().contains("globex"));
    service.end();
}

/// A host's own answer to every path, or a proxy's, is no change that was made.
#[test]
fn another_200_is_not_taken_for_the_routes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/admin", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4_096]);
            let body = r#"{"tenants":[],"keys":[],"next":"x","read":0,"id":"k1"}"#;
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}");
            let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes());
        }
    });
    let home = home();
    home.write("token", "tgop_0000000000000000000000000000000000000000000000000");
    for args in [
        &["key", "revoke", "globex", "k1", "--yes"][..],
        &["tenant", "suspend", "globex", "--yes", "--reason", "x"],
        &["tenant", "list"],
        &["key", "create", "globex"],
        &["quota", "reset", "globex", "requests/month", "--reason", "x"],
    ] {
        let said = home.run(&[args, &["--url", &url, "--token-file", "token"]].concat()).fails(1);
        assert!(said.contains("the operator's routes are not here"), "{args:?}\n{said}");
    }
}

/// Over the service and over its store: nothing is said to be done that is not.
#[test]
fn an_end_of_a_key_is_not_moved_to_a_later_instant() {
    let home = home();
    let service = Service::begin(&home);
    let at = ["--url", "unix:admin.sock"];
    let made =
        home.run(&[&["key", "create", "globex", "--expires", "1h", "--json"], &at[..]].concat());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let expire = |when: &str, more: &[&str]| {
        home.run(&[&["key", "expire", "globex", &id, "--at", when], more].concat())
    };
    let check = |at: &[&str]| {
        let said = expire("30d", &[at, &["--dry-run"]].concat()).ok();
        assert!(said.contains("stays: it has ended, or ends before that"), "{said}");
        assert!(expire("30d", at).stderr.contains("nothing changed"));
    };
    check(&at);
    assert!(!expire("30min", &at).stderr.contains("nothing changed"));
    service.end();
    check(&[]);
    assert!(!expire("5min", &[]).stderr.contains("nothing changed"));
    home.run(&["key", "revoke", "globex", &id, "--yes"]).ok();
    check(&[]);
}

/// One that has leaked ends while the service has the store.
#[test]
fn an_operators_token_is_revoked_over_the_service() {
    let mut home = home();
    let service = Service::begin(&home);
    home.set("TALLYGATE_URL", &service.url());
    home.set("TALLYGATE_OPERATOR_TOKEN", &service.write);
    let listed = home.run(&["operator", "list", "--json"]).ok();
    let all: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ada = all.iter().find(|it| it["name"] == "ada").unwrap();
    assert_eq!((&ada["role"], &ada["state"]), (&"read".into(), &"active".into()), "{listed}");
    let id = ada["id"].as_str().unwrap();
    let revoke = ["operator", "revoke", id, "--yes"];
    let would = home.run(&[&revoke[..], &["--dry-run"]].concat()).ok();
    assert_eq!(would, format!("token {id} of ada revoked\n"));
    assert!(home.run(&[&revoke[..], &["--actor", "lee"]].concat()).fails(2).contains("--actor"));
    assert_eq!(home.run(&revoke).ok(), format!("{id}\n"));
    let table = home.run(&["operator", "list"]).ok();
    let row = table.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(row.contains("revoked") && row.ends_with("no end"), "{table}");
    let history = home.run(&["operator", "history"]).ok();
    let last = history.lines().last().unwrap();
    assert!(last.contains("kim") && last.contains(&format!("key {id} revoked")), "{history}");
    home.run(&["operator", "revoke", "k0000000000000000", "--yes"]).fails(4);
    home.set("TALLYGATE_OPERATOR_TOKEN", &service.read);
    home.run(&["operator", "list"]).fails(5);
    service.end();
}

/// Each names what to do, and does nothing; also where the environment names the service.
#[test]
fn a_command_without_a_route_says_so() {
    let mut home = home();
    home.write("tenants.csv", "tenant\ninitech\n");
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    home.set("TALLYGATE_URL", "unix:admin.sock");
    for args in [
        &["usage", "record", "globex", "requests", "1", "--id", "e2"][..],
        &["usage", "export"],
        &["key", "import-sha256", "globex", hash],
        &["operator", "create", "lee"],
        &["import", "csv", "tenants.csv"],
        &["report"],
        &["audit"],
        &["outbox", "list"],
        &["invoices", "globex"],
        &["stripe", "verify"],
        &["event", "apply", "--file", "tenants.csv"],
        &["dlq", "list"],
        &["alerts", "list"],
        &["doctor"],
        &["backup", "b"],
        &["restore", "--yes"],
    ] {
        let said = home.run(args).fails(2);
        assert!(said.contains("has no route of a service\nhelp: "), "{args:?}\n{said}");
        // An empty address is the store again.
        let ran = home.run(&[args, &["--url", ""]].concat());
        assert!(!ran.stderr.contains("has no route"), "{args:?}\n{}", ran.stderr);
    }
    // What needs neither store nor service is not kept by the environment, only by the option.
    for args in [&["plans", "check"][..], &["env"], &["completions", "bash"]] {
        home.run(args).ok();
        let said = home.run(&[args, &["--url", "unix:admin.sock"]].concat()).fails(2);
        assert!(said.contains("leave --url out"), "{said}");
    }
    assert!(home.run(&["health", "--url", ""]).fails(2).contains("doctor"));
    let stray = home.run(&["tenant", "list", "--url", "", "--token-file", "x"]);
    assert!(stray.fails(2).contains("write --url too"));
}

/// The log has what the service remembers.
#[test]
fn refusals_of_a_service_are_those_of_its_log() {
    let home = home();
    let file = std::fs::read_to_string(home.path("tallygate.toml")).unwrap();
    home.write("tallygate.toml", &format!("{file}\n[decisions]\n"));
    let service = Service::begin(&home);
    let at = ["--url", "unix:admin.sock"];
    let key = home.run(&[&["key", "create", "globex"][..], &at].concat()).ok();
    let refused = (0..8).filter(|_| service.call(key.trim()) == "429").count();
    assert!(refused >= 2, "{refused}");
    for more in [&[][..], &["--json"], &["--limit", "1"]] {
        let args = [&["tenant", "refusals", "globex"][..], more].concat();
        let of_service = home.run(&[&args[..], &at].concat()).ok();
        assert!(of_service.contains("quota-exceeded"), "{of_service}");
        // The service's log is written beside its requests.
        until("the log says the same", || home.run(&args).ok() == of_service);
    }
    let log = [&["tenant", "refusals", "globex", "--log", "decisions.ndjson"][..], &at].concat();
    assert!(home.run(&log).fails(2).contains("leave --url out"));
    service.end();
}

/// A service that was killed leaves its socket, which answers nothing and is taken by the next.
#[test]
fn a_socket_that_is_left_behind_is_taken_over() {
    let home = home();
    let list = ["tenant", "list", "--url", "unix:admin.sock"];
    let service = Service::begin(&home);
    home.run(&list).ok();
    service.kill();
    assert!(home.path(SOCKET).exists());
    assert!(home.run(&list).fails(1).contains("Connection refused"));
    let service = Service::begin(&home);
    assert!(home.run(&list).ok().contains("globex"));
    service.end();
    assert!(!home.path(SOCKET).exists());
}
