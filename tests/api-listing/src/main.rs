//! Compares the public API of each published crate with the listing committed beside this program,
//! so that a change of it is seen in review, line by line.
//!
//!     cargo run -p api-listing            # fails where they differ, and shows the lines
//!     cargo run -p api-listing -- --write # writes the listings anew
//!
//! What the compiler implements for every type (auto traits, blanket implementations) and what
//! `derive` does is left out: `tests/` and `compile_fail` examples hold those that matter.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use public_api::Builder;
use similar::TextDiff;

/// The published crates, as `tests/packages` has them, but for `tallygate-cli`, a program.
const CRATES: [&str; 7] = [
    "stripe-sim",
    "tallygate",
    "tallygate-actix-web",
    "tallygate-axum",
    "tallygate-lambda",
    "tallygate-notify-aws",
    "tallygate-tonic",
];

/// Most items of one crate that a host may name: types, traits, functions and constants, without
/// methods and fields, each once. What a host has to read, and what every version has to keep. 150
/// for what a request and its host need, and ten for the operator's side.
const MOST_ITEMS: usize = 160;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    document(own, &root)?;
    let write = env::args().any(|it| it == "--write");
    let mut differ = false;
    for name in CRATES {
        let json = target.join("doc").join(format!("{}.json", name.replace('-', "_")));
        let found = listing(&json)?;
        let items = found.lines().filter_map(item).collect::<BTreeSet<_>>().len();
        println!("{name}: {items} public items");
        if items > MOST_ITEMS {
            return Err(format!("{name} has {items} public items, of at most {MOST_ITEMS}").into());
        }
        let file = own.join(format!("{name}.txt"));
        if write {
            fs::write(&file, &found)?;
            continue;
        }
        let committed = fs::read_to_string(&file)?;
        if committed != found {
            differ = true;
            let diff = TextDiff::from_lines(&committed, &found);
            println!("{}", diff.unified_diff().header(name, "now"));
        }
    }
    if !differ {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "The public API is not the one that is committed. If that is meant, run `cargo run -p \
         api-listing -- --write`, commit what it writes, and say in CHANGELOG.md what a host has \
         to change."
    );
    Ok(ExitCode::FAILURE)
}

/// Writes rustdoc's JSON of the workspace, over the same dependencies as `cargo doc` in CI.
fn document(own: &Path, root: &Path) -> Result<(), Box<dyn Error>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .current_dir(root)
        .args(["doc", "--quiet", "--locked", "--workspace", "--all-features", "--no-deps", "--lib"])
        .env("RUSTDOC", own.join("rustdoc"))
        .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json")
        .status()?;
    if done.success() { Ok(()) } else { Err("cargo doc failed".into()) }
}

/// One line for each public item, sorted.
fn listing(json: &Path) -> Result<String, Box<dyn Error>> {
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .sorted(true)
        .build()?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}

/// The name of a type, trait, function or constant of a module. What belongs to a type has the
/// type before it in its path, with a capital.
fn item(line: &str) -> Option<String> {
    let line = line.strip_prefix("#[non_exhaustive] ").unwrap_or(line);
    let item = without_generics(line.strip_prefix("pub ")?);
    if item.starts_with("mod ") || item.starts_with("use ") {
        return None;
    }
    let path = item.split([' ', '(']).find(|word| word.contains("::"))?;
    let (parents, name) = path.trim_end_matches(':').rsplit_once("::")?;
    parents.split("::").all(|it| it.starts_with(char::is_lowercase)).then(|| name.to_owned())
}

fn without_generics(line: &str) -> String {
    let mut depth = 0;
    let mut outside = |letter: &char| {
        depth += i32::from(*letter == '<') - i32::from(*letter == '>');
        depth == 0 && *letter != '>'
    };
    line.replace("->", "").chars().filter(|letter| outside(letter)).collect()
}
