//! The console's view of billing: a Stripe that refuses one entry and does not answer for another,
//! what is shown of that, and what to run.

use stripe_sim::{Settings, Sim};
use tallygate::{Ask, ManualClock};
use test_support::gates;

use super::looks::every_size;
use super::*;

const SOLD: &str = r#"
    default-plan = "free"
    [meter.requests]
    stripe = { event = "api_requests", send = "all" }
    [plan.free]
    quota.requests = "1k/cycle"
"#;

/// A service that bills into a Stripe: of acme an entry is refused, of birch one is sent without an
/// answer, of cedar one is accepted.
fn billed() -> (Bed, Sim, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let sim = runtime.block_on(Sim::start(Settings::default())).unwrap();
    let now = (sim.now() / 60 + 1) * 60;
    assert!(sim.stand_at(now));
    sim.create_meter("api_requests").unwrap();
    let service = gates::billed(folder.path(), "sk_test_x", "whsec_x", &sim.url());
    let clock = ManualClock::at_unix_ms(now * 1_000);
    let builder = GateBuilder::from_text(&service).plans(SOLD).clock(clock);
    let bed = Bed::over(runtime, builder.identify(gates::ByHeader));
    bed.runtime.block_on(async {
        let directory = bed.gate.directory().by("signup");
        let day_ago = tallygate::testing::time_at((now - 86_400) * 1_000);
        let fault = |what: serde_json::Value| {
            let on = json!({ "on": "POST /v1/billing/meter_events", "times": 4, "do": what });
            sim.fault(serde_json::from_value(on).unwrap());
        };
        let refused = json!({ "status": { "code": 400, "should_retry": false } });
        for (id, fails) in [("acme", Some(refused)), ("cedar", None), ("birch", Some(json!("cut")))]
        {
            directory.tenant(id).anchor(day_ago).note("signed up").save().await.unwrap();
            bed.gate.ensure_customer(id).await.unwrap();
            let tenant = bed.gate.tenant(id).await.unwrap();
            bed.gate.admit(Ask::new(&tenant, "work").cost("requests", 12)).await.unwrap().settle();
            fails.into_iter().for_each(fault);
            bed.gate.report_now().await.unwrap();
            sim.heal();
        }
    });
    (bed, sim, folder)
}

#[test]
fn what_waits_for_an_operator_is_shown_with_what_to_run() {
    let Some(mut browser) = Browser::start("console") else { return };
    let ((bed, _sim, _folder), browser) = (billed(), &mut browser);
    bed.sign_in(browser, &bed.read);
    loaded(browser);
    browser.reads("Last report to Stripe by this process");
    browser.eval("document.querySelector('a[href=\"#billing\"]').click()");
    browser.reads("tallygate outbox retry tg_");
    loaded(browser);
    let row = "document.querySelector('[aria-label=\"Waits for you\"] tbody tr').innerText";
    let row = browser.eval(row).to_string();
    for said in ["acme", "requests", "12 of api_requests", "Stopped: refused: 400", "--settled"] {
        assert!(row.contains(said), "{said}: {row}");
    }
    let row = "document.querySelector('[aria-label=\"On its way\"] tbody tr').innerText";
    let row = browser.eval(row).to_string();
    assert!(row.contains("birch") && row.contains("No answer yet"), "{row}");
    let summary = browser.eval("document.querySelector('#billing .summary').innerText").to_string();
    for said in ["1 stopped, 0 in doubt", "0 to be sent, 1 without an answer", "Accepted"] {
        assert!(summary.contains(said), "{said}: {summary}");
    }
    assert_eq!(browser.eval("document.title"), "Billing · Console");
    assert_eq!(browser.eval("document.activeElement.textContent"), "Billing");
    every_size(browser, "billing");

    // Of one tenant, when it is asked for.
    browser.eval("document.querySelector('#billing tbody a').click()");
    browser.until("document.querySelector('#tenant h2')?.textContent === 'acme'");
    loaded(browser);
    assert_eq!(browser.eval("document.getElementById('billing').childElementCount"), 0);
    browser.eval(
        "[...document.querySelectorAll('button')]
         .find(it => it.textContent === 'Show billing').click()",
    );
    browser.reads("tallygate outbox retry tg_");
    let period = "document.querySelector('[aria-label=\"Billed by period\"] tbody tr').innerText";
    let period = browser.eval(period).to_string();
    assert!(period.contains("requests") && period.contains("0 of api_requests"), "{period}");
    every_size(browser, "billing-of-a-tenant");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_service_that_bills_nothing_says_so() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.sign_in(browser, &bed.read);
    browser.eval("location.hash = '#billing'");
    browser.reads("This service bills nothing");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Entries that no simulator makes: in doubt, with a sum, of no tenant, with names that are markup.
#[test]
fn every_entry_is_shown_as_text_whatever_it_says() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.sign_in(browser, &bed.read);
    browser.eval("location.hash = '#billing'");
    browser.reads("This service bills nothing");
    let entry = |state: &str, tenant: serde_json::Value, why: &str| {
        json!({
            "entry": format!("tg_{}", "ab".repeat(30)), "tenant": tenant, "account": "cus_1",
            "meter": "<img src=x onerror=alert(1)>", "event": "a".repeat(64), "units": 4_000_000,
            "period": "2026-11-01T00:00:00Z", "minute": "2026-11-02T00:00:00Z", "state": state,
            "why": why, "retry": false,
        })
    };
    let long = "an-id-without-an-end-".repeat(10);
    let all = json!({
        "stripe": true, "last-report": null, "error": "503 <b>no</b>", "reporter-until": null,
        "states": { "stopped": 1, "doubtful": 1, "waits": 1 }, "oldest": "2026-11-02T00:00:00Z",
        "entries": [
            entry("stopped", json!(long), "the sum of its minute is 7"),
            entry("doubtful", json!(null), &"<script>alert(1)</script>".repeat(9)),
            entry("waits", json!("acme"), ""),
        ],
        "periods": [], "items": 5_000, "next": "00",
    });
    browser.eval(&format!(
        "{{ const stack = el('div', {{ class: 'stack' }}, drawBilling({all}));
            document.querySelector('#billing').lastElementChild.replaceChildren(stack); 0 }}"
    ));
    for said in
        ["--owed", "tallygate audit", "not in the directory", "503 <b>no</b>", "5,000 items"]
    {
        browser.reads(said);
    }
    assert_eq!(browser.eval("document.querySelectorAll('#billing img, #billing b b').length"), 0);
    every_size(browser, "billing-hostile");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
