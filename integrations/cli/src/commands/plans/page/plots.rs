//! The plots of a simulation's page: SVG within the page, each with a title and a description, and
//! its numbers as text beside it.

use std::fmt::Write as _;

use super::{SIDES, Under, count, minute, safe};

/// Most steps of a plot over time.
const STEPS: i64 = 60;

/// How long a step may be, in seconds: what a person thinks in.
const LENGTHS: [(i64, &str); 17] = [
    (1, "a second"),
    (5, "5 seconds"),
    (15, "15 seconds"),
    (30, "30 seconds"),
    (60, "a minute"),
    (300, "5 minutes"),
    (900, "15 minutes"),
    (1_800, "30 minutes"),
    (3_600, "an hour"),
    (10_800, "3 hours"),
    (21_600, "6 hours"),
    (43_200, "12 hours"),
    (86_400, "a day"),
    (604_800, "a week"),
    (2_419_200, "4 weeks"),
    (9_676_800, "16 weeks"),
    (31_449_600, "52 weeks"),
];

/// Most tenants of a plot.
const MOVERS: usize = 10;

/// The height of a plot over time, in its own units.
const HIGH: f64 = 100.0;

/// Time in steps.
struct Steps {
    start_ms: i64,
    length_ms: i64,
    count: usize,
    /// A step's length in words.
    word: &'static str,
}

impl Steps {
    fn between(first_ms: i64, last_ms: i64) -> Self {
        let span_ms = last_ms.saturating_sub(first_ms).max(0);
        let fits = |(seconds, _): &&(i64, &str)| span_ms / (seconds * 1_000) < STEPS - 1;
        let longest = LENGTHS[LENGTHS.len() - 1];
        let (seconds, word) = *LENGTHS.iter().find(fits).unwrap_or(&longest);
        let length_ms = seconds * 1_000;
        let start_ms = first_ms.div_euclid(length_ms) * length_ms;
        let count = last_ms.saturating_sub(start_ms) / length_ms + 1;
        let count = usize::try_from(count.clamp(1, STEPS * 4)).unwrap_or(1);
        Self { start_ms, length_ms, count, word }
    }

    fn counts(&self, at_ms: &[i64]) -> Vec<u64> {
        let mut counts = vec![0; self.count];
        for at in at_ms {
            let step = (at - self.start_ms).div_euclid(self.length_ms);
            let step = usize::try_from(step).unwrap_or(0).min(self.count - 1);
            counts[step] += 1;
        }
        counts
    }

    fn start_of(&self, step: usize) -> String {
        let ms = i64::try_from(step).unwrap_or(i64::MAX).saturating_mul(self.length_ms);
        minute_or_second(self.start_ms.saturating_add(ms), self.length_ms)
    }
}

fn minute_or_second(at_ms: i64, length_ms: i64) -> String {
    match length_ms < 60_000 {
        true => format!("{}:{:02}", minute(at_ms), at_ms.div_euclid(1_000).rem_euclid(60)),
        false => minute(at_ms),
    }
}

/// Refusals under each file from the first call to the last.
pub(super) fn over_time((first_ms, last_ms): (i64, i64), files: &[Under], legend: &str) -> String {
    let open = "<section class=\"card\"><div class=\"head\"><h2>Refusals over time</h2>";
    if files.iter().all(|it| it.replayed.refused_at.is_empty()) {
        return format!("{open}</div><p class=\"none\">Nothing is refused.</p></section>\n");
    }
    let steps = Steps::between(first_ms, last_ms);
    let counts: Vec<_> = files.iter().map(|it| steps.counts(&it.replayed.refused_at)).collect();
    let most = counts.iter().flatten().copied().max().unwrap_or(0).max(1);
    let mut out = format!("{open}{legend}</div>");
    let (word, most_text) = (steps.word, count(most));
    let _ = write!(out, "<p class=\"most num\">Most in {word}: {most_text}</p>");
    out += "<figure><div class=\"time\">";
    out += &drawn(&steps, &counts, most);
    let _ = write!(
        out,
        "</div><div class=\"axis num\" aria-hidden=\"true\"><span>{}</span><span>{}</span></div>",
        steps.start_of(0),
        steps.start_of(steps.count)
    );
    out + "</figure>" + &numbers(&steps, &counts) + "</section>\n"
}

/// A side's count in words: `4 refused today`.
fn said(counts: &[Vec<u64>], step: usize) -> String {
    let each = counts.iter().zip(SIDES);
    let texts =
        each.map(|(counts, side)| format!("{} {}", count(counts[step]), side.to_lowercase()));
    texts.collect::<Vec<_>>().join(", ")
}

fn drawn(steps: &Steps, counts: &[Vec<u64>], most: u64) -> String {
    let wide = steps.count;
    let totals = counts
        .iter()
        .zip(SIDES)
        .map(|(counts, side)| format!("{} {}", count(counts.iter().sum()), side.to_lowercase()));
    let mut out = format!(
        "<svg viewBox=\"0 0 {wide} {HIGH}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-labelledby=\"time-title time-desc\"><title id=\"time-title\">Refusals over time\
         </title><desc id=\"time-desc\">{} from {} to {}; the most in {} is {}.</desc>",
        totals.collect::<Vec<_>>().join(", "),
        steps.start_of(0),
        steps.start_of(steps.count),
        steps.word,
        count(most)
    );
    for part in 0..=4 {
        let y = HIGH * f64::from(part) / 4.0;
        let _ = write!(out, "<path class=\"rule\" d=\"M0 {y}H{wide}\"/>");
    }
    for (counts, class) in counts.iter().zip(["now", "new"]) {
        let _ = write!(out, "<path class=\"{class}\" d=\"{}\"/>", stairs(counts, most, class));
    }
    for step in 0..wide {
        let _ = write!(
            out,
            "<rect class=\"slot\" x=\"{step}\" width=\"1\" height=\"{HIGH}\"><title>{}: {}</title>\
             </rect>",
            steps.start_of(step),
            said(counts, step)
        );
    }
    out + "</svg>"
}

/// The way along the counts; the first side's is an area.
fn stairs(counts: &[u64], most: u64, class: &str) -> String {
    let y = |n: u64| HIGH - HIGH * n as f64 / most as f64;
    let is_area = class == "now";
    let mut out = match (is_area, counts.first()) {
        (true, _) | (_, None) => format!("M0 {HIGH}"),
        (false, Some(first)) => format!("M0 {:.2}", y(*first)),
    };
    for (step, n) in counts.iter().enumerate() {
        let _ = write!(out, "V{:.2}H{}", y(*n), step + 1);
    }
    if is_area {
        let _ = write!(out, "V{HIGH}Z");
    }
    out
}

/// The same as a table, without the steps in which nothing is refused.
fn numbers(steps: &Steps, counts: &[Vec<u64>]) -> String {
    let mut out = String::from(
        "<details><summary>The same in numbers</summary><table class=\"num\"><thead><tr>\
         <th scope=\"col\">From</th>",
    );
    for (_, side) in counts.iter().zip(SIDES) {
        let _ = write!(out, "<th scope=\"col\" class=\"amount\">{side}</th>");
    }
    out += "</tr></thead><tbody>";
    for step in (0..steps.count).filter(|step| counts.iter().any(|it| it[*step] > 0)) {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", steps.start_of(step));
        for counts in counts {
            let _ = write!(out, "<td class=\"amount\">{}</td>", count(counts[step]));
        }
        out += "</tr>";
    }
    out + "</tbody></table></details>"
}

/// A tenant of a plot, with a number for each file.
pub(super) struct Mover {
    pub(super) tenant: String,
    pub(super) sizes: Vec<f64>,
    pub(super) texts: Vec<String>,
    pub(super) change: Option<String>,
    /// Whether the change is for the worse.
    pub(super) is_worse: bool,
}

/// The first of these tenants as pairs of bars.
pub(super) fn movers(
    unit: &str,
    title: &str,
    none: &str,
    legend: &str,
    all: impl Iterator<Item = Mover>,
) -> String {
    let all: Vec<_> = all.take(MOVERS).collect();
    let mut out = format!("<section class=\"card\"><div class=\"head\"><h2>{title}</h2>");
    if all.is_empty() {
        return out + "</div><p class=\"none\">" + none + "</p></section>\n";
    }
    let most = all.iter().flat_map(|it| it.sizes.iter().copied()).fold(f64::MIN_POSITIVE, f64::max);
    out += legend;
    out += "</div><ol class=\"movers num\">";
    for mover in &all {
        out += &pair(mover, most, unit);
    }
    out + "</ol></section>\n"
}

fn pair(of: &Mover, most: f64, unit: &str) -> String {
    let (tenant, unit) = (safe(&of.tenant), safe(unit));
    let said =
        of.texts.iter().zip(SIDES).map(|(text, side)| format!("{text} {}", side.to_lowercase()));
    let said = said.collect::<Vec<_>>().join(", ");
    let pill = of.change.as_ref().map(|change| {
        let class = if of.is_worse { "bad" } else { "good" };
        format!(" <span class=\"pill {class}\">{change}</span>")
    });
    let mut out = format!(
        "<li><div class=\"head\"><h3 class=\"id\">{tenant}</h3><span class=\"small soft\">{} {unit}\
         {}</span></div><svg class=\"bars\" role=\"img\"><title>{tenant}</title>\
         <desc>{unit}: {said}</desc>",
        of.texts.join(" → "),
        pill.unwrap_or_default()
    );
    for (n, (size, class)) in of.sizes.iter().zip(["past", "next"]).enumerate() {
        let y = n * 12;
        let wide = if *size > 0.0 { (size / most * 100.0).max(0.4) } else { 0.0 };
        let _ = write!(
            out,
            "<rect class=\"track\" y=\"{y}\" width=\"100%\" height=\"9\" rx=\"3\"/>\
             <rect class=\"{class}\" y=\"{y}\" width=\"{wide:.2}%\" height=\"9\" rx=\"3\"/>"
        );
    }
    out + "</svg></li>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instant_has_a_step_and_there_are_not_too_many() {
        for span_ms in [0, 1, 59_999, 3_600_000, 86_400_000, 400 * 86_400_000, i64::MAX / 2] {
            for first_ms in [0, -7, 1_795_514_400_123] {
                let steps = Steps::between(first_ms, first_ms + span_ms);
                assert!(steps.start_ms <= first_ms, "{span_ms}");
                let counts = steps.counts(&[first_ms, first_ms + span_ms]);
                assert_eq!(counts.iter().sum::<u64>(), 2);
                assert!((1..=240).contains(&counts.len()), "{span_ms}: {}", counts.len());
                assert!(counts[0] > 0 && *counts.last().unwrap() > 0, "{span_ms}");
            }
        }
        assert_eq!(Steps::between(0, 86_400_000).word, "30 minutes");
    }

    #[test]
    fn stairs_go_along_the_counts() {
        assert_eq!(stairs(&[0, 4], 4, "now"), "M0 100V100.00H1V0.00H2V100Z");
        assert_eq!(stairs(&[4, 2], 4, "new"), "M0 0.00V0.00H1V50.00H2");
    }
}
