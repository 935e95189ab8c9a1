//! The usage page in a real browser: its content, its policy, and its looks.
//!
//! The reports are made by the crate itself, and served from a loopback port. Screenshots go to
//! `target/page/`. Without Chromium the tests print `skipped: page`, or fail if `CI=true`;
//! `tests/servers/get-chromium` installs it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::{
    GrantReport, Granularity, History, HistoryRow, LimitReport, MeterReport, Period, RateReport,
    UsageReport, page_reply, page_with_keys_reply,
};
use crate::amount::Amount;
use crate::catalog::Feature;
use crate::clock::time_at;
use crate::wire::Reply;

const DAY_MS: i64 = 86_400_000;
/// 2026-11-21T10:23:56Z.
const NOW_MS: i64 = 1_795_256_636_000;
/// 2026-11-01T00:00:00Z and 2026-12-01T00:00:00Z.
const MONTH: (i64, i64) = (1_793_491_200_000, 1_796_083_200_000);

#[test]
fn shows_the_numbers_in_every_size_and_scheme() {
    let Some(browser) = browser() else { return };
    let server = serve();
    let page = format!("http://{server}/open/usage-page");
    let (dom, log) = dom(&browser, &page);
    for told in [
        "Team",
        "✓ Active",
        "Grant credits-500",
        "1,204,331",
        "1,000,000",
        "204,331",
        "beyond what is included",
        "412.37",
        "9,007,199,254,740,993",
        "Resets in 10 days",
        "Unlimited",
        "✕ No",
        "Last 30 days",
        "Use of the last 3 s may be missing.",
        "200 / second",
    ] {
        assert!(dom.contains(told), "{told} is not on the page:\n{dom}");
    }
    assert!(!log.contains("CONSOLE"), "the browser complains:\n{log}");

    for (scheme, dark) in [("light", false), ("dark", true)] {
        for (size, width, height) in [("narrow", 360, 3000), ("wide", 1280, 2000)] {
            let file = pictures().join(format!("{scheme}-{size}.png"));
            let url = format!("http://{server}/open/frame/{width}");
            picture(&browser, &url, &file, dark, width.max(500), height);
            assert!(std::fs::metadata(&file).unwrap().len() > 10_000, "{}", file.display());
        }
    }
}

#[test]
fn says_of_every_status_whether_it_is_a_good_one() {
    let Some(browser) = browser() else { return };
    let server = serve();
    for (status, told) in [
        ("active", "✓ Active"),
        ("suspended", "✕ Suspended"),
        ("trial-over", "✕ Trial over"),
        ("payment-required", "✕ Payment required"),
    ] {
        let (dom, _) = dom(&browser, &format!("http://{server}/{status}/usage-page"));
        assert!(dom.contains(told), "{told} is not on the page:\n{dom}");
    }
}

#[test]
fn asks_for_a_key_and_tells_errors_in_words() {
    let Some(browser) = browser() else { return };
    let server = serve();
    let (locked, _) = dom(&browser, &format!("http://{server}/locked/usage-page"));
    assert!(locked.contains(r#"<section class="card say" id="ask">"#), "{locked}");
    assert!(locked.contains(r#"id="report" hidden"#), "{locked}");
    let (broken, _) = dom(&browser, &format!("http://{server}/broken/usage-page"));
    assert!(broken.contains("The service answered 503."), "{broken}");
    let (gone, _) = dom(&browser, &format!("http://{server}/gone/usage-page"));
    assert!(gone.contains("The service does not answer"), "{gone}");
    picture(
        &browser,
        &format!("http://{server}/locked/frame/1280"),
        &pictures().join("locked.png"),
        false,
        1280,
        600,
    );
}

#[test]
fn shows_keys_in_a_tab_of_their_own_where_they_are_served() {
    let Some(browser) = browser() else { return };
    let server = serve();
    let (with, log) = dom(&browser, &format!("http://{server}/keys/usage-page#keys"));
    for told in ["laptop (this one)", "Never", "Revoke", "&lt;b&gt;ci&lt;/b&gt;"] {
        assert!(with.contains(told), "{told} is not on the page:\n{with}");
    }
    assert!(with.contains(r#"<div id="report" hidden="" role"#), "{with}");
    assert_eq!(with.matches("Revoke laptop, k1").count(), 1);
    assert!(!with.contains("Revoke &lt;b&gt;"), "a revoked key is revoked no more");
    assert!(!log.contains("CONSOLE"), "the browser complains:\n{log}");
    let (without, _) = dom(&browser, &format!("http://{server}/open/usage-page#keys"));
    assert!(without.contains(r#"id="tabs" hidden"#), "{without}");
    assert!(!without.contains("laptop"), "{without}");
}

#[test]
fn a_foreign_script_does_not_run() {
    let Some(browser) = browser() else { return };
    let server = serve();
    let (dom, log) = dom(&browser, &format!("http://{server}/injected/usage-page"));
    assert!(!dom.contains("INJECTED-RAN"), "{dom}");
    assert!(log.contains("Content Security Policy"), "the policy did not speak:\n{log}");
}

/// The browser's name, or `None` with a printed reason.
fn browser() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let names = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
    let runs = |name: &String| Command::new(name).arg("--version").output().is_ok();
    let found = named.into_iter().chain(names).find(runs);
    if found.is_none() {
        println!("skipped: page (no chromium; run tests/servers/get-chromium)");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI must have Chromium");
    }
    found
}

fn pictures() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    std::fs::create_dir_all(&target).unwrap();
    target
}

fn run(browser: &str, arguments: &[&str]) -> Output {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--hide-scrollbars", "--virtual-time-budget=5000"])
        .args(["--enable-logging=stderr", "--lang=en"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn dom(browser: &str, url: &str) -> (String, String) {
    let output = run(browser, &["--dump-dom", url]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn picture(browser: &str, url: &str, file: &Path, dark: bool, width: u32, height: u32) {
    let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
    let size = format!("--window-size={width},{height}");
    let shot = format!("--screenshot={}", file.display());
    run(browser, &[&scheme, &size, &shot, url]);
}

/// A server for one test: its threads end with the process.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    // Read the complete head, so that closing does not reset the connection.
    lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
    let target = first.split(' ').nth(1).unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (mode, rest) = path[1..].split_once('/').unwrap_or(("", ""));
    let reply = match (mode, rest) {
        ("injected", "usage-page") => injected(),
        ("keys", "usage-page") => page_with_keys_reply(),
        ("keys", "usage/keys") => keys(),
        (_, "usage-page") => page_reply(),
        ("gone", _) => return,
        ("locked", "usage") => plain(401),
        ("broken", "usage") => plain(503),
        ("open" | "keys", "usage") => report().reply(None),
        (status, "usage") => UsageReport { status: status.into(), ..report() }.reply(None),
        (_, "usage/history") => history(query).reply(),
        (_, frame) if frame.starts_with("frame/") => framed(&frame["frame/".len()..]),
        _ => plain(404),
    };
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", reply.body.len()));
    // A browser that disconnects is no fault of the page.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&reply.body));
}

fn plain(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new() }
}

/// The keys of a tenant, of which the caller's own is the first.
fn keys() -> Reply {
    let key = |id: &str, name: &str, used: Option<&str>, state: &str| {
        serde_json::json!({
            "id": id, "name": name, "made": "2026-11-20T10:00:00Z", "expires": null,
            "permissions": ["read"], "last-used": used, "state": state,
        })
    };
    let used = Some("2026-11-21T10:00:00Z");
    let keys = [key("k1", "laptop", used, "active"), key("k2", "<b>ci</b>", None, "revoked")];
    let body = serde_json::json!({ "keys": keys, "own": "k1", "permissions": ["read"] });
    let headers = vec![("content-type", "application/json".to_owned())];
    Reply { status: 200, headers, body: body.to_string().into_bytes() }
}

/// The page with a foreign script.
fn injected() -> Reply {
    let mut reply = page_reply();
    let script = "<script>document.title = 'INJECTED' + '-RAN'</script></body>";
    let html = String::from_utf8(reply.body).unwrap().replace("</body>", script);
    reply.body = html.into_bytes();
    reply
}

/// The page in a frame of this width: a browser window cannot be narrower than 500.
fn framed(width: &str) -> Reply {
    let body = format!(
        "<!doctype html><meta name=color-scheme content='light dark'>\
         <style>body{{margin:0}}iframe{{border:0;width:{width}px;height:100vh;display:block}}\
         </style><iframe src='../usage-page'></iframe>"
    );
    let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
    Reply { status: 200, headers, body: body.into_bytes() }
}

fn history(query: &str) -> History {
    let (name, unit, top) = match query {
        _ if query.contains("egress") => ("egress", "bytes", 21_000_000_000),
        _ if query.contains("credits") => ("credits", "credits", 24_000),
        _ => ("requests", "requests", 61_000),
    };
    let first = NOW_MS - NOW_MS.rem_euclid(DAY_MS) - 29 * DAY_MS;
    let rows = (0..30_i64).map(|i| {
        let start_ms = first + i * DAY_MS;
        let weekend = u64::from((i + 3) % 7 < 2);
        let wave = [52, 61, 74, 70, 83, 96, 88][usize::try_from(i % 7).unwrap()];
        let used = if i == 4 { 0 } else { top * wave / 100 / (1 + weekend * 2) };
        let used = Amount::new(used, if name == "credits" { 1000 } else { 1 });
        HistoryRow { start: time_at(start_ms), end: time_at(start_ms + DAY_MS), used }
    });
    History {
        meter: name.into(),
        unit: unit.into(),
        granularity: Granularity::Day,
        rows: rows.collect(),
    }
}

fn limit(id: &str, scope: &str, limit: Option<u64>, used: u64, window: (i64, i64)) -> LimitReport {
    LimitReport {
        id: id.into(),
        scope: scope.into(),
        limit: limit.map(Amount::units),
        used: Amount::units(used),
        debt: Amount::units(0),
        starts_at: time_at(window.0),
        resets_at: Some(time_at(window.1)),
    }
}

fn meter(name: &str, unit: &str, used: u64, limits: Vec<LimitReport>) -> MeterReport {
    MeterReport {
        name: name.into(),
        unit: unit.into(),
        used: Amount::units(used),
        over: Amount::units(0),
        held: Amount::units(0),
        limits,
        grants: Vec::new(),
        staleness: Duration::from_millis(120),
    }
}

fn rate(id: &str, scope: &str, limit: u64, per_seconds: u64, burst: u64) -> RateReport {
    RateReport {
        id: id.into(),
        scope: scope.into(),
        meter: None,
        limit: Amount::units(limit),
        per: Duration::from_secs(per_seconds),
        burst: Amount::units(burst),
        remaining: Amount::units(burst * 9 / 10),
    }
}

fn report() -> UsageReport {
    let today = (NOW_MS - NOW_MS.rem_euclid(DAY_MS), NOW_MS - NOW_MS.rem_euclid(DAY_MS) + DAY_MS);
    let grant = GrantReport {
        id: "credits-500".into(),
        source: "grant".into(),
        limit: Amount::new(500_000, 1000),
        used: Amount::new(87_630, 1000),
        expires_at: Some(time_at(NOW_MS + 200 * DAY_MS)),
    };
    let credits = LimitReport {
        limit: Some(Amount::new(450_000, 1000)),
        used: Amount::new(412_370, 1000),
        ..limit("credits/cycle", "tenant", None, 0, MONTH)
    };
    UsageReport {
        plan: "team".into(),
        status: "active".into(),
        catalog: 7,
        period: Period {
            start: time_at(MONTH.0),
            end: Some(time_at(MONTH.1)),
            timezone: "UTC".into(),
        },
        meters: vec![
            MeterReport {
                over: Amount::units(204_331),
                ..meter(
                    "requests",
                    "requests",
                    1_204_331,
                    vec![
                        limit("requests/cycle", "tenant", Some(1_000_000), 1_204_331, MONTH),
                        limit("requests/day", "tenant", Some(100_000), 41_200, today),
                        limit("requests/day/key", "key", Some(20_000), 20_000, today),
                    ],
                )
            },
            MeterReport {
                used: Amount::new(412_370, 1000),
                held: Amount::new(2_000, 1000),
                grants: vec![grant],
                staleness: Duration::from_millis(2_400),
                ..meter("credits", "credits", 412_370, vec![credits])
            },
            meter(
                "egress",
                "bytes",
                312_400_000_000,
                vec![limit(
                    "egress/cycle",
                    "tenant",
                    Some(1_000_000_000_000),
                    312_400_000_000,
                    MONTH,
                )],
            ),
            meter(
                "events",
                "events",
                (1 << 53) + 1,
                vec![limit("events/month", "tenant", None, (1 << 53) + 1, MONTH)],
            ),
        ],
        rates: vec![
            rate("all/s", "tenant", 200, 1, 200),
            rate("default/s", "tenant", 50, 1, 200),
            rate("default/s/key", "key", 20, 1, 20),
            RateReport {
                meter: Some("input-tokens".into()),
                ..rate("chat/input-tokens/min", "tenant", 100_000, 60, 100_000)
            },
        ],
        features: BTreeMap::from([
            ("exports".into(), Feature::Flag(true)),
            ("seats".into(), Feature::Number(10)),
            ("single-sign-on".into(), Feature::Flag(false)),
            ("environments".into(), Feature::Unlimited),
            ("support".into(), Feature::Text("business hours".into())),
        ]),
        as_of: time_at(NOW_MS),
    }
}
