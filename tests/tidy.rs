//! The rules of this repository that a machine can check. Each message says what to write instead.
//!
//! Files count that are tracked or could be, as `git ls-files` lists them: a new file is held to
//! them before it is committed. Outside a checkout (a published crate) there is nothing to hold to
//! them, and the tests say so.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

#[path = "tidy/dependencies.rs"]
mod dependencies;

/// Most lines of a file before its tests. A file holds one idea: this only catches one that
/// plainly holds several.
const FILE_LINES: usize = 700;
/// Most characters of a line.
const LINE_CHARS: usize = 100;
/// Most files that import one another in a circle: they are read and changed together.
const CIRCLE_FILES: usize = 3;

/// Files that may read a clock or sleep, and why.
const CLOCKS: [(&str, &str); 16] = [
    ("integrations/lambda/src/clock.rs", "a clock for processes that are frozen"),
    ("integrations/lambda/src/flush.rs", "an invocation's deadline is the wall clock's"),
    ("src/clock.rs", "the only reader of clocks"),
    ("src/patience.rs", "waits run on tokio's clock, which tests can pause"),
    ("src/billing/stripe/pace.rs", "waits run on tokio's clock, which tests can pause"),
    ("src/gate/maintain.rs", "waits run on tokio's clock, which tests can pause"),
    ("src/gate/alert_tasks.rs", "waits and the deadline of closing, on tokio's clock"),
    ("src/gate/close.rs", "the deadline of closing, on tokio's clock"),
    ("src/gate/reports.rs", "waits and the deadline of closing, on tokio's clock"),
    ("src/ledger/flush.rs", "waits and deadlines on tokio's clock"),
    ("src/ledger/flush/orders.rs", "waits and deadlines on tokio's clock"),
    ("src/ledger/flush/new_writer.rs", "waits on tokio's clock"),
    ("src/ledger/journal_thread.rs", "how long the disk has not answered, on tokio's clock"),
    ("src/renewal/mod.rs", "waits between repeats, on tokio's clock"),
    ("src/store/reach.rs", "pauses between probes, on tokio's clock"),
    ("src/rates/task.rs", "when the next slot begins, on tokio's clock"),
];

/// What stands in `src`, file or folder, from the ground up: each may use those before it.
const ORDER: [&str; 50] = [
    "overrides",
    "amount",
    "clock",
    "random",
    "delays",
    "task",
    "holders",
    "ids",
    "own_type",
    "table",
    "patience",
    "text_file",
    "https",
    "repeated",
    "notice",
    "telemetry",
    "turns",
    "places",
    "flights",
    "decision",
    "toml_file",
    "catalog",
    "config",
    "identity",
    "store",
    "notify",
    "wire",
    "decision_log",
    "report",
    "directory",
    "rates",
    "quota",
    "policy",
    "sheets",
    "payers",
    "tenants",
    "admission",
    "ledger",
    "events",
    "renewal",
    "billing",
    "error",
    "gate",
    "serving",
    "adapter",
    "ingest",
    "admin",
    "own_keys",
    "middleware",
    "testing",
];

/// Names of vendors and frameworks, and of what one folder alone may make, and the paths that may
/// use them.
const VENDORS: [(&str, &[&str]); 21] = [
    ("Surrogate::new", &["src/directory", "src/ids.rs"]),
    ("WriterId::draw", &["src/ledger/log.rs"]),
    ("WriterId::from_stored", &["src/store/layout.rs", "src/ledger/journal.rs", "src/ids.rs"]),
    ("NodeId::from_stored", &["src/store/layout.rs"]),
    ("strong_count", &["src/holders.rs"]),
    ("tokio::spawn", &["src/task.rs", "integrations/"]),
    ("redb::", &["src/store/redb"]),
    (
        "http::",
        &[
            "src/https",
            "src/middleware",
            "src/identity/jw",
            "src/identity/named_header",
            "src/wire/policy_text",
            "src/billing/stripe",
            "src/notify/web.rs",
            "integrations/",
        ],
    ),
    ("rustls::", &["src/https"]),
    ("hyper_rustls", &["src/https"]),
    ("ring::", &["src/identity/jwt", "src/https"]),
    ("aws_sdk_dynamodb", &["src/store/dynamodb", "integrations/"]),
    ("aws_sdk_eventbridge", &["integrations/notify-aws"]),
    ("aws_sdk_sns", &["integrations/notify-aws"]),
    ("stripe_client", &["src/billing/stripe", "integrations/"]),
    ("stripe_billing", &["src/billing/stripe"]),
    ("stripe_core", &["src/billing/stripe"]),
    ("stripe_product", &["src/billing/stripe"]),
    ("axum", &["integrations/axum"]),
    ("actix_web", &["integrations/actix-web"]),
    ("tonic::", &["integrations/tonic"]),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines before the unit tests, with their numbers from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..tests].lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// The same without comments.
    fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code()
            .map(|(at, line)| (at, line.split("//").next().unwrap_or_default()))
            .filter(|(_, line)| !line.trim().is_empty())
    }

    /// What stands after each `crate::`; nothing, where that is a group.
    fn uses(&self) -> BTreeSet<String> {
        let text = String::from_iter(self.statements().map(|(_, line)| format!("{line}\n")));
        let name = |of: &str| {
            of.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        text.split("crate::").skip(1).map(name).collect()
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Code that ships: not a test file.
    fn ships(&self) -> bool {
        let shipped = self.path.starts_with("src/") || self.path.starts_with("integrations/");
        let test = self.path.contains("/tests/")
            || self.path.ends_with("tests.rs")
            || self.path.ends_with("power_cut.rs");
        self.is_rust() && shipped && !test
    }
}

/// Every text file that git tracks or does not ignore, read as it stands.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let which = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = match Command::new("git").arg("-C").arg(root).args(which).output() {
        Ok(listed) if listed.status.success() => listed.stdout,
        _ => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI must have a git checkout");
            println!("skipped: tidy (no git checkout)");
            return Vec::new();
        }
    };
    let paths = String::from_utf8(listed).unwrap();
    let read = |path: &str| {
        // A file that is deleted but not yet committed, and binaries, have no text.
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(Source { path: path.to_owned(), text })
    };
    paths.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect()
}

#[track_caller]
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn fault(source: &Source, line: usize, instead: &str) -> String {
    format!("{}:{line}: {instead}", source.path)
}

#[test]
fn files_and_lines_are_short() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        let lines = source.code().count();
        if source.ships() && lines > FILE_LINES {
            let instead = format!("{lines} lines: split it by idea, below {FILE_LINES} each");
            faults.push(fault(source, FILE_LINES, &instead));
        }
        for (at, line) in source.text.lines().enumerate() {
            // A string that must stay whole (a snapshot, an address) has no break to take.
            if line.chars().count() > LINE_CHARS && !line.contains("r#\"") {
                faults.push(fault(source, at + 1, "longer than 100 columns: break the line"));
            }
        }
    }
    none(faults);
}

#[test]
fn every_file_says_what_it_is() {
    let rust = sources().into_iter().filter(Source::is_rust);
    let silent = rust.filter(|source| !source.text.starts_with("//!"));
    none(
        silent.map(|s| fault(&s, 1, "open with `//!`: what it is, its laws, its limits")).collect(),
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Split, so that this list is not its own fault.
    let banned = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        for (at, line) in source.text.lines().enumerate() {
            if let Some(word) = banned.iter().find(|word| line.contains(**word)) {
                let instead = format!("`{word}`: finish it, or open an issue and leave it out");
                faults.push(fault(source, at + 1, &instead));
            }
        }
    }
    none(faults);
}

#[test]
fn nothing_that_ships_unwraps() {
    let instead = "`.unwrap()`: return the error, or `expect` with the reason why it holds";
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.ships()) {
        let calls = source.statements().filter(|(_, line)| line.contains(".unwrap()"));
        faults.extend(calls.map(|(at, _)| fault(source, at, instead)));
    }
    none(faults);
}

#[test]
fn the_repository_names_no_machine() {
    let paths = ["/wo\u{72}k/", "/tmp/w\u{74}", "/ro\u{6f}t/", "/hom\u{65}/", "/User\u{73}/"];
    let registries =
        ["crates\u{2e}io/api", "index\u{2e}crates", "static\u{2e}crates", "pypi\u{2e}org"];
    let mut faults = Vec::new();
    // A lock file names its registry by nature.
    for source in sources().iter().filter(|source| !source.path.ends_with("Cargo.lock")) {
        for (at, line) in source.text.lines().enumerate() {
            if paths.iter().any(|path| line.contains(path)) {
                faults.push(fault(source, at + 1, "a path of one machine: make it relative"));
            }
            if registries.iter().any(|host| line.contains(host)) {
                faults.push(fault(source, at + 1, "a registry's host: name the crate alone"));
            }
        }
    }
    none(faults);
}

#[test]
fn time_comes_in_as_an_argument() {
    let banned = ["Instant::now(", "SystemTime::now(", "thread::sleep("];
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.ships()) {
        if CLOCKS.iter().any(|(path, _)| *path == source.path) {
            continue;
        }
        let reads = source.statements().filter(|(_, line)| banned.iter().any(|b| line.contains(b)));
        let instead = "reads a clock: take `Now` as an argument (src/clock.rs reads it)";
        faults.extend(reads.map(|(at, _)| fault(source, at, instead)));
    }
    none(faults);
}

#[test]
fn vendors_stay_in_their_files() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.ships()) {
        for (name, homes) in VENDORS {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            let uses = source.statements().filter(|(_, line)| names(line, name));
            let instead = format!("`{name}` belongs in {}", homes.join(", "));
            faults.extend(uses.map(|(at, _)| fault(source, at, &instead)));
        }
    }
    none(faults);
}

#[test]
fn imports_point_down() {
    let place = |name: &str| ORDER.iter().position(|it| *it == name);
    let mut faults = Vec::new();
    for source in sources().iter().filter(|it| it.ships() && it.path.starts_with("src/")) {
        let own = source.path["src/".len()..].split('/').next().unwrap_or_default();
        let own = own.trim_end_matches(".rs");
        if own == "lib" {
            continue; // it names all
        }
        let Some(at) = place(own) else {
            faults.push(fault(source, 1, "say in ORDER (tests/tidy.rs) where it stands"));
            continue;
        };
        for used in source.uses() {
            match place(&used) {
                Some(of) if of <= at => {}
                Some(_) => {
                    let instead = format!("`{used}` stands above `{own}`: turn the arrow round");
                    faults.push(fault(source, 1, &instead));
                }
                None if own == "testing" => {}
                None => {
                    let instead = format!("`crate::{used}`: name it by its folder");
                    faults.push(fault(source, 1, &instead));
                }
            }
        }
    }
    none(faults);
}

#[test]
fn what_a_file_uses_of_its_crate_is_found() {
    let text = "#[cfg(test)]\nmod tests;\n\
                use crate::a::B;\nuse crate::{c, D};\n// crate::e\nx(crate::f::g(), crate::H);\n\
                #[cfg(test)]\nmod tests { use crate::i; }";
    let source = Source { path: String::new(), text: text.to_owned() };
    assert_eq!(Vec::from_iter(source.uses()), ["", "H", "a", "f"]);
}

/// Within a folder as well, imports make no great circle. A file and the module above it are one
/// idea in two files: their imports of one another do not count.
#[test]
fn few_files_import_one_another() {
    let sources = sources();
    let shipped = sources.iter().filter(|it| it.ships() && it.path.starts_with("src/"));
    none(circles(&imports(shipped)));
}

/// The modules that each module of a file imports from.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The imports of these files. What a module only passes on is imported from where it is made.
fn imports<'a>(sources: impl Iterator<Item = &'a Source>) -> Imports {
    let of_file = |source: &Source| {
        let mut found = Vec::new();
        let code = String::from_iter(source.code().map(|(_, line)| format!("{line}\n")));
        paths("", code.parse().unwrap(), false, &mut found);
        (module(&source.path), found)
    };
    let found: BTreeMap<_, _> = sources.map(of_file).collect();
    let mut names = BTreeMap::new();
    let mut all = Vec::new();
    for (module, paths) in &found {
        for (path, is_use) in paths {
            let Some(path) = absolute(module, path, *is_use, |it| found.contains_key(it)) else {
                continue;
            };
            if *is_use && let Some((_, name)) = path.rsplit_once("::") {
                names.insert(format!("{module}::{name}"), path.clone());
            }
            all.push((module, path));
        }
    }
    let is_above = |above: &str, it: &str| it.starts_with(&format!("{above}::"));
    let mut imports = Imports::new();
    for (module, path) in all {
        let of = made_in(&path, &names, |it| found.contains_key(it), 0);
        if of != *module && !is_above(&of, module) && !is_above(module, &of) {
            imports.entry(module.clone()).or_default().insert(of);
        }
    }
    imports
}

/// Each path in this code, and whether a `use` names it.
fn paths(before: &str, code: TokenStream, of_use: bool, found: &mut Vec<(String, bool)>) {
    let (mut path, mut colons, mut is_use) = (String::new(), 0, of_use);
    for token in code {
        if matches!(&token, TokenTree::Punct(it) if it.as_char() == ':') {
            colons += 1;
            continue;
        }
        match (token, std::mem::take(&mut colons) == 2) {
            (TokenTree::Ident(name), true) => path = format!("{path}::{name}"),
            (TokenTree::Group(group), true) => paths(&path, group.stream(), is_use, found),
            (token, _) => {
                found.push((std::mem::take(&mut path), is_use));
                match token {
                    TokenTree::Ident(it) if it == "use" => is_use = true,
                    TokenTree::Ident(it) if before.is_empty() => path = it.to_string(),
                    TokenTree::Ident(it) => path = format!("{before}::{it}"),
                    TokenTree::Group(group) => paths("", group.stream(), false, found),
                    TokenTree::Punct(it) if it.as_char() == ';' => is_use = false,
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
        }
    }
    found.push((path, is_use));
}

/// The module of a file.
fn module(path: &str) -> String {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { "crate".into() } else { format!("crate::{}", path.replace('/', "::")) }
}

/// A path in a module, from the crate on; `None`: it begins elsewhere.
fn absolute(
    module: &str,
    path: &str,
    is_use: bool,
    is_file: impl Fn(&str) -> bool,
) -> Option<String> {
    let path = path.trim_end_matches("::self");
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    match first {
        "crate" => Some(path.to_owned()),
        "self" => Some(format!("{module}::{rest}")),
        "super" => {
            let above = module.rsplit_once("::")?.0;
            match rest.starts_with("super") {
                true => absolute(above, rest, is_use, is_file),
                false => Some(format!("{above}::{rest}")),
            }
        }
        _ if is_use && is_file(&format!("{module}::{first}")) => Some(format!("{module}::{path}")),
        _ => None,
    }
}

/// The module in whose file a path leads.
fn made_in(
    path: &str,
    names: &BTreeMap<String, String>,
    is_file: impl Fn(&str) -> bool + Copy,
    steps: usize,
) -> String {
    let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
    let ends: Vec<usize> = ends.collect();
    let last = ends.iter().rposition(|end| is_file(&path[..*end])).unwrap_or(0);
    let passed_on = ends.get(last + 1).and_then(|end| Some((end, names.get(&path[..*end])?)));
    match passed_on {
        Some((end, from)) if steps < 8 => {
            made_in(&format!("{from}{}", &path[*end..]), names, is_file, steps + 1)
        }
        _ => path[..ends[last]].to_owned(),
    }
}

/// The modules that this one imports from, directly or by others.
fn reached<'a>(from: &'a str, imports: &'a Imports) -> BTreeSet<&'a str> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        let imported = imports.get(module).into_iter().flatten();
        next.extend(imported.map(String::as_str).filter(|it| seen.insert(*it)));
    }
    seen
}

/// The circles with too many files, each with the imports that make it.
fn circles(imports: &Imports) -> Vec<String> {
    let reached: BTreeMap<&str, _> =
        imports.keys().map(|it| (it.as_str(), reached(it, imports))).collect();
    let circle = |of: &&str| -> BTreeSet<&str> {
        let leads_back = |it: &&str| reached.get(it).is_some_and(|seen| seen.contains(of));
        reached[of].iter().copied().filter(leads_back).collect()
    };
    let circles: BTreeSet<_> = reached.keys().map(circle).collect();
    let described = |circle: BTreeSet<&str>| {
        let edges = circle.iter().flat_map(|from| imports[*from].iter().map(move |to| (from, to)));
        let edges = edges.filter(|(_, to)| circle.contains(to.as_str()));
        let edges = String::from_iter(edges.map(|(from, to)| format!("\n    {from} imports {to}")));
        format!("{} files in a circle: move what joins them below{edges}", circle.len())
    };
    circles.into_iter().filter(|it| it.len() > CIRCLE_FILES).map(described).collect()
}

#[test]
fn circles_of_imports_are_found() {
    let source =
        |name: &str, text: &str| Source { path: format!("src/{name}.rs"), text: text.to_owned() };
    let mut sources = [
        source("a/mod", "mod b; mod c; pub(crate) use b::{B, X}; use c::C;"),
        source("a/b", "use super::C;"),
        source("a/c", "use crate::{d::{self, D}, std::E};"),
        source("d", "// crate::a::c\nfn d() { crate::e::f([super::e::g()]) }"),
        source("e", "use crate::f;"),
    ];
    assert!(circles(&imports(sources.iter())).is_empty());
    sources[4] = source("e", "fn e() { let _ = crate::a::X::new(); }");
    let found = circles(&imports(sources.iter()));
    assert!(found[0].starts_with("4 files") && found[0].contains("crate::e imports crate::a::b"));
}

/// Whether the line uses the name as a path of its own: not within another word, not after
/// `self::`, and not in a string.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = &line[..at];
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            || before.ends_with("self::");
        !inside && before.matches('"').count().is_multiple_of(2)
    })
}

#[test]
fn names_are_found_as_words() {
    assert!(names("use redb::Database;", "redb::"));
    assert!(names("fn f(r: http::Request<()>)", "http::"));
    assert!(!names("pub use self::redb::Redb;", "redb::"));
    assert!(!names("let x = tokio_http::y();", "http::"));
    assert!(!names("let x = \"http::y\";", "http::"));
}

/// In mode `durable` a small write waits for an acknowledgement that a client may delay by 40 ms.
#[test]
fn every_example_that_serves_sends_small_answers_at_once() {
    let sources = sources();
    let examples = sources.iter().filter(|it| it.path.starts_with("examples/") && it.is_rust());
    let serves =
        |it: &&Source| ["axum::serve(", "HttpServer::new("].iter().any(|s| it.text.contains(s));
    let slow = examples.filter(serves).filter(|it| !it.text.contains("nodelay(true)"));
    none(slow.map(|it| fault(it, 1, "set TCP_NODELAY (docs/http.md says how)")).collect());
}

/// The page is an overview, and one of all rooms.
#[test]
fn the_architecture_names_every_room() {
    let sources = sources();
    let page = sources.iter().find(|source| source.path == "docs/architecture.md").unwrap();
    assert!(page.text.lines().count() <= 150, "an overview has at most 150 lines");
    let rooms = ORDER.iter().filter(|room| {
        let (file, folder) = (format!("`{room}.rs`"), format!("`{room}/`"));
        !page.text.contains(&file) && !page.text.contains(&folder)
    });
    none(rooms.map(|room| fault(page, 1, &format!("say what `{room}` is for"))).collect());
}

/// Headings of the walks in `docs/architecture.md`.
const WALKS: [&str; 3] =
    ["## One request", "## One unit, from its use to Stripe", "## One change of a plan"];
/// Most rooms that one walk leads through.
const WALK_ROOMS: usize = 8;

/// A walk is short, and leads along code that is there: each file and folder that it names is, and
/// each name in code is defined in those of its own step.
#[test]
fn the_walks_lead_along_code_that_is_there() {
    let sources = sources();
    let page = sources.iter().find(|source| source.path == "docs/architecture.md").unwrap();
    let mut faults = Vec::new();
    for heading in WALKS {
        let steps = steps(&page.text, heading);
        assert!(steps.len() > 2, "`{heading}` is not there, or is no walk");
        faults.extend(lost(page, &steps, &sources));
    }
    none(faults);
}

/// The paragraphs and items of a section, each with its line.
fn steps(page: &str, heading: &str) -> Vec<(usize, String)> {
    let lines = page.lines().enumerate().skip_while(|(_, line)| *line != heading).skip(1);
    let mut steps = Vec::<(usize, String)>::new();
    let mut is_open = false;
    for (at, line) in lines.take_while(|(_, line)| !line.starts_with("## ")) {
        let is_item = line.starts_with(|c: char| c.is_ascii_digit());
        match steps.last_mut().filter(|_| is_open && !is_item) {
            Some((_, step)) => step.push_str(line),
            None if line.is_empty() => {}
            None => steps.push((at + 1, line.to_owned())),
        }
        is_open = !line.is_empty();
    }
    steps
}

/// What is wrong with these steps of a walk.
fn lost(page: &Source, steps: &[(usize, String)], sources: &[Source]) -> Vec<String> {
    let is_path = |word: &str| word.ends_with('/') || word.ends_with(".rs");
    let (mut rooms, mut faults) = (BTreeSet::new(), Vec::new());
    for (at, step) in steps {
        let words = || step.split('`').skip(1).step_by(2);
        let mut code = Vec::new();
        for path in words().filter(|word| is_path(word)) {
            rooms.insert(path.split(['/', '.']).next().unwrap_or(path));
            let is_in = |it: &&Source| {
                it.path
                    .strip_prefix("src/")
                    .is_some_and(|it| it == path || path.ends_with('/') && it.starts_with(path))
            };
            let found: Vec<&Source> = sources.iter().filter(is_in).collect();
            if found.is_empty() {
                faults.push(fault(page, *at, &format!("`src/{path}` is not there")));
            }
            code.extend(found);
        }
        for name in words().filter(|word| !is_path(word)).filter_map(name_in_code) {
            if !code.is_empty() && !name.split("::").all(|it| code.iter().any(|of| defines(of, it)))
            {
                let instead = format!("`{name}` is not in the files of its step");
                faults.push(fault(page, *at, &instead));
            }
        }
    }
    if rooms.len() > WALK_ROOMS {
        let rooms = Vec::from_iter(rooms).join(", ");
        faults.push(fault(page, steps[0].0, &format!("more than {WALK_ROOMS} rooms: {rooms}")));
    }
    faults
}

/// The name of a type, a variant or a function, if this is one and no word of a file.
fn name_in_code(word: &str) -> Option<&str> {
    let name = word.split('(').next()?;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    (name.chars().all(is_name) && !WORDS_OF_FILES.contains(&word)).then_some(name)
}

/// Words in walks that are of plan files and service files.
const WORDS_OF_FILES: [&str; 1] = ["durable"];

/// Whether this file makes or extends a type, or has a variant or a function, of this name.
fn defines(source: &Source, name: &str) -> bool {
    let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let follows = |line: &str, before: &str| {
        let of = format!("{before} {name}");
        line.match_indices(&of).any(|(at, _)| is_whole(&line[at + of.len()..]))
    };
    source.statements().any(|(_, line)| {
        let item = ["fn", "struct", "enum", "trait", "type", "impl", "for"];
        let variant = line.trim().strip_prefix(name);
        item.iter().any(|before| follows(line, before))
            || variant.is_some_and(|rest| rest.is_empty() || rest.starts_with([',', '(', ' ']))
    })
}

#[test]
fn what_a_walk_names_in_vain_is_found() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let text = "## One\n\nIn `a.rs` it\nis `Gate::check`, or `Wait`.\n\n1. `b/`: `Left`, \
                `durable`\n2. `c/d.rs`: `walks`\n\n`later(It)`\n\n## Two\n\n`e/`";
    let page = source("page.md", text);
    let code = [
        source("src/a.rs", "impl Gate {\n    fn check() {}\n}\nenum Step {\n    Wait(u8),\n}"),
        source("src/b/x.rs", "// struct Left\nstruct LeftOver;"),
    ];
    let steps = steps(&page.text, "## One");
    assert_eq!(steps.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3, 6, 7, 9]);
    let found = lost(&page, &steps, &code);
    assert_eq!(
        found,
        [
            "page.md:6: `Left` is not in the files of its step",
            "page.md:7: `src/c/d.rs` is not there",
        ]
    );
    let rooms: Vec<_> = (0..=WALK_ROOMS).map(|n| (n, format!("`r{n}/`"))).collect();
    let all = |it: &(usize, String)| source(&format!("src/{}x.rs", it.1.trim_matches('`')), "");
    let code: Vec<_> = rooms.iter().map(all).collect();
    assert!(lost(&page, &rooms[1..], &code).is_empty());
    assert!(lost(&page, &rooms, &code)[0].contains("more than 8 rooms"));
}

/// A line that begins or ends a block of code, with what it says of the block.
fn fence(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("```").map(str::trim)
}

/// The lines of a page outside of its blocks of code, with their numbers from 1.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    page.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = fence(line).is_some();
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((at + 1, line))
    })
}

/// The anchor that a heading gets on the forge, and in the book.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace('`', "");
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The anchors of a page: a heading that is there before gets a number.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(page).filter(|(_, line)| line.starts_with('#')) {
        let first = anchor(line);
        let numbered = (1..).map(|n| format!("{first}-{n}"));
        found.extend(std::iter::once(first.clone()).chain(numbered).find(|it| !found.contains(it)));
    }
    found
}

/// The links of a page, each with its line: `[text](link)`, `[text](link "title")`, `[name]: link`.
fn links(page: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in prose(page) {
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let defined = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        let all = inline.chain(defined.map(|(_, link)| link));
        found.extend(all.filter_map(|link| Some((at, link.split_whitespace().next()?))));
    }
    found.retain(|(_, link)| !link.contains("://"));
    found
}

/// Links of pages that lead to no file or heading of this repository.
fn broken_links(sources: &[Source], is_picture: impl Fn(&str) -> bool) -> Vec<String> {
    let pages = || sources.iter().filter(|page| page.path.ends_with(".md"));
    let is_there = |path: &str| {
        let folder = format!("{path}/");
        is_picture(path) || sources.iter().any(|it| it.path == path || it.path.starts_with(&folder))
    };
    let anchors: BTreeMap<_, _> = pages().map(|it| (&*it.path, anchors(&it.text))).collect();
    let mut faults = Vec::new();
    for page in pages() {
        let home = Path::new(&page.path).parent().unwrap_or(Path::new(""));
        for (at, link) in links(&page.text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() { page.path.clone() } else { tidied(home, file) };
            let heads = anchors.get(&*path);
            let has_heading = heading.is_empty() || heads.is_none_or(|it| it.contains(heading));
            if !is_there(&path) || !has_heading {
                faults.push(fault(page, at, &format!("`{link}` leads nowhere")));
            }
        }
    }
    faults
}

/// Links of pages to files and headings of this repository.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    none(broken_links(&sources(), |path| path.ends_with(".png") && root.join(path).is_file()));
}

#[test]
fn broken_links_and_anchors_are_found() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let page = "# One\n[a](b.md#two-2) [a](#one) [a](../src) [a](b.md \"t\")\n\
                [a](https://x.y) [a](http.md)\n```text\n[a](c.md)\n```\n[n]: c.md\n\
                [a](b.md#in-code) [a](#two \"t\")";
    let other = "## Two\n## Two\n```toml\n# in code\n```\n## `Two`\n";
    let sources = [source("docs/a.md", page), source("docs/b.md", other), source("src/lib.rs", "")];
    let faults = broken_links(&sources, |_| false);
    let found: Vec<_> = faults.iter().filter_map(|it| it.strip_prefix("docs/a.md:")).collect();
    let nowhere = |of: &str| format!("{of} leads nowhere");
    let expected = ["3: `http.md`", "7: `c.md`", "8: `b.md#in-code`", "8: `#two`"].map(nowhere);
    assert_eq!(found, expected);
}

/// The book's order names each page of `docs/` once.
#[test]
fn every_page_has_its_place_in_the_book() {
    const ORDER_OF_PAGES: &str = "docs/SUMMARY.md";
    let sources = sources();
    let Some(order) = sources.iter().find(|it| it.path == ORDER_OF_PAGES) else { return };
    let listed: Vec<_> = links(&order.text).into_iter().map(|(_, link)| link).collect();
    let pages = sources.iter().filter(|it| it.path.ends_with(".md") && it.path != order.path);
    let pages = pages.filter_map(|it| Some((it, it.path.strip_prefix("docs/")?)));
    let lost = pages.filter(|(_, name)| listed.iter().filter(|it| *it == name).count() != 1);
    none(lost.map(|(it, _)| fault(it, 1, "name it once in docs/SUMMARY.md")).collect());
}

/// A block of code of a page: its first line, what it says of itself, and its text.
struct Block {
    at: usize,
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut found, mut is_within) = (Vec::<Block>::new(), false);
    for (at, line) in page.lines().enumerate() {
        match (fence(line), found.last_mut()) {
            (Some(_), _) if is_within => is_within = false,
            (Some(language), _) => {
                is_within = true;
                let language = language.to_owned();
                found.push(Block { at: at + 2, language, text: String::new() });
            }
            (None, Some(block)) if is_within => block.text.extend([line, "\n"]),
            (None, _) => {}
        }
    }
    found
}

/// The words of this code, as one text: without comments, line breaks, and commas before an end.
/// None, if a bracket has no partner.
fn words_of(code: &str) -> Option<String> {
    fn add(code: TokenStream, words: &mut String) {
        for token in code {
            let TokenTree::Group(group) = token else {
                words.extend([" ", &token.to_string()]);
                continue;
            };
            let (begin, end) = match group.delimiter() {
                Delimiter::Parenthesis => ("(", ")"),
                Delimiter::Bracket => ("[", "]"),
                Delimiter::Brace | Delimiter::None => ("{", "}"),
            };
            words.extend([" ", begin]);
            add(group.stream(), words);
            if words.ends_with(" ,") {
                words.truncate(words.len() - 2);
            }
            words.extend([" ", end]);
        }
    }
    let mut words = String::new();
    add(code.parse().ok()?, &mut words);
    Some(words + " ")
}

/// A block's parts, which may be from several places: between empty lines, and between comments
/// that begin a line, where brackets are closed.
fn parts(block: &str) -> Vec<String> {
    let indent = block.lines().map(|it| it.len() - it.trim_start().len()).min().unwrap_or(0);
    let (mut parts, mut part) = (Vec::new(), String::new());
    for line in block.lines() {
        let line = line.get(indent..).unwrap_or("");
        let may_end = line.is_empty() || line.starts_with("//");
        if may_end && let Some(words) = words_of(&part) {
            parts.push(words);
            part.clear();
        }
        part.extend([line, "\n"]);
    }
    parts.push(words_of(&part).unwrap_or(part));
    parts.retain(|it| !it.trim().is_empty());
    parts
}

/// Rust blocks of these pages that are in no file which the compiler sees.
fn unchecked_blocks(pages: &[&Source], code: &[&Source]) -> Vec<String> {
    // As doctests, with `#[doc = include_str!(..)]`.
    let is_doctested = |page: &Source| {
        code.iter().any(|it| {
            let home = Path::new(&it.path).parent().unwrap_or(Path::new(""));
            let included = it.text.split("#[doc = include_str!(\"").skip(1);
            included.filter_map(|it| it.split('"').next()).any(|it| tidied(home, it) == page.path)
        })
    };
    let code_words: Vec<_> = code.iter().filter_map(|it| words_of(&it.text)).collect();
    let mut faults = Vec::new();
    for page in pages.iter().filter(|page| !is_doctested(page)) {
        for block in blocks(&page.text).iter().filter(|it| it.language.starts_with("rust")) {
            for part in parts(&block.text) {
                if !code_words.iter().any(|words| words.contains(&part)) {
                    let part: String = part.trim().chars().take(60).collect();
                    let instead = "is not compiled: have it in tests/pages or in an example";
                    faults.push(fault(page, block.at, &format!("`{part}..` {instead}")));
                }
            }
        }
    }
    faults
}

/// What a page shows as Rust is a part of a file that is compiled, word by word.
#[test]
fn what_pages_show_as_rust_is_compiled() {
    let sources = sources();
    let pages: Vec<_> = sources.iter().filter(|it| it.path.ends_with(".md")).collect();
    let folders = ["examples/", "integrations/", "tests/"];
    let is_code = |it: &&Source| it.is_rust() && folders.iter().any(|of| it.path.starts_with(of));
    let code: Vec<_> = sources.iter().filter(is_code).collect();
    none(unchecked_blocks(&pages, &code));
}

#[test]
fn blocks_that_are_not_compiled_are_found() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let code = source("a/src/b.rs", "fn f() { g(1, 2); /* x */ h(\n    3,\n); }");
    let page = source(
        "a.md",
        "```rust\ng(1,\n  2); // why\n\nh(3);\n// or\ni(4);\n```\n\n   ```rust,ignore\n   j(1)\n   \
         ```\n",
    );
    let faults = unchecked_blocks(&[&page], &[&code]);
    let instead = "is not compiled: have it in tests/pages or in an example";
    let expected = ["2: `i ( 4 ) ;..`", "11: `j ( 1 )..`"].map(|of| format!("a.md:{of} {instead}"));
    assert_eq!(faults, expected);
    let included = source("a/src/lib.rs", "#[doc = include_str!(\"../../a.md\")]\nstruct A;");
    assert!(unchecked_blocks(&[&page], &[&included]).is_empty());
}

/// Headings of sections in which each row, item and bold paragraph is a promise.
const OF_PROMISES: [&str; 2] = ["## What is promised", "## Invariants"];

/// A promise names a test that holds it: by its file and function, or as a link with the function
/// as its title.
#[test]
fn promises_name_tests_that_are_there() {
    let sources = sources();
    let mut faults = Vec::new();
    for page in sources.iter().filter(|page| page.path.ends_with(".md")) {
        let home = Path::new(&page.path).parent().unwrap_or(Path::new(""));
        for (at, promise) in promises(&page.text) {
            let tests = tests_named_in(&promise);
            if tests.is_empty() {
                faults.push(fault(page, at, "name a test: `tests/<file>.rs::<function>`"));
            }
            for (file, function) in tests {
                // Files in code are named from the root, those of links from their page.
                let path =
                    if file.starts_with("..") { tidied(home, file) } else { file.to_owned() };
                let head = format!("fn {function}(");
                let is_there = |it: &Source| it.path == path && it.text.contains(&head);
                if !sources.iter().any(is_there) {
                    faults.push(fault(page, at, &format!("`{path}` has no test `{function}`")));
                }
            }
        }
    }
    none(faults);
}

/// The promises of a page, each with its line.
fn promises(page: &str) -> Vec<(usize, String)> {
    let (mut found, mut is_within, mut is_open) = (Vec::<(usize, String)>::new(), false, false);
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("## ") {
            is_within = OF_PROMISES.contains(&line);
        }
        is_within &= line != "Not promised:";
        let is_row = line.starts_with("| ") && !page.lines().nth(at + 1).is_some_and(is_rule);
        let begins = is_row || line.starts_with("- ") || line.starts_with("**");
        is_open &= !line.is_empty();
        if is_within && begins {
            found.push((at + 1, line.to_owned()));
            is_open = !is_row;
        } else if let (true, Some((_, promise))) = (is_within && is_open, found.last_mut()) {
            promise.push_str(line);
        }
    }
    found
}

/// The line between a table's head and its rows.
fn is_rule(line: &str) -> bool {
    line.starts_with("|--")
}

/// The tests that a promise names: file and function.
fn tests_named_in(promise: &str) -> Vec<(&str, &str)> {
    let named = promise.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::"));
    let named = named.filter(|(file, _)| file.ends_with(".rs"));
    let linked = promise.split("](").skip(1).filter_map(|rest| {
        let (file, title) = rest.split_once(')')?.0.split_once(" \"")?;
        Some((file, title.strip_suffix('"')?))
    });
    named.chain(linked).collect()
}

#[test]
fn promises_and_their_tests_are_found() {
    let table = "| promise | test |\n|---|---|\n| one | [it](tests/a.rs \"b\") |\n";
    let items = "- two\n  `tests/c.rs::d`\n- three\n\n**four** is\nheld by `tests/e.rs::f`\n";
    let others = "Not promised:\n\n- five\n\n## Other\n\n- six\n";
    let page = format!("## What is promised\n\n{table}\n{items}\n{others}");
    let found = promises(&page);
    let tests = found.iter().map(|(_, it)| tests_named_in(it)).collect::<Vec<_>>();
    let at = |it| vec![it];
    assert_eq!(
        tests,
        [at(("tests/a.rs", "b")), at(("tests/c.rs", "d")), vec![], at(("tests/e.rs", "f"))]
    );
}

/// A path below this folder, without its `..`.
fn tidied(home: &Path, file: &str) -> String {
    let mut parts: Vec<&str> = home.iter().filter_map(|part| part.to_str()).collect();
    for part in file.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A page that names a file of this repository names one that is there.
#[test]
fn pages_name_files_that_are_there() {
    let sources = sources();
    let is_there = |path: &str| {
        sources.iter().any(|it| it.path == path || it.path.starts_with(&format!("{path}/")))
    };
    let mut faults = Vec::new();
    for page in sources.iter().filter(|page| page.path.ends_with(".md")) {
        let home = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, line) in page.text.lines().enumerate() {
            for word in line.split('`').skip(1).step_by(2) {
                let is_path = ["src/", "tests/", "examples/", "benches/", "integrations/"]
                    .iter()
                    .any(|folder| word.starts_with(folder))
                    && !word.contains([' ', '*', '{', '<']);
                let path = word.split("::").next().unwrap_or(word).trim_end_matches('/');
                if is_path && !is_there(path) && !is_there(&format!("{home}/{path}")) {
                    faults.push(fault(page, at + 1, &format!("`{word}` is not there")));
                }
            }
        }
    }
    none(faults);
}
