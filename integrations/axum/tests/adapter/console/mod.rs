//! The console in a real browser, over a real server on loopback: what an operator sees, types and
//! presses. Pictures go to `target/page/console/`. Without Chromium the tests are skipped by name,
//! or fail if `CI=true`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::routing::post;
use serde_json::json;
use tallygate::directory::{Grant, Role};
use tallygate::{Gate, GateBuilder};
use tallygate_axum::{GateLayer, admin_router};
use test_support::browser::Browser;
use test_support::http;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

#[cfg(feature = "stripe")]
mod billing;
mod changes;
mod corners;
mod day;
mod hostile;
pub(crate) mod keyboard;
pub(crate) mod looks;

const PLANS: &str = r#"
    default-plan = "free"
    [meter.credits]
    [meter.egress]
    count = "response-bytes"
    [route.work]
    match = "POST /work"
    cost = { requests = 1, credits = 1 }
    [plan.free]
    rate.default   = "500/s burst 1000"
    quota.requests = "10k/month"
    quota.credits  = "10/day"
    [plan.pro]
    rate.default   = ["500/s burst 1000", "20/s per user"]
    quota.requests = "1M/cycle"
    quota.credits  = ["50k/cycle", "5k/day"]
    quota.egress   = { limit = "1GB/month", over = "allow" }
"#;

/// A service with its console, and two operators.
struct Bed {
    runtime: Runtime,
    gate: Gate,
    address: SocketAddr,
    write: String,
    read: String,
}

impl Bed {
    fn new() -> Self {
        Self::of(|builder| builder.plans(PLANS))
    }

    fn of(plans: impl FnOnce(GateBuilder) -> GateBuilder) -> Self {
        let service = "store.kind = \"memory\"\nflush.mode = \"fast\"";
        Self::over(Runtime::new().unwrap(), plans(GateBuilder::from_text(service)))
    }

    fn over(runtime: Runtime, builder: GateBuilder) -> Self {
        let (gate, address, write, read) = runtime.block_on(async {
            let gate = builder.open().await.unwrap();
            let token = async |name: &str, role| {
                gate.directory().new_operator(name, role).await.unwrap().expose().to_owned()
            };
            let write = token("kim@example.com", Role::Write).await;
            let read = token("ada@example.com", Role::Read).await;
            let app = Router::new().route("/work", post(async || "done\n"));
            let app = app.layer(GateLayer::new(&gate)).nest("/admin", admin_router(&gate));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            // It ends with the runtime.
            tokio::spawn(async move { axum::serve(listener, app).await });
            (gate, address, write, read)
        });
        Self { runtime, gate, address, write, read }
    }

    /// A new tenant, and a key of it.
    fn tenant(&self, id: &str) -> String {
        self.runtime.block_on(async {
            let directory = self.gate.directory().by("signup");
            let tenant = directory.tenant(id).note("signed up").save().await.unwrap();
            tenant.new_key("laptop").await.unwrap().expose().to_owned()
        })
    }

    /// The status of a request with this key.
    fn works(&self, key: &str) -> u16 {
        http::send(self.address, "POST", "/work", &[("x-api-key", key)], "").unwrap().status
    }

    /// Tenants of several plans, states and uses; `acme` has something of everything.
    fn populated() -> Self {
        let bed = Self::new();
        let names = ["birch", "cedar & sons", "delta", "elm", "fir", "gorse", "hazel", "ivy"];
        for (n, id) in names.iter().enumerate() {
            let key = bed.tenant(id);
            for _ in 0..=n {
                bed.works(&key);
            }
        }
        let key = bed.tenant("acme");
        for _ in 0..16 {
            bed.works(&key);
        }
        bed.runtime.block_on(async {
            let directory = bed.gate.directory().by("kim@example.com");
            for n in 0..8 {
                directory.tenant(&format!("tenant-{n}")).save().await.unwrap();
            }
            for id in ["fir", "gorse"] {
                let edit = directory.find(id).await.unwrap().unwrap().edit();
                edit.plan("pro").note("sold by phone").save().await.unwrap();
            }
            let hazel = directory.find("hazel").await.unwrap().unwrap().edit();
            hazel.suspend().note("chargeback").save().await.unwrap();
            let acme = directory.find("acme").await.unwrap().unwrap();
            let grant = Grant::new("welcome", "credits", 4).note("launch offer");
            acme.edit().grant(grant).note("launch offer").save().await.unwrap();
            let pilot = "quota.requests = \"20k/month\"";
            acme.edit().override_(pilot, None, "pilot").note("pilot").save().await.unwrap();
            let old = acme.new_key("ci").await.unwrap();
            acme.revoke_key(&old.id).await.unwrap();
        });
        for _ in 0..5 {
            bed.works(&key);
        }
        bed
    }

    fn console(&self) -> String {
        format!("http://{}/admin", self.address)
    }

    /// Signs an operator in at the console.
    fn sign_in(&self, browser: &mut Browser, token: &str) {
        browser.go(&self.console());
        browser.until("document.activeElement?.id === 'token'");
        browser.types(token);
        browser.presses("Enter");
        browser.until("document.getElementById('when').textContent.startsWith('As of')");
    }

    /// The same, and then to a tenant.
    fn at_tenant(&self, browser: &mut Browser, token: &str, id: &str) {
        self.sign_in(browser, token);
        browser.eval(&format!("location.hash = '#tenant/' + encodeURIComponent({})", json!(id)));
        let heading = json!(id);
        browser.until(&format!("document.querySelector('#tenant h2')?.textContent === {heading}"));
        loaded(browser);
    }
}

/// Waits until every part of the view has its answer.
fn loaded(browser: &mut Browser) {
    browser.until("document.getElementById('when').textContent.startsWith('As of')");
    browser.until(
        "![...document.querySelectorAll('.none')].some(it => it.textContent === 'Loading…')",
    );
}

fn pictures() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/page/console");
    std::fs::create_dir_all(&target).unwrap();
    target
}
