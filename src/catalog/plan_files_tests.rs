//! Tests of the plan files of `docs/plans.md`, lowered, and of a corpus of broken ones with the
//! position, the words and the fix of each.

use std::collections::BTreeSet;
use std::time::Duration;

use super::model::{Send, *};
use super::*;
use crate::clock::time_at;
use crate::toml_file::schema_tests::{self, takes};
use proptest::prelude::*;

const FIRST: &str = include_str!("../../tests/plans/first.toml");
const SAAS: &str = include_str!("../../tests/plans/saas.toml");
const LLM: &str = include_str!("../../tests/plans/llm.toml");

/// 2026-11-21T00:00:00Z
const NOW_MS: i64 = 1_795_219_200_000;

#[track_caller]
fn load(text: &str) -> Catalog {
    match Catalog::parse("plans.toml", text, time_at(NOW_MS)) {
        Ok(catalog) => catalog,
        Err(errors) => panic!("{errors}"),
    }
}

fn plan<'c>(catalog: &'c Catalog, name: &str) -> &'c Plan {
    &catalog.plans[usize::from(catalog.plan(name).unwrap().0)]
}

fn quota<'p>(catalog: &Catalog, plan: &'p Plan, meter: &str) -> &'p [Quota] {
    &plan.quotas[&catalog.meter(meter).unwrap()]
}

fn rate(rate: &Rate) -> (&str, &str, u64, u64, u64) {
    (&rate.id, &rate.name, rate.amount, rate.burst, rate.per.as_secs())
}

#[test]
fn the_first_file_is_lowered() {
    let catalog = load(FIRST);
    assert!(catalog.warnings.is_empty());
    assert_eq!(catalog.default_plan, catalog.plan("free").unwrap());
    assert_eq!(catalog.meters.len(), 1);
    assert_eq!(&*catalog.meters[0].name, "requests");
    assert_eq!(catalog.meters[0].count, MeterSource::Cost);

    let free = plan(&catalog, "free");
    assert_eq!(rate(&free.rates["default"][0]), ("default/s", "default", 5, 10, 1));
    let requests = &quota(&catalog, free, "requests")[0];
    assert_eq!((&*requests.id, requests.limit), ("requests/month", Some(10_000)));
    assert_eq!((requests.every, requests.over), (Every::Month, Over::Deny));
    assert_eq!(requests.alert, [80, 100]);
    assert_eq!(requests.place, Place { line: 6, column: 18 });

    let pro = plan(&catalog, "pro");
    assert_eq!(pro.prices, ["pro_monthly", "pro_yearly"]);
    assert_eq!(quota(&catalog, pro, "requests")[0].every, Every::Cycle);
    assert_eq!(catalog.sold_at("pro_yearly"), Some(Sold::Plan(catalog.plan("pro").unwrap())));
    assert_eq!(catalog.sold_at("enterprise"), None);
}

#[test]
fn the_saas_file_is_lowered() {
    let catalog = load(SAAS);
    assert!(catalog.warnings.is_empty());
    assert_eq!(catalog.timezone.name(), "America/New_York");
    let names: Vec<&str> = catalog.meters.iter().map(|meter| &*meter.name).collect();
    assert_eq!(names, ["requests", "egress"]);
    let egress = &catalog.meters[1];
    assert_eq!((egress.hold, egress.scale, egress.cut), (64_000, 1, false));
    let stripe = egress.stripe.as_ref().unwrap();
    assert_eq!((stripe.atoms_per_unit, stripe.send), (1_000_000_000, Send::Overage));

    let on = |method: &str, path: &str| {
        catalog.routes.find(method, path).map(|id| &*catalog.routes[id].name)
    };
    assert_eq!(on("HEAD", "/v1/search"), Some("search"));
    assert_eq!(on("POST", "/v1/accounts/a/exports"), Some("export"));
    assert_eq!(on("POST", "/healthz"), None);
    let export = &catalog.routes[catalog.routes.named("export").unwrap()];
    assert_eq!(export.cost, [(MeterId(0), 25)]);
    assert_eq!(export.needs.as_deref(), Some("exports"));
    let open = &catalog.routes[catalog.routes.named("open").unwrap()];
    assert_eq!((open.auth, open.free), (Auth::None, false));
    assert!(catalog.routes[catalog.routes.named("usage").unwrap()].free);

    let team = plan(&catalog, "team");
    let rates: Vec<_> = team.rates.values().flatten().map(rate).collect();
    let expected = [
        ("all/s", "all", 200, 200, 1),
        ("default/s", "default", 50, 200, 1),
        ("default/s/key", "default/key", 20, 20, 1),
        ("search/s", "search", 10, 10, 1),
    ];
    assert_eq!(rates, expected);
    let ids: Vec<&str> = quota(&catalog, team, "requests").iter().map(|q| &*q.id).collect();
    assert_eq!(ids, ["requests/day", "requests/cycle", "requests/day/key"]);
    let egress = &quota(&catalog, team, "egress")[0];
    assert_eq!(egress.limit, Some(100_000_000_000));
    assert_eq!((egress.over, egress.stop), (Over::Bill, Some(1_000_000_000_000)));
    assert_eq!(team.features["seats"], Feature::Number(10));
    assert!(team.features["exports"].is_on());

    let enterprise = plan(&catalog, "enterprise");
    assert_eq!(enterprise.prices, ["enterprise"]);
    assert_eq!(enterprise.rates["search"][0].amount, 10);
    assert_eq!(quota(&catalog, enterprise, "requests")[0].alert, [80, 100, 120]);
    let egress = &quota(&catalog, enterprise, "egress")[0];
    assert_eq!((&*egress.id, egress.limit), ("egress/cycle", None));
    assert_eq!(enterprise.features["seats"], Feature::Unlimited);

    let free = PaymentRule::Plan(catalog.plan("free").unwrap());
    let week = Duration::from_secs(7 * 86_400);
    let billing = BillingTable {
        trialing: PaymentRule::Full,
        past_due: PaymentRule::Grace(week, Box::new(free.clone())),
        unpaid: PaymentRule::PaymentRequired,
        canceled: free,
        on_payment_method: None,
        on_final_failure: OnFinalFailure::Keep,
    };
    assert_eq!(catalog.billing, billing);
    assert_eq!(
        load(FIRST).billing.past_due,
        billing.past_due,
        "what holds where it is not written"
    );
}

#[test]
fn the_llm_file_is_lowered() {
    let catalog = load(LLM);
    assert!(catalog.warnings.is_empty());
    let credits = catalog.meter("credits").unwrap();
    let meter = |name: &str| &catalog.meters[usize::from(catalog.meter(name).unwrap().0)];
    // A sum is counted in millionths, regardless of its weights.
    assert_eq!((meter("credits").scale, meter("credits").count), (1_000_000, MeterSource::Sum));
    assert_eq!(meter("credits").stripe.as_ref().unwrap().atoms_per_unit, 1_000_000);
    assert_eq!(meter("input-tokens").feeds, [(credits, 1_000)]);
    assert_eq!(meter("output-tokens").feeds, [(credits, 4_000)]);
    assert_eq!(meter("credits").grain, 1_000, "all that is asked for is a multiple of it");
    assert_eq!((meter("input-tokens").hold, meter("output-tokens").hold), (2_000, 1_000));
    let chat = &catalog.routes[catalog.routes.find("POST", "/v1/chat").unwrap()];
    assert_eq!(chat.once_by.as_deref(), Some("idempotency-key"));

    let trial = plan(&catalog, "trial");
    assert_eq!(trial.expires, Some(Duration::from_secs(14 * 86_400)));
    assert_eq!(trial.concurrency, Some(2));
    let granted = &quota(&catalog, trial, "credits")[0];
    assert_eq!((&*granted.id, granted.limit), ("credits/once", Some(500_000_000)));
    let build = plan(&catalog, "build");
    let names: Vec<&str> = build.rates["chat"].iter().map(|rate| &*rate.name).collect();
    assert_eq!(names, ["chat", "chat/input-tokens", "chat/output-tokens"]);
    assert_eq!(quota(&catalog, build, "credits")[0].stop, Some(200_000_000_000));
    let payg = &quota(&catalog, plan(&catalog, "payg"), "credits")[0];
    assert_eq!((payg.limit, payg.alert.len()), (Some(0), 0));
    assert_eq!(catalog.topups[0].adds, [(credits, 50_000_000_000)]);
    assert_eq!(catalog.sold_at("credits_50k"), Some(Sold::Topup(0)));

    let acme = &catalog.tenants["acme"];
    // The exception holds through its last day.
    assert_eq!(catalog.timezone.rfc3339(acme.until_ms.unwrap()), "2027-04-01T00:00:00Z");
    let term = catalog.tenants["globex"].changes.term.unwrap();
    assert_eq!(catalog.timezone.rfc3339(term.from_ms), "2026-03-17T00:00:00Z");
    assert_eq!(term.months, 12);
    assert_eq!(catalog.tenants["load-test"].changes.enforce, Some(Enforce::Shadow));
}

#[test]
fn the_examples_of_the_documentation_load() {
    let page = include_str!("../../docs/plans.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 3);
    let first = load(blocks[0]);
    load(blocks[1]);
    let second = load(&format!("{}{}", blocks[0], blocks[2]));
    assert_eq!(first.billing, second.billing, "what holds where nothing is written");
}

#[test]
fn layers_replace_by_key_and_the_last_one_wins() {
    let catalog = load(LLM);
    let acme = &catalog.tenants["acme"].changes;
    let operator = catalog
        .parse_changes("rate.chat = \"1/s\"\nconcurrency = 3\nfeature.beta = true\n")
        .unwrap();
    let trial = catalog.default_plan;
    let merged = catalog.effective(trial, &[acme, &operator]);
    assert_eq!(&*merged.name, "build");
    assert_eq!(rate(&merged.rates["chat"][0]), ("chat/s", "chat", 1, 1, 1));
    assert_eq!(merged.rates["chat"].len(), 1);
    assert_eq!(quota(&catalog, &merged, "credits")[0].limit, Some(250_000_000_000));
    assert_eq!(merged.concurrency, Some(3));
    assert_eq!(merged.features["beta"], Feature::Flag(true));
    let plain = catalog.effective(trial, &[]);
    assert_eq!((&*plain.name, plain.concurrency), ("trial", Some(2)));
}

#[test]
fn an_override_is_checked_like_a_file() {
    let catalog = load(SAAS);
    let errors = catalog.parse_changes("plan = \"tem\"\nnote = \"x\"\n").unwrap_err();
    let shown: Vec<String> = errors.iter().map(|e| e.to_string()).collect();
    assert_eq!(shown.len(), 2);
    assert!(shown[0].starts_with("override:1:8: unknown plan `tem`\n"), "{}", shown[0]);
    assert!(shown[0].ends_with("help: did you mean `team`?"), "{}", shown[0]);
    assert!(shown[1].starts_with("override:2:1: `note` is kept beside"), "{}", shown[1]);
    let small = catalog.parse_changes("plan = \"team\"\nquota.requests = \"5/day\"\n");
    assert!(small.unwrap_err().to_string().contains("smaller than one request on `export`"));
}

#[test]
fn a_limit_is_judged_only_on_the_routes_it_holds_for() {
    let text = "default-plan = \"a\"\n\
        [meter.tokens]\ncount = \"reported\"\nhold = \"2k\"\n\
        [route.chat]\nmatch = \"POST /chat\"\nneeds = \"chat\"\n\
        [route.ping]\nmatch = \"GET /ping\"\ncost = { tokens = 0 }\n\
        [plan.a]\nrate.chat = \"5/s\"\n[plan.b]\nfeature.chat = true\n";
    let catalog = load(text);
    assert!(catalog.parse_changes("rate.ping = \"1k tokens/min\"").is_ok());
    assert!(catalog.parse_changes("rate.chat = \"1k tokens/min\"").is_ok(), "not sold in plan.a");
    let sold = catalog.parse_changes("plan = \"b\"\nrate.chat = \"1k tokens/min\"");
    let message = sold.unwrap_err().to_string();
    assert!(message.contains("one request on `chat`, which costs 2000"), "{message}");
}

#[test]
fn addons_add_to_the_limit_with_the_same_words() {
    let catalog = load(SAAS);
    let with =
        |name: &str, quantity| catalog.with_addons(plan(&catalog, name).clone(), &[(0, quantity)]);
    let team = with("team", 3);
    let limits: Vec<_> = quota(&catalog, &team, "requests").iter().map(|q| q.limit).collect();
    assert_eq!(limits, [Some(100_000), Some(1_300_000), Some(20_000)]);
    assert_eq!(team.features["seats"], Feature::Number(13));
    let free = with("free", 1);
    assert_eq!(quota(&catalog, &free, "requests")[0].limit, Some(10_000));
    assert_eq!(free.features["seats"], Feature::Number(1));
    assert_eq!(with("enterprise", 1).features["seats"], Feature::Unlimited);
    let most = with("team", u64::MAX);
    assert_eq!(quota(&catalog, &most, "requests")[1].limit, Some(1 << 60));
}

#[test]
fn an_exception_that_has_ended_is_left_out_with_a_warning() {
    let after = 1_806_537_600_000; // 2027-04-01T00:00:00Z
    let catalog = Catalog::parse("plans.toml", LLM, time_at(after)).unwrap();
    assert!(!catalog.tenants.contains_key("acme"));
    assert_eq!(catalog.warnings.len(), 1);
    assert!(catalog.warnings[0].message.contains("`acme` has ended"));
    assert_eq!(catalog.warnings[0].place, Place { line: 42, column: 9 });
    assert!(Catalog::parse("plans.toml", LLM, time_at(after - 1)).unwrap().warnings.is_empty());
}

#[test]
fn a_route_without_a_limit_is_a_warning() {
    let text = "default-plan = \"free\"\n[route.a]\nmatch = \"GET /a\"\n[plan.free]\n";
    let catalog = load(text);
    assert_eq!(catalog.warnings.len(), 1);
    assert_eq!(catalog.warnings[0].message, "plan `free` has no limit on the route `a`");
    assert!(load(&format!("{text}rate.all = \"5/s\"\n")).warnings.is_empty());
    assert!(load(&format!("{text}quota.requests = \"5/day\"\n")).warnings.is_empty());
}

#[test]
fn rates_on_one_key_are_told_apart_by_their_period() {
    let text = "default-plan = \"free\"\n[plan.free]\nrate.all = [\"5/s\", \"100/min\"]\n";
    let catalog = load(text);
    let names: Vec<&str> =
        plan(&catalog, "free").rates["all"].iter().map(|rate| &*rate.name).collect();
    assert_eq!(names, ["all/s", "all/min"]);
}

#[test]
fn editors_marks_change_nothing_but_the_hash() {
    let windows = format!("\u{feff}{}", SAAS.replace('\n', "\r\n"));
    let (a, b) = (load(SAAS), load(&windows));
    assert_ne!(a.hash, b.hash);
    assert_eq!(a.hash, load(SAAS).hash);
    let place = |catalog: &Catalog| quota(catalog, plan(catalog, "free"), "egress")[0].place;
    assert_eq!(place(&a), place(&b));
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_its_order() {
    let five = include_str!("../../tests/plans/five.toml");
    let errors = Catalog::parse("five.toml", five, time_at(NOW_MS)).unwrap_err();
    let places: Vec<_> = errors.iter().map(|e| (e.line, e.column, &*e.words)).collect();
    let expected = [
        (1, 16, "\"fre\""),
        (2, 12, "\"Europe/Berln\""),
        (5, 9, "\"get /v1/search\""),
        (8, 22, "mins"),
        (9, 41, "ovr"),
    ];
    assert_eq!(places, expected);
    let text = errors.to_string();
    let fourth = "five.toml:8:22: `mins` is not a valid rate period\n \
                  8 | rate.search    = \"30/mins\"\n   |                      ^^^^\n\
                  help: did you mean `min`?";
    assert!(text.contains(fourth), "{text}");
    assert!(text.contains("help: did you mean `Europe/Berlin`?"), "{text}");
}

/// A broken file: its first lines state what is expected, as `#! error LINE:COLUMN words` and
/// `#! fix LINE new line`, which `#!     more` continues. The help must name what the fix writes;
/// where the fix only leaves something out, or is one of many, `#! help` has words of it.
struct Broken {
    name: String,
    text: String,
    line: u32,
    column: u32,
    words: String,
    help: Option<String>,
    fixed: String,
}

fn broken() -> Vec<Broken> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plans/broken");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| read_broken(path)).collect()
}

fn read_broken(path: &std::path::Path) -> Broken {
    let text = std::fs::read_to_string(path).unwrap();
    let mut fixed: Vec<String> = text.lines().map(str::to_owned).collect();
    let (mut place, mut words, mut help, mut last) = ((0, 0), String::new(), None, 0);
    for line in text.lines().map_while(|line| line.strip_prefix("#!")) {
        if let Some(error) = line.strip_prefix(" error ") {
            let (at, rest) = error.split_once(' ').unwrap();
            let (line, column) = at.split_once(':').unwrap();
            place = (line.parse().unwrap(), column.parse().unwrap());
            words = rest.to_owned();
        } else if let Some(part) = line.strip_prefix(" help ") {
            help = Some(part.to_owned());
        } else if let Some(fix) = line.strip_prefix(" fix ") {
            let (line, with) = fix.split_once(' ').unwrap_or((fix, ""));
            last = line.parse::<usize>().unwrap() - 1;
            fixed[last] = with.to_owned();
        } else {
            fixed[last] = format!("{}\n{}", fixed[last], line.trim());
        }
    }
    Broken {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        line: place.0,
        column: place.1,
        words,
        help,
        fixed: fixed.join("\n"),
        text,
    }
}

impl Broken {
    /// Whether the words at fault are those at its position, whole names and whole strings; at the
    /// end of a line, and at the head of the file, there are none.
    fn has(&self, words: &str) -> bool {
        let line = self.text.lines().nth(self.line as usize - 1).unwrap();
        let rest: String = line.chars().skip(self.column as usize - 1).collect();
        let nothing_there = rest.is_empty() || (self.line, self.column) == (1, 1);
        let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let is_whole = |after: &str| {
            words.matches('"').count().is_multiple_of(2)
                && !(words.ends_with(in_name) && after.starts_with(in_name))
        };
        words.is_empty() == nothing_there && rest.strip_prefix(words).is_some_and(is_whole)
    }

    /// Whether this help leads to the fix.
    fn is_helped_by(&self, help: &str) -> bool {
        if let Some(part) = &self.help {
            return help.contains(part);
        }
        let lines = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with("#!")).map(str::to_owned).collect()
        };
        let (text, fixed) = (lines(&self.text), lines(&self.fixed));
        let of_one = |some: &[String], other: &[String]| -> BTreeSet<String> {
            some.iter().filter(|line| !other.contains(line)).flat_map(|line| names(line)).collect()
        };
        let (old, new) = (of_one(&text, &fixed), of_one(&fixed, &text));
        let (written, told) = (&new - &old, names(help).collect());
        !written.is_empty() && written.is_subset(&told)
    }
}

/// Names and numbers; a number and its unit are two.
fn names(text: &str) -> impl Iterator<Item = String> {
    let name = regex::Regex::new("[0-9]+|[A-Za-z_-]+").unwrap();
    let names: Vec<_> = name.find_iter(text).map(|name| name.as_str().to_owned()).collect();
    names.into_iter()
}

#[test]
fn every_broken_file_names_its_one_mistake_and_loads_once_fixed() {
    let files = broken();
    assert!(files.len() >= 60, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let mut note = |what: String| wrong.push(format!("--- {}: {what}", file.name));
        match Catalog::parse("plans.toml", &file.text, time_at(NOW_MS)) {
            Ok(_) => note("loads".to_owned()),
            Err(errors) => {
                let first = errors.iter().next().unwrap();
                let as_told = errors.len() == 1
                    && (first.line, first.column) == (file.line, file.column)
                    && first.message.contains(&file.words)
                    && file.has(&first.words)
                    && file.is_helped_by(&first.help);
                if !as_told {
                    note(format!(
                        "expected {}:{} {}\n{errors}",
                        file.line, file.column, file.words
                    ));
                }
            }
        }
        if let Err(errors) = Catalog::parse("plans.toml", &file.fixed, time_at(NOW_MS)) {
            note(format!("fixed:\n{errors}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A valid file with some of its bytes replaced, removed or doubled.
fn mutated() -> impl Strategy<Value = String> {
    let file = prop::sample::select(vec![FIRST, SAAS, LLM]);
    let edit = (any::<prop::sample::Index>(), 0..4_u8, any::<char>(), 1..12_usize);
    (file, prop::collection::vec(edit, 1..5)).prop_map(|(file, edits)| {
        let mut text: Vec<char> = file.chars().collect();
        for (at, kind, with, len) in edits {
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            match kind {
                0 => text[at] = with,
                1 => drop(text.drain(at..end)),
                2 => {
                    let copy = text[at..end].to_vec();
                    text.splice(at..at, copy);
                }
                _ => text.insert(at, ['"', '[', '=', '.', '\n', '9', '\u{feff}'][len % 7]),
            }
            if text.is_empty() {
                text.push('x');
            }
        }
        text.into_iter().collect()
    })
}

fn places_are_in(text: &str, errors: &PlanErrors) -> bool {
    let lines = text.split('\n').count();
    errors.iter().all(|e| e.line as usize <= lines && !e.help.is_empty() && e.column >= 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn a_mutated_file_never_panics(text in mutated()) {
        if let Err(errors) = Catalog::parse("plans.toml", &text, time_at(NOW_MS)) {
            prop_assert!(places_are_in(&text, &errors), "{}", errors);
            prop_assert!(errors.len() > 0 && !errors.to_string().is_empty());
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}", words in "[0-9kMGB./ a-z]{0,24}") {
        let _ = Catalog::parse("plans.toml", &text, time_at(NOW_MS));
        let limits = format!(
            "default-plan = 'a'\n[plan.a]\nrate.all = '{words}'\nquota.requests = '{words}'\n"
        );
        let _ = Catalog::parse("plans.toml", &limits, time_at(NOW_MS));
        let _ = load(FIRST).parse_changes(&text);
    }
}

#[test]
fn the_committed_schema_is_that_of_the_parser() {
    schema_tests::is_committed(schema(), "docs/plans.schema.json");
}

#[test]
fn the_schema_takes_what_loads_and_refuses_most_of_what_does_not() {
    let schema = schema();
    for text in [FIRST, SAAS, LLM] {
        assert!(takes(&schema, &toml::Value::Table(text.parse().unwrap())));
    }
    let mut refused = Vec::new();
    for file in broken() {
        let fixed = toml::Value::Table(file.fixed.parse().unwrap());
        assert!(takes(&schema, &fixed), "{} once fixed", file.name);
        if let Ok(table) = file.text.parse()
            && !takes(&schema, &toml::Value::Table(table))
        {
            refused.push(file.name);
        }
    }
    // Mistakes that an editor underlines without knowing the rest of the file.
    let has = |name: &str| refused.iter().any(|refused| refused == name);
    for name in ["plan-unknown-key", "rate-bare-number", "quota-period-alias", "route-no-match"] {
        assert!(has(name), "{name}");
    }
    assert!(refused.len() >= 40, "{} refused", refused.len());
}
