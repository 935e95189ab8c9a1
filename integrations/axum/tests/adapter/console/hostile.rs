//! What tenants and operators have written is text, whatever it says; nothing else runs; and no
//! other site does anything with an operator's browser.

use super::*;

/// Tries what a page must not make of text.
const ID: &str = r#"<img src=x onerror=document.title='RAN'>'"&amp;</bdi>"#;

#[test]
fn markup_in_names_and_reasons_is_shown_as_text() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    let key = bed.tenant(ID);
    assert_eq!(bed.works(&key), 200);
    bed.runtime.block_on(async {
        let directory = bed.gate.directory().by(ID);
        let tenant = directory.find(ID).await.unwrap().unwrap();
        let grant = Grant::new("gift", "credits", 5).note(ID);
        let toml = format!("quota.credits = \"9/day\" # {ID}");
        tenant.edit().grant(grant).override_(toml, None, ID).note(ID).save().await.unwrap();
        tenant.new_key(ID).await.unwrap();
    });
    bed.sign_in(browser, &bed.write);
    loaded(browser);
    browser.reads(ID);
    browser.eval(&format!(
        "[...document.querySelectorAll('a')].find(it => it.textContent === {}).click()",
        json!(ID)
    ));
    browser.until(&format!("document.querySelector('#tenant h2')?.textContent === {}", json!(ID)));
    loaded(browser);
    let shown = browser.text().matches(ID).count();
    assert!(shown >= 8, "{shown}: {}", browser.text());
    assert_eq!(browser.eval("document.querySelectorAll('img, main script').length"), 0);
    assert_ne!(browser.eval("document.title"), "RAN");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn no_other_script_runs_and_no_text_becomes_markup() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    browser.go(&bed.console());
    assert_eq!(browser.complaints(), Vec::<String>::new());
    for attempt in [
        "document.body.innerHTML = '<b>x</b>'",
        "document.head.append(Object.assign(document.createElement('script'), { text: 'x' }))",
        "document.write('x')",
    ] {
        let caught = format!(
            "(() => {{ try {{ {attempt}; return 'done' }} catch (e) {{ return e.name }} }})()"
        );
        assert_eq!(browser.eval(&caught), "TypeError", "{attempt}");
    }
    browser.eval("document.body.setAttribute('style', 'display: none')");
    assert_ne!(browser.eval("getComputedStyle(document.body).display"), "none");
    let elsewhere = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')";
    assert_eq!(browser.eval(elsewhere), "refused");
    let complaints = browser.complaints().join("\n");
    assert!(complaints.contains("Content Security Policy"), "{complaints}");
}

#[test]
fn a_token_is_in_no_store_of_the_browser_and_a_reload_forgets_it() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.tenant("acme");
    bed.at_tenant(browser, &bed.write, "acme");
    let kept = "[document.cookie, localStorage.length, sessionStorage.length, location.href, \
                document.documentElement.innerHTML].join(' ')";
    let kept = browser.eval(kept);
    assert!(kept.as_str().unwrap().starts_with(" 0 0 "), "{kept}");
    assert!(!kept.as_str().unwrap().contains(&bed.write));
    browser.reload();
    browser.until("document.activeElement?.id === 'token'");
    browser.reads("Sign in");
    assert_eq!(browser.eval("document.body.innerText.includes('credits')"), false);
    // Back at the console, its address still says which tenant.
    browser.types(&bed.write);
    browser.presses("Enter");
    browser.reads("0 of 10 · 10 left");
}
