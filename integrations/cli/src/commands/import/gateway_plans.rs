//! API Gateway's usage plans, as `get-usage-plans` prints them, as a plan file.
//!
//! A throttle is a rate, a quota a quota of requests. What has no equivalent is a note.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::json::{Object, items};
use super::plan_file::{PlanText, legal};
use super::throttle::{self, Throttle};
use crate::failure::Failure;
use crate::output::escaped;

/// Most characters of a plan's name.
const MOST_NAME: usize = 64;
/// Most characters of a name in a comment.
const MOST_SHOWN: usize = 100;
/// The greatest quota that a plan file can say: it has eighteen digits.
const MOST_QUOTA: u64 = 999_999_999_999_999_999;

/// A usage plan.
pub(super) struct UsagePlan {
    pub(super) id: String,
    /// The plan's name here.
    pub(super) plan: String,
    /// Its table, and what of it is not in there.
    toml: String,
    notes: Vec<String>,
}

/// Reads the usage plans of a file.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<UsagePlan>, Failure> {
    let (mut plans, mut names) = (Vec::new(), BTreeSet::new());
    for (n, item) in items(bytes, "get-usage-plans")?.iter().enumerate() {
        let plan = usage_plan(item, &mut names);
        plans.push(plan.map_err(|why| Failure::usage(format!("usage plan {}: {why}", n + 1)))?);
    }
    Ok(plans)
}

fn usage_plan(item: &Value, names: &mut BTreeSet<String>) -> Result<UsagePlan, String> {
    let item = Object::of(item)?;
    let id = item.text("id")?.ok_or("it has no \"id\", as AWS gives each")?;
    let name = item.text("name")?.unwrap_or(id);
    let mut is_new = |plan: &String| is_free(plan) && names.insert(plan.clone());
    let wanted = [plan_name(name), plan_name(&format!("{id}-{name}"))];
    let plan = wanted.into_iter().find(|plan| is_new(plan));
    let plan = plan.ok_or_else(|| format!("the usage plan {id:?} is there twice"))?;
    let (mut toml, mut notes) = (String::new(), Vec::new());
    if plan != name {
        notes.push(format!("the usage plan {name:?} ({id}) is the plan {plan}"));
    }
    // A line break in it would be one of the plan file.
    let shown = |text: &str| escaped(&text.chars().take(MOST_SHOWN).collect::<String>());
    let (named, identified) = (shown(name), shown(id));
    let _ = writeln!(toml, "# The usage plan {named} ({identified}) of API Gateway.");
    let _ = writeln!(toml, "[plan.{plan}]");
    let mut said = Said { plan: &plan, notes: &mut notes };
    said.throttle(&mut toml, item)?;
    said.quota(&mut toml, item)?;
    said.stages(item)?;
    said.rest(item)?;
    Ok(UsagePlan { id: id.to_owned(), plan, toml, notes })
}

/// The plan file.
pub(super) fn file(plans: &[UsagePlan]) -> Result<PlanText, Failure> {
    let first = plans.first().ok_or_else(|| Failure::usage("there is no usage plan in it"))?;
    let mut toml = "# The plan of tenants that have none of their own: choose it.\n".to_owned();
    let _ = writeln!(toml, "default-plan = \"{}\"", first.plan);
    for plan in plans {
        let _ = write!(toml, "\n{}", plan.toml);
    }
    Ok(PlanText { toml, notes: plans.iter().flat_map(|plan| plan.notes.clone()).collect() })
}

/// Whether this can be a plan's name.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MOST_NAME && name == plan_name(name)
}

/// Whether the plan language leaves this name to plans: it has words of its own.
fn is_free(name: &str) -> bool {
    legal(&format!("default-plan = \"{name}\"\n[plan.{name}]\n")).is_ok()
}

/// A name as a plan may have it.
fn plan_name(name: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name: String = name.chars().map(|c| if legal(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    match name.get(..name.len().min(MOST_NAME)) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "plan".to_owned(),
    }
}

/// What is said of a plan beside its table.
struct Said<'a> {
    plan: &'a str,
    notes: &'a mut Vec<String>,
}

impl Said<'_> {
    fn note(&mut self, text: &str) {
        self.notes.push(format!("{}: {text}", self.plan));
    }

    /// `rate.default`.
    fn throttle(&mut self, toml: &mut String, item: Object<'_>) -> Result<(), String> {
        let Some(throttle) = item.object("throttle")? else { return Ok(()) };
        match throttle::read(throttle).map_err(|why| format!("its throttle: {why}"))? {
            Throttle::Rate { text, notes } => {
                let _ = writeln!(toml, "rate.default   = \"{text}\"");
                notes.iter().for_each(|note| self.note(note));
            }
            Throttle::Nothing(why) => self.prepaid(toml, &why),
        }
        Ok(())
    }

    /// Nothing is included.
    fn prepaid(&mut self, toml: &mut String, why: &str) {
        self.note(&format!("{why}: its requests are prepaid, by grants alone"));
        let _ = writeln!(toml, "quota.requests = \"prepaid\"");
    }

    /// `quota.requests`.
    fn quota(&mut self, toml: &mut String, item: Object<'_>) -> Result<(), String> {
        let Some(quota) = item.object("quota")? else { return Ok(()) };
        let of_quota = |why: String| format!("its quota: {why}");
        let limit = quota.whole("limit").map_err(of_quota)?;
        let every = match quota.text("period").map_err(of_quota)? {
            Some("DAY") => "day",
            Some("WEEK") => "week",
            Some("MONTH") => "month",
            _ => return Err("its quota: its \"period\" is none of DAY, WEEK, MONTH".to_owned()),
        };
        let has_offset = quota.whole_or_none("offset").map_err(of_quota)?.unwrap_or(0) > 0;
        if toml.contains("quota.requests") {
            return Ok(()); // of a throttle that admits nothing
        }
        if limit == 0 {
            self.prepaid(toml, "its quota admits nothing");
            return Ok(());
        }
        let written = limit.min(MOST_QUOTA);
        let _ = writeln!(toml, "quota.requests = \"{written}/{every}\"");
        if written < limit {
            self.note(&format!("{written}/{every} is less than its quota of {limit}"));
        }
        if has_offset {
            let text = "the offset of its quota has no equivalent: a week begins on Monday, a \
                        month on its first, in the plan file's timezone";
            self.note(text);
        }
        Ok(())
    }

    /// `apiStages`, of which a plan here knows nothing.
    fn stages(&mut self, item: Object<'_>) -> Result<(), String> {
        let mut names = Vec::new();
        let mut methods = Vec::new();
        for (n, stage) in item.list("apiStages")?.iter().enumerate() {
            let of_stage = |why: String| format!("stage {}: {why}", n + 1);
            let stage = Object::of(stage).map_err(of_stage)?;
            let text = |name: &str| stage.text(name).map(|it| it.unwrap_or("?")).map_err(of_stage);
            let name = format!("{}/{}", text("apiId")?, text("stage")?);
            if let Some(throttles) = stage.object("throttle").map_err(of_stage)? {
                for (method, throttle) in throttles.fields() {
                    let note = of_method(&name, method, throttle);
                    let of_method = |why| of_stage(format!("its throttle of {method:?}: {why}"));
                    methods.push(note.map_err(of_method)?);
                }
            }
            names.push(name);
        }
        if !names.is_empty() {
            let names = names.join(", ");
            self.note(&format!("it was for {names}; a plan here is for the whole service"));
        }
        methods.iter().for_each(|note| self.note(note));
        Ok(())
    }

    /// What has no equivalent.
    fn rest(&mut self, item: Object<'_>) -> Result<(), String> {
        if item.text("productCode")?.is_some() {
            self.note("its product of AWS Marketplace (productCode) has no equivalent");
        }
        if item.object("tags")?.is_some_and(|tags| tags.fields().next().is_some()) {
            self.note("its tags (tags) have no equivalent");
        }
        Ok(())
    }
}

/// The throttle of a method in a stage, which is a route here.
fn of_method(stage: &str, method: &str, throttle: &Value) -> Result<String, String> {
    let (path, method) = method.rsplit_once('/').unwrap_or((method, "?"));
    let route = match is_pattern(method, path) {
        true => format!("a [route.x] with match = \"{method} {path}\""),
        false => "a [route.x] that matches each of its methods and paths".to_owned(),
    };
    let throttles = format!("{stage} throttles {method} {path}");
    Ok(match throttle::read(Object::of(throttle)?)? {
        Throttle::Rate { text, notes } => {
            let less: String = notes.iter().map(|note| format!(" ({note})")).collect();
            format!("{throttles} to {text}{less}: write {route}, and rate.x into the plan")
        }
        Throttle::Nothing(why) => {
            format!("{throttles} ({why}): write {route} and needs = \"x\", which the plan lacks")
        }
    })
}

/// Whether a method and a path of API Gateway's are a pattern here, as they are.
fn is_pattern(method: &str, path: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-._~{}".contains(c);
    !method.is_empty()
        && method.chars().all(|c| c.is_ascii_uppercase())
        && path.starts_with('/')
        && path.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_of_a_method_advises_a_pattern_that_the_plan_file_takes() {
        for (method, path) in [("GET", "/pets"), ("POST", "/pets/{id}/x.json"), ("GET", "/")] {
            assert!(is_pattern(method, path), "{method} {path}");
        }
        for (method, path) in [("*", "/*"), ("GET", "*"), ("GET", "/a\"b"), ("?", "/x"), ("", "/")]
        {
            assert!(!is_pattern(method, path), "{method} {path}");
        }
    }

    #[test]
    fn names_are_made_legal() {
        for (name, wanted) in [
            ("basic", "basic"),
            ("Gold plan!", "Gold-plan-"),
            ("_x", "x"),
            ("", "plan"),
            ("日本", "plan"),
        ] {
            assert_eq!(plan_name(name), wanted);
        }
        assert_eq!(plan_name(&"x".repeat(99)).len(), 64);
        assert!(is_name("basic") && !is_name("_x") && !is_name("") && !is_name(&"x".repeat(65)));
    }
}
