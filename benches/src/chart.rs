//! The table of ratios as a picture, for light and for dark pages.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

/// Ratios beyond are drawn to the edge, with their number.
const MOST: f64 = 4.0;
/// Pixels: a line, the texts at its left, the longest bar, and the margin around all.
const LINE: usize = 26;
const TEXT: usize = 300;
const BAR: usize = 380;
const MARGIN: usize = 16;

struct Colours {
    name: &'static str,
    page: &'static str,
    text: &'static str,
    quiet: &'static str,
    less: &'static str,
    more: &'static str,
}

const COLOURS: [Colours; 2] = [
    Colours {
        name: "light",
        page: "#ffffff",
        text: "#1f2328",
        quiet: "#59636e",
        less: "#1a7f37",
        more: "#0969da",
    },
    Colours {
        name: "dark",
        page: "#0d1117",
        text: "#f0f6fc",
        quiet: "#9198a1",
        less: "#3fb950",
        more: "#4493f8",
    },
];

/// Writes a picture of each scheme beside the table's file: what we cost, where the peer costs 1.
pub fn write(table: &Value, dir: &Path) -> std::io::Result<()> {
    let lines: Vec<_> = table["ratios"].as_array().into_iter().flatten().filter(is_drawn).collect();
    COLOURS.iter().try_for_each(|colours| {
        let file = dir.join(format!("bench-ratios-{}.svg", colours.name));
        std::fs::write(file, svg(&lines, colours))
    })
}

/// First looks at a credential are compared with ourselves, not with a peer.
fn is_drawn(line: &&Value) -> bool {
    line["what"].as_str().is_some_and(|what| !what.contains("first / known"))
}

fn svg(lines: &[&Value], colours: &Colours) -> String {
    let Colours { page, text, quiet, less, more, .. } = colours;
    let (width, height) = (TEXT + BAR + 5 * MARGIN, LINE * (lines.len() + 1) + 2 * MARGIN);
    let at = |ratio: f64| TEXT as f64 + ratio.min(MOST) / MOST * BAR as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" \
         role=\"img\"><title>What tallygate costs, where the peer costs 1</title>\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{page}\"/>\n"
    );
    for (n, line) in lines.iter().enumerate() {
        let (what, ratio) = (line["what"].as_str().unwrap_or(""), line["ratio"].as_f64());
        let ratio = ratio.unwrap_or(0.0);
        let (top, middle) = (MARGIN + n * LINE, MARGIN + n * LINE + 17);
        let fill = if ratio <= 1.0 { less } else { more };
        let what = what.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\" fill=\"{text}\">{what}</text>\
             <rect x=\"{TEXT}\" y=\"{}\" width=\"{:.1}\" height=\"16\" rx=\"2\" fill=\"{fill}\"/>\
             <text x=\"{:.1}\" y=\"{middle}\" fill=\"{text}\">{ratio:.2}</text>",
            TEXT - 8,
            top + 5,
            at(ratio) - TEXT as f64,
            at(ratio) + 6.0,
        );
    }
    let (one, bottom) = (at(1.0), MARGIN + LINE * lines.len());
    let _ = writeln!(
        svg,
        "<line x1=\"{one}\" x2=\"{one}\" y1=\"{MARGIN}\" y2=\"{bottom}\" stroke=\"{quiet}\" \
         stroke-dasharray=\"3 3\"/><text x=\"{one}\" y=\"{}\" text-anchor=\"middle\" \
         fill=\"{quiet}\">1: as much as the peer</text></svg>",
        bottom + 18,
    );
    svg
}
