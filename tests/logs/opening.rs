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
