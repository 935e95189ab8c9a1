//! The screen at a terminal, until a key or a signal ends it.

use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::task::{JoinError, JoinSet};

use super::screen::{Next, Screen};
use super::{Reading, Source};
use crate::commands::Ran;
use crate::failure::{Failure, code};

/// How long keys are waited for before the screen looks whether there is a reading, or a signal.
const TURN: Duration = Duration::from_millis(100);
/// Shortest time between two readings: each is three requests, or a walk over tenants.
const LEAST: Duration = Duration::from_millis(500);

/// The terminal in its state for drawing; back in its own when this ends. A panic restores it by
/// the hook that `ratatui` sets.
struct Raw(DefaultTerminal);

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no state.
        let _ = ratatui::try_restore();
    }
}

pub(super) async fn run(source: &Source, mut screen: Screen, every: Duration) -> Ran {
    let mut terminal = Raw(ratatui::try_init().map_err(no_terminal)?);
    let mut ended = JoinSet::new();
    ended.spawn(signal());
    let mut reads = JoinSet::new();
    begin(&mut reads, source, Duration::ZERO);
    let mut is_new = true;
    loop {
        if is_new {
            terminal.0.draw(|frame| screen.draw(frame)).map_err(no_terminal)?;
        }
        let next = tokio::task::block_in_place(|| keys(&mut screen))?;
        match next {
            Some(Next::End) => return Ok(code::OK),
            Some(Next::Read) => {
                reads = JoinSet::new(); // which gives the one in progress up
                begin(&mut reads, source, Duration::ZERO);
            }
            Some(Next::Draw) | None => {}
        }
        is_new = next.is_some();
        while let Some(read) = reads.try_join_next() {
            let cut_off = |error: JoinError| Err(Failure::new(code::FAILURE, error.to_string()));
            screen.take(read.unwrap_or_else(cut_off));
            begin(&mut reads, source, every.max(LEAST));
            is_new = true;
        }
        if ended.try_join_next().is_some() {
            return Ok(code::OK);
        }
    }
}

/// Begins a reading after a pause. There is one at a time.
fn begin(reads: &mut JoinSet<Result<Reading, Failure>>, source: &Source, pause: Duration) {
    let source = source.clone();
    reads.spawn(async move {
        tokio::time::sleep(pause).await;
        source.read().await
    });
}

/// Does what the keys of this turn stand for; `None`: there was none, and the size is as it was.
fn keys(screen: &mut Screen) -> Result<Option<Next>, Failure> {
    let (mut next, mut wait) = (None, TURN);
    while event::poll(wait).map_err(no_terminal)? {
        wait = Duration::ZERO;
        let of_key = match event::read().map_err(no_terminal)? {
            Event::Key(key) => screen.key(key),
            _ => Next::Draw,
        };
        match of_key {
            Next::End => return Ok(Some(Next::End)),
            Next::Draw if next == Some(Next::Read) => {}
            other => next = Some(other),
        }
    }
    Ok(next)
}

/// Ends with the first signal that asks this process to end.
#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
    let mut waits = JoinSet::new();
    for kind in kinds {
        if let Ok(mut of_kind) = signal(kind) {
            waits.spawn(async move { of_kind.recv().await });
        }
    }
    match waits.is_empty() {
        true => std::future::pending().await,
        false => drop(waits.join_next().await),
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}

fn no_terminal(error: std::io::Error) -> Failure {
    Failure::new(code::FAILURE, format!("the terminal: {error}"))
}
