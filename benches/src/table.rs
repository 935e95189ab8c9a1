//! The end of a run: figures of all its rounds as ratios, printed and written to a file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

/// Nanoseconds per operation by bench, one figure (criterion's median) for each round.
pub type Figures = BTreeMap<String, Vec<f64>>;

/// One line: ours over theirs, both less the same part.
struct Ratio {
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    /// What both are measured on top of.
    less: Option<&'static str>,
    target: Option<f64>,
}

const fn ratio(what: &'static str, ours: &'static str, theirs: &'static str) -> Ratio {
    Ratio { what, ours, theirs, less: None, target: None }
}

const fn overhead(what: &'static str, ours: &'static str, theirs: &'static str) -> Ratio {
    Ratio { less: Some("layer/bare"), ..ratio(what, ours, theirs) }
}

const fn on_a_route(what: &'static str, ours: &'static str, theirs: &'static str) -> Ratio {
    Ratio { less: Some("route/bare"), ..ratio(what, ours, theirs) }
}

const fn within(target: f64, ratio: Ratio) -> Ratio {
    Ratio { target: Some(target), ..ratio }
}

const RATIOS: &[Ratio] = &[
    within(2.0, ratio("decision / floor", "decide/tallygate", "decide/floor")),
    ratio("decision / governor keyed", "decide/tallygate", "decide/governor-keyed"),
    ratio("decision / limitador in memory", "decide/tallygate", "decide/limitador"),
    ratio("decision / tollgate-admission", "decide/tallygate", "decide/tollgate-admission"),
    ratio("decision / Redis, INCR and EXPIRE", "decide/tallygate", "decide/redis"),
    ratio("decision with a log / without", "decide/tallygate-logged", "decide/tallygate-unlogged"),
    ratio("decision, DynamoDB / redb", "decide/tallygate-dynamodb", "decide/tallygate-redb"),
    ratio(
        "2 threads, one tenant / floor",
        "decide/tallygate-2-threads-same",
        "decide/floor-2-threads-same",
    ),
    ratio(
        "2 threads, two tenants / floor",
        "decide/tallygate-2-threads-distinct",
        "decide/floor-2-threads-distinct",
    ),
    ratio("10,000 tenants / floor", "decide/tallygate-10k", "decide/floor-10k"),
    ratio(
        "trusted header, known / map look-up",
        "identify/tallygate-header",
        "identify/map-header",
    ),
    within(
        2.0,
        ratio("API key, known / map look-up", "identify/tallygate-api-key", "identify/map-api-key"),
    ),
    ratio("JWT, known / map look-up", "identify/tallygate-jwt", "identify/map-jwt"),
    ratio(
        "API key, first / known",
        "identify/tallygate-api-key-first",
        "identify/tallygate-api-key",
    ),
    ratio("JWT, first / known", "identify/tallygate-jwt-first", "identify/tallygate-jwt"),
    overhead("layer / tower_governor", "layer/tallygate", "layer/tower-governor"),
    // Like for like: each holds a caller to one rate, and tells of it.
    within(
        1.0,
        overhead(
            "layer with headers / tower_governor's",
            "layer/tallygate-headers-one-rate",
            "layer/tower-governor-headers",
        ),
    ),
    overhead(
        "layer with headers / axum-governor's",
        "layer/tallygate-headers-one-rate",
        "layer/axum-governor-headers",
    ),
    overhead(
        "  and a quota, which it has not",
        "layer/tallygate-headers",
        "layer/tower-governor-headers",
    ),
    overhead(
        "  and a quota / two of them",
        "layer/tallygate-headers",
        "layer/two-tower-governors-headers",
    ),
    overhead(
        "  and a quota, by API key",
        "layer/tallygate-headers-api-key",
        "layer/tower-governor-headers",
    ),
    overhead(
        "  and a quota and extractors",
        "layer/tallygate-headers-extractors",
        "layer/tower-governor-headers",
    ),
    on_a_route("axum route / tollgate-axum's", "route/tallygate", "route/tollgate-axum"),
    on_a_route(
        "  and limit headers, which it has not",
        "route/tallygate-headers",
        "route/tollgate-axum",
    ),
];

/// The figures of this run: what criterion wrote since `marker` was.
pub fn figures(dir: &Path, marker: &Path) -> Figures {
    let mut figures = Figures::new();
    let begun = modified(marker);
    for group in children(dir) {
        for bench in children(&group) {
            let mut rounds: Vec<_> = children(&bench);
            rounds.sort();
            for round in rounds {
                let file = round.join("new/estimates.json");
                if modified(&file) < begun {
                    continue;
                }
                if let Some(ns) = median(&file) {
                    figures
                        .entry(format!("{}/{}", last(&group), last(&bench)))
                        .or_default()
                        .push(ns);
                }
            }
        }
    }
    figures
}

/// Prints the table; returns it for the file.
pub fn table(figures: &Figures) -> Value {
    println!("\n{:<44} {:>12} {:>8}", "bench (median of the rounds)", "ns", "rounds");
    for (name, rounds) in figures {
        println!("{name:<44} {:>12.1} {:>8}", middle(rounds.clone()), rounds.len());
    }
    println!(
        "\n{:<44} {:>10} {:>10} {:>7} {:>7}",
        "ratio", "ours ns", "theirs ns", "ratio", "target"
    );
    let mut lines = Vec::new();
    for line in RATIOS {
        let less = line.less.and_then(|less| figures.get(less));
        let (Some(ours), Some(theirs)) = (figures.get(line.ours), figures.get(line.theirs)) else {
            continue;
        };
        if line.less.is_some() && less.is_none() {
            continue;
        }
        let own = |rounds: &[f64], i: usize| rounds[i] - less.map_or(0.0, |less| less[i]);
        let rounds = ours.len().min(theirs.len()).min(less.map_or(usize::MAX, Vec::len));
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..rounds).map(|i| (own(ours, i), own(theirs, i))).unzip();
        // Each round's two figures were taken side by side: the ratio is taken round by round.
        let ratio = middle((0..rounds).map(|i| ours[i] / theirs[i]).collect());
        let (ours, theirs) = (middle(ours), middle(theirs));
        let target = line.target.map_or(String::new(), |t| format!("<= {t}"));
        println!("{:<44} {ours:>10.1} {theirs:>10.1} {ratio:>7.2} {target:>7}", line.what);
        lines.push(json!({
            "what": line.what.trim(), "ours": line.ours, "theirs": line.theirs, "less": line.less,
            "ours_ns": ours, "theirs_ns": theirs, "ratio": ratio, "target": line.target,
        }));
    }
    json!({ "ratios": lines, "ns": figures })
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn median(file: &Path) -> Option<f64> {
    let estimates: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn modified(file: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(file).ok()?.modified().ok()
}

fn children(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn last(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
