//! The table of a simulation's page: a row for each tenant.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tallygate::Amount;

use super::{Page, Row, SIDES, amount, count, safe, signed};
use crate::commands::plans::replay::Came;

/// Most tenants on a page; the command's own table has all.
const MOST: usize = 1_000;

pub(super) fn tenants(page: &Page<'_>, rows: &[Row<'_>]) -> String {
    let mut out = String::from("<section class=\"card\"><h2>Tenants</h2>");
    if rows.is_empty() {
        return out + "<p class=\"none\">The log has no call to decide.</p></section>\n";
    }
    if let Some(left) = rows.len().checked_sub(MOST).filter(|left| *left > 0) {
        let _ = write!(
            out,
            "<p class=\"none\">The {} tenants that change most. The table of the command, or its \
             --json, has the other {} too.</p>",
            count(MOST as u64),
            count(left as u64)
        );
    }
    out += "<table class=\"tenants num\" role=\"table\">";
    out += &head(page);
    out += "<tbody role=\"rowgroup\">";
    for row in rows.iter().take(MOST) {
        out += &line(page, row);
    }
    out + "</tbody></table></section>\n"
}

/// The groups of columns, and how many columns each has.
fn groups(page: &Page<'_>) -> Vec<(&'static str, Vec<&'static str>)> {
    let sides = || SIDES.iter().take(page.files.len()).copied();
    let changes = || sides().chain((page.files.len() > 1).then_some("Change"));
    let mut groups = vec![("Refused", changes().collect()), ("Beyond limits", sides().collect())];
    if page.files.iter().any(|it| it.is_priced()) {
        groups.push(("Revenue", changes().collect()));
    }
    groups
}

fn head(page: &Page<'_>) -> String {
    let mut out = String::from(
        "<thead role=\"rowgroup\"><tr role=\"row\">\
         <th scope=\"col\" role=\"columnheader\" rowspan=\"2\">Tenant</th>\
         <th scope=\"col\" role=\"columnheader\" rowspan=\"2\" class=\"amount\">Calls</th>",
    );
    let groups = groups(page);
    for (name, columns) in &groups {
        let unit = page.currency.filter(|_| *name == "Revenue");
        let unit = unit.map(|it| format!(", {}", safe(it))).unwrap_or_default();
        let _ = write!(
            out,
            "<th scope=\"colgroup\" role=\"columnheader\" colspan=\"{}\" class=\"group\">\
             {name}{unit}</th>",
            columns.len()
        );
    }
    out += "</tr><tr role=\"row\">";
    for side in groups.into_iter().flat_map(|(_, columns)| columns) {
        let _ = write!(out, "<th scope=\"col\" role=\"columnheader\" class=\"amount\">{side}</th>");
    }
    out + "</tr></thead>"
}

fn line(page: &Page<'_>, row: &Row<'_>) -> String {
    let mut cells = vec![("Calls".to_owned(), count(row.came.first().map_or(0, |it| it.calls)))];
    for (came, side) in row.came.iter().zip(SIDES) {
        cells.push((format!("Refused, {}", side.to_lowercase()), refused(came)));
    }
    if row.came.len() > 1 {
        cells.push(("Refused, change".to_owned(), change(row.moved() > 0, &signed(row.moved()))));
    }
    for (came, side) in row.came.iter().zip(SIDES) {
        cells.push((format!("Beyond limits, {}", side.to_lowercase()), beyond(came)));
    }
    for (revenue, side) in row.revenue.iter().zip(SIDES) {
        let revenue = format!("<span class=\"whole\">{revenue}</span>");
        cells.push((format!("Revenue, {}", side.to_lowercase()), revenue));
    }
    if let [now, new] = &*row.revenue {
        cells.push(("Revenue, change".to_owned(), change(new < now, &new.beside(*now))));
    }
    debug_assert_eq!(cells.len(), 1 + groups(page).iter().map(|it| it.1.len()).sum::<usize>());
    let mut out = format!(
        "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\"><span class=\"id\">{}</span></th>",
        safe(row.tenant)
    );
    for (of, text) in cells {
        let _ = write!(
            out,
            "<td role=\"cell\" class=\"amount\" data-of=\"{of}\"><span>{text}</span></td>"
        );
    }
    out + "</tr>"
}

/// Refusals, with what refused most first.
fn refused(came: &Came) -> String {
    let mut by: Vec<_> = came.refused_by.iter().collect();
    by.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), name.as_str()));
    let by = by
        .into_iter()
        .map(|(name, n)| format!("<span class=\"by\">{} {}</span>", count(*n), safe(name)));
    count(came.refused()) + &by.collect::<String>()
}

/// Units beyond the limits, and of these what is billed where that is another number.
fn beyond(came: &Came) -> String {
    let listed = |all: &BTreeMap<String, Amount>| {
        let text = |(meter, n): (&String, &Amount)| {
            format!("<span class=\"whole\">{}</span> {}", amount(*n), safe(meter))
        };
        let texts = all.iter().map(text);
        texts.collect::<Vec<_>>().join("<br>")
    };
    let over = if came.over.is_empty() { "0".to_owned() } else { listed(&came.over) };
    match came.billed == came.over {
        true => over,
        false if came.billed.is_empty() => over + "<span class=\"by\">none is billed</span>",
        false => format!("{over}<span class=\"by\">billed: {}</span>", listed(&came.billed)),
    }
}

fn change(is_worse: bool, text: &str) -> String {
    let class = match text.starts_with(['+', '−']) {
        false => "pill",
        true if is_worse => "pill bad",
        true => "pill good",
    };
    format!("<span class=\"{class}\">{text}</span>")
}
