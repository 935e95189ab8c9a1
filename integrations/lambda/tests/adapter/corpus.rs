//! What the fuzz target of a function's events begins with, and what it has found, replayed.

use std::path::Path;

use tallygate_lambda::testing::events;

#[test]
fn no_event_that_was_ever_found_is_found_again() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/lambda");
    let mut inputs = 0;
    for input in std::fs::read_dir(seeds).unwrap() {
        let path = input.unwrap().path();
        println!("{}", path.display()); // shown if it fails
        let data = std::fs::read(&path).unwrap();
        events(&data);
        for cut in (0..data.len()).step_by((data.len() / 16).max(1)) {
            events(&data[..cut]);
        }
        inputs += 1;
    }
    assert!(inputs >= 3, "{inputs} seeds");
}
