//! Several of this program on one table: one quota for all of them, to the unit.
//!
//! The table is in Amazon's DynamoDB Local, which needs Java; where it cannot be had, this says so,
//! and fails in CI.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says where; another process is waited for"
)]

use test_support::{dynamodb, skips};

use crate::support::{Api, Home};

const SOLO: &str = "tg_demo_solo";
const UPLOAD: &str = "/v1/upload";

/// Units of `solo` in its month; a fresh pool grants 8 at first, so three processes soon hold all.
const QUOTA: usize = 60;

/// A server, unless it cannot be had.
fn server() -> Option<&'static dynamodb_local::Server> {
    skips::needed("shared_table", dynamodb_local::shared())
}

fn home() -> Home {
    let home = Home::new();
    home.edit_plans("\"5/s burst 10\"", "\"1k/s\"");
    home.edit_plans("\"10k/month\"", &format!("\"{QUOTA}/month\""));
    home
}

/// Where the table is.
fn env<'a>(server: &'a dynamodb_local::Server, table: &'a str) -> Vec<(&'a str, &'a str)> {
    let store = [
        ("TALLYGATE__STORE__KIND", "dynamodb"),
        ("TALLYGATE__STORE__TABLE", table),
        ("TALLYGATE_PEPPER", "no secret in a test, but 32 bytes"),
    ];
    dynamodb::env(server.endpoint()).into_iter().chain(store).collect()
}

/// Starts three at once, each of which would make the table and the tenants.
fn start_three(home: &Home, server: &dynamodb_local::Server, table: &str) -> Vec<Api> {
    std::thread::scope(|scope| {
        let start = || home.start_with_args(&env(server, table), &["--create-table"]);
        let three: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        three.into_iter().map(|api| api.join().unwrap()).collect()
    })
}

/// Answers that the store may be too slow for, of some hundred, on a machine that is busy.
const MOST_LATE: usize = 20;

/// Asks each in turn until all refuse, and returns how many requests were admitted.
fn spend_all(apis: &[Api]) -> usize {
    let (mut admitted, mut refusals, mut late) = (0, 0, 0);
    for api in apis.iter().cycle() {
        match api.send("POST", UPLOAD, SOLO).status {
            200 => (admitted, refusals) = (admitted + 1, 0),
            429 => refusals += 1,
            503 if late < MOST_LATE => late += 1,
            status => panic!("{status}\n{}", api.stderr()),
        }
        assert!(admitted <= QUOTA, "never above the limit");
        if refusals == 3 * apis.len() {
            break;
        }
    }
    admitted
}

#[test]
fn three_processes_spend_one_quota_to_the_unit() {
    let Some(server) = server() else { return };
    let home = home();
    let apis = start_three(&home, server, "spend");
    assert_eq!(spend_all(&apis), QUOTA);
    for api in &apis {
        api.until("each sees what all have used", |api| api.used("requests", SOLO) == 60);
    }
}

#[test]
fn a_killed_process_costs_no_unit_above_the_limit_and_the_next_start_goes_on() {
    let Some(server) = server() else { return };
    let home = home();
    let mut apis = start_three(&home, server, "killed");
    for _ in 0..4 {
        assert!(apis.iter().all(|api| api.send("POST", UPLOAD, SOLO).status == 200));
    }
    // What the journal is promised to have: 50 ms old.
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(apis.remove(0)); // kill -9
    apis.push(home.start_with_args(&env(server, "killed"), &[]));
    let admitted = 12 + spend_all(&apis);
    // Its lease of 8 is spent until the month ends: what it had not used of it is out of reach.
    assert!((QUOTA - 8..=QUOTA).contains(&admitted), "{admitted} of {QUOTA}");
    for api in &apis {
        api.until("what the dead had used is there", |api| {
            api.used("requests", SOLO) == admitted as u64
        });
    }
}

#[test]
fn a_table_that_is_not_there_says_how_to_make_it() {
    let Some(server) = server() else { return };
    let home = home();
    let run = home.program().envs(env(server, "nowhere")).output().unwrap();
    assert!(!run.status.success());
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("there is no table `nowhere`"), "{said}");
}
