//! What a gate logs when it opens: the loss of a crash, and each exception to its promises.

use tallygate::testing;

use crate::floods::Log;

const PLANS: &str = r#"
    default-plan = "free"
    on-directory-error = "default-plan"
    [meter.jobs]
    [meter.exports]
    [plan.free]
    concurrency    = 3
    on-lease-error = { allow = "2%" }
    quota.jobs     = { limit = "1000/day", over = "allow", stop = "1500" }
    quota.exports  = { limit = "10/day", over = "allow" }
"#;

/// The lines of a gate with this plan file.
fn logged(plans: &'static str) -> Log {
    let log = Log::default();
    log.over(async {
        let gate = testing::builder(plans).open().await.unwrap();
        gate.close().await.unwrap();
    });
    log
}

#[test]
fn each_exception_to_a_promise_is_logged_when_the_gate_opens() {
    let log = logged(PLANS);
    for line in [
        "hard quotas are exact in every mode",
        "concurrency 3 is per process",
        "while the store is away a process may serve 20 jobs beyond its lease",
        "soft limit: stops at 1500 jobs",
        "soft limit: has no stop",
        "while the directory is away",
        "while the store is away: leases are served to their end",
    ] {
        assert!(log.has(line), "{line}: {:?}", log.0);
    }
}

#[test]
fn plans_without_exceptions_log_none() {
    let log = logged("default-plan = \"free\"\n[plan.free]\nquota.requests = \"10/day\"");
    for line in ["per process", "beyond its lease", "soft limit", "while the directory is away"] {
        assert!(!log.has(line), "{line}: {:?}", log.0);
    }
}

#[test]
fn a_reloaded_plan_file_is_held_to_the_routes_that_the_app_has_named() {
    let log = Log::default();
    log.over(async {
        let text =
            "default-plan = \"free\"\n[plan.free]\n[route.chat]\nmatch = \"POST /v1/chat\"\n";
        let plans = testing::Plans::new(text);
        let gate = plans.read_by(testing::builder("")).open().await.unwrap();
        gate.check_routes(["POST /v1/chat"]).unwrap();
        plans.set(&text.replace("chat\"\n", "caht\"\n"));
        assert!(gate.reload().await.unwrap());
        gate.close().await.unwrap();
    });
    assert_eq!(log.count("no route of the app has `POST /v1/caht`"), 1, "{:?}", log.0);
}
