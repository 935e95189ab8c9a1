//! What the screen shows of the readings, and what keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Reading;
use super::reading::TenantRow;
use crate::args::TopSort;
use crate::failure::Failure;
use crate::output::escaped;

/// Most characters of a filter.
const MOST_FILTER: usize = 64;
/// Rows that a page key moves by.
const PAGE: usize = 10;

/// The state of the screen.
pub(super) struct Screen {
    pub(super) reading: Option<Reading>,
    /// Why the last attempt at a reading failed.
    pub(super) failed: Option<String>,
    pub(super) sort: TopSort,
    pub(super) filter: String,
    /// Whether keys are letters of the filter.
    pub(super) is_typing: bool,
    /// The first row of tenants.
    pub(super) first: usize,
    pub(super) colour: bool,
}

/// What follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Draw,
    Read,
    End,
}

impl Screen {
    pub(super) fn new(sort: TopSort, colour: bool) -> Self {
        let (filter, is_typing) = (String::new(), false);
        Self { reading: None, failed: None, sort, filter, is_typing, first: 0, colour }
    }

    /// Takes a reading; one that failed leaves the last.
    pub(super) fn take(&mut self, read: Result<Reading, Failure>) {
        match read {
            Ok(reading) => (self.reading, self.failed) = (Some(reading), None),
            Err(failure) => {
                let first = failure.text.lines().next().unwrap_or_default();
                self.failed = Some(escaped(first));
            }
        }
        self.stay_within();
    }

    /// The rows of tenants, from the first one that is shown on, and how many there are.
    pub(super) fn tenants(&self) -> (Vec<&TenantRow>, usize) {
        let reading = self.reading.as_ref();
        let rows = reading.map(|it| it.sorted(self.sort, &self.filter)).unwrap_or_default();
        let count = rows.len();
        (rows.into_iter().skip(self.first).collect(), count)
    }

    /// Does what a key stands for.
    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Draw;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Next::End;
        }
        let next = if self.is_typing { self.letter(key.code) } else { self.command(key.code) };
        self.stay_within();
        next
    }

    fn letter(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => (self.is_typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if !c.is_control() && self.filter.chars().count() < MOST_FILTER => {
                self.filter.push(c);
            }
            _ => {}
        }
        Next::Draw
    }

    fn command(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if self.filter.is_empty() => return Next::End,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('r' | ' ') => return Next::Read,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('s') => {
                self.sort = match self.sort {
                    TopSort::Share => TopSort::Tenant,
                    TopSort::Tenant => TopSort::Plan,
                    TopSort::Plan => TopSort::Share,
                }
            }
            KeyCode::Down | KeyCode::Char('j') => self.first += 1,
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            KeyCode::PageDown => self.first += PAGE,
            KeyCode::PageUp => self.first = self.first.saturating_sub(PAGE),
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = usize::MAX,
            _ => {}
        }
        Next::Draw
    }

    /// Keeps a row on the screen.
    fn stay_within(&mut self) {
        let reading = self.reading.as_ref();
        let rows = reading.map_or(0, |it| it.sorted(self.sort, &self.filter).len());
        self.first = self.first.min(rows.saturating_sub(1));
    }
}
