//! The traffic that `simulate` decides again: from a log of decisions, or from an access log.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;

use serde_json::Value;
use tallygate::DecisionRecord;

use crate::args::Simulate;
use crate::failure::{Failure, code};
use crate::line_reader::{self, Line, LineReader};

/// One decision to make.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Unix milliseconds.
    pub(super) at_ms: i64,
    pub(super) tenant: String,
    pub(super) user: Option<String>,
    pub(super) key: Option<String>,
    /// The plan under which it was decided, if that is known.
    pub(super) plan: Option<String>,
    pub(super) what: What,
    /// The permission that its caller lacked. A log says no more of permissions: of any other, its
    /// caller is taken to have what the route asks for.
    pub(super) lacks: Option<String>,
    /// How many of the tenant's requests were in flight, where that was limited.
    pub(super) in_flight: Option<usize>,
    /// What was decided, if that is known.
    pub(super) came: Option<Verdict>,
    /// The limits that had too little left. Which of them refuses depends on which were waited for.
    pub(super) short: Vec<String>,
}

impl Call {
    /// Whether another decision is that of the log, if there is one.
    pub(super) fn came_otherwise(&self, verdict: &Verdict) -> bool {
        match (&self.came, verdict) {
            (None, _) => false,
            (Some(Verdict::Refused(came)), Verdict::Refused(by)) => {
                came != by && !self.short.contains(by)
            }
            (Some(came), verdict) => came != verdict,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A request on a route by its name; `None`: on no route.
    On(Option<String>),
    /// A request by method and path.
    Request(String, String),
    /// Work, with its costs.
    Work(String, Vec<(String, u64)>),
}

/// A decision: admitted, or refused by this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admitted,
    /// By this limit, or for this reason.
    Refused(String),
}

/// Calls in the order in which they were decided, and how many lines were left out, by why.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) calls: Vec<Call>,
    pub(super) left_out: BTreeMap<String, u64>,
    /// One in so many admissions was logged.
    pub(super) one_in: u32,
}

impl Traffic {
    fn leave_out(&mut self, why: impl Into<String>) {
        *self.left_out.entry(why.into()).or_default() += 1;
    }

    /// The traffic of a log of decisions.
    pub(super) fn of_decisions(records: &[DecisionRecord]) -> Self {
        let mut traffic = Self { one_in: 1, ..Self::default() };
        for record in records {
            traffic.one_in = traffic.one_in.max(record.one_in.unwrap_or(1));
            match call(record) {
                Ok(call) => traffic.calls.push(call),
                Err(why) => traffic.leave_out(why),
            }
        }
        traffic
    }

    /// Takes a line of an access log.
    fn take(&mut self, line: &[u8], how: &Simulate) {
        let Ok(line) = std::str::from_utf8(line) else { return self.leave_out("not UTF-8") };
        let line = line.trim();
        let read = match line.bytes().next() {
            None => return,
            Some(b'{') => of_json(line, how),
            Some(_) => of_common(line),
        };
        match read {
            Some(call) if call.tenant == "-" => self.leave_out("no tenant"),
            Some(call) if !may_name_a_tenant(&call.tenant) => self.leave_out("no tenant's id"),
            Some(call) => self.calls.push(call),
            None => self.leave_out("not understood"),
        }
    }

    /// The traffic of an access log.
    pub(super) fn of_access_log(path: &Path, how: &Simulate) -> Result<Self, Failure> {
        let of_file = |error: std::io::Error| Failure::of_file(path, &error);
        let file = std::fs::File::open(path).map_err(of_file)?;
        let mut lines = LineReader::new(BufReader::new(file));
        let mut traffic = Self { one_in: 1, ..Self::default() };
        while let Some(line) = lines.next().map_err(of_file)? {
            match line {
                Line::Whole(line) => traffic.take(line, how),
                Line::TooLong => {
                    traffic.leave_out(format!("more than {} KiB", line_reader::MOST / 1024));
                }
            }
        }
        if traffic.calls.is_empty() {
            let text = format!(
                "{}: no line has a tenant, an instant, a method and a path\nhelp: Common Log \
                 Format names the tenant as the user; of JSON lines say which members have them",
                path.display()
            );
            return Err(Failure::new(code::FILE, text));
        }
        // A server logs a request when it ends; a stable sort puts them by their instants.
        traffic.calls.sort_by_key(|call| call.at_ms);
        Ok(traffic)
    }
}

/// The decision of a record, or why it cannot be made again.
fn call(record: &DecisionRecord) -> Result<Call, String> {
    let reason = record.reason.as_deref().unwrap_or_default();
    if record.kind == "more" {
        return Err("units for what ran already".to_owned());
    }
    let by_plan = ["quota-exceeded", "concurrency-exceeded", "feature-not-in-plan"];
    let about = record.about.as_deref();
    let by_grant = reason == "payment-required" && about == Some("grant-used-up");
    let lacks = about.filter(|_| reason == "permission-missing");
    if record.is_refusal() && !by_plan.contains(&reason) && !by_grant && lacks.is_none() {
        return Err(reason.to_owned());
    }
    let tenant = record.tenant.as_deref().ok_or("no tenant")?;
    if !may_name_a_tenant(tenant) {
        return Err("no tenant's id".to_owned());
    }
    let own = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    let route = own(&record.route).filter(|route| route != "default");
    let what = if record.kind == "work" {
        let cost = record.cost.iter().map(|(meter, n)| Some((meter.to_string(), n.as_u64()?)));
        let cost = cost.collect::<Option<Vec<_>>>().ok_or("a cost in parts of a unit")?;
        What::Work(route.unwrap_or_else(|| "default".to_owned()), cost)
    } else {
        What::On(route)
    };
    let came = match record.is_refusal() {
        false => Verdict::Admitted,
        true => Verdict::Refused(own(&record.limit).unwrap_or_else(|| reason.to_owned())),
    };
    let in_flight = record.limits.iter().find(|limit| limit.kind == "concurrency");
    let in_flight = in_flight.and_then(|limit| usize::try_from(limit.used.as_u64()?).ok());
    Ok(Call {
        at_ms: unix_ms(record.at()),
        tenant: tenant.to_owned(),
        user: own(&record.user),
        key: own(&record.key),
        plan: own(&record.plan),
        what,
        lacks: lacks.map(str::to_owned),
        in_flight,
        came: Some(came),
        short: record.short_limits().map(|limit| limit.name.to_string()).collect(),
    })
}

pub(super) fn unix_ms(at: std::time::SystemTime) -> i64 {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Whether a gate takes this for a tenant's id: not those that it gives to erased tenants.
fn may_name_a_tenant(id: &str) -> bool {
    let is_written = |c: char| !c.is_control();
    (1..=256).contains(&id.chars().count()) && id.chars().all(is_written) && !id.starts_with('~')
}

fn seen(at_ms: i64, tenant: String, method: String, path: String) -> Call {
    let what = What::Request(method, path);
    let (user, key, plan, lacks) = (None, None, None, None);
    let (in_flight, came, short) = (None, None, Vec::new());
    Call { at_ms, tenant, user, key, plan, what, lacks, in_flight, came, short }
}

/// `host ident user [10/Oct/2026:13:55:36 +0000] "GET /path HTTP/1.1" ..`.
fn of_common(line: &str) -> Option<Call> {
    let (who, rest) = line.split_once(" [")?;
    let (instant, rest) = rest.split_once("] \"")?;
    let mut request = rest.split('"').next()?.split(' ');
    let tenant = who.split(' ').nth(2)?.to_owned();
    let (method, path) = (request.next()?.to_owned(), request.next()?);
    let at = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", instant).ok()?;
    let at_ms = at.to_timestamp().ok()?.as_millisecond();
    Some(seen(at_ms, tenant, method, without_query(path)))
}

fn of_json(line: &str, how: &Simulate) -> Option<Call> {
    let all: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| all[name].as_str().map(str::to_owned);
    let at_ms = match &all[&*how.time_member] {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
        Value::Number(seconds) => (seconds.as_f64()? * 1_000.0) as i64,
        _ => return None,
    };
    let tenant = text(&how.tenant_member).unwrap_or_else(|| "-".to_owned());
    let (method, path) = (text(&how.method_member)?, text(&how.path_member)?);
    Some(seen(at_ms, tenant, method, without_query(&path)))
}

fn without_query(path: &str) -> String {
    path.split('?').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_common_log_format_has_its_user_as_the_tenant() {
        let line = "192.0.2.1 - acme [10/Oct/2026:13:55:36 +0200] \"POST /v1/chat?x=1 HTTP/1.1\" \
                    200 2326 \"-\" \"curl/8\"";
        let call = of_common(line).unwrap();
        assert_eq!((call.at_ms, &*call.tenant), (1_791_633_336_000, "acme"));
        let What::Request(method, path) = call.what else { panic!("{:?}", call.what) };
        assert_eq!((&*method, &*path), ("POST", "/v1/chat"));
        for not_one in ["", "x", "a b c [10/Oct/2026:13:55:36 +0200] \"GET\"", "a [] \"\""] {
            assert!(of_common(not_one).is_none(), "{not_one}");
        }
    }
}
