//! The page of `plans simulate --html`, and its revenue: what stands in the file, and the file in a
//! real browser. Pictures go to `target/page/simulate/`. Without Chromium that test is skipped by
//! name, or fails if `CI=true`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use test_support::browser::Browser;

use crate::home::Home;

/// Lists what is wrong with a page as it stands: the console's own.
const FAULTS: &str = include_str!("../../../axum/tests/adapter/console/faults.js");

const NOW: &str = r#"
default-plan = "pro"
[meter.requests]
stripe = { event = "requests", send = "overage" }
[meter.pages]
stripe = { event = "pages", send = "overage" }
[route.scan]
match = "POST /scan"
cost  = { requests = 1, pages = 3 }
[plan.pro]
rate.default   = "30/min burst 20"
quota.requests = "40/hour"
quota.pages    = { limit = "60/cycle", over = "bill" }
[plan.free]
extends = "pro"
"#;

/// Fewer requests and more pages.
fn new() -> String {
    NOW.replace("40/hour", "25/hour").replace("60/cycle", "90/cycle")
}

/// Tenants whose ids are markup, a quotation, a line that turns, and long.
const HOSTILE: [&str; 4] =
    ["<script>alert(1)</script>", "\"'&<!--", "abc\u{202e}fed", "</title><img/src=x>"];

fn line(log: &mut String, second: u64, tenant: &str, path: &str) {
    let at = jiff::Timestamp::from_second(1_795_514_400 + second as i64).unwrap();
    let line = json!({ "time": at.to_string(), "tenant": tenant, "method": "POST", "path": path });
    let _ = writeln!(log, "{line}");
}

/// A morning of calls by fourteen tenants, the later ones busier.
fn morning() -> String {
    let mut log = String::new();
    let long = format!("{}@example.com", "a-very-long-name-".repeat(6));
    let mut tenants: Vec<String> = HOSTILE.map(str::to_owned).to_vec();
    tenants.push(long);
    tenants.extend((0..9).map(|n| format!("tenant-{n}")));
    for (n, tenant) in tenants.iter().enumerate() {
        let every = 900 / (n as u64 + 2);
        for call in 0..14_400 / every {
            let path = if call % 3 == 0 { "/scan" } else { "/else" };
            line(&mut log, call * every + n as u64, tenant, path);
        }
        for burst in 0..n as u64 * 4 {
            line(&mut log, 5_000 + 600 * n as u64 + burst / 3, tenant, "/else");
        }
    }
    log
}

fn set_up(log: &str) -> Home {
    let home = Home::empty();
    home.write("plans.toml", NOW);
    home.write("new.toml", &new());
    home.write("access.log", log);
    home
}

const RUN: [&str; 6] = ["plans", "simulate", "--access-log", "access.log", "--plans", "new.toml"];

const PRICES: [&str; 10] = [
    "--price",
    "pages=0.12",
    "--new-price",
    "pages=0.15",
    "--plan-price",
    "pro=49",
    "--new-plan-price",
    "pro=52.50",
    "--currency",
    "eur",
];

fn page(home: &Home, args: &[&str]) -> String {
    home.run(&[args, &["--html", "page.html"]].concat()).ok();
    std::fs::read_to_string(home.path("page.html")).unwrap()
}

#[test]
fn a_page_is_one_file_without_markup_of_others() {
    let home = set_up(&morning());
    // What a log names is not all: so do the command line and the plan files' names.
    home.write("<b>.toml", &new());
    let args = [&RUN[..4], &["--plans", "<b>.toml"], &PRICES].concat();
    let html = page(&home, &args);
    for id in &HOSTILE[..2] {
        assert!(!html.contains(id), "{id}");
    }
    for id in
        ["&lt;script&gt;alert(1)&lt;/script&gt;", "&quot;&#39;&amp;&lt;!--", "abc\\u{202e}fed"]
    {
        assert!(html.contains(id), "{id}");
    }
    assert!(html.contains("&lt;b&gt;.toml"));
    for banned in [
        "<script", "<img", "<link", "<iframe", "<b>", "style=", " src=", "url(", "http:", "https:",
        "\u{202e}",
    ] {
        assert!(!html.contains(banned), "{banned}");
    }
    let policy = "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
                  style-src 'sha256-";
    assert!(html.contains(policy));
    let again = home.run(&[&args[..], &["--html", "page.html"]].concat());
    assert!(again.fails(6).contains("page.html: it is there"));
    let only = page_of_one(&home);
    assert!(!only.contains("Change") && !only.contains("new.toml"), "no other file, no change");
}

fn page_of_one(home: &Home) -> String {
    home.run(&[&RUN[..4], &["--html", "one.html"]].concat()).ok();
    std::fs::read_to_string(home.path("one.html")).unwrap()
}

/// The page has the numbers of the command's own output.
#[test]
fn a_page_says_what_the_table_says() {
    let home = set_up(&morning());
    let args = [&RUN[..], &PRICES, &["--json", "--html", "page.html"]].concat();
    let printed = home.run(&args).ok();
    let html = std::fs::read_to_string(home.path("page.html")).unwrap();
    let tenants: Vec<Value> = printed.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(tenants.len(), 14);
    let mut sums = [0, 0];
    for it in &tenants {
        let name = it["tenant"].as_str().unwrap();
        let Some(at) = html.rfind(&format!(">{name}</span></th>")) else { continue };
        let row = &html[at..at + html[at..].find("</tr>").unwrap()];
        for (n, side) in ["today", "new"].into_iter().enumerate() {
            let came = &it["files"][n];
            sums[n] += came["refused"].as_u64().unwrap();
            let refused = format!("data-of=\"Refused, {side}\"><span>{}<", came["refused"]);
            assert!(row.contains(&refused), "{name}: {row}");
            let revenue: f64 = came["revenue"].as_str().unwrap().parse().unwrap();
            let revenue =
                format!("data-of=\"Revenue, {side}\"><span><span class=\"whole\">{revenue:.2}<");
            assert!(row.contains(&revenue), "{name}: {row}");
        }
        assert_eq!(it["currency"], "EUR");
    }
    assert!(sums[0] > 0 && sums[1] > sums[0], "{sums:?}");
    let table = home.run(&[&RUN[..], &PRICES].concat()).ok();
    assert!(table.lines().next().unwrap().ends_with("NOT AS LOGGED  REVENUE, EUR"), "{table}");
}

/// Each billing period has its plan's price, and its own limits to go beyond.
#[test]
fn revenue_is_of_all_billing_periods() {
    const DAY: u64 = 86_400;
    let mut log = String::new();
    for day in [0, 1, 45, 46, 47] {
        for call in 0..15 {
            line(&mut log, day * DAY + call * 10, "acme", "/scan");
        }
    }
    let home = set_up(&log);
    let run = home.run(&[&RUN[..], &PRICES, &["--json"]].concat()).json();
    let [now, new] = run["files"].as_array().unwrap().as_slice() else { panic!("{run}") };
    assert_eq!(now["periods"], json!({ "pro": 2 }));
    // 90 and 135 pages, beyond 60 and beyond 90.
    assert_eq!(now["billed"], json!({ "pages": "105" }), "{now}");
    assert_eq!(new["billed"], json!({ "pages": "45" }), "{new}");
    assert_eq!(now["over"], json!({ "pages": "75" }), "of the last period: {now}");
    assert_eq!(now["revenue"], "110.6", "105 at 0.12 and twice 49");
    assert_eq!(new["revenue"], "111.75", "45 at 0.15 and twice 52.50");
}

#[test]
fn a_price_of_nothing_is_refused() {
    let home = set_up("");
    home.write("access.log", &morning());
    let fails = |args: &[&str]| home.run(&[&RUN[..], args].concat()).fails(2);
    assert!(fails(&["--price", "pags=1"]).contains("it has requests, pages"));
    assert!(fails(&["--plan-price", "gold=1"]).contains("the plan \"gold\""));
    assert!(fails(&["--price", "pages=1", "--price", "pages=2"]).contains("has two prices"));
    assert!(fails(&["--price", "pages"]).contains("egress=0.09/GB"));
    let alone = home.run(&[&RUN[..4], &["--new-price", "pages=1"]].concat()).fails(2);
    assert!(alone.contains("--plans"), "{alone}");
}

#[test]
fn the_page_is_legible_and_whole_in_every_size_and_scheme() {
    let Some(mut browser) = Browser::start("simulate_page") else { return };
    let home = set_up(&morning());
    page(&home, &[&RUN[..], &PRICES].concat());
    page_of_one(&home);
    home.write(
        "quiet.log",
        "192.0.2.1 - acme [24/Nov/2026:10:00:01 +0000] \"GET / HTTP/1.1\" 200 1\n",
    );
    let quiet = ["plans", "simulate", "--access-log", "quiet.log", "--html", "quiet.html"];
    home.run(&quiet).ok();
    for (view, file) in [("two", "page.html"), ("one", "one.html"), ("quiet", "quiet.html")] {
        browser.go(&format!("file://{}", home.path(file).display()));
        assert_eq!(browser.eval("document.images.length + document.scripts.length"), 0);
        every_size(&mut browser, view);
        assert_eq!(browser.complaints(), Vec::<String>::new());
    }
}

#[track_caller]
fn every_size(browser: &mut Browser, view: &str) {
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/page/simulate");
    std::fs::create_dir_all(&pictures).unwrap();
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        for (size, width) in [("narrow", 360), ("wide", 1280)] {
            browser.size(width, 900);
            let file = pictures.join(format!("{view}-{scheme}-{size}.png"));
            browser.picture(&file, true);
            assert!(std::fs::metadata(&file).unwrap().len() > 5_000, "{}", file.display());
            let faults = browser.eval(FAULTS);
            assert_eq!(faults, json!([]), "{view}, {scheme}, {size}: {faults:#}");
        }
    }
}
