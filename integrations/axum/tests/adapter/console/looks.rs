//! The console in every size and scheme: pictures, and what can be said of a page by measuring it:
//! contrast, labels, headings, landmarks, sizes, and nothing beyond the edge.

use super::*;

/// Lists what is wrong with the page as it stands.
const FAULTS: &str = include_str!("faults.js");

#[test]
fn every_view_is_legible_and_whole_in_every_size_and_scheme() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::populated(), &mut browser);
    let long = format!("{}@example.com", "a-very-long-name-".repeat(8));
    bed.tenant(&long);
    browser.go(&bed.console());
    every_size(browser, "sign-in");
    bed.sign_in(browser, &bed.write);
    loaded(browser);
    browser.reads("80 % of credits");
    every_size(browser, "overview");
    bed.at_tenant(browser, &bed.write, &long);
    every_size(browser, "long");
    bed.at_tenant(browser, &bed.write, "acme");
    browser.reads("launch offer");
    every_size(browser, "tenant");
    browser.eval(
        "[...document.querySelectorAll('button')]
         .find(it => it.textContent === 'Give units').click()",
    );
    every_size(browser, "dialog");
}

#[track_caller]
pub(crate) fn every_size(browser: &mut Browser, view: &str) {
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        for (size, width) in [("narrow", 360), ("wide", 1280)] {
            browser.size(width, 900);
            let file = pictures().join(format!("{view}-{scheme}-{size}.png"));
            browser.picture(&file, view != "dialog");
            assert!(std::fs::metadata(&file).unwrap().len() > 5_000, "{}", file.display());
            let faults = browser.eval(FAULTS);
            assert_eq!(faults, json!([]), "{view}, {scheme}, {size}: {faults:#}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_page_is_found() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    browser.go(&bed.console());
    assert_eq!(browser.eval(FAULTS), json!([]));
    for (spoilt, says) in [
        ("document.querySelector('.soft.small:not([id])').style.color = '#999'", "contrast"),
        ("document.querySelector('label').remove()", "no label"),
        ("document.querySelector('button.main').textContent = ''", "no name"),
        ("document.querySelector('main').append(document.createElement('h4'))", "skips a level"),
        ("document.querySelector('main').style.minWidth = '2000px'", "wider than the window"),
        ("document.querySelector('main').id = 'when'", "twice: when"),
        (
            "document.querySelector('button.main').style.cssText = 'height: 9px; padding: 0'",
            "small",
        ),
    ] {
        browser.go(&format!("{}?{}", bed.console(), says.len()));
        browser.eval(&format!("{{ {spoilt}; 0 }}"));
        let faults = browser.eval(FAULTS).to_string();
        assert!(faults.contains(says), "{says}: {faults}");
    }
}
