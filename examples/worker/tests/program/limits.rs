//! Jobs that a plan refuses: they wait as long as they are told to, and hold up no others.

use test_support::waits;

use crate::support::{Folder, end, job};

#[test]
fn of_a_quota_no_more_is_delivered_and_the_rest_waits_for_the_next_window() {
    let folder = Folder::with("100/day", "10/day");
    folder.edit("2/s burst 5", "1k/s burst 1k");
    for n in 0..12 {
        folder.put(&format!("1-{n:02}"), &job("acme", 2, 10));
    }
    let worker = folder.start();
    folder.wait_for("done", 5);
    let refused = || {
        let said = worker.stderr();
        let of_quota = |line: &&str| line.contains("refused for now: Quota `messages/day`");
        let lines = said.lines().filter(of_quota);
        lines.count()
    };
    waits::until("the others are refused", || refused() >= 7);
    for n in 0..20 {
        folder.put(&format!("2-{n:02}"), &job("globex", 2, 10));
    }
    folder.wait_for("done", 25);
    assert_eq!(refused(), 7, "each once: they wait until tomorrow");
    assert_eq!(folder.ids("jobs").len(), 7);
    end(worker);
    assert_eq!((folder.used("acme", "messages"), folder.used("globex", "messages")), (10, 40));
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
