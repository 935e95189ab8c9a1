//! Jobs that a plan refuses: they wait as long as they are told to, and hold up no others.

use serde_json::json;
use test_support::waits;

use crate::support::{Folder, end, job};

#[test]
fn what_a_quota_refuses_waits_for_the_next_window_and_holds_up_no_others() {
    let folder = Folder::with("100/day", "10/day");
    folder.edit("2/s burst 5", "1k/s burst 1k");
    for n in 0..12 {
        folder.put(&format!("1-{n:02}"), &job("acme", 2, 10));
    }
    let worker = folder.start();
    let refused = || worker.stderr().matches("refused for now: Quota `messages/day`").count();
    waits::until("all are decided", || folder.ids("done").len() + refused() >= 12);
    assert_eq!(folder.ids("done").len(), 5);
    for n in 0..20 {
        folder.put(&format!("2-{n:02}"), &job("globex", 2, 10));
    }
    folder.wait_for("done", 5 + 20);
    assert_eq!((refused(), folder.ids("jobs").len()), (7, 7), "each once");
    end(worker);
    assert_eq!(folder.used("acme", "messages"), 10);
    assert_eq!(folder.used("globex", "messages"), 40);
}

#[test]
fn included_units_pay_for_a_job_that_takes_the_last_of_them() {
    let folder = Folder::with("\"100/day\"", "{ limit = \"10/cycle\", over = \"bill\" }");
    let billed = "[meter.messages]\nstripe = { event = \"messages\", send = \"overage\" }";
    folder.edit("[meter.messages]", billed);
    folder.put("1", &job("acme", 10, 0));
    let worker = folder.start();
    folder.wait_for("done", 1);
    end(worker);
    let meter = folder.meter("acme", "messages");
    assert_eq!((&meter["used"], &meter["over"]), (&json!(10), &json!(0)), "{meter}");
}

#[test]
fn over_its_rate_a_job_comes_again_when_it_may() {
    let folder = Folder::with("2/s burst 5", "2/s burst 1");
    for n in 0..4 {
        folder.put(&n.to_string(), &job("acme", 1, 0));
    }
    let worker = folder.start();
    folder.wait_for("done", 4);
    // One comes at once, and one each half of a second; those that wait are refused again then.
    let refused = worker.stderr().matches(" refused for now").count();
    assert!((3..=3 + 2 + 1).contains(&refused), "{refused}");
    end(worker);
    assert_eq!(folder.used("acme", "messages"), 4);
}

#[test]
fn where_waiting_does_not_help_a_job_is_put_aside() {
    let folder = Folder::with("\"100/day\"", "\"prepaid\"");
    folder.put("1", &job("acme", 1, 0));
    folder.put("2", &job("globex", 1, 0));
    let worker = folder.start();
    folder.wait_for("done", 1);
    folder.wait_for("refused", 1);
    end(worker);
    assert_eq!((folder.ids("done"), folder.ids("refused")), (vec!["2".into()], vec!["1".into()]));
    assert_eq!(folder.used("globex", "messages"), 1);
}
