//! API Gateway's usage plans, as `get-usage-plans` prints them, as a plan file.
//!
//! A throttle is a rate, a quota a quota of requests. What has no equivalent is a note.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::{PlanText, rate};
use crate::failure::Failure;
use crate::output::escaped;

/// Most characters of a plan's name.
const MOST_NAME: usize = 64;
/// Parts of a request a second in which a rate is read: API Gateway's are decimals.
const PARTS: f64 = 1e6;

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
        let text = |key: &str| item[key].as_str().filter(|it| !it.is_empty());
        let id = text("id").ok_or_else(|| {
            Failure::usage(format!("usage plan {}: it has no id, as AWS gives each", n + 1))
        })?;
        let name = text("name").unwrap_or(id);
        let mut plan = plan_name(name);
        if !names.insert(plan.clone()) {
            plan = plan_name(&format!("{id}-{name}"));
            if !names.insert(plan.clone()) {
                return Err(Failure::usage(format!("the usage plan {id:?} is there twice")));
            }
        }
        let (mut toml, mut notes) = (String::new(), Vec::new());
        if plan != name {
            notes.push(format!("the usage plan {name:?} ({id}) is the plan {plan}"));
        }
        // A line break in it would be one of the plan file.
        let shown = format!("{} ({})", escaped(name), escaped(id));
        let _ = writeln!(toml, "# The usage plan {shown} of API Gateway.\n[plan.{plan}]");
        let mut said = Said { plan: &plan, notes: &mut notes };
        said.throttle(&mut toml, &item["throttle"])?;
        said.quota(&mut toml, &item["quota"])?;
        said.rest(item);
        plans.push(UsagePlan { id: id.to_owned(), plan, toml, notes });
    }
    Ok(plans)
}

/// The plan file.
pub(super) fn file(plans: &[UsagePlan]) -> PlanText {
    let mut toml = String::new();
    if let Some(first) = plans.first() {
        toml += "# The plan of tenants that have none of their own: choose it.\n";
        let _ = writeln!(toml, "default-plan = \"{}\"", first.plan);
    }
    for plan in plans {
        let _ = write!(toml, "\n{}", plan.toml);
    }
    PlanText { toml, notes: plans.iter().flat_map(|plan| plan.notes.clone()).collect() }
}

/// The entries of what `aws apigateway` prints.
pub(super) fn items(bytes: &[u8], command: &str) -> Result<Vec<Value>, Failure> {
    let help = format!("help: aws apigateway {command} --output json > FILE");
    let mut read: Value = serde_json::from_slice(bytes)
        .map_err(|error| Failure::usage(format!("it is not JSON: {}\n{help}", place(&error))))?;
    match read["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Err(Failure::usage(format!("it has no \"items\", as {command} prints them\n{help}"))),
    }
}

/// Where JSON ends to be so, without a part of it.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// Whether this can be a plan's name.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MOST_NAME && name == plan_name(name)
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
    fn throttle(&mut self, toml: &mut String, throttle: &Value) -> Result<(), Failure> {
        if throttle.is_null() {
            return Ok(());
        }
        match self.rate(throttle)? {
            Some(rate) => {
                let _ = writeln!(toml, "rate.default   = \"{rate}\"");
            }
            None => {
                self.note("its throttle admits nothing: its requests are prepaid, by grants alone");
                let _ = writeln!(toml, "quota.requests = \"prepaid\"");
            }
        }
        Ok(())
    }

    /// A throttle as a rate; `None`: nothing passes it.
    fn rate(&mut self, throttle: &Value) -> Result<Option<String>, Failure> {
        let wrong = || {
            let text = format!("{}: its throttle has no rateLimit and burstLimit", self.plan);
            Failure::usage(text)
        };
        let rate = throttle["rateLimit"].as_f64().filter(|it| (0.0..=1e12).contains(it));
        let rate = (rate.ok_or_else(wrong)? * PARTS).round() as u128;
        let burst = throttle["burstLimit"].as_u64().ok_or_else(wrong)?;
        if rate == 0 || burst == 0 {
            return Ok(None);
        }
        let text = rate::text(rate, PARTS as u128);
        if !text.is_exact {
            self.note(&format!(
                "{} is not quite the throttle of {}/s",
                text.text, throttle["rateLimit"]
            ));
        }
        Ok(Some(format!("{} burst {burst}", text.text)))
    }

    /// `quota.requests`.
    fn quota(&mut self, toml: &mut String, quota: &Value) -> Result<(), Failure> {
        if quota.is_null() {
            return Ok(());
        }
        let every = match quota["period"].as_str() {
            Some("DAY") => Some("day"),
            Some("WEEK") => Some("week"),
            Some("MONTH") => Some("month"),
            _ => None,
        };
        let (limit, every) = quota["limit"].as_u64().zip(every).ok_or_else(|| {
            let text =
                format!("{}: its quota has no limit and period of DAY, WEEK, MONTH", self.plan);
            Failure::usage(text)
        })?;
        if toml.contains("quota.requests") {
            return Ok(()); // of a throttle that admits nothing
        }
        let _ = writeln!(toml, "quota.requests = \"{limit}/{every}\"");
        if quota["offset"].as_u64().is_some_and(|offset| offset > 0) {
            let text = "the offset of its quota has no equivalent: a week begins on Monday, a \
                        month on its first, in the plan file's timezone";
            self.note(text);
        }
        Ok(())
    }

    /// What has no equivalent.
    fn rest(&mut self, item: &Value) {
        let stages = item["apiStages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |stage: &Value| {
            let text = |key: &str| stage[key].as_str().unwrap_or("?").to_owned();
            format!("{}/{}", text("apiId"), text("stage"))
        };
        if !stages.is_empty() {
            let names: Vec<_> = stages.iter().map(name).collect();
            let names = names.join(", ");
            self.note(&format!("it was for {names}; a plan here is for the whole service"));
        }
        for stage in stages {
            for (method, throttle) in stage["throttle"].as_object().into_iter().flatten() {
                let (path, method) = method.rsplit_once('/').unwrap_or((method, "?"));
                let rate = match self.rate(throttle) {
                    Ok(Some(rate)) => rate,
                    Ok(None) => "nothing at all".to_owned(),
                    Err(_) => "a rate that cannot be read".to_owned(),
                };
                self.note(&format!(
                    "{} throttles {method} {path} to {rate}: write a [route.x] with match = \
                     \"{method} {path}\", and rate.x into the plan",
                    name(stage)
                ));
            }
        }
        for (key, what) in [("productCode", "its product of AWS Marketplace"), ("tags", "its tags")]
        {
            let is_there = item[key].as_str().is_some_and(|it| !it.is_empty())
                || item[key].as_object().is_some_and(|it| !it.is_empty());
            if is_there {
                self.note(&format!("{what} ({key}) has no equivalent"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
