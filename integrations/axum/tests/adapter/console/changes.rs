//! Every change that the console makes, what it says of errors, and what a token that may only
//! look is shown.

use super::*;

/// Presses a button by the beginning of its name, fills the fields of the dialog by their labels,
/// and sends it.
#[track_caller]
pub(super) fn change(browser: &mut Browser, button: &str, fields: &[(&str, &str)]) {
    open(browser, button);
    for (label, value) in fields {
        browser.eval(&format!(
            "(it => {{ it.value = {}; }})([...document.querySelectorAll('dialog label')]
             .find(it => it.textContent === {}).control)",
            json!(value),
            json!(label)
        ));
    }
    browser.eval("document.querySelector('dialog form').requestSubmit()");
}

/// Presses a button by the beginning of its name, which opens the dialog.
#[track_caller]
pub(super) fn open(browser: &mut Browser, button: &str) {
    let named = "it.getAttribute('aria-label') || it.textContent";
    browser.eval(&format!(
        "[...document.querySelectorAll('main button')]
         .find(it => ({named}).startsWith({})).click()",
        json!(button)
    ));
    browser.until("document.querySelector('dialog').open");
}

/// The same, and waits for what it says then.
#[track_caller]
fn done(browser: &mut Browser, button: &str, fields: &[(&str, &str)], says: &str) {
    change(browser, button, fields);
    browser.until(&format!(
        "!document.querySelector('dialog').open
         && document.getElementById('done').textContent.includes({})",
        json!(says)
    ));
    loaded(browser);
}

#[test]
fn each_change_is_made_and_stands_in_the_history() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    let key = bed.tenant("acme");
    assert_eq!(bed.works(&key), 200);
    bed.sign_in(browser, &bed.write);
    done(browser, "New tenant", &[("Id", "a/b c"), ("Reason", "by mail")], "a/b c was made.");
    bed.at_tenant(browser, &bed.write, "acme");
    done(browser, "Reset credits/day", &[("Reason", "r1")], "credits/day was reset.");
    let given = [("Units", "7"), ("Of", "credits"), ("Reason", "r2"), ("Id", "gift")];
    done(browser, "Give units", &given, "7 credits were given.");
    done(browser, "End gift", &[("Reason", "r3")], "gift was ended.");
    done(browser, "Change plan", &[("Plan", "pro"), ("Reason", "r4")], "It is on plan pro.");
    browser.reads("50,000");
    done(browser, "Suspend", &[("Reason", "r5")], "It is suspended.");
    browser.reads("Every request is refused");
    assert_eq!(bed.works(&key), 403);
    done(browser, "Resume", &[("Reason", "r6")], "It is resumed.");
    let exception = [
        ("Changes (TOML)", "quota.credits = \"3/day\""),
        ("Until (optional)", "2100-01-01"),
        ("Reason", "r7"),
    ];
    done(browser, "Add exception", &exception, "The exception is in force.");
    browser.reads("credits/day override");
    let end = "document.querySelector('[aria-label^=\"End the exception\"]')\
               .getAttribute('aria-label')";
    let end = browser.eval(end).as_str().unwrap().to_owned();
    done(browser, &end, &[("Reason", "r8")], "The exception was ended.");

    let entries = "[...document.querySelectorAll('[aria-label=History] tbody tr')]\
                   .map(it => it.innerText.replaceAll('\\t', ' | ')).join('\\n')";
    let entries = browser.eval(entries);
    let entries = entries.as_str().unwrap();
    for said in [
        "r2",
        "Given: 7 credits (gift)",
        "r3",
        "Given units ended: gift",
        "r4",
        "Plan: pro",
        "r5",
        "Suspended",
        "r6",
        "Resumed",
        "r7",
        "Exception: quota.credits = \"3/day\", until 1 Jan 2100",
        "r8",
        "Exception ended: ",
        "r1",
        "Created",
    ] {
        assert!(entries.contains(said), "{said}\n{entries}");
    }
    assert_eq!(entries.matches("kim@example.com").count(), 8, "{entries}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_new_key_is_shown_once_and_an_old_one_ends() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    let old = bed.tenant("acme");
    bed.at_tenant(browser, &bed.write, "acme");
    let origin = json!({
        "origin": format!("http://{}", bed.address),
        "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"],
    });
    browser.call("Browser.grantPermissions", origin);
    change(browser, "Rotate laptop", &[("The old key ends", "0")]);
    browser.until("document.getElementById('new-key')");
    let new = browser.eval("document.getElementById('new-key').textContent");
    let new = new.as_str().unwrap();
    browser.eval("document.querySelector('dialog button.main').click()");
    browser.reads("Copied.");
    assert_eq!(browser.eval("navigator.clipboard.readText()"), new);
    assert_eq!((bed.works(new), bed.works(&old)), (200, 401));
    browser.presses("Escape");
    browser.reads("Expired");
    assert_eq!(
        browser.eval(&format!("document.documentElement.innerHTML.includes({})", json!(new))),
        false
    );
    done(browser, "Revoke laptop", &[], "laptop was revoked.");
    assert_eq!(bed.works(new), 401);
    change(browser, "New key", &[("Name", "ci"), ("End (optional)", "2100-01-01")]);
    browser.until("document.getElementById('new-key')");
    let made = browser.eval("document.getElementById('new-key').textContent");
    browser.eval("[...document.querySelectorAll('dialog button')].at(-1).click()");
    browser.reads("1 Jan 2100");
    assert_eq!(bed.works(made.as_str().unwrap()), 200);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_tenant_is_erased_once_its_id_was_written_and_is_shown_under_another() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    let key = bed.tenant("ann@example.com");
    assert_eq!(bed.works(&key), 200);
    bed.at_tenant(browser, &bed.write, "ann@example.com");
    let fields = |id| [("Its id, once more", id), ("Reason", "request 4711")];
    change(browser, "Erase", &fields("ann"));
    browser.until("document.querySelector('dialog .say')?.innerText.includes('not its id')");
    assert_eq!(bed.works(&key), 200);
    browser.presses("Escape");
    done(browser, "Erase", &fields("ann@example.com"), "It is erased.");
    assert_eq!(bed.works(&key), 401);
    browser.reads("~erased-");
    browser.reads("request 4711");
    let left = browser.eval("document.documentElement.innerHTML.includes('ann@example.com')");
    assert_eq!(left, false);
    let acts = "[...document.querySelectorAll('main button')].map(it => it.textContent)";
    let acts = browser.eval(&format!("{acts}.join(', ')"));
    assert!(!acts.as_str().unwrap().contains("Give units"), "{acts}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_token_that_may_only_look_is_shown_no_change() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::populated(), &mut browser);
    let buttons = "[...document.querySelectorAll('button')].filter(it => it.checkVisibility())\
                   .map(it => it.textContent).join(', ')";
    bed.sign_in(browser, &bed.read);
    loaded(browser);
    assert_eq!(browser.eval(buttons), "Refresh, Sign out, Search, Next, Show all 7");
    bed.at_tenant(browser, &bed.read, "acme");
    assert_eq!(browser.eval(buttons), "Refresh, Sign out, Show all 7, Show billing");
    browser.reads("launch offer");
    browser.reads("may look");
    // With the buttons or without: the routes refuse it.
    let send = format!(
        "fetch('/admin/tenants/acme', {{ method: 'PATCH', body: '{{}}',
         headers: {{ authorization: 'Bearer {}' }} }}).then(it => it.status)",
        bed.read
    );
    assert_eq!(browser.eval(&send), 403);
}

#[test]
fn errors_are_shown_where_they_happen() {
    let Some(mut browser) = Browser::start("console") else { return };
    let (bed, browser) = (Bed::new(), &mut browser);
    bed.tenant("acme");
    browser.go(&bed.console());
    browser.until("document.activeElement?.id === 'token'");
    browser.types(&bed.write[..30]);
    browser.presses("Enter");
    browser.reads("Operators only");
    browser.until("document.activeElement?.id === 'token'");
    assert_eq!(browser.eval("document.getElementById('token').value"), "");
    bed.at_tenant(browser, &bed.write, "acme");
    change(browser, "Add exception", &[("Changes (TOML)", "quota.crdits = 1"), ("Reason", "r")]);
    browser.until("document.querySelector('dialog .say')?.innerText.includes('Not accepted')");
    browser.until("document.querySelector('dialog .say').innerText.includes('crdits')");
    assert_eq!(browser.eval("document.querySelector('dialog').open"), true);
    browser.presses("Escape");
    for (gone, says) in [("nemo", "No such tenant"), ("..", "No address for this tenant")] {
        browser.eval(&format!("location.hash = '#tenant/{gone}'"));
        browser.reads(says);
    }
    // A revoked token signs out, and leaves nothing on the page.
    bed.at_tenant(browser, &bed.write, "acme");
    bed.runtime.block_on(async {
        let directory = bed.gate.directory();
        for operator in directory.operators().await.unwrap() {
            directory.revoke_operator(&operator.token.id).await.unwrap();
        }
    });
    browser.eval("document.getElementById('again').click()");
    browser.reads("Operators only");
    assert_eq!(browser.eval("document.body.innerText.includes('acme')"), false);
    assert_eq!(browser.eval("document.getElementById('tenant').childElementCount"), 0);
    drop(bed);
    browser.types("tgop_some");
    browser.presses("Enter");
    browser.reads("The service does not answer");
}
