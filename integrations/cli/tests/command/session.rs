//! Sessions: command lines and what comes of them, in a page or in a file of `tests/sessions/`.
//! Each line after `$ ` is run in a shell, in order, in one folder; what it prints on both outputs
//! has to be what stands below it, up to instants, ids and secrets. A line that ends with
//! `# exits with 7` has to.
//!
//! With `TALLYGATE_WRITE=1` the file is written anew from what came.
//!
//! A session that was recorded over a file of redb is played over a table, too: there what says
//! something of that file is run, and its print is not compared; what finds no store is left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use regex::{Captures, Regex};

use crate::home::Home;

/// What differs from run to run, and the name that stands for it.
const VARYING: [(&str, &str); 15] = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<instant>"),
    (r"\b\d{4}-\d\d-\d\d\b", "<date>"),
    (r#""(at_ms|until_ms|expires_ms|expires|at)":\d+"#, "<ms>"),
    (r#""staleness_ms":\d+"#, "<staleness>"),
    (r#""resets_in_seconds":\d+"#, "<seconds>"),
    (r"\buid \d+\b", "<user>"),
    (r"\bresets in +\d+ s\b", "<seconds>"),
    (r"\btg(op)?_[0-9A-Za-z.]+", "<secret>"),
    (r"\b[0-9a-f]{32}\b", "<surrogate>"),
    (r"\bal_[0-9a-f]{32}\b", "<alert>"),
    (r"\bk[0-9a-f]{16}\b", "<key>"),
    (r"\b[0-9a-f]{12}\b", "<override>"),
    (r"\b[0-9a-f]{16}\b", "<checksum>"),
    (r#""bytes":\d+"#, "<bytes>"),
    (r"\b(cus|evt|in|mtr|price|si|sub)_\w+", "<of stripe>"),
];

/// What a step prints, or does, that is about the file of a redb store.
const OF_THE_FILE: [&str; 3] = ["tallygate.redb", NO_STORE, "in the service's file"];

/// What a command says where there is no file; a table that it finds it would change.
const NO_STORE: &str = "there is no store here";

/// Ids that later lines name.
const NAMED: &str = r"\b(k[0-9a-f]{16}|[0-9a-f]{12})\b";

/// A command line, and the lines that it is to print.
struct Step {
    line: String,
    printed: String,
}

/// Runs the session of a file, in its blocks of `console` if it is a page.
#[track_caller]
pub(crate) fn plays(home: &Home, path: &Path) {
    plays_with(home, path, |_| {});
}

/// The same, with something that is done before each line.
#[track_caller]
pub(crate) fn plays_with(home: &Home, path: &Path, before: impl FnMut(&str)) {
    play_all(home, path, before, |_| true);
}

/// The same of a session that was recorded over redb, in a home whose store is another.
#[cfg(feature = "dynamodb")]
#[track_caller]
pub(crate) fn plays_over_another(home: &Home, path: &Path) {
    if std::env::var_os("TALLYGATE_WRITE").is_some() {
        return; // sessions are recorded over redb
    }
    let is_of_the_file = |step: &Step| {
        step.line.contains("&& ls") || OF_THE_FILE.iter().any(|it| step.printed.contains(it))
    };
    play_all(home, path, |_| {}, |step| !is_of_the_file(step));
}

#[track_caller]
fn play_all(
    home: &Home,
    path: &Path,
    mut before: impl FnMut(&str),
    compares: impl Fn(&Step) -> bool,
) {
    let text = std::fs::read_to_string(path).unwrap();
    let is_page = path.extension().is_some_and(|it| it == "md");
    let mut names = BTreeMap::new();
    let (mut written, mut faults) = (String::new(), Vec::new());
    let mut play = |block: &str, written: &mut String| {
        for step in steps(block) {
            before(&step.line);
            let is_compared = compares(&step);
            if !is_compared && step.printed.contains(NO_STORE) {
                continue;
            }
            let (line, printed) = run(home, &step, &mut names, is_compared);
            if is_compared && redacted(&printed) != redacted(&step.printed) {
                let (wanted, got) = (&step.printed, &printed);
                faults.push(format!("$ {line}\n--- wanted\n{wanted}--- got\n{got}"));
            }
            let _ = write!(written, "$ {line}\n{printed}");
        }
    };
    if is_page {
        for (at, part) in text.split("```").enumerate() {
            written.push_str(if at > 0 { "```" } else { "" });
            match part.strip_prefix("console\n").filter(|_| at % 2 == 1) {
                Some(block) => {
                    written.push_str("console\n");
                    play(block, &mut written);
                }
                None => written.push_str(part),
            }
        }
    } else {
        play(&text, &mut written);
    }
    if std::env::var_os("TALLYGATE_WRITE").is_some() {
        std::fs::write(path, written).unwrap();
    } else {
        assert!(faults.is_empty(), "{}\n{}", path.display(), faults.join("\n"));
    }
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps = Vec::<Step>::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(line), _) => {
                steps.push(Step { line: line.to_owned(), printed: String::new() });
            }
            (None, Some(step)) => step.printed.extend([line, "\n"]),
            (None, None) => panic!("a session begins with a command: {line}"),
        }
    }
    steps
}

/// Runs a step with the ids of this run, and learns its ids.
#[track_caller]
fn run(
    home: &Home,
    step: &Step,
    names: &mut BTreeMap<String, String>,
    is_compared: bool,
) -> (String, String) {
    let named = Regex::new(NAMED).unwrap();
    let known = |it: &Captures<'_>| {
        let id = &it[0];
        let same = |name: &&String| name.len() == id.len();
        // In a file that was never played yet: `kaaaaaaaaaaaaaaaa` is the last of its kind.
        let is_last = id.trim_start_matches('k').bytes().all(|it| it == b'a');
        let last = || names.get("last").filter(|it| is_last && same(it));
        names.get(id).or_else(last).cloned().unwrap_or_else(|| id.to_owned())
    };
    let line = named.replace_all(&step.line, known).into_owned();
    let ran = home.shell(&line);
    let wanted = line.split("# exits with ").nth(1).map_or(0, |it| it.trim().parse().unwrap());
    assert!(!is_compared || ran.code == wanted, "{line}: {}\n{}", ran.code, ran.stdout);
    let secret = Regex::new(r"\b(tg|tgop)_([0-9A-Za-z]{6})[0-9A-Za-z]+").unwrap();
    let printed = secret.replace_all(&ran.stdout, "${1}_$2...").into_owned();
    let ids = |text: &str| -> Vec<String> {
        named.find_iter(text).map(|it| it.as_str().to_owned()).collect()
    };
    let (old, new) = (ids(&step.printed), ids(&printed));
    if let Some(last) = new.last() {
        names.insert("last".to_owned(), last.clone());
    }
    names.extend(old.into_iter().zip(new));
    (line, printed)
}

/// A text without what differs from run to run.
fn redacted(text: &str) -> String {
    VARYING.iter().fold(text.to_owned(), |text, (pattern, name)| {
        Regex::new(pattern).unwrap().replace_all(&text, *name).into_owned()
    })
}
