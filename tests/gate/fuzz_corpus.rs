//! Replays the initial inputs of the fuzz targets, and their findings: `fuzz/seeds` has a folder
//! for each. Nothing in it may panic, hang, or be answered without a bound.

use std::path::Path;

use tallygate::testing::untrusted::TARGETS;

#[test]
fn nothing_that_was_ever_found_is_found_again() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for input in std::fs::read_dir(seeds.join(name)).unwrap() {
            let path = input.unwrap().path();
            println!("{}", path.display()); // shown if it fails
            target(&std::fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 3, "{name} has {inputs} seeds");
        // Each prefix is another input.
        for input in std::fs::read_dir(seeds.join(name)).unwrap() {
            let data = std::fs::read(input.unwrap().path()).unwrap();
            let step = (data.len() / 16).max(1);
            for cut in (0..data.len()).step_by(step) {
                target(&data[..cut]);
            }
        }
    }
}

#[test]
fn every_target_has_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for (name, _) in TARGETS {
        assert!(folder.join(format!("{name}.rs")).is_file(), "{name}");
    }
}
