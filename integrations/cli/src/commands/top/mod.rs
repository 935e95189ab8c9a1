//! `top`: who is near a limit, what is refused and what is wrong, of a running service by its
//! operator's routes, or of tenants in a store.
//!
//! # Laws
//!
//! 1. It changes nothing, so a token that may only look is enough. The token is from a file or the
//!    environment, in no argument, and in no output.
//! 2. A reading that fails leaves the last one on the screen, with the reason.
//! 3. The terminal is as it was before when it ends, also by a signal or a panic.

use std::cell::Cell;
use std::io::IsTerminal as _;

use super::Ran;
use crate::args::{Global, Top};
use crate::failure::{Failure, code};
use crate::output::Output;
use crate::place::Place;
use crate::service::{For, with_gate};

mod draw;
mod live;
mod outbox;
mod reading;
mod screen;
mod service;
mod store;

use outbox::Seldom;
use reading::Reading;
use screen::Screen;
use service::ServiceReader;
use store::{Outbox, StoreReader};

/// Where readings come from.
#[derive(Clone)]
enum Source {
    Service(Box<ServiceReader>),
    Store(StoreReader),
}

impl Source {
    async fn read(&self) -> Result<Reading, Failure> {
        match self {
            Self::Service(service) => service.read().await,
            Self::Store(store) => store.read().await,
        }
    }
}

pub(super) async fn run(out: Output, global: &Global, what: Top) -> Ran {
    let is_live = !what.once && !out.json;
    let (screen, keys) = (std::io::stdout().is_terminal(), std::io::stdin().is_terminal());
    if is_live && !(screen && keys) {
        let text =
            "there is no terminal to draw on\nhelp: --once prints one reading, --json a line";
        return Err(Failure::usage(text));
    }
    let settings = match Place::of(global)? {
        Place::Store(settings) => settings,
        Place::Service(_) if !what.prefix.is_empty() => {
            let text = "--prefix is for a store: a service shows its nearest tenants";
            return Err(Failure::usage(text));
        }
        Place::Service(client) => {
            let source = Source::Service(Box::new(ServiceReader::new(*client, &what)));
            return show(out, &what, source, is_live).await;
        }
    };
    let read = async |opened: For, outbox: Outbox, is_open: &Cell<bool>| {
        with_gate(&settings, opened, async |gate| {
            is_open.set(true);
            let source = Source::Store(StoreReader::new(gate.clone(), &what, outbox));
            show(out, &what, source, is_live).await
        })
        .await
    };
    let is_open = Cell::new(false);
    let bills = cfg!(feature = "stripe") && settings.table.contains_key("stripe");
    let ran = match bills {
        true => read(For::Top, Outbox::Open(Seldom::default()), &is_open).await,
        false => read(For::Tenants, Outbox::None, &is_open).await,
    };
    // Tenants are shown without Stripe's key too.
    let ran = match ran {
        Err(why) if bills && !is_open.get() && why.code != code::CONFLICT => {
            read(For::Tenants, Outbox::Closed(outbox::unread(&why.text)), &is_open).await
        }
        ran => ran,
    };
    ran.map_err(|failure| match failure.code {
        code::CONFLICT => {
            let text = "the store is open in a service that runs";
            let help = "help: name its operator's routes: --url http://localhost:3000/admin, or \
                        its admin socket: --url unix:/run/acme/tallygate.sock";
            Failure::conflict(format!("{text}\n{help}"))
        }
        _ => failure,
    })
}

async fn show(out: Output, what: &Top, source: Source, is_live: bool) -> Ran {
    if is_live {
        let screen = Screen::new(what.sort, std::env::var_os("NO_COLOR").is_none());
        return live::run(&source, screen, what.every).await;
    }
    let reading = source.read().await?;
    match out.json {
        true => out.document(&reading.json())?,
        false => reading.print(out, what.sort)?,
    }
    Ok(code::OK)
}
