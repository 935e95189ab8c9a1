//! `plans simulate` against what a gate has decided: a run that logged all of it comes out again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tallygate::{Ask, Gate, GateBuilder, ManualClock, Permit};

use crate::home::Home;

const PLANS: &str = r#"
default-plan = "free"
[meter.pages]
[meter.gifts]
[route.scan]
match = "POST /scan"
cost  = { requests = 2, pages = 3 }
[route.chat]
match = "POST /chat"
[route.export]
match = "POST /export"
needs = "exports"
[plan.free]
concurrency    = 6
rate.default   = "30/min burst 8"
rate.scan      = ["10/min burst 4", "20 pages/min burst 12 per user"]
quota.requests = ["90/hour per user", "300/day"]
quota.pages    = "70/hour"
quota.gifts    = "5"
[plan.pro]
extends         = "free"
concurrency     = 8
feature.exports = true
quota.pages     = { limit = "40/hour", over = "allow" }
[plan.trial]
extends = "free"
enforce = "shadow"
"#;

const TENANTS: [(&str, &str); 4] =
    [("acme", "free"), ("globex", "pro"), ("initech", "free"), ("umbrella", "trial")];

/// 2026-11-24T10:00:00Z.
const START_MS: i64 = 1_795_514_400_000;

/// Numbers below `n`, the same in each run (a linear congruential generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Calls and refusals of each tenant.
type Came = BTreeMap<String, (u64, BTreeMap<String, u64>)>;

async fn one(gate: &Gate, dice: &mut Dice, came: &mut Came) -> Option<Permit> {
    let (tenant, _) = TENANTS[dice.below(4) as usize];
    let handle = gate.tenant(tenant).await.unwrap();
    let mut ask = Ask::new(&handle, dice.of(&["scan", "chat", "chat", "export", "else"]));
    if dice.below(2) == 0 {
        ask = ask.user(dice.of(&["ann", "bob"]));
    }
    match dice.below(6) {
        0 => ask = ask.cost("pages", dice.below(5)),
        1 => ask = ask.cost("gifts", 1),
        2 => ask = ask.cost("pages", 1 + dice.below(20)),
        _ => {}
    }
    let of = came.entry(tenant.to_owned()).or_default();
    of.0 += 1;
    match gate.admit(ask).await {
        Ok(permit) => Some(permit),
        Err(refusal) => {
            let limit = refusal.limit.map(|limit| limit.name.to_string());
            let by = limit.unwrap_or_else(|| "feature-not-in-plan".to_owned());
            *of.1.entry(by).or_default() += 1;
            None
        }
    }
}

/// A run of so many calls, logged in this folder.
async fn run(home: &Home, calls: usize, seed: u64) -> Came {
    let file = home.path("decisions.ndjson");
    let service = format!(
        "[store]\nkind = \"memory\"\n[flush]\nmode = \"fast\"\n[decisions]\nfile = {file:?}\n\
         admissions = 1\n"
    );
    let clock = ManualClock::at_unix_ms(START_MS);
    let builder = GateBuilder::from_text(&service).plans(PLANS).work_only();
    let gate = builder.clock(clock.clone()).open().await.unwrap();
    for (tenant, plan) in TENANTS {
        gate.directory().tenant(tenant).plan(plan).save().await.unwrap();
    }
    let (mut dice, mut came, mut open) = (Dice(seed), Came::new(), Vec::new());
    for n in 0..calls {
        open.extend(one(&gate, &mut dice, &mut came).await);
        while dice.below(9) > 2 && !open.is_empty() {
            let at = dice.below(open.len() as u64) as usize;
            open.swap_remove(at).settle();
        }
        match dice.below(40) {
            0 => clock.advance(Duration::from_secs(dice.below(1_200))),
            1..=20 => clock.advance(Duration::from_millis(dice.below(900))),
            _ => {}
        }
        if n % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(120)).await; // the queue is written
        }
    }
    open.into_iter().for_each(Permit::settle);
    gate.close().await.unwrap();
    came
}

fn simulated(home: &Home, args: &[&str]) -> Vec<Value> {
    let printed = home.run(&[&["plans", "simulate", "--json"], args].concat()).ok();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_run_that_logged_all_comes_out_again() {
    for seed in [7, 8, 9] {
        let home = Home::empty();
        let came = run(&home, 2_000, seed).await;
        home.write("plans.toml", PLANS);
        home.write("tallygate.toml", "[decisions]\n");
        // Half of the pages, and no feature to need.
        let new = PLANS.replace("70/hour", "35/hour").replace("needs = \"exports\"\n", "");
        home.write("new.toml", &new);
        let tenants = simulated(&home, &["--plans", "new.toml"]);
        assert_eq!(tenants.len(), TENANTS.len());
        for it in &tenants {
            let (calls, refused) = &came[it["tenant"].as_str().unwrap()];
            let [now, new] = it["files"].as_array().unwrap().as_slice() else { panic!("{it}") };
            assert_eq!(
                (&now["calls"], &now["not_as_logged"]),
                (&(*calls).into(), &0.into()),
                "{it}"
            );
            let all = refused.values().sum::<u64>();
            assert_eq!(now["refused"], serde_json::to_value(all).unwrap());
            // Where two limits refuse, either may be named.
            let one_by_one: BTreeMap<String, u64> =
                serde_json::from_value(now["refused_by"].clone()).unwrap();
            let apart: u64 =
                refused.iter().map(|(by, n)| one_by_one.get(by).unwrap_or(&0).abs_diff(*n)).sum();
            assert!(apart * 20 <= all, "{it} {refused:?}");
            assert!(new["refused_by"].get("feature-not-in-plan").is_none(), "{it}");
            if it["tenant"] == "acme" {
                let pages = |it: &Value| it["refused_by"]["pages/hour"].as_u64().unwrap_or(0);
                assert!(pages(new) > pages(now), "{it}");
            }
        }
        // Refused nothing, it has used more than there is.
        let umbrella = tenants.iter().find(|it| it["tenant"] == "umbrella").unwrap();
        assert!(umbrella["files"][0]["over"].get("gifts").is_some(), "{umbrella}");
    }
}

#[test]
fn an_access_log_is_decided_by_its_users_and_paths() {
    let home = Home::empty();
    home.write("plans.toml", PLANS);
    let mut log = String::new();
    for second in 0..12 {
        log += &format!(
            "192.0.2.1 - acme [24/Nov/2026:10:00:{second:02} +0000] \"POST /scan?x=1 HTTP/1.1\" \
             200 1\n"
        );
        log += &format!(
            "{{\"ts\":\"2026-11-24T10:00:{second:02}Z\",\"org\":\"globex\",\"verb\":\"GET\",\
             \"path\":\"/else\"}}\n"
        );
    }
    log += "192.0.2.1 - - [24/Nov/2026:10:00:01 +0000] \"GET / HTTP/1.1\" 401 1\nhello\n";
    for no_id in ["", "~erased-00", &"x".repeat(300), "a\\tb"] {
        log += &format!(
            "{{\"ts\":\"2026-11-24T10:00:00Z\",\"org\":\"{no_id}\",\"verb\":\"GET\",\
             \"path\":\"/else\"}}\n"
        );
    }
    home.write("access.log", &log);
    let args = ["--access-log", "access.log", "--time-member", "ts", "--tenant-member", "org"];
    let ran = home
        .run(&[&["plans", "simulate", "--json"], &args[..], &["--method-member", "verb"]].concat());
    let left_out = "left out: 1 lines: no tenant\nleft out: 4 lines: no tenant's id\n\
                    left out: 1 lines: not understood\n";
    assert!(ran.stderr.ends_with(left_out), "{}", ran.stderr);
    let found: Vec<Value> =
        ran.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // 4 at once, and one in 6 seconds after that.
    assert_eq!(found[0]["files"][0]["admitted"], 5, "{found:?}");
    assert_eq!(found[0]["files"][0]["refused"], 7);
    assert_eq!(found[1]["files"][0]["admitted"], 12, "8 and one each 2 seconds: {found:?}");
}

const GUARDED: &str = "default-plan = \"free\"\n\
                       [plan.free]\nquota.requests = \"4/day\"\n\
                       [route.items]\nmatch = \"POST /items\"\nneeds-permission = \"write\"\n\
                       [route.other]\nmatch = \"POST /other\"\nneeds-permission = \"more\"\n";

/// A request on a route that asks for a permission, as a gate logs it.
fn logged(at: u32, refused_for: Option<&str>) -> String {
    let (verdict, why) = match refused_for {
        None => ("admitted", r#""one_in":1,"reason":null,"status":null"#.to_owned()),
        Some(name) => {
            let why = format!(r#""reason":"permission-missing","about":"{name}","status":403"#);
            ("refused", why)
        }
    };
    format!(
        "{{\"at\":\"2026-11-24T10:00:{at:02}Z\",\"kind\":\"request\",\"verdict\":\"{verdict}\",\
         \"tenant\":\"acme\",\"route\":\"items\",\"plan\":\"free\",\"revision\":1,\
         {why},\"limit\":null,\"retry_after_seconds\":null,\"cost\":{{\"requests\":1}}}}\n"
    )
}

/// An admission had its permission; what lacked it lacks it again, under any file that asks for it.
#[test]
fn a_permission_is_held_as_the_log_has_it() {
    let home = Home::empty();
    home.write("plans.toml", GUARDED);
    home.write("tallygate.toml", "[decisions]\n");
    let log: Vec<String> = [None, Some("write"), None, Some("write"), None]
        .into_iter()
        .enumerate()
        .map(|(at, refused)| logged(at as u32, refused))
        .collect();
    home.write("decisions.ndjson", &log.concat());
    home.write("open.toml", &GUARDED.replace("needs-permission = \"write\"\n", ""));
    home.write("other.toml", &GUARDED.replace("\"write\"", "\"edit\""));
    let came = |plans: &str| simulated(&home, &["--plans", plans])[0]["files"].clone();
    let [now, open] = &*came("open.toml").as_array().unwrap().clone() else { panic!() };
    assert_eq!((&now["admitted"], &now["not_as_logged"]), (&3.into(), &0.into()), "{now}");
    assert_eq!(now["refused_by"], serde_json::json!({ "permission-missing": 2 }));
    assert_eq!(open["refused_by"], serde_json::json!({ "requests/day": 1 }), "{open}");
    let other = &came("other.toml")[1];
    assert_eq!(other["admitted"], 4, "they are taken to have what another file asks for: {other}");

    let line = "192.0.2.1 - acme [24/Nov/2026:10:00:01 +0000] \"POST /items HTTP/1.1\" 200 1\n";
    home.write("access.log", line);
    let found = &simulated(&home, &["--access-log", "access.log"])[0]["files"][0];
    assert_eq!(found["admitted"], 1, "an access log knows no permissions: {found}");
}

/// A log of a server that writes what it was sent: it is read by lines, and each is within a bound.
#[test]
fn lines_that_cannot_be_read_are_counted_and_left_out() {
    let home = Home::empty();
    home.write("plans.toml", PLANS);
    let line = "192.0.2.1 - acme [24/Nov/2026:10:00:01 +0000] \"GET /else HTTP/1.1\" 200 1\n";
    let mut log = line.as_bytes().to_vec();
    log.extend(b"192.0.2.1 - acme [24/Nov/2026:10:00:01 +0000] \"GET /\xff HTTP/1.1\" 400 1\n");
    log.extend(vec![b'x'; 200_000]);
    log.push(b'\n');
    log.extend(line.as_bytes());
    std::fs::write(home.path("access.log"), log).unwrap();
    let ran = home.run(&["plans", "simulate", "--json", "--access-log", "access.log"]);
    let said = "left out: 1 lines: more than 64 KiB\nleft out: 1 lines: not UTF-8\n";
    assert!(ran.stderr.ends_with(said), "{}", ran.stderr);
    assert_eq!(ran.json()["files"][0]["calls"], 2);
}

/// The newest of all processes, whichever file they are in.
#[test]
fn the_last_refusals_are_kept_and_no_others() {
    let home = Home::empty();
    home.run(&["init"]).ok();
    let line = |at: u32| {
        format!(
            "{{\"at\":\"2026-11-24T10:00:{at:02}Z\",\"kind\":\"request\",\"verdict\":\"refused\",\
             \"tenant\":\"acme\",\"user\":null,\"key\":null,\"route\":\"default\",\
             \"plan\":\"free\",\
             \"revision\":1,\"reason\":\"suspended\",\"limit\":null,\"status\":403,\
             \"retry_after_seconds\":null,\"cost\":{{}}}}\n"
        )
    };
    home.write("d.ndjson", &[5, 6, 50].map(line).concat());
    home.write("d.ndjson.1", &[1, 2, 3].map(line).concat());
    home.write("d-2.ndjson", &[4, 51, 7].map(line).concat());
    let args = ["tenant", "refusals", "acme", "--log", "d.ndjson", "--limit", "3", "--json"];
    let printed = home.run(&args).ok();
    let seconds = printed.lines().map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["at"].as_str().unwrap()[17..19].to_owned()
    });
    assert_eq!(seconds.collect::<Vec<_>>(), ["51", "50", "07"], "{printed}");
}
