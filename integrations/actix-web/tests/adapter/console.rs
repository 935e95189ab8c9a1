//! The operator's console as actix-web serves it, in a real browser: its policy lets its script
//! run, and what it asks of the routes is answered and changes what the middleware decides. The
//! page itself is tested with axum's adapter, which serves the same one. Without Chromium the test
//! is skipped by name, or fails if `CI=true`.

use actix_web::{App, web};
use tallygate::directory::Role;
use tallygate_actix_web::{GateMiddleware, admin_routes};
use test_support::browser::Browser;

use crate::support::{Gated, Server};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    quota.requests = "3/day"
"#;

#[test]
fn an_operator_gives_units_to_a_tenant_that_is_refused() {
    let Some(mut browser) = Browser::start("console-actix") else { return };
    let (gated, browser) = (Gated::new(PLANS), &mut browser);
    let token = gated.run(gated.gate.directory().new_operator("kim@example.com", Role::Write));
    let token = token.unwrap();
    let gate = gated.gate.clone();
    let server = Server::start(move || {
        App::new()
            .wrap(GateMiddleware::new(&gate))
            .configure(admin_routes(&gate, "/admin"))
            .route("/work", web::post().to(async || "done"))
    });
    let statuses = [(); 4].map(|()| server.send("POST", "/work").status);
    assert_eq!(statuses, [200, 200, 200, 429]);

    browser.go(&format!("http://{}/admin", server.address()));
    browser.until("document.activeElement?.id === 'token'");
    browser.types(token.expose());
    browser.presses("Enter");
    browser.reads("100 % of requests/day");
    browser.eval("location.hash = '#tenant/acme'");
    browser.reads("requests/day is used up");
    browser.eval(
        "[...document.querySelectorAll('button')].find(it => it.textContent === 'Give units')\
         .click()",
    );
    browser.until(
        "document.querySelector('dialog[open]') && document.activeElement.tagName === 'INPUT'",
    );
    browser.types("2");
    browser.presses("Tab");
    browser.presses("Tab");
    browser.types("ticket 4711");
    browser.presses("Enter");
    browser.reads("2 requests were given.");
    let statuses = [(); 3].map(|()| server.send("POST", "/work").status);
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
