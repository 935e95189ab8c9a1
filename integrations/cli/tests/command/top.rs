//! `top`: of a service that runs, by the operator's routes over a socket, and of a store.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tallygate::directory::Role;
use tallygate::{Ask, Gate, GateBuilder};

use crate::home::{Home, Ran};

const PLANS: &str = r#"
default-plan = "free"
[meter.jobs]
[plan.free]
quota.jobs = "10/day"
[plan.pro]
extends = "free"
quota.jobs = "100/day"
"#;

/// A service on loopback: its admin routes, and an operator's token that may look.
pub(crate) struct Service {
    gate: Gate,
    address: SocketAddr,
    token: String,
    serving: tokio::task::JoinHandle<()>,
}

impl Service {
    /// With acme at its limit, which was refused once, and globex with half of its own.
    pub(crate) async fn begin() -> Self {
        Self::of("").await
    }

    /// The same, with more in the service file.
    async fn of(more: &str) -> Self {
        let service = format!("identify = []\n[store]\nkind = \"memory\"\n{more}");
        let gate = GateBuilder::from_text(&service).plans(PLANS).open().await.unwrap();
        for (id, plan, used) in [("acme", "free", 10), ("globex", "pro", 50)] {
            gate.directory().tenant(id).plan(plan).save().await.unwrap();
            let tenant = gate.tenant(id).await.unwrap();
            gate.admit(Ask::new(&tenant, "job").cost("jobs", used)).await.unwrap().settle();
        }
        let acme = gate.tenant("acme").await.unwrap();
        gate.admit(Ask::new(&acme, "job").cost("jobs", 1)).await.unwrap_err();
        let token = gate.directory().new_operator("kim", Role::Read).await.unwrap();
        let app = axum::Router::new().nest("/admin", tallygate_axum::admin_router(&gate));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { gate, address, token: token.expose().to_owned(), serving }
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/admin", self.address)
    }

    pub(crate) async fn end(self) {
        self.serving.abort();
        self.gate.close().await.unwrap();
    }
}

/// Runs the command while the service answers.
fn run(home: &Home, args: &[&str]) -> Ran {
    tokio::task::block_in_place(|| home.run(args))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reading_of_a_service_is_printed() {
    let service = Service::begin().await;
    let mut home = Home::empty();
    let url = service.url();
    let top = ["top", "--url", &url];
    assert!(run(&home, &top).fails(2).contains("--once prints one reading, --json a line"));
    let once = [&top[..], &["--once"]].concat();
    assert!(run(&home, &once).fails(5).contains("TALLYGATE_OPERATOR_TOKEN"));

    home.write("token", &format!("{}\n", service.token));
    let from_file = [&once[..], &["--token-file", "token"]].concat();
    let text = run(&home, &from_file).ok();
    home.set("TALLYGATE_OPERATOR_TOKEN", &service.token);
    let line = run(&home, &[&top[..], &["--json"]].concat()).json();
    assert_eq!(line["health"]["ready"], true);
    assert!(line["health"]["flush-lag-ms"].is_u64() && line["health"]["last-report"].is_null());
    assert_eq!((&line["in-use"], &line["source"]), (&json!(2), &json!(url)));
    let shares: Vec<_> =
        line["tenants"].as_array().unwrap().iter().map(|it| (&it["id"], &it["share"])).collect();
    assert_eq!(shares, [(&json!("acme"), &json!(1.0)), (&json!("globex"), &json!(0.5))]);
    assert_eq!(line["refusals"][0]["tenant"], "acme");
    assert_eq!(line["by_reason"].as_object().unwrap().values().collect::<Vec<_>>(), [&json!(1)]);
    assert!(line["outbox"].is_null() && !text.contains("outbox"), "nothing is billed\n{text}");
    let refused = "acme    quota-exceeded  jobs/day";
    for wanted in
        ["state        healthy", "in use       2", "acme    free  active  100%   10", refused]
    {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    assert!(!text.contains(&service.token));
    let limited: Value = run(&home, &[&top[..], &["--json", "--limit", "1"]].concat()).json();
    assert_eq!(limited["tenants"].as_array().unwrap().len(), 1);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said_without_the_token() {
    let service = Service::begin().await;
    let mut home = Home::empty();
    let token = "tgop_0000000000000000000000000000000000000000000000000";
    home.set("TALLYGATE_OPERATOR_TOKEN", token);
    let url = service.url();
    let elsewhere = url.replace("/admin", "/elsewhere");
    for (code, url, wanted) in [
        (5, url.as_str(), "the token is no operator's, or has ended"),
        (1, elsewhere.as_str(), "404 Not Found: the operator's routes are not here"),
        (1, "http://127.0.0.1:9/admin", "Connection refused"),
        (2, "http://10.0.0.1/admin", "unencrypted"),
        (2, "admin", "not the address of a service"),
    ] {
        let said = run(&home, &["top", "--url", url, "--once"]).fails(code);
        assert!(said.contains(wanted) && !said.contains(token), "{said}");
    }
    home.write("token", "two\nlines\n");
    let args = ["top", "--url", &url, "--once", "--token-file", "token"];
    assert!(run(&home, &args).fails(2).contains("characters that none has"));
    service.end().await;
}

/// It draws, filters, ends with `q` or by a signal, and leaves the terminal as it was.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn it_is_live_at_a_terminal_and_gives_it_back() {
    let service = Service::begin().await;
    let mut home = Home::empty();
    home.set("TALLYGATE_OPERATOR_TOKEN", &service.token);
    let url = service.url();
    let live = |line: &str, typed: &str| {
        let line =
            format!("stty rows 24 cols 80; stty -g >before; {line}; echo $? >code; stty -g >after");
        let ran = tokio::task::block_in_place(|| home.terminal(&line, typed));
        let file = |name: &str| std::fs::read_to_string(home.path(name)).unwrap();
        assert_eq!(file("before"), file("after"), "the terminal's modes");
        assert_eq!(file("code"), "0\n", "{}", ran.stdout);
        let (entered, left) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
        assert!(ran.stdout.contains(entered) && ran.stdout.contains(left), "{}", ran.stdout);
        ran.stdout
    };
    // A signal ends it while it is on the screen.
    let signalled = |env: &str| {
        let within = format!("echo $$ >pid; exec {env} tallygate top --url {url}");
        live(&format!("(sleep 5; kill -TERM $(cat pid)) & sh -c '{within}'"), "")
    };
    let coloured = ["\u{1b}[31", "\u{1b}[32", "\u{1b}[38;5;1", "\u{1b}[38;5;2"];
    for (env, in_colour) in [("env", true), ("env NO_COLOR=1", false)] {
        let drawn = signalled(env);
        for wanted in ["healthy", "acme", "100%", "globex", "refused:"] {
            assert!(drawn.contains(wanted), "{wanted}\n{drawn}");
        }
        assert_eq!(coloured.iter().any(|it| drawn.contains(it)), in_colour, "{drawn:?}");
        assert!(!drawn.contains(&service.token));
    }
    // Typed before it draws: the terminal keeps it.
    live(&format!("tallygate top --url {url}"), "s/acme\nq");
    service.end().await;
}

/// Of a service that bills the outbox is shown too, by the route of the operator.
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_of_a_service_that_bills_is_shown() {
    let sim = stripe_sim::Sim::start(stripe_sim::Settings::default()).await.unwrap();
    let mut home = Home::empty();
    home.write("key", "sk_test_x");
    let more = format!(
        "[stripe]\nkey = {{ file = {:?} }}\napi-base = {:?}\n",
        home.path("key"),
        sim.url()
    );
    let service = Service::of(&more).await;
    let url = service.url();
    home.set("TALLYGATE_OPERATOR_TOKEN", &service.token);
    let line = run(&home, &["top", "--url", &url, "--json"]).json();
    let none = json!({ "waiting": 0, "decide": 0, "oldest": null, "partial": false });
    assert_eq!(line["outbox"], none, "{line}");
    let text = run(&home, &["top", "--url", &url, "--once"]).ok();
    assert!(text.contains("outbox       none waits\n"), "{text}");
    service.end().await;
}

#[test]
fn a_store_is_read_without_a_service() {
    let home = Home::with_tenants();
    home.run(&["usage", "record", "acme", "requests", "900000", "--id", "e1"]).ok();
    let line = home.run(&["top", "--json"]).json();
    let tenants = line["tenants"].as_array().unwrap();
    let ids: Vec<_> = tenants.iter().map(|it| (&it["id"], &it["share"])).collect();
    assert_eq!(ids, [(&json!("acme"), &json!(0.9)), (&json!("globex"), &json!(0.0))]);
    assert!(line["health"].is_null() && line["source"] == "the store", "{line}");
    assert!(line["outbox"].is_null(), "nothing is billed\n{line}");
    let text = home.run(&["top", "--once", "--sort", "tenant", "--prefix", "gl"]).ok();
    assert!(text.contains("globex") && !text.contains("acme"), "{text}");
    let held = tokio::runtime::Runtime::new().unwrap();
    let gate = held.block_on(async {
        let service = format!("[store]\npath = {:?}\n", home.path("tallygate.redb"));
        let builder = GateBuilder::from_text(&service).work_only();
        builder.plans_file(home.path("plans.toml")).open().await.unwrap()
    });
    let said = home.run(&["top", "--once"]).fails(6);
    assert!(said.contains("--url http://localhost:3000/admin"), "{said}");
    held.block_on(gate.close()).unwrap();
}
