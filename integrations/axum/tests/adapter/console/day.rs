//! A support day: "I am refused", from the refusal to the entry in the history, by keyboard alone.

use super::*;
use crate::console::keyboard::tab_to;

#[test]
fn a_support_day_from_the_refusal_to_the_entry() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    let keys = ["abel", "acme", "birch"].map(|id| bed.tenant(id));
    let [_, acme, _] = &keys;
    let answers: Vec<u16> = (0..12).map(|_| bed.works(acme)).collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 10);
    assert_eq!(answers[11], 429, "acme writes: I am refused");

    // Who is it?
    bed.sign_in(browser, &bed.write);
    browser.reads("Nothing is wrong.");
    tab_to(browser, "it.id === 'prefix'");
    browser.types("ac");
    browser.presses("Enter");
    browser.until("document.querySelectorAll('[aria-label=Tenants] tbody tr').length === 1");
    browser.reads("100 % of credits/day");

    // Why?
    tab_to(browser, "it.tagName === 'A' && it.textContent === 'acme'");
    browser.presses("Enter");
    browser.reads("credits/day is used up");
    loaded(browser);
    browser.reads("10 of 10 are used. It resets in ");
    browser.reads("10 of 10 · 0 left");
    browser.reads("Quota exceeded 2");
    let refusal = "[...document.querySelectorAll('[aria-label=Refusals] tbody tr')][0].innerText";
    let refusal = browser.eval(refusal);
    for said in ["Quota exceeded: credits/day (free)", "work", "key k", "429"] {
        assert!(refusal.as_str().unwrap().contains(said), "{refusal}");
    }

    // Give it 1,000 units, and say why.
    tab_to(browser, "it.textContent === 'Give units'");
    browser.presses("Enter");
    browser.until(
        "document.querySelector('dialog[open]') && document.activeElement.tagName === 'INPUT'",
    );
    browser.types("1000");
    browser.presses("Tab");
    assert_eq!(browser.eval("document.activeElement.value"), "credits", "what it lacks");
    browser.presses("Tab");
    browser.types("ticket 4711: our outage");
    browser.presses("Enter");
    browser.reads("1,000 credits were given.");
    browser.until("!document.querySelector('dialog').open");

    // The next request passes, and the entry says who and why.
    assert_eq!(bed.works(acme), 200);
    let entry = "[...document.querySelectorAll('[aria-label=History] tbody tr')][0]?.innerText";
    browser.until(&format!("{entry}?.includes('ticket 4711: our outage')"));
    let entry = browser.eval(entry);
    let entry = entry.as_str().unwrap();
    for said in ["kim@example.com", "Given: 1,000 credits"] {
        assert!(entry.contains(said), "{entry}");
    }
    tab_to(browser, "it.id === 'again'");
    browser.presses("Enter");
    browser.reads("999 credits of given units are left.");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
