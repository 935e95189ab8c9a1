//! Plans, addons, top-ups, exceptions and payment rules: what is sold, and to whom else.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::value::Date;

use super::counted::{charge_on, enforce, limit_number};
use super::error::{Report, known_names, unknown_help};
use super::keys::PAYMENT_WORDS;
use super::limits::{Scene, amount_of};
use super::model::*;
use super::shape::{Entry, Node, Table, Text, fault, integer};
use super::words;

/// Most plans, addons and top-ups, each.
pub const MAX_SOLD: usize = 1024;

/// The plans in the order of the file, with everything they extend merged in.
pub(super) fn plans(
    report: &mut Report<'_>,
    entries: &[Entry<'_>],
    scene: &Scene<'_>,
) -> Vec<Plan> {
    limit_number(report, entries, MAX_SOLD, "plans");
    for entry in entries {
        if PAYMENT_WORDS.contains(&entry.name) {
            let message = format!("`{}` is a word of the plan language", entry.name);
            let help = "choose another name: [billing] would not read plainly with this one";
            report.error(entry.span.clone(), message, help);
        }
    }
    let mut drafts: Vec<Draft> = entries
        .iter()
        .map(|entry| draft(report, scene, entry))
        .collect();
    cut_cycles(report, &mut drafts);
    let mut plans: Vec<Option<Plan>> = vec![None; drafts.len()];
    for n in 0..drafts.len() {
        merge(n, &drafts, &mut plans);
    }
    plans.into_iter().flatten().collect()
}

/// A plan as it is written, before it takes over what it extends.
struct Draft {
    name: Arc<str>,
    extends: Option<(usize, Range<usize>)>,
    prices: Vec<String>,
    expires: Option<Duration>,
    rates: BTreeMap<Arc<str>, Vec<Rate>>,
    quotas: BTreeMap<MeterId, Vec<Quota>>,
    features: BTreeMap<Arc<str>, Feature>,
    concurrency: Option<u32>,
    charge_on: Option<ChargeOn>,
    enforce: Option<Enforce>,
    on_lease_error: Option<OnLeaseError>,
}

fn draft(report: &mut Report<'_>, scene: &Scene<'_>, entry: &Entry<'_>) -> Draft {
    let empty = Default::default();
    let table = Table::of(entry.node).unwrap_or(Table(&empty));
    let extends = table.text("extends");
    Draft {
        name: Arc::from(entry.name),
        extends: extends.and_then(|name| Some((scene.plan(report, &name)?, name.span))),
        prices: prices(table),
        expires: duration(report, table.text("expires")),
        rates: scene.rates(report, table.table("rate")),
        quotas: scene.quotas(report, table.table("quota")),
        features: scene.features(table.table("feature")),
        concurrency: table.count("concurrency"),
        charge_on: charge_on(report, table),
        enforce: enforce(table),
        on_lease_error: on_lease_error(report, table),
    }
}

/// Reports each circle of `extends` at its first plan in the file, and opens it there.
fn cut_cycles(report: &mut Report<'_>, drafts: &mut [Draft]) {
    for first in 0..drafts.len() {
        let mut path = vec![first];
        let mut at = first;
        while let Some((next, _)) = drafts[at].extends {
            if next == first {
                let names: Vec<&str> = path.iter().map(|n| &*drafts[*n].name).collect();
                let message = format!("{} extends itself", names.join(" extends "));
                if let Some((_, span)) = drafts[first].extends.take() {
                    report.error(span, message, "let one of them stand alone");
                }
                break;
            }
            if path.contains(&next) {
                break;
            }
            path.push(next);
            at = next;
        }
    }
}

/// Fills `plans[n]`, and before it those it extends; the circles have been cut.
fn merge(n: usize, drafts: &[Draft], plans: &mut [Option<Plan>]) {
    if plans[n].is_some() {
        return;
    }
    // From the far end of the line of extensions to `n`, without recursion: a line may be long.
    let mut line = vec![n];
    while let Some((base, _)) = drafts[line[line.len() - 1]].extends {
        line.push(base);
    }
    for n in line.into_iter().rev() {
        if plans[n].is_none() {
            let base = drafts[n]
                .extends
                .as_ref()
                .and_then(|(base, _)| plans[*base].clone());
            plans[n] = Some(merged(&drafts[n], base));
        }
    }
}

fn merged(draft: &Draft, base: Option<Plan>) -> Plan {
    let mut plan = base.unwrap_or_else(|| Plan {
        name: draft.name.clone(),
        prices: Vec::new(),
        rates: BTreeMap::new(),
        quotas: BTreeMap::new(),
        features: BTreeMap::new(),
        concurrency: None,
        expires: None,
        charge_on: ChargeOn::default(),
        enforce: Enforce::On,
        on_lease_error: OnLeaseError::Deny,
    });
    plan.name = draft.name.clone();
    plan.prices = draft.prices.clone();
    plan.expires = draft.expires;
    plan.rates.extend(draft.rates.clone());
    plan.quotas.extend(draft.quotas.clone());
    plan.features.extend(draft.features.clone());
    plan.concurrency = draft.concurrency.or(plan.concurrency);
    plan.charge_on = draft.charge_on.unwrap_or(plan.charge_on);
    plan.enforce = draft.enforce.unwrap_or(plan.enforce);
    plan.on_lease_error = draft.on_lease_error.unwrap_or(plan.on_lease_error);
    super::effective::name_rates(&mut plan);
    plan
}

fn on_lease_error(report: &mut Report<'_>, table: Table<'_>) -> Option<OnLeaseError> {
    let node = table.node("on-lease-error")?;
    let Some(inner) = Table::of(node) else {
        return Some(OnLeaseError::Deny);
    };
    let allow = inner.text("allow")?;
    let basis_points = words::percent(allow.text);
    if basis_points.is_none() {
        let help = "write a percentage with at most two decimals, up to \"100%\": \"2%\"";
        report.error(
            allow.span,
            format!("`{}` is no share of a limit", allow.text),
            help,
        );
    }
    Some(OnLeaseError::Allow {
        basis_points: basis_points?,
    })
}

fn prices(table: Table<'_>) -> Vec<String> {
    let stripe = table.table("stripe");
    stripe
        .map(|stripe| stripe.texts("price"))
        .unwrap_or_default()
        .iter()
        .map(own)
        .collect()
}

fn own(text: &Text<'_>) -> String {
    text.text.to_owned()
}

/// Refuses a price that means two things, and one that is empty.
pub(super) fn check_prices(report: &mut Report<'_>, top: Table<'_>) {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    let kinds = ["plan", "addon", "topup"];
    let entries = kinds.iter().flat_map(|kind| {
        let entries = top.table(kind).map(Table::entries).unwrap_or_default();
        entries.into_iter().map(move |entry| (*kind, entry))
    });
    let mut found: Vec<(Text<'_>, String)> = Vec::new();
    for (kind, entry) in entries {
        let stripe = Table::of(entry.node).and_then(|table| table.table("stripe"));
        let Some(stripe) = stripe else { continue };
        let texts = stripe.texts("price");
        if let Some(node) = stripe.node("price").filter(|_| texts.is_empty()) {
            let help = "write the lookup keys of its prices, or leave `stripe` out";
            report.error(node.span(), "a list of prices that is empty", help);
        }
        found.extend(
            texts
                .into_iter()
                .map(|text| (text, format!("{kind}.{}", entry.name))),
        );
    }
    found.sort_by_key(|(text, _)| text.span.start);
    for (text, owner) in found {
        if text.text.is_empty() {
            let help = "write the lookup key of a price";
            report.error(text.span, "a price without a name", help);
        } else if let Some(other) = seen.get(text.text) {
            let message = format!("the price `{}` is that of {other} already", text.text);
            let help = "give each its own lookup key: a price says what was bought";
            report.error(text.span, message, help);
        } else {
            seen.insert(text.text, owner);
        }
    }
}

/// A duration that is written, or reported.
fn duration(report: &mut Report<'_>, text: Option<Text<'_>>) -> Option<Duration> {
    let text = text?;
    words::duration(text.text)
        .map_err(|f| fault(report, &text, f))
        .ok()
}

/// The addons, in the order of the file.
pub(super) fn addons(
    report: &mut Report<'_>,
    top: Table<'_>,
    scene: &Scene<'_>,
    plans: &[Plan],
) -> Vec<Addon> {
    let entries = top.table("addon").map(Table::entries).unwrap_or_default();
    limit_number(report, &entries, MAX_SOLD, "addons");
    let mut addons = Vec::new();
    for entry in entries {
        let Some(table) = Table::of(entry.node) else {
            continue;
        };
        let adds = table.table("adds");
        let quotas = scene.quotas(report, adds.and_then(|adds| adds.table("quota")));
        let quotas: Vec<Quota> = quotas.into_values().flatten().collect();
        for quota in &quotas {
            check_added(report, scene, quota, plans);
        }
        let features = adds
            .and_then(|adds| adds.table("feature"))
            .map(Table::entries);
        let feature = |e: Entry<'_>| Some((Arc::from(e.name), integer(e.node)?));
        addons.push(Addon {
            name: Arc::from(entry.name),
            prices: prices(table),
            features: features
                .unwrap_or_default()
                .into_iter()
                .filter_map(feature)
                .collect(),
            quotas,
        });
    }
    addons
}

/// An addon adds to the quota with the same words, so some plan must have one.
fn check_added(report: &mut Report<'_>, scene: &Scene<'_>, quota: &Quota, plans: &[Plan]) {
    let Some(_) = quota.limit else {
        let help = "write what one of it adds: \"100k/cycle\"";
        return report.error_at(quota.place, "an addon cannot add \"unlimited\"", help);
    };
    let all = || {
        plans
            .iter()
            .filter_map(|plan| plan.quotas.get(&quota.meter))
            .flatten()
    };
    if all().any(|other| other.id == quota.id) {
        return;
    }
    let mut known: Vec<&str> = all().map(|other| &*other.id).collect();
    known.sort_unstable();
    known.dedup();
    let help = match known.is_empty() {
        true => format!(
            "write `quota.{}` in a plan first",
            scene.of(quota.meter).name
        ),
        false => format!("add to one that there is: {}", known_names(known)),
    };
    report.error_at(
        quota.place,
        format!("no plan has the quota `{}`", quota.id),
        help,
    );
}

/// The top-ups, in the order of the file.
pub(super) fn topups(report: &mut Report<'_>, top: Table<'_>, scene: &Scene<'_>) -> Vec<Topup> {
    let entries = top.table("topup").map(Table::entries).unwrap_or_default();
    limit_number(report, &entries, MAX_SOLD, "top-ups");
    let mut topups = Vec::new();
    for entry in entries {
        let Some(table) = Table::of(entry.node) else {
            continue;
        };
        let mut adds = Vec::new();
        let lines = table.table("adds").map(Table::entries).unwrap_or_default();
        if let Some(node) = table.node("adds").filter(|_| lines.is_empty()) {
            report.error(
                node.span(),
                "a top-up of nothing",
                "write `adds = { credits = \"50k\" }`",
            );
        }
        for line in lines {
            let Some(meter) = scene.meter(report, line.name, line.span) else {
                continue;
            };
            let read = amount_of(report, line.node, Some(scene.of(meter)), words::amount);
            if read == Some(0) {
                let help = "write how many units are bought, or leave it out";
                report.error(line.node.span(), "a top-up of nothing", help);
            }
            adds.extend(read.map(|atoms| (meter, atoms)));
        }
        topups.push(Topup {
            name: Arc::from(entry.name),
            prices: prices(table),
            adds,
            expires: duration(report, table.text("expires")),
        });
    }
    topups
}

/// The exceptions by tenant; those that have ended at `now_ms` are checked and left out.
pub(super) fn tenants(
    report: &mut Report<'_>,
    top: Table<'_>,
    scene: &Scene<'_>,
    now_ms: i64,
) -> BTreeMap<Arc<str>, Exception> {
    let mut tenants = BTreeMap::new();
    for entry in top.table("tenant").map(Table::entries).unwrap_or_default() {
        let Some(table) = Table::of(entry.node) else {
            continue;
        };
        let changes = changes(report, scene, table);
        let until = table
            .node("until")
            .and_then(|node| midnight(report, scene, node, 1));
        if until.is_some_and(|until_ms| until_ms <= now_ms) {
            let place = report.mark(entry.span);
            let message = format!(
                "the exception of tenant `{}` has ended: ignored",
                entry.name
            );
            report.warn(place, message);
            continue;
        }
        let tenant: Arc<str> = Arc::from(entry.name);
        let note = table
            .text("note")
            .map(|note| own(&note))
            .unwrap_or_default();
        let exception = Exception {
            tenant: tenant.clone(),
            changes,
            until_ms: until,
            note,
        };
        tenants.insert(tenant, exception);
    }
    tenants
}

/// The words of a `[tenant.x]` table that change a plan.
pub(super) fn changes(report: &mut Report<'_>, scene: &Scene<'_>, table: Table<'_>) -> Changes {
    let plan = table
        .text("plan")
        .and_then(|name| scene.plan(report, &name));
    Changes {
        plan: plan.and_then(|n| u16::try_from(n).ok()).map(PlanId),
        rates: scene.rates(report, table.table("rate")),
        quotas: scene.quotas(report, table.table("quota")),
        features: scene.features(table.table("feature")),
        concurrency: table.count("concurrency"),
        enforce: enforce(table),
        term: table
            .table("term")
            .and_then(|table| term(report, scene, table)),
    }
}

fn term(report: &mut Report<'_>, scene: &Scene<'_>, table: Table<'_>) -> Option<Term> {
    let from = table
        .node("from")
        .and_then(|node| midnight(report, scene, node, 0));
    let every = table.text("every")?;
    let months = words::term(every.text)
        .map_err(|f| fault(report, &every, f))
        .ok()?;
    Some(Term {
        from_ms: from?,
        months,
    })
}

/// The local midnight that begins a date, or the one `later` days on.
fn midnight(report: &mut Report<'_>, scene: &Scene<'_>, node: &Node<'_>, later: u8) -> Option<i64> {
    let datetime = node
        .get_ref()
        .as_datetime()
        .filter(|d| d.time.is_none() && d.offset.is_none());
    let Date { year, month, day } = datetime?.date?;
    let date = (
        i16::try_from(year).ok(),
        i8::try_from(month).ok(),
        i8::try_from(day).ok(),
    );
    let (Some(year), Some(month), Some(day)) = date else {
        return None;
    };
    let found = scene.zone.midnight_ms(year, month, day, later);
    if found.is_none() {
        report.error(
            node.span(),
            "there is no such day",
            "write a date: 2027-03-31",
        );
    }
    found
}

/// `[billing]`, with what holds where the file does not say.
pub(super) fn billing(
    report: &mut Report<'_>,
    top: Table<'_>,
    scene: &Scene<'_>,
    default_plan: PlanId,
) -> Billing {
    const GRACE: Duration = Duration::from_secs(7 * 86_400);
    let table = top.table("billing");
    let mut rule = |key: &str, default: PaymentRule| {
        let node = table.and_then(|table| table.node(key));
        node.and_then(|node| payment(report, scene, node))
            .unwrap_or(default)
    };
    let default = PaymentRule::Plan(default_plan);
    Billing {
        trialing: rule("trialing", PaymentRule::Full),
        past_due: rule(
            "past-due",
            PaymentRule::Grace(GRACE, Box::new(default.clone())),
        ),
        unpaid: rule("unpaid", PaymentRule::PaymentRequired),
        canceled: rule("canceled", default),
    }
}

fn payment(report: &mut Report<'_>, scene: &Scene<'_>, node: &Node<'_>) -> Option<PaymentRule> {
    if let Some(text) = Text::of(node) {
        return payment_word(report, scene, &text);
    }
    let table = Table::of(node)?;
    let then = table
        .text("then")
        .and_then(|text| payment_word(report, scene, &text));
    let grace = duration(report, table.text("grace"))?;
    Some(PaymentRule::Grace(grace, Box::new(then?)))
}

fn payment_word(
    report: &mut Report<'_>,
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
        let known = PAYMENT_WORDS
            .iter()
            .copied()
            .chain(scene.plans.iter().map(|plan| &**plan));
        let help = unknown_help(text.text, known);
        let message = format!("`{}` is neither a plan nor a payment rule", text.text);
        report.error(text.span.clone(), message, help);
    }
    found
        .and_then(|n| u16::try_from(n).ok())
        .map(|n| PaymentRule::Plan(PlanId(n)))
}
