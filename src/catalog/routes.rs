//! Routes: the groups of endpoints that are counted, and their costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counterparts::WrittenPattern;
use super::limits::Scene;
use super::meters::amount_of;
use super::meters::limit_number;
use super::model::{Auth, ChargeOn, Enforce, MeterId, MeterSource, Route};
use super::permission::{NOT_A_PERMISSION, is_permission};
use super::router::{self, Routes};
use super::words;
use crate::toml_file::{Findings, Text, TomlTable};

/// Most routes.
pub(crate) const MAX_ROUTES: usize = 1024;

/// The routes, in the order of the file.
pub(super) fn routes(report: &mut Findings<'_>, top: TomlTable<'_>, scene: &Scene<'_>) -> Routes {
    let mut routes = Routes::default();
    let entries = top.table("route").map(TomlTable::entries).unwrap_or_default();
    limit_number(report, &entries, MAX_ROUTES, "routes");
    for entry in entries.iter().take(MAX_ROUTES) {
        let Some(table) = TomlTable::of(entry.node) else {
            continue;
        };
        let id = routes.push(route(report, scene, entry.name, table));
        // Without patterns the program alone names it: at its router, or as an operation.
        for text in table.texts("match") {
            match routes.insert(id, text.text) {
                Err((message, help)) => report.error(text.span, message, help),
                Ok(()) => {
                    let place = report.mark(text.span.clone());
                    let written =
                        WrittenPattern { route: id, text: text.text.into(), line: place.line };
                    routes.written.push(written);
                    if let Some(method) = router::own_method(text.text) {
                        report.warn(place, format!(
                            "HTTP has no method `{method}`: only requests with that method match \
                             the route"
                        ));
                    }
                }
            }
        }
    }
    routes.spread_any();
    routes
}

/// Whether callers are identified, as a word; required where there is none.
pub(super) fn auth(word: Option<Text<'_>>) -> Auth {
    match word.map(|word| word.text) {
        Some("optional") => Auth::Optional,
        Some("none") => Auth::None,
        _ => Auth::Required,
    }
}

fn route(report: &mut Findings<'_>, scene: &Scene<'_>, name: &str, table: TomlTable<'_>) -> Route {
    let route = Route {
        name: Arc::from(name),
        cost: table.table("cost").map(|cost| costs(report, scene, cost)).unwrap_or_default(),
        meters: concerning(report, scene, table),
        needs: table.text("needs").map(|needs| Arc::from(needs.text)),
        needs_permission: table.text("needs-permission").and_then(|it| permission(report, &it)),
        free: table.flag("free").unwrap_or(false),
        auth: auth(table.text("auth")),
        once_by: table.text("once-by").and_then(|header| header_name(report, &header)),
        charge_on: charge_on(report, table),
        enforce: enforce(table),
    };
    let idle: &[&str] = match (route.auth, route.free) {
        (Auth::None, _) => &[
            "cost",
            "meters",
            "needs",
            "needs-permission",
            "free",
            "once-by",
            "charge-on",
            "enforce",
        ],
        (_, true) => &["cost", "meters", "once-by", "charge-on"],
        _ => &[],
    };
    let why = if route.auth == Auth::None { "auth = \"none\"" } else { "free = true" };
    for key in idle {
        if let Some(span) = table.key_span(key) {
            let message = format!("`{key}` has no effect beside `{why}`");
            report.error(span, message, format!("leave out `{key}`, or `{why}`"));
        }
    }
    route
}

fn costs(
    report: &mut Findings<'_>,
    scene: &Scene<'_>,
    table: TomlTable<'_>,
) -> Vec<(MeterId, u64)> {
    let mut costs = BTreeMap::new();
    for entry in table.entries() {
        let Some(id) = scene.meter(report, entry.name, entry.span) else {
            continue;
        };
        let meter = scene.of(id);
        let Some(cost) = amount_of(report, entry.node, Some(meter), words::fraction) else {
            continue;
        };
        if cost > 0 && !matches!(meter.count, MeterSource::Cost | MeterSource::Sum) {
            let message = format!("what `{}` costs is known only afterwards", meter.name);
            let help =
                format!("write 0 if it is not counted here, or `hold` in [meter.{}]", meter.name);
            report.error(entry.node.span(), message, help);
        }
        costs.insert(id, cost);
    }
    costs.into_iter().collect()
}

/// `meters`: those whose numbers only some routes have.
fn concerning(report: &mut Findings<'_>, scene: &Scene<'_>, table: TomlTable<'_>) -> Vec<MeterId> {
    let mut named = Vec::new();
    let out = table.table("cost");
    for text in table.texts("meters") {
        let Some(id) = scene.meter(report, text.text, text.span.clone()) else {
            continue;
        };
        let meter = scene.of(id);
        let name = &meter.name;
        let wrong = match meter.count {
            MeterSource::Reported if out.is_some_and(|cost| cost.key_span(name).is_some()) => {
                Some((
                    format!("`{name}` does not concern the route, by its `cost`"),
                    "write it in one of both".to_owned(),
                ))
            }
            MeterSource::Reported if named.contains(&id) => {
                Some((format!("`{name}` is written twice"), "leave one out".to_owned()))
            }
            MeterSource::Reported => None,
            MeterSource::Cost if id.0 != 0 => Some((
                format!("`{name}` concerns the routes whose `cost` names it"),
                format!("write `cost = {{ {name} = 1 }}`"),
            )),
            MeterSource::Sum => Some((
                format!("`{name}` follows the meters that it sums up"),
                "write these instead".to_owned(),
            )),
            _ => Some((
                format!("`{name}` concerns every route"),
                format!("leave it out; where it does not apply, write `cost = {{ {name} = 0 }}`"),
            )),
        };
        match wrong {
            Some((message, help)) => report.error(text.span, message, help),
            None => named.push(id),
        }
    }
    named
}

fn permission(report: &mut Findings<'_>, name: &Text<'_>) -> Option<Arc<str>> {
    if !is_permission(name.text) {
        report.error(name.span.clone(), NOT_A_PERMISSION, "as in \"invoices:write\"");
        return None;
    }
    Some(name.text.into())
}

fn header_name(report: &mut Findings<'_>, text: &Text<'_>) -> Option<String> {
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if text.text.is_empty() || !text.text.bytes().all(token) {
        let help = "write `once-by = \"idempotency-key\"`";
        report.error(text.span.clone(), "not the name of a header", help);
        return None;
    }
    Some(text.text.to_ascii_lowercase())
}

/// `charge-on`, if written.
pub(super) fn charge_on(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<ChargeOn> {
    let node = table.node("charge-on")?;
    let texts = table.texts("charge-on");
    if texts.is_empty() {
        let help = "write `free = true` on the routes that cost nothing";
        report.error(node.span(), "nothing is ever charged", help);
    }
    let mut on = ChargeOn { class: [false; 5], aborted: false };
    for text in texts {
        match text.text {
            "aborted" => on.aborted = true,
            // "1xx" to "5xx": other words have been reported.
            class => {
                let digit = class.bytes().next().and_then(|b| b.checked_sub(b'1'));
                if let Some(slot) = digit.and_then(|n| on.class.get_mut(usize::from(n))) {
                    *slot = true;
                }
            }
        }
    }
    Some(on)
}

/// `enforce`, if written.
pub(super) fn enforce(table: TomlTable<'_>) -> Option<Enforce> {
    table.text("enforce").map(|enforce| match enforce.text {
        "shadow" => Enforce::Shadow,
        _ => Enforce::On,
    })
}
