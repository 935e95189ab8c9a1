//! Exceptions of single tenants, and the effects of payment states on all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use toml::value::Date;

use super::form::PAYMENT_WORDS;
use super::limits::Scene;
use super::model::*;
use super::plans::duration;
use super::routes::enforce;
use super::words;
use crate::toml_file::{Findings, Text, TomlNode, TomlTable, fault, unknown_help};

/// The exceptions by tenant; those that have ended at `now_ms` are checked and left out.
pub(super) fn tenants(
    report: &mut Findings<'_>,
    top: TomlTable<'_>,
    scene: &Scene<'_>,
    now_ms: i64,
) -> BTreeMap<Arc<str>, Exception> {
    let mut tenants = BTreeMap::new();
    for entry in top.table("tenant").map(TomlTable::entries).unwrap_or_default() {
        let Some(table) = TomlTable::of(entry.node) else {
            continue;
        };
        let changes = changes(report, scene, table);
        let until = table.node("until").and_then(|node| midnight(report, scene, node, 1));
        if until.is_some_and(|until_ms| until_ms <= now_ms) {
            let place = report.mark(entry.span);
            let message = format!("the exception of tenant `{}` has ended: ignored", entry.name);
            report.warn(place, message);
            continue;
        }
        let tenant: Arc<str> = Arc::from(entry.name);
        tenants.insert(tenant, Exception { changes, until_ms: until });
    }
    tenants
}

/// The plan changes in a `[tenant.x]` table.
pub(super) fn changes(
    report: &mut Findings<'_>,
    scene: &Scene<'_>,
    table: TomlTable<'_>,
) -> PlanChanges {
    let plan = table.text("plan").and_then(|name| scene.plan(report, &name));
    PlanChanges {
        plan: plan.and_then(|n| u16::try_from(n).ok()).map(PlanId),
        rates: scene.rates(report, table.table("rate")),
        quotas: scene.quotas(report, table.table("quota")),
        features: scene.features(table.table("feature")),
        concurrency: table.count("concurrency"),
        enforce: enforce(table),
        term: table.table("term").and_then(|table| term(report, scene, table)),
    }
}

fn term(report: &mut Findings<'_>, scene: &Scene<'_>, table: TomlTable<'_>) -> Option<Term> {
    let from = table.node("from").and_then(|node| midnight(report, scene, node, 0));
    let every = table.text("every")?;
    let months = words::term(every.text).map_err(|f| fault(report, &every, f)).ok()?;
    Some(Term { from_ms: from?, months })
}

/// The local midnight at the start of a date, or `later` days after it.
fn midnight(
    report: &mut Findings<'_>,
    scene: &Scene<'_>,
    node: &TomlNode<'_>,
    later: u8,
) -> Option<i64> {
    let datetime = node.get_ref().as_datetime().filter(|d| d.time.is_none() && d.offset.is_none());
    let Date { year, month, day } = datetime?.date?;
    let date = (i16::try_from(year).ok(), i8::try_from(month).ok(), i8::try_from(day).ok());
    let (Some(year), Some(month), Some(day)) = date else {
        return None;
    };
    let found = scene.zone.midnight_ms(year, month, day, later);
    if found.is_none() {
        report.error(node.span(), "there is no such day", "write a date: 2027-03-31");
    }
    found
}

/// `[billing]`, with defaults for missing keys.
pub(super) fn billing(
    report: &mut Findings<'_>,
    top: TomlTable<'_>,
    scene: &Scene<'_>,
    plans: &[Plan],
    default_plan: PlanId,
) -> BillingTable {
    const GRACE: Duration = Duration::from_secs(7 * 86_400);
    let table = top.table("billing");
    let mut rule = |key: &str, default: PaymentRule| {
        let node = table.and_then(|table| table.node(key));
        node.and_then(|node| payment(report, scene, node)).unwrap_or(default)
    };
    let default = PaymentRule::Plan(default_plan);
    let on_final_failure = match table.and_then(|t| t.text("on-final-failure")).map(|w| w.text) {
        Some("cancel") => OnFinalFailure::Cancel,
        _ => OnFinalFailure::Keep,
    };
    BillingTable {
        trialing: rule("trialing", PaymentRule::Full),
        past_due: rule("past-due", PaymentRule::Grace(GRACE, Box::new(default.clone()))),
        unpaid: rule("unpaid", PaymentRule::PaymentRequired),
        canceled: rule("canceled", default),
        on_payment_method: subscribes(report, table, scene, plans),
        on_final_failure,
    }
}

/// The plan of `on-payment-method`: it needs a price, or no customer could be subscribed to it.
fn subscribes(
    report: &mut Findings<'_>,
    table: Option<TomlTable<'_>>,
    scene: &Scene<'_>,
    plans: &[Plan],
) -> Option<PlanId> {
    let name = table?.text("on-payment-method")?;
    let found = scene.plan(report, &name)?;
    if plans.get(found).is_some_and(|plan| plan.prices.is_empty()) {
        let message = format!("`{}` has no price to subscribe to", name.text);
        report.error(name.span, message, "write stripe = { price = \"..\" } in that plan");
        return None;
    }
    u16::try_from(found).ok().map(PlanId)
}

fn payment(
    report: &mut Findings<'_>,
    scene: &Scene<'_>,
    node: &TomlNode<'_>,
) -> Option<PaymentRule> {
    if let Some(text) = Text::of(node) {
        return payment_word(report, scene, &text);
    }
    let table = TomlTable::of(node)?;
    let then = table.text("then").and_then(|text| payment_word(report, scene, &text));
    let grace = duration(report, table.text("grace"))?;
    Some(PaymentRule::Grace(grace, Box::new(then?)))
}

fn payment_word(
    report: &mut Findings<'_>,
    scene: &Scene<'_>,
    text: &Text<'_>,
) -> Option<PaymentRule> {
    match text.text {
        "full" => return Some(PaymentRule::Full),
        "payment-required" => return Some(PaymentRule::PaymentRequired),
        _ => {}
    }
    let found = scene.plans.iter().position(|plan| **plan == *text.text);
    if found.is_none() {
        let known = PAYMENT_WORDS.iter().copied().chain(scene.plans.iter().map(|plan| &**plan));
        let help = unknown_help(text.text, known);
        let message = format!("`{}` is neither a plan nor a payment rule", text.text);
        report.error(text.span.clone(), message, help);
    }
    found.and_then(|n| u16::try_from(n).ok()).map(|n| PaymentRule::Plan(PlanId(n)))
}
