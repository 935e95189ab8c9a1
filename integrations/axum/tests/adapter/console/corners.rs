//! Corners of the console: small decimals, a reloaded plan file, ids that are steps of a path, a
//! list without matches, and a dialog whose change is on its way.

use super::*;

/// What a function of the page says.
fn says(browser: &mut Browser, call: &str) -> String {
    browser.eval(call).as_str().unwrap().to_owned()
}

#[test]
fn every_digit_of_an_amount_is_shown() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    browser.go(&bed.console());
    for (of, shown) in [
        (r#"{ "a": 0.0004 }"#, "0.0004"),
        (r#"{ "a": 1234.5 }"#, "1,234.5"),
        (r#"{ "a": 0, "a_text": "0.000400" }"#, "0.0004"),
        (r#"{ "a": 1, "a_text": "9007199254740993.000001" }"#, "9,007,199,254,740,993.000001"),
        (r#"{ "a": 1, "a_text": "9007199254740993" }"#, "9,007,199,254,740,993"),
        (r#"{ "a": 1, "a_text": "2.000" }"#, "2"),
        (r#"{ "a": 1, "a_text": "unlimited" }"#, "unlimited"),
    ] {
        assert_eq!(says(browser, &format!("exact({of}, 'a')")), shown, "{of}");
    }
}

#[test]
fn ids_that_are_steps_of_a_path_are_refused_in_words() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.tenant("acme");
    bed.runtime.block_on(async {
        let acme = bed.gate.directory().find("acme").await.unwrap().unwrap();
        acme.edit().grant(Grant::new("..", "credits", 4)).save().await.unwrap();
    });
    bed.at_tenant(browser, &bed.write, "acme");
    changes::change(browser, "End ..", &[("Reason", "r")]);
    browser.until(
        "document.querySelector('dialog .say')?.innerText.includes('No address for this grant')",
    );
    browser.presses("Escape");
    changes::change(browser, "Give units", &[("Units", "1"), ("Reason", "r"), ("Id", "..")]);
    assert_eq!(browser.eval("document.querySelector('dialog').matches(':has(:invalid)')"), true);
}

#[test]
fn a_reloaded_plan_file_has_its_names_in_the_next_view() {
    let Some(mut browser) = Browser::start("console") else { return };
    let file = pictures().join("reloaded.toml");
    std::fs::write(&file, PLANS).unwrap();
    let (bed, browser) = (Bed::of(|builder| builder.plans_file(&file)), &mut browser);
    bed.tenant("acme");
    bed.at_tenant(browser, &bed.write, "acme");
    let gold = format!("{PLANS}\n[plan.gold]\nquota.credits = \"9/day\"\n");
    std::fs::write(&file, gold).unwrap();
    assert!(bed.runtime.block_on(bed.gate.reload()).unwrap());
    browser.eval("document.getElementById('again').click()");
    browser.until("names.plans.includes('gold')");
}

#[test]
fn a_list_without_matches_says_so_and_dialogs_say_whose_they_are() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::populated(), &mut browser);
    bed.sign_in(browser, &bed.write);
    loaded(browser);
    browser.eval("document.getElementById('prefix').value = 'zzz'");
    browser.eval("document.querySelector('form.search').requestSubmit()");
    browser.reads("No id of those nearest to a limit begins so.");
    assert_eq!(browser.eval("document.body.innerText.includes('has used anything')"), false);
    bed.at_tenant(browser, &bed.write, "acme");
    for (button, heading) in [
        ("Reset credits/day", "Reset credits/day of acme"),
        ("Rotate laptop", "Rotate laptop of acme"),
        ("Revoke laptop", "Revoke laptop of acme"),
        ("End the exception", "End an exception of acme"),
    ] {
        changes::open(browser, button);
        assert_eq!(says(browser, "document.getElementById('dialog-title').textContent"), heading);
        browser.presses("Escape");
        browser.until("!document.querySelector('dialog').open");
    }
}

#[test]
fn a_dialog_stays_while_its_change_is_on_its_way() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.tenant("acme");
    bed.at_tenant(browser, &bed.write, "acme");
    browser.eval(
        "{ const send = fetch; window.answer = null;
           window.fetch = async (...of) => {
             if (of[1].method === 'POST') await new Promise((go) => { window.answer = go; });
             return send(...of);
           }; 0 }",
    );
    changes::change(browser, "New key", &[("Name", "ci")]);
    browser.until("window.answer !== null");
    for _ in 0..3 {
        browser.presses("Escape");
    }
    assert_eq!(browser.eval("document.querySelector('dialog').open"), true);
    browser.eval("window.answer()");
    browser.until("document.getElementById('new-key')");
}
