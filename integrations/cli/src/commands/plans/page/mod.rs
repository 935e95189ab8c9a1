//! The results of a simulation as one HTML file: no script, and nothing to load.
//!
//! Laws: its policy allows its one style and nothing else; every text of a log, a plan file or the
//! command line passes through [`safe`] on its way in.

mod plots;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use tallygate::Amount;

use self::plots::{Mover, movers, over_time};
use super::replay::Came;
use super::simulate::Under;
use super::traffic::{Call, Traffic};
use crate::output::escaped;
use crate::prices::{Money, grouped};

const STYLE: &str = include_str!("style.css");

/// What the columns and lines of the two plan files are called.
const SIDES: [&str; 2] = ["Today", "New"];

/// The marks of a legend.
const AREA: &str = "<path class=\"now\" d=\"M0 10V3H22V10Z\"/>";
const LINE: &str = "<path class=\"new\" d=\"M0 5H22\"/>";
const BARS: [&str; 2] = [
    "<rect class=\"past\" width=\"22\" height=\"9\" rx=\"3\"/>",
    "<rect class=\"next\" width=\"22\" height=\"9\" rx=\"3\"/>",
];

/// What a page shows.
pub(super) struct Page<'a> {
    pub(super) log: &'a Path,
    pub(super) traffic: &'a Traffic,
    /// What came under the file in force, and under the other one, if there is one.
    pub(super) files: &'a [Under],
    pub(super) currency: Option<&'a str>,
}

/// A tenant, with what came under each file.
struct Row<'a> {
    tenant: &'a str,
    came: Vec<&'a Came>,
    revenue: Vec<Money>,
}

impl Row<'_> {
    /// How many more are refused under the new file.
    fn moved(&self) -> i128 {
        match &*self.came {
            [now, new] => i128::from(new.refused()) - i128::from(now.refused()),
            all => all.iter().map(|it| i128::from(it.refused())).sum(),
        }
    }

    fn earned(&self) -> u128 {
        match &*self.revenue {
            [now, new] => now.apart(*new),
            _ => 0,
        }
    }
}

impl Page<'_> {
    /// The file.
    pub(super) fn html(&self) -> String {
        let mut rows = self.rows();
        rows.sort_by_key(|row| {
            (std::cmp::Reverse((row.moved().unsigned_abs(), row.earned())), row.tenant)
        });
        let mut body = String::new();
        let _ = write!(body, "<header><h1>Plan simulation</h1>{}</header>\n<main>", self.lead());
        body += &self.summary(&rows);
        body += &self.refusals();
        body += &self.refusals_moved(&rows);
        body += &self.revenue_moved(&rows);
        body += &table::tenants(self, &rows);
        body += &self.notes();
        body += "</main>\n";
        let style = format!("<style>{STYLE}</style>");
        let policy = tallygate::report::still_policy(&style);
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"robots\" content=\"noindex\">\n\
             <title>Plan simulation</title>\n{style}\n</head>\n<body>\n{body}</body>\n</html>\n"
        )
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let tenants = self.files.first().into_iter().flat_map(|it| it.replayed.came.keys());
        let row = |tenant| {
            let each = || self.files.iter().filter_map(move |it| Some((it, it.of(tenant)?)));
            Row {
                tenant,
                came: each().map(|(_, came)| came).collect(),
                revenue: each().filter_map(|(under, came)| under.revenue(came)).collect(),
            }
        };
        tenants.map(String::as_str).map(row).collect()
    }

    /// What was decided again, and under which files.
    fn lead(&self) -> String {
        let mut files = self.files.iter().zip(SIDES).map(|(under, side)| {
            format!("<span class=\"id\">{}</span> ({})", safe(&under.file), side.to_lowercase())
        });
        let now = files.next().unwrap_or_default();
        let new = files.next().map(|it| format!(" and under {it}")).unwrap_or_default();
        let span = match (self.traffic.calls.first(), self.traffic.calls.last()) {
            (Some(first), Some(last)) => {
                format!(", of {} to {} (UTC)", minute(first.at_ms), minute(last.at_ms))
            }
            _ => String::new(),
        };
        format!(
            "<p class=\"soft\">The calls of <span class=\"id\">{}</span>{span}, decided again \
             under {now}{new}.</p>",
            safe(&self.log.display().to_string())
        )
    }

    fn summary(&self, rows: &[Row<'_>]) -> String {
        let calls: u64 = rows.iter().filter_map(|row| row.came.first()).map(|it| it.calls).sum();
        let refused = self.each(|came| came.refused(), rows);
        let share = |n: &u64| format!("{:.1} %", *n as f64 * 100.0 / (calls.max(1)) as f64);
        let shares: Vec<String> = refused.iter().map(share).collect();
        let mut items = vec![
            ("Decisions", count(calls), format!("{} tenants", count(rows.len() as u64))),
            (
                "Refused",
                beside(refused.iter().map(|n| count(*n))),
                format!("{} of the decisions", beside(shares.into_iter())),
            ),
            ("Beyond limits", self.overage(rows), "as each tenant's last report has it".into()),
        ];
        items.push(match self.revenues(rows) {
            Some(sums) => {
                let change = match &*sums {
                    [now, new] => format!("{}{}", new.beside(*now), self.unit()),
                    _ => "at the prices named".to_owned(),
                };
                (
                    "Revenue",
                    format!("{}{}", beside(sums.iter().map(Money::to_string)), self.unit()),
                    change,
                )
            }
            None => ("Revenue", "—".to_owned(), "no prices were named: --price".to_owned()),
        });
        let mut out = String::from("<dl class=\"summary num\">");
        for (name, value, note) in items {
            let _ = write!(
                out,
                "<div><dt>{name}</dt><dd>{value}<span class=\"note\">{note}</span></dd></div>"
            );
        }
        out + "</dl>\n"
    }

    /// A sum over all tenants, under each file.
    fn each(&self, of: impl Fn(&Came) -> u64, rows: &[Row<'_>]) -> Vec<u64> {
        let under = |n: usize| rows.iter().filter_map(|row| row.came.get(n)).map(|it| of(it)).sum();
        (0..self.files.len()).map(under).collect()
    }

    /// The revenue of all tenants under each file, if there are prices.
    fn revenues(&self, rows: &[Row<'_>]) -> Option<Vec<Money>> {
        let priced = rows.iter().any(|row| !row.revenue.is_empty());
        let under = |n: usize| rows.iter().filter_map(|row| row.revenue.get(n).copied()).sum();
        priced.then(|| (0..self.files.len()).map(under).collect())
    }

    /// Units beyond the limits by meter, under each file, each tenant's rounded down.
    fn overage(&self, rows: &[Row<'_>]) -> String {
        let mut meters = BTreeMap::<&str, Vec<u64>>::new();
        for row in rows {
            for (n, came) in row.came.iter().enumerate() {
                for (meter, amount) in &came.over {
                    let sums = meters.entry(meter).or_insert_with(|| vec![0; self.files.len()]);
                    sums[n] = sums[n].saturating_add(amount.whole());
                }
            }
        }
        if meters.is_empty() {
            return "none".to_owned();
        }
        let line = |(meter, sums): (&str, Vec<u64>)| {
            format!("{} {}", beside(sums.into_iter().map(count)), safe(meter))
        };
        meters.into_iter().map(line).collect::<Vec<_>>().join("<br>")
    }

    /// What the two colours of a plot are: an area and a line, or bars.
    fn legend(&self, marks: [&str; 2]) -> String {
        let mut out = String::from("<ul class=\"legend\">");
        for ((under, side), mark) in self.files.iter().zip(SIDES).zip(marks) {
            let _ = write!(
                out,
                "<li><svg aria-hidden=\"true\" focusable=\"false\">{mark}</svg>{side}: \
                 <span class=\"id\">{}</span></li>",
                safe(&under.file)
            );
        }
        out + "</ul>"
    }

    fn refusals(&self) -> String {
        let at_ms = |call: Option<&Call>| call.map_or(0, |call| call.at_ms);
        let calls = &self.traffic.calls;
        over_time(
            (at_ms(calls.first()), at_ms(calls.last())),
            self.files,
            &self.legend([AREA, LINE]),
        )
    }

    fn refusals_moved(&self, rows: &[Row<'_>]) -> String {
        let title = match self.files.len() {
            1 => "Tenants that are refused most",
            _ => "Tenants whose refusals change most",
        };
        let mover = |row: &Row<'_>| {
            let refused = row.came.iter().map(|it| it.refused());
            Mover {
                tenant: row.tenant.to_owned(),
                sizes: refused.clone().map(|n| n as f64).collect(),
                texts: refused.map(count).collect(),
                change: (row.came.len() == 2).then(|| signed(row.moved())),
                is_worse: row.moved() > 0,
            }
        };
        let moved = rows.iter().filter(|row| row.moved() != 0).map(mover);
        movers("refused", title, "No tenant's refusals change.", &self.legend(BARS), moved)
    }

    fn revenue_moved(&self, rows: &[Row<'_>]) -> String {
        let mut rows: Vec<_> = rows.iter().filter(|row| row.earned() > 0).collect();
        if self.files.len() < 2 || self.files.iter().any(|it| !it.is_priced()) {
            return String::new();
        }
        rows.sort_by_key(|row| (std::cmp::Reverse(row.earned()), row.tenant));
        let moved = rows.into_iter().filter_map(|row| {
            let [now, new] = *row.revenue.as_slice() else { return None };
            Some(Mover {
                tenant: row.tenant.to_owned(),
                sizes: vec![now.size(), new.size()],
                texts: [now, new].map(|it| it.to_string()).to_vec(),
                change: Some(new.beside(now)),
                is_worse: new < now,
            })
        });
        let title = "Tenants whose revenue changes most";
        let unit = self.currency.unwrap_or("revenue");
        movers(unit, title, "No tenant's revenue changes.", &self.legend(BARS), moved)
    }

    /// What a reader must know of the numbers.
    fn notes(&self) -> String {
        let mut notes = vec![
            "Counters begin at nothing with the first line. A tenant has no grants, overrides, \
             addons or terms but those of the plan file, and the same calls come whatever is \
             refused."
                .to_owned(),
            "Each call ends well with the cost it was admitted with: usage that is reported late, \
             bytes of bodies and statuses that are not charged are not in a log."
                .to_owned(),
        ];
        if self.files.iter().any(Under::is_priced) {
            notes.push(
                "Revenue is the named price of each unit beyond a quota that bills, and the named \
                 price of a tenant's plan for each billing period in which it called. It knows no \
                 taxes, discounts, tiers or proration."
                    .to_owned(),
            );
        }
        for (why, lines) in &self.traffic.left_out {
            notes.push(format!("Left out: {} lines: {}.", count(*lines), safe(why)));
        }
        if self.traffic.one_in > 1 {
            let one_in = self.traffic.one_in;
            notes.push(format!("The log has one in {one_in} admissions: all counters are lower."));
        }
        if let Some(now) = self.files.first().filter(|it| it.otherwise() > 0) {
            let (n, all) = (count(now.otherwise()), count(self.traffic.calls.len() as u64));
            notes.push(format!("{n} of {all} decisions differ from the log under today's file."));
        }
        let items: String = notes.iter().map(|note| format!("<li>{note}</li>")).collect();
        format!(
            "<section class=\"card\"><h2>What these numbers leave out</h2>\
             <ul class=\"notes\">{items}</ul></section>\n"
        )
    }

    /// The currency after an amount.
    fn unit(&self) -> String {
        self.currency.map(|it| format!(" {}", safe(it))).unwrap_or_default()
    }
}

/// A text as HTML shows it: nothing in it is markup, and nothing acts on the line around it.
fn safe(text: &str) -> String {
    let text = escaped(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A number as a person reads it.
fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// An amount as a person reads it.
fn amount(of: Amount) -> String {
    grouped(&of.to_string())
}

fn signed(n: i128) -> String {
    let sign = match n {
        0 => "",
        1.. => "+",
        _ => "−",
    };
    format!("{sign}{}", grouped(&n.unsigned_abs().to_string()))
}

/// What was, and what would be.
fn beside(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join(" → ")
}

/// An instant to the minute: `2026-11-24 10:05`.
fn minute(at_ms: i64) -> String {
    let at = Timestamp::from_millisecond(at_ms).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string());
    at.unwrap_or_else(|_| "beyond the calendar".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_markup() {
        assert_eq!(safe("<b a='\"'>&amp;"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;amp;");
        assert_eq!(safe("a\u{202e}b\n"), "a\\u{202e}b\\n");
        assert_eq!(signed(-1_234), "−1,234");
    }
}
