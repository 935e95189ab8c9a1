//! What a team changes in its app, as docs/existing-app.md shows it.

use std::process::Command;

const DOCS: &str = include_str!("../../../../docs/existing-app.md");
const CARGO: &str = include_str!("../../Cargo.toml");
/// Most changed lines of Rust and Cargo.toml together, each removed and each added one counted.
const MOST: usize = 25;

/// The block of the page that begins with this line.
fn block(first: &str) -> Vec<&'static str> {
    let blocks = DOCS.split("```diff\n").skip(1).filter_map(|it| it.split_once("```"));
    let mut found = blocks.filter(|(block, _)| block.starts_with(first));
    let (block, _) = found.next().unwrap_or_else(|| panic!("no block `{first}`"));
    block.lines().skip(first.lines().count()).collect()
}

/// `diff -u` of the two programs, without its two lines of file names.
fn diff() -> Vec<String> {
    let mut diff = Command::new("diff");
    diff.args(["-u", "src/before.rs", "src/main.rs"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let text = String::from_utf8(diff.output().unwrap().stdout).unwrap();
    text.lines().skip(2).map(str::to_owned).collect()
}

/// The lines of Cargo.toml that the gate adds.
fn dependencies() -> Vec<&'static str> {
    let (_, rest) = CARGO.split_once("\n[dependencies]\n").unwrap();
    let (own, _) = rest.split_once("\n[").unwrap();
    own.lines().filter(|line| line.starts_with("tallygate")).collect()
}

#[test]
fn the_page_shows_what_changes() {
    assert_eq!(block("--- src/before.rs\n+++ src/main.rs\n"), diff());
    let added: Vec<_> = dependencies().iter().map(|it| it.split_once(" = ").unwrap().0).collect();
    let shown = block("--- Cargo.toml\n+++ Cargo.toml\n");
    let shown: Vec<_> = shown.iter().filter_map(|line| line.strip_prefix('+')).collect();
    assert_eq!(shown, added.iter().map(|name| format!("{name} = \"0.1\"")).collect::<Vec<_>>());
}

#[test]
fn few_lines_change() {
    let diff = diff();
    let changed = diff.iter().filter(|line| line.starts_with(['+', '-'])).count();
    let all = changed + dependencies().len();
    assert!(changed > 0 && all <= MOST, "{all} lines:\n{}", diff.join("\n"));
}

/// What both programs share was the app's before: only the one that has plans names the gate.
#[test]
fn nothing_else_knows_of_the_gate() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("tallygate") || path.ends_with("main.rs"), "{}", path.display());
    }
}
