//! docs/runbook.md and what it names: each symptom has a check of `doctor` and each check a
//! symptom, and metrics, causes of `health`, log lines and alarms are those of the code. Its
//! commands, and those of docs/deploy.md, have all their arguments.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tallygate::telemetry::Metric;

use crate::home::Home;

const PAGE: &str = include_str!("../../../../docs/runbook.md");
const DEPLOY: &str = include_str!("../../../../docs/deploy.md");
const HEALTH: &str = include_str!("../../../../src/gate/health.rs");

/// The sections that are symptoms, each with its heading.
fn symptoms() -> Vec<(&'static str, &'static str)> {
    let sections = PAGE.split("\n## ").skip(1);
    let all = sections.map(|it| it.split_once('\n').unwrap());
    all.filter(|(heading, _)| *heading != "Next").collect()
}

/// What stands in a row of a section, between backticks.
fn row(section: &'static str, name: &str) -> Vec<&'static str> {
    let begin = format!("| {name} |");
    let line = section.lines().find_map(|line| line.strip_prefix(&*begin));
    line.unwrap_or_else(|| panic!("no row {name}: {section}"))
        .split('`')
        .skip(1)
        .step_by(2)
        .collect()
}

/// The checks of `doctor`, as it names them.
fn checks() -> BTreeSet<String> {
    let home = Home::empty();
    home.run(&["init"]).ok();
    let said = home.run(&["doctor", "--json"]).ok();
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|it| it["check"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_symptom_has_a_check_and_each_check_a_symptom() {
    let mut named = BTreeSet::new();
    for (symptom, section) in symptoms() {
        let of_symptom = row(section, "doctor");
        assert!(!of_symptom.is_empty(), "{symptom} has no check");
        named.extend(of_symptom.into_iter().map(str::to_owned));
        assert!(section.contains("\n1. "), "{symptom}: say what to do");
    }
    assert_eq!(named, checks());
}

#[test]
fn each_cause_of_health_is_on_the_page() {
    let (_, causes) = HEALTH.split_once("pub enum Trouble {\n").unwrap();
    let (causes, _) = causes.split_once("\n}\n").unwrap();
    let name = |line: &str| -> Option<String> {
        let line = line.strip_prefix("    ")?;
        let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
        name.starts_with(|c: char| c.is_ascii_uppercase()).then_some(name)
    };
    let causes: BTreeSet<String> = causes.lines().filter_map(name).collect();
    let named = symptoms().into_iter().flat_map(|(_, section)| row(section, "health"));
    assert_eq!(named.map(str::to_owned).collect::<BTreeSet<_>>(), causes);
}

#[test]
fn metrics_and_log_lines_are_those_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut code = String::new();
    each_source(&root, &mut |text| code.push_str(text));
    for (symptom, section) in symptoms() {
        for name in row(section, "metric") {
            match name.split_once('=') {
                None => assert!(Metric::ALL.iter().any(|it| it.name == name), "{symptom}: {name}"),
                Some((label, word)) => {
                    let word = word.trim_matches('"');
                    let is_label = Metric::ALL.iter().any(|it| it.labels.contains(&label));
                    assert!(is_label && code.contains(&format!("\"{word}\"")), "{symptom}: {name}");
                }
            }
        }
        for line in row(section, "log") {
            assert!(code.contains(&format!("\"{line}")), "{symptom}: {line}");
        }
    }
}

fn each_source(folder: &Path, see: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => each_source(&path, see),
            false => see(&std::fs::read_to_string(&path).unwrap_or_default()),
        }
    }
}

/// A command that is copied in the middle of the night must not end in its usage. What it needs of
/// the service, such as Stripe, may be missing here.
#[test]
fn commands_have_all_their_arguments() {
    let home = Home::with_tenants();
    let key = home.run(&["key", "create", "acme", "--json"]).json();
    let id = key["id"].as_str().unwrap();
    let values = [
        ("TENANT", "acme"),
        ("KEY", id),
        ("METER", "requests"),
        ("UNITS", "5"),
        ("LIMIT", "requests/cycle"),
        ("FUNCTION", "arn:aws:lambda:eu-central-1:123456789012:function:report"),
        ("QUEUE", "arn:aws:sqs:eu-central-1:123456789012:failed"),
        ("OLD", "plans.toml"),
        ("NEW", "plans.toml"),
    ];
    let mut commands = 0;
    for span in PAGE.split('`').chain(DEPLOY.split('`')).filter(|it| it.starts_with("tallygate ")) {
        let words = span.split_whitespace().map(|word| {
            let value = values.iter().find(|(name, _)| *name == word);
            value.map_or(word, |(_, value)| value)
        });
        let ran = home.shell(&words.collect::<Vec<_>>().join(" "));
        assert!(ran.code != 2 && ran.code < 100, "{span}\n{}", ran.stdout);
        commands += 1;
    }
    assert!(commands > 20, "{commands}");
}

#[test]
fn alarms_name_sections() {
    let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-");
    let known: BTreeSet<String> = symptoms().iter().map(|(heading, _)| anchor(heading)).collect();
    let said = Home::empty().run(&["infra", "alarms"]).ok();
    let named = said.split("docs/runbook.md#").skip(1);
    let named: Vec<_> = named.map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(!named.is_empty());
    for name in named {
        assert!(known.contains(name), "{name} is no section of docs/runbook.md");
    }
}
