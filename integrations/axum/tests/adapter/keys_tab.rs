//! The tab for keys of the usage page in a real browser, over a real server on loopback. Pictures
//! go to `target/page/console/`, as the console's do. Without Chromium the tests are skipped by
//! name, or fail if `CI=true`.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::{get, post};
use serde_json::json;
use tallygate::directory::{KeyOptions, KeyState};
use tallygate::store::Memory;
use tallygate::testing::Faulty;
use tallygate::{Gate, GateBuilder};
use tallygate_axum::{GateLayer, usage_router_with_keys};
use test_support::browser::Browser;
use test_support::http;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::console::keyboard::tab_to;
use crate::console::looks::every_size;

const PLANS: &str = r#"
    default-plan = "free"
    [route.work]
    match = "POST /work"
    needs-permission = "items:write"
    [route.items]
    match = "GET /items"
    needs-permission = "items:read"
    [plan.free]
    quota.requests = "1k/month"
"#;

/// A service whose tenant `acme` has a key of two permissions, `laptop`, and one of three, `admin`.
struct Bed {
    runtime: Runtime,
    gate: Gate,
    address: SocketAddr,
    store: Faulty,
    laptop: String,
}

impl Bed {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let store = Faulty::scripted(Memory::new(), []);
        let pepper = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(pepper.path(), "p".repeat(32)).unwrap();
        let (gate, address, laptop) = runtime.block_on(async {
            let service = format!(
                "store.kind = \"memory\"\nflush.mode = \"fast\"\n[[identify]]\n\
                 api-key = \"authorization\"\npepper = [{{ id = \"1\", file = {:?} }}]",
                pepper.path(),
            );
            let builder = GateBuilder::from_text(&service).plans(PLANS).store(store.clone());
            let gate = builder.open().await.unwrap();
            let acme = gate.directory().tenant("acme").save().await.unwrap();
            let laptop = KeyOptions::new("laptop").permission("items:read");
            let laptop = laptop.permission("items:write");
            let admin = KeyOptions::new("admin").permission("items:read").permission("users:write");
            acme.new_key(admin).await.unwrap();
            let laptop = acme.new_key(laptop).await.unwrap().expose().to_owned();
            let app = Router::new()
                .route("/work", post(async || "done\n"))
                .route("/items", get(async || "none\n"))
                .layer(GateLayer::new(&gate))
                .merge(usage_router_with_keys(&gate));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            // It ends with the runtime.
            tokio::spawn(async move { axum::serve(listener, app).await });
            (gate, address, laptop)
        });
        Self { runtime, gate, address, store, laptop }
    }

    /// Opens the tab with the key `laptop`.
    fn open(&self, browser: &mut Browser) {
        browser.go(&format!("http://{}/usage-page#keys", self.address));
        browser.until("document.activeElement?.id === 'key'");
        browser.types(&self.laptop);
        browser.presses("Enter");
        browser.reads("laptop (this one)");
    }

    fn status(&self, method: &str, path: &str, key: &str) -> u16 {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        http::send(self.address, method, path, &headers, "").unwrap().status
    }

    /// How many keys of `acme` with this name work.
    fn working(&self, name: &str) -> usize {
        self.runtime.block_on(async {
            let acme = self.gate.directory().find("acme").await.unwrap().unwrap();
            let keys = acme.keys().await.unwrap();
            keys.iter().filter(|it| it.name == name && it.state == KeyState::Active).count()
        })
    }
}

/// Writes a name into the form, and an end unless it is empty.
fn fill(browser: &mut Browser, name: &str, end: &str) {
    tab_to(browser, "it.id === 'key-name'");
    browser.types(name);
    browser.eval(&format!("document.getElementById('key-end').value = {}", json!(end)));
}

fn press_at(browser: &mut Browser, is_it: &str) {
    tab_to(browser, is_it);
    browser.presses("Enter");
}

const MAKE: &str = "it.textContent === 'Make key'";
const REVOKE_CI: &str = "it.ariaLabel?.startsWith('Revoke ci,')";

#[test]
fn a_tenant_makes_a_key_sees_it_once_and_revokes_it_by_keyboard() {
    let Some(mut browser) = Browser::start("keys tab") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.open(browser);
    every_size(browser, "keys");
    fill(browser, "ci", "2031-01-31");
    tab_to(browser, "it.value === 'items:read'");
    browser.presses(" ");
    press_at(browser, MAKE);
    browser.until("!document.getElementById('key-shown').hidden");
    let made = browser.eval("document.getElementById('key-made').textContent");
    let made = made.as_str().unwrap().to_owned();
    let row = "[...document.querySelectorAll('#key-rows tr')]
        .find(it => it.textContent.startsWith('ci'))";
    for told in ["items:write", "Ends 31 Jan 2031", "Active"] {
        browser.until(&format!("{row}?.innerText.includes({})", json!(told)));
    }
    assert_eq!(browser.eval(&format!("{row}.innerText.includes('items:read')")), false);
    every_size(browser, "keys-made");
    assert_eq!(bed.status("POST", "/work", &made), 200);
    assert_eq!(bed.status("GET", "/items", &made), 403, "it was not given that");

    // Refreshed, it stays in this tab; loaded anew, the key is nowhere.
    press_at(browser, "it.id === 'again'");
    browser.until("document.getElementById('when').textContent.startsWith('As of')");
    assert_eq!(browser.eval("document.getElementById('report').hidden"), true);
    browser.eval("window.isOld = true");
    browser.reload();
    browser.until(&format!("!window.isOld && {row}"));
    let held = "document.documentElement.outerHTML + JSON.stringify(sessionStorage)";
    assert!(!browser.eval(held).as_str().unwrap().contains(&made));

    press_at(browser, REVOKE_CI);
    browser.until("document.getElementById('sure').open");
    every_size(browser, "keys-sure");
    assert_eq!(browser.eval("document.activeElement.textContent"), "Cancel", "a slip does nothing");
    browser.presses("Enter");
    browser.until(&format!("(it => {REVOKE_CI})(document.activeElement)"));
    assert_eq!(bed.status("POST", "/work", &made), 200);
    browser.presses("Enter");
    press_at(browser, "it.textContent === 'Revoke for good'");
    browser.reads("ci was revoked.");
    browser.until("document.activeElement.id === 'keys-title'");
    browser.until(&format!("{row}.innerText.includes('Revoked')"));
    assert_eq!(bed.status("POST", "/work", &made), 401);
    assert_eq!(bed.status("POST", "/work", &bed.laptop), 200);

    // Its own, after which the page asks for another.
    press_at(browser, "it.ariaLabel?.startsWith('Revoke laptop,')");
    browser.reads("It is the key of this page");
    press_at(browser, "it.textContent === 'Revoke for good'");
    browser.reads("That key is not known here");
    browser.until("document.activeElement.id === 'key'");
    assert_eq!(browser.eval("document.getElementById('key-panel').hidden"), true);
    assert_eq!(bed.status("POST", "/work", &bed.laptop), 401);
    let complaints = browser.complaints();
    let of_page = |it: &&String| !it.contains("status of 401"); // which the browser always notes
    assert_eq!(complaints.iter().filter(of_page).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn what_the_routes_refuse_is_said_where_it_was_asked() {
    let Some(mut browser) = Browser::start("refused keys") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.open(browser);
    let says = |browser: &mut Browser, place: &str, text: &str| {
        let said = format!("document.getElementById('{place}')");
        browser.until(&format!("{said}.matches('.bad') && {said}.innerText.includes('{text}')"));
    };
    fill(browser, "ci", "2020-01-31");
    press_at(browser, MAKE);
    says(browser, "key-said", "The end of this key is past already");
    every_size(browser, "keys-refused");
    press_at(browser, "it.ariaLabel?.startsWith('Revoke admin,')");
    press_at(browser, "it.textContent === 'Revoke for good'");
    says(browser, "list-said", "The caller lacks the permission users:write");

    browser.eval("document.getElementById('key-end').value = ''");
    bed.store.outage(true);
    press_at(browser, MAKE);
    says(browser, "key-said", "Store unavailable: The store did not answer in time.");
    press_at(browser, REVOKE_CI.replace("ci", "laptop").as_str());
    press_at(browser, "it.textContent === 'Revoke for good'");
    says(browser, "list-said", "Store unavailable: The store did not answer in time.");
    press_at(browser, "it.id === 'tab-report'");
    press_at(browser, "it.id === 'tab-keys'");
    says(browser, "list-said", "Store unavailable");
    every_size(browser, "keys-trouble");

    bed.store.outage(false);
    press_at(browser, MAKE);
    browser.until("!document.getElementById('key-shown').hidden");
    browser.until("document.getElementById('list-said').textContent === ''");
    assert_eq!((bed.working("ci"), bed.working("laptop")), (1, 1));
}

/// The answer to a `POST` is lost after the key was made: the repeated one makes no second.
#[test]
fn a_repeated_press_makes_no_second_key() {
    let Some(mut browser) = Browser::start("repeated keys") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.open(browser);
    browser.eval(
        "{ const real = window.fetch; let lost = false;
           window.fetch = async (path, how) => {
             const answer = await real(path, how);
             if (how?.method !== 'POST' || lost) return answer;
             lost = true;
             return new Response('gateway', { status: 504 });
           }; 0 }",
    );
    fill(browser, "ci", "");
    press_at(browser, MAKE);
    browser.reads("The service answered 504. Try again.");
    press_at(browser, MAKE);
    browser.reads("Key made already: A request with this Idempotency-Key has made the key");
    browser.until("document.getElementById('key-rows').innerText.includes('ci')");
    assert_eq!(bed.working("ci"), 1);
}
