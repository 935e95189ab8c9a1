//! The screen as cells: state, tenants, refusals, keys. On 120 columns and more the refusals stand
//! beside the tenants, on fewer below them.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::reading::{Health, Reading, TenantRow};
use super::screen::Screen;
use crate::args::TopSort;
use crate::output::Colour;

/// Columns from which on two parts stand side by side.
const WIDE: u16 = 120;
/// Columns of an amount.
const AMOUNT: u16 = 8;
/// Troubles that are shown: more are counted.
const TROUBLES: usize = 3;
/// Rows of refusals below the tenants, with their heading.
const REFUSALS_BELOW: u16 = 7;

impl Screen {
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let head = self.head();
        let rows = [
            Constraint::Length(u16::try_from(head.len()).unwrap_or(u16::MAX)),
            Constraint::Min(3),
            Constraint::Length(1),
        ];
        let [above, middle, below] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(Paragraph::new(head), above);
        let (tenants, refusals) = if middle.width >= WIDE {
            let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)])
                .spacing(2)
                .areas(middle);
            (left, right)
        } else {
            let rows = [Constraint::Min(3), Constraint::Max(REFUSALS_BELOW)];
            let [upper, lower] = Layout::vertical(rows).areas(middle);
            (upper, lower)
        };
        self.draw_tenants(frame, tenants);
        self.draw_refusals(frame, refusals);
        frame.render_widget(Paragraph::new(self.keys()), below);
    }

    /// What it is of, how that is, and what is wrong.
    fn head(&self) -> Vec<Line<'_>> {
        let Some(reading) = &self.reading else {
            return vec![match &self.failed {
                Some(why) => self.span(why, Colour::Red).into(),
                None => Line::raw("reading ..."),
            }];
        };
        let title = Span::styled("tallygate top", Style::new().add_modifier(Modifier::BOLD));
        let mut lines = vec![Line::from(vec![
            title,
            Span::raw(format!("  {}  {}", reading.at, reading.source)),
        ])];
        lines.push(self.state(reading));
        if let Some(outbox) = &reading.outbox {
            lines.push(vec!["outbox ".into(), self.span(&outbox.text, outbox.colour)].into());
        }
        let troubles = reading.health.iter().flat_map(|it| &it.troubles);
        lines.extend(troubles.clone().take(TROUBLES).map(|it| self.span(it, Colour::Red).into()));
        let others = troubles.count().saturating_sub(TROUBLES);
        if others > 0 {
            let text = format!("and {others} other troubles: GET /health");
            lines.push(Line::styled(text, self.style(Colour::Red)));
        }
        if let Some(why) = &self.failed {
            let text = format!("no newer reading: {why}");
            lines.push(Line::styled(text, self.style(Colour::Yellow)));
        }
        lines
    }

    fn state<'a>(&self, reading: &'a Reading) -> Line<'a> {
        let in_use = Span::raw(format!("{} in use", reading.in_use));
        let Some(health) = &reading.health else { return in_use.into() };
        let (word, colour) = health.word();
        let spans = [self.span(word, colour), Span::raw("   "), in_use, numbers(health).into()];
        spans.to_vec().into()
    }

    fn draw_tenants(&self, frame: &mut Frame<'_>, area: Rect) {
        let (tenants, count) = self.tenants();
        let order = match self.sort {
            TopSort::Share => "by share",
            TopSort::Tenant => "by id",
            TopSort::Plan => "by plan",
        };
        let shown = match self.first {
            0 => format!(" {count} tenants {order} "),
            first => format!(" {count} tenants {order}, from {} ", first + 1),
        };
        let wide = area.width >= 90;
        let mut head = ["TENANT", "PLAN", "STATUS"].map(Cell::from).to_vec();
        head.extend(["SHARE", "USED", "OF"].map(right));
        head.push(Cell::from("LIMIT"));
        let mut widths = vec![
            Constraint::Fill(4),
            Constraint::Fill(2),
            Constraint::Length(9),
            Constraint::Length(5),
            Constraint::Length(AMOUNT),
            Constraint::Length(AMOUNT),
            Constraint::Fill(3),
        ];
        if wide {
            head.push(Cell::from("RESETS"));
            widths.push(Constraint::Length(20));
        }
        let rows = tenants.into_iter().map(|it| self.tenant(it, wide));
        let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
        let table = Table::new(rows, widths).header(head).block(block(shown));
        frame.render_widget(table, area);
    }

    fn tenant<'a>(&self, of: &'a TenantRow, wide: bool) -> Row<'a> {
        let share = Line::styled(of.percent(), self.style(of.colour())).right_aligned();
        let status = if of.status == "active" { Colour::Plain } else { Colour::Red };
        let mut cells = vec![
            Cell::from(of.id.as_str()),
            Cell::from(of.plan.as_str()),
            Cell::from(self.span(&of.status, status)),
            Cell::from(share),
            right(short(&of.used)),
            right(short(&of.of)),
            Cell::from(of.limit.as_str()),
        ];
        if wide {
            cells.push(Cell::from(of.resets.as_str()));
        }
        Row::new(cells)
    }

    fn draw_refusals(&self, frame: &mut Frame<'_>, area: Rect) {
        let reading = self.reading.as_ref();
        let counts = reading.map(|it| it.by_reason.as_slice()).unwrap_or_default();
        let counts: Vec<_> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let title = match (counts.is_empty(), reading.is_some_and(|it| it.health.is_none())) {
            (_, true) => " refusals: of a running service, with --url ".to_owned(),
            (true, false) => " no refusals ".to_owned(),
            (false, false) => format!(" refused: {} ", counts.join(", ")),
        };
        let refusals = reading.map(|it| it.refusals.as_slice()).unwrap_or_default();
        let rows = refusals.iter().map(|it| {
            let time = it.at.get(11..19).unwrap_or(&it.at);
            Row::new([time, it.tenant.as_str(), it.reason.as_str(), it.limit.as_str()])
        });
        let widths =
            [Constraint::Length(8), Constraint::Fill(2), Constraint::Fill(2), Constraint::Fill(2)];
        frame.render_widget(Table::new(rows, widths).block(block(title)), area);
    }

    fn keys(&self) -> Line<'_> {
        if self.is_typing {
            return Line::from(vec![Span::raw("ids with: "), Span::raw(&self.filter), "_".into()]);
        }
        let filter = match self.filter.as_str() {
            "" => String::new(),
            filter => format!("   only ids with {filter:?}"),
        };
        Line::raw(format!("q quit  s sort  / filter  r read now  up down scroll{filter}"))
    }

    fn span<'a>(&self, text: &'a str, colour: Colour) -> Span<'a> {
        Span::styled(text, self.style(colour))
    }

    fn style(&self, colour: Colour) -> Style {
        let style = Style::new();
        match colour {
            _ if !self.colour => style,
            Colour::Plain => style,
            Colour::Red => style.fg(Color::Red),
            Colour::Green => style.fg(Color::Green),
            Colour::Yellow => style.fg(Color::Yellow),
        }
    }
}

fn block(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn numbers(health: &Health) -> String {
    let report = health.last_report.as_deref();
    let report = report.map(|at| at.get(..16).unwrap_or(at).replace('T', " "));
    let report = report.as_deref().unwrap_or("none");
    format!("   flush lag {}   last report {report}", health.flush_lag())
}

fn right<'a>(text: impl Into<Line<'a>>) -> Cell<'a> {
    Cell::from(text.into().right_aligned())
}

/// An amount in the width of its column: cut off it would be another.
fn short(amount: &str) -> String {
    if amount.chars().count() <= usize::from(AMOUNT) {
        return amount.to_owned();
    }
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let whole = match amount.split_once('/') {
        Some((over, under)) => number(over) / number(under).max(1),
        None => number(amount.split('.').next().unwrap_or_default()),
    };
    let units = [(10_u64.pow(15), "P"), (10_u64.pow(12), "T"), (10_u64.pow(9), "G")];
    let units = units.into_iter().chain([(10_u64.pow(6), "M"), (10_u64.pow(3), "k")]);
    match units.into_iter().find(|(unit, _)| whole >= *unit) {
        Some((unit, word)) => format!("{}.{}{word}", whole / unit, whole % unit / (unit / 10)),
        None => whole.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::json;

    use super::super::outbox::Outbox;
    use super::super::screen::Next;
    use super::*;
    use crate::failure::{Failure, code};

    fn reading(troubles: &[&str], outbox: serde_json::Value) -> Reading {
        let tenant = |n: u64| {
            json!({
                "id": format!("tenant-{n:02}"),
                "plan": if n.is_multiple_of(2) { "pro" } else { "free" },
                "status": if n == 3 { "suspended" } else { "active" },
                "share": (100.0 - n as f64 * 3.0) / 90.0,
                "limit": { "id": "requests/month", "used": 10_000 - n * 300, "limit": 9_000,
                    "resets_at": "2026-12-01T00:00:00Z" },
            })
        };
        let mut tenants: Vec<_> = (0..30).map(tenant).collect();
        tenants[1]["id"] = json!("日本\u{1b}[2J\u{202e}x");
        let refusal = |n: u64| {
            json!({
                "at": format!("2026-11-24T10:00:{n:02}.000Z"), "tenant": format!("tenant-{n:02}"),
                "reason": "quota-exceeded", "limit": "requests/month",
            })
        };
        let mut read = Reading::of_service(
            "http://localhost:3000/admin",
            json!({ "ready": true, "troubles": troubles, "flush-lag-ms": 340,
                "last-report": "2026-11-24T09:59:00Z" }),
            json!({ "tenants": tenants, "in-use": 1234 }),
            json!({ "refusals": (0..40).rev().map(refusal).collect::<Vec<_>>(),
                "by_reason": { "quota-exceeded": 40, "rate-limited": 7 } }),
            outbox,
        );
        read.at = "2026-11-24T10:01:00Z".to_owned();
        read
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn text(buffer: &Buffer) -> String {
        let width = usize::from(buffer.area.width);
        let mut out = String::new();
        for row in buffer.content.chunks(width) {
            let mut line = String::new();
            let mut hidden = 0;
            for cell in row {
                if hidden == 0 {
                    line.push_str(cell.symbol());
                    hidden = unicode_width::UnicodeWidthStr::width(cell.symbol()).max(1);
                }
                hidden -= 1;
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// Compares with the picture of this name; with `TALLYGATE_WRITE=1` it is written anew.
    #[track_caller]
    fn is_pictured(name: &str, screen: &Screen, width: u16, height: u16) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/top/screens");
        let (path, got) = (folder.join(name), text(&drawn(screen, width, height)));
        if std::env::var_os("TALLYGATE_WRITE").is_some() {
            return std::fs::write(path, got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(path).unwrap(), "{name}\n{got}");
    }

    fn screen(troubles: &[&str]) -> Screen {
        let mut screen = Screen::new(TopSort::Share, true);
        screen.take(Ok(reading(troubles, serde_json::Value::Null)));
        screen
    }

    /// A screen of a service that bills, with something to decide.
    fn billed() -> Screen {
        let outbox = json!({ "waiting": 3, "decide": 1, "oldest": "2026-11-24T09:48:00Z",
            "partial": true });
        let mut read = reading(&[], outbox.clone());
        let now = crate::when::instant("2026-11-24T10:01:00Z").unwrap();
        read.outbox = Outbox::of(&outbox, now.from(std::time::UNIX_EPOCH).unwrap());
        let mut screen = Screen::new(TopSort::Share, true);
        screen.take(Ok(read));
        screen
    }

    fn press(screen: &mut Screen, keys: &str) {
        for c in keys.chars() {
            let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
            assert_eq!(screen.key(KeyEvent::from(code)), Next::Draw);
        }
    }

    #[test]
    fn it_is_drawn_on_small_and_wide_terminals() {
        is_pictured("80x24.txt", &screen(&[]), 80, 24);
        is_pictured("200x50.txt", &screen(&[]), 200, 50);
        is_pictured("140x24-billed.txt", &billed(), 140, 24);
        is_pictured("80x24-billed.txt", &billed(), 80, 24);
        let away = "the store does not answer: leases are served to their end, new callers get 503";
        let mut troubled =
            screen(&[away, "usage has not been written for 40 s", "third", "4", "5"]);
        press(&mut troubled, "ss/nt-1");
        troubled.take(Err(Failure::new(code::FAILURE, "no answer within 40 s\nhelp: none")));
        is_pictured("80x24-troubled.txt", &troubled, 80, 24);
    }

    #[test]
    fn no_size_makes_it_fail_and_nothing_acts_on_the_terminal() {
        for (width, height) in [(1, 1), (10, 3), (20, 6), (79, 12), (119, 24), (120, 24), (400, 90)]
        {
            let buffer = drawn(&screen(&["trouble"]), width, height);
            let acts = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!buffer.content.iter().any(|cell| cell.symbol().contains(acts)));
        }
        let empty = Screen::new(TopSort::Share, true);
        assert!(text(&drawn(&empty, 80, 24)).starts_with("reading ..."));
    }

    #[test]
    fn an_amount_that_is_too_wide_is_rounded_and_not_cut() {
        for (amount, wanted) in [
            ("12345678", "12345678"),
            ("123456789", "123.4M"),
            ("18446744073709551615", "18446.7P"),
            ("1000000000", "1.0G"),
            ("12.3456789", "12"),
            ("1234567/8", "154.3k"),
        ] {
            assert_eq!(short(amount), wanted);
        }
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        let coloured = |screen: &Screen| {
            let buffer = drawn(screen, 80, 24);
            buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count()
        };
        let mut plain = screen(&["trouble"]);
        assert!(coloured(&plain) > 0);
        plain.colour = false;
        assert_eq!(coloured(&plain), 0);
    }

    #[test]
    fn keys_sort_filter_scroll_and_end_it() {
        let ids = |screen: &Screen| -> Vec<String> {
            screen.tenants().0.iter().map(|it| it.id.clone()).collect()
        };
        let mut screen = screen(&[]);
        assert_eq!(ids(&screen)[0], "tenant-00");
        press(&mut screen, "jj");
        assert_eq!((ids(&screen).len(), ids(&screen)[0].as_str()), (28, "tenant-02"));
        press(&mut screen, "k");
        assert!(ids(&screen)[0].starts_with("日本"));
        screen.key(KeyEvent::from(KeyCode::End));
        assert_eq!(ids(&screen), ["tenant-29"], "a row stays");
        screen.key(KeyEvent::from(KeyCode::Home));
        press(&mut screen, "s");
        assert_eq!(ids(&screen).last().map(String::as_str), Some(ids(&screen)[29].as_str()));
        assert!(ids(&screen).is_sorted());
        press(&mut screen, "s");
        let plans: Vec<_> = screen.tenants().0.iter().map(|it| it.plan.clone()).collect();
        assert!(plans.is_sorted() && plans[0] == "free");
        press(&mut screen, "s/nt-1q\n");
        assert!(ids(&screen).is_empty() && screen.filter == "nt-1q", "a letter, while it types");
        screen.key(KeyEvent::from(KeyCode::Esc));
        assert_eq!((screen.filter.as_str(), ids(&screen).len()), ("", 30));
        press(&mut screen, "/nt-1\n");
        assert_eq!(ids(&screen).len(), 10);
        assert_eq!(screen.key(KeyEvent::from(KeyCode::Char('r'))), Next::Read);
        assert_eq!(screen.key(KeyEvent::from(KeyCode::Char('q'))), Next::End);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.key(control_c), Next::End);
    }
}
