//! `report`, `audit` and the commands beside them, of a build without the feature `stripe`.

use super::Ran;
use crate::args::{Event, Outbox, Report, Stripe};
use crate::failure::{Failure, code};
use crate::output::Output;
use crate::settings::Settings;

pub(super) async fn report(_: Output, _: &Settings, _: &Report) -> Ran {
    none().await
}

pub(super) async fn audit(_: Output, _: &Settings) -> Ran {
    none().await
}

pub(super) async fn event(_: Output, _: &Settings, _: Event) -> Ran {
    none().await
}

pub(super) async fn stripe(_: Output, _: &Settings, _: Stripe) -> Ran {
    none().await
}

pub(super) async fn invoices(_: Output, _: &Settings, _: &str) -> Ran {
    none().await
}

pub(super) async fn outbox(_: Output, _: &Settings, _: Outbox) -> Ran {
    none().await
}

async fn none() -> Ran {
    let text = "this build bills nothing\nhelp: cargo install tallygate-cli --features stripe";
    Err(Failure::new(code::FILE, text))
}
