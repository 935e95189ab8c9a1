//! The console without a mouse: the order of its parts, and dialogs that keep and return the focus.

use super::*;

/// Presses Tab until the focused element, `it`, is the one.
#[track_caller]
pub(crate) fn tab_to(browser: &mut Browser, is_it: &str) {
    for _ in 0..80 {
        let found = browser.eval(&format!("(it => {is_it})(document.activeElement)"));
        if found == true {
            return;
        }
        browser.presses("Tab");
    }
    panic!("Tab does not reach {is_it}");
}

/// What has the focus, in a few words.
fn focus(browser: &mut Browser) -> String {
    let name = "(it => it.labels?.[0]?.textContent || it.getAttribute('aria-label') \
                || it.id || it.textContent)(document.activeElement)";
    browser.eval(name).as_str().unwrap_or_default().trim().to_owned()
}

#[test]
fn tab_goes_from_the_top_to_the_bottom_of_what_is_seen() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::populated(), &mut browser);
    bed.at_tenant(browser, &bed.write, "acme");
    browser.eval("document.activeElement.blur(); document.getElementById('skip').focus()");
    let mut stops = Vec::new();
    for _ in 0..19 {
        browser.presses("Tab");
        stops.push(focus(browser));
    }
    let all = [
        "again",
        "leave",
        "← Overview",
        "Give units",
        "Change plan",
        "Add exception",
        "Suspend",
        "Erase",
        "Reset requests/month",
        "Reset credits/day",
        "Meter",
        "Show all 7",
        "End welcome",
    ];
    assert_eq!(stops[..all.len()], all);
    let end = browser.eval("document.activeElement.getAttribute('aria-label')");
    assert!(stops.iter().any(|it| it.starts_with("Revoke laptop, k")), "{stops:?} {end}");
    // The link over all of it goes past the head.
    browser.eval("document.getElementById('skip').focus()");
    browser.presses("Enter");
    browser.presses("Tab");
    assert_eq!(focus(browser), "← Overview");
}

#[test]
fn a_dialog_keeps_the_focus_and_gives_it_back() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.tenant("acme");
    bed.at_tenant(browser, &bed.write, "acme");
    tab_to(browser, "it.textContent === 'Suspend'");
    browser.presses("Enter");
    browser.until("document.querySelector('dialog').open");
    let within = "document.activeElement === document.body \
                  || document.querySelector('dialog').contains(document.activeElement)";
    let mut stops = Vec::new();
    for key in ["Tab", "Shift+Tab"] {
        for _ in 0..8 {
            browser.presses(key);
            assert_eq!(browser.eval(within), true, "{}", focus(browser));
            stops.push(focus(browser));
        }
    }
    for stop in ["Reason", "Cancel", "Suspend"] {
        assert!(stops.iter().any(|it| it == stop), "{stop}: {stops:?}");
    }
    // Without a reason nothing is sent.
    tab_to(browser, "it.type === 'submit'");
    browser.presses("Enter");
    assert_eq!(browser.eval("document.querySelector('dialog').open"), true);
    browser.presses("Escape");
    browser.until("!document.querySelector('dialog').open");
    assert_eq!(focus(browser), "Suspend");

    // A change draws the view anew: the focus is where it was, or at what stands there now.
    browser.presses("Enter");
    browser.until("document.querySelector('dialog').open");
    browser.types("chargeback");
    browser.presses("Enter");
    browser.reads("It is suspended.");
    browser.until("document.activeElement.tagName === 'H2'");
    assert_eq!(browser.eval("document.activeElement.textContent"), "acme");
    tab_to(browser, "it.textContent === 'New key'");
    browser.presses(" ");
    browser.until("document.querySelector('dialog').open");
    tab_to(browser, "it.textContent === 'Cancel'");
    browser.presses("Enter");
    browser.until("document.activeElement.textContent === 'New key'");
}
