//! However a worker ends, each job that is done is charged once, and no other is.

use serde_json::json;
use test_support::waits;

use crate::support::{Folder, end, job, kill};

#[test]
fn a_job_is_charged_if_it_was_done() {
    let folder = Folder::new();
    folder.put("1", &job("acme", 3, 0));
    folder.put("2", &job("globex", 5, 0));
    folder.put("3", &json!({ "tenant": "acme", "messages": 7, "to": "nowhere" }));
    folder.put("4", &job("initech", 11, 0));
    folder.put("5", &json!("no job"));
    let worker = folder.start();
    folder.wait_for("done", 2);
    folder.wait_for("failed", 3);
    end(worker);
    assert_eq!((folder.ids("done"), folder.ids("jobs").len()), (vec!["1".into(), "2".into()], 0));
    assert_eq!((folder.used("acme", "messages"), folder.used("globex", "messages")), (3, 5));
    assert_eq!(folder.used("acme", "requests"), 0, "a job is none");
}

#[test]
fn a_job_that_is_delivered_again_is_charged_once() {
    let folder = Folder::new();
    let again = |worker| {
        folder.put("1", &job("acme", 3, 0));
        waits::until("it is out of the queue", || folder.ids("jobs").is_empty());
        folder.wait_for("done", 1);
        worker
    };
    end(again(again(folder.start())));
    assert_eq!(folder.used("acme", "messages"), 3);
    kill(again(folder.start())); // and by another process
    end(again(folder.start()));
    assert_eq!(folder.used("acme", "messages"), 3);

    folder.put("2", &job("acme", 3, 0));
    folder.put("1", &job("acme", 4, 0)); // the id is what counts
    let worker = folder.start();
    waits::until("both are out of the queue", || folder.ids("jobs").is_empty());
    end(worker);
    assert_eq!(folder.ids("done"), ["1", "2"]);
    assert_eq!(folder.used("acme", "messages"), 6);
}

#[test]
fn a_job_that_was_charged_is_done_though_its_tenant_has_nothing_left() {
    let folder = Folder::with("100/day", "3/day");
    for _ in 0..2 {
        folder.put("1", &job("acme", 3, 0));
        let worker = folder.start();
        waits::until("it is out of the queue", || folder.ids("jobs").is_empty());
        folder.wait_for("done", 1);
        kill(worker);
    }
    assert_eq!(folder.used("acme", "messages"), 3);
}

#[test]
fn a_worker_that_is_killed_in_the_middle_of_its_work_charges_each_job_once() {
    let folder = Folder::with("concurrency    = 20", "concurrency    = 8");
    let jobs = 100;
    for n in 0..jobs {
        folder.put(&format!("{n:03}"), &job("globex", 1 + n % 5, 20));
    }
    for deaths in 1..=3 {
        let worker = folder.start();
        folder.wait_for("done", deaths * 20);
        kill(worker);
        assert!(!folder.ids("jobs").is_empty(), "it dies in the middle");
    }
    let worker = folder.start();
    folder.wait_for("done", jobs as usize);
    end(worker);
    assert_eq!((folder.ids("jobs").len(), folder.ids("failed").len()), (0, 0));
    assert_eq!(folder.ids("delivered"), folder.ids("done"));
    assert_eq!(folder.used("globex", "messages"), folder.messages("done", "globex"));
}

#[test]
fn at_sigterm_it_ends_the_jobs_in_work_and_leaves_the_others() {
    let folder = Folder::new();
    for n in 0..30 {
        folder.put(&format!("{n:02}"), &job("globex", 2, 300));
    }
    let mut worker = folder.start();
    let begun = || worker.stderr().matches(" begun ").count();
    waits::until("some jobs are in work", || begun() > 0);
    worker.signal("-TERM");
    assert!(worker.ends_well());
    let done = folder.ids("done").len();
    assert_eq!(done, worker.stderr().matches(" begun ").count(), "all that were begun");
    assert!((1..30).contains(&done));
    assert_eq!(folder.ids("jobs").len(), 30 - done);
    assert_eq!(folder.used("globex", "messages"), 2 * done as u64);

    let worker = folder.start();
    folder.wait_for("done", 30);
    end(worker);
    assert_eq!(folder.used("globex", "messages"), 60);
}
