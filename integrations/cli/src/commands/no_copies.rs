//! `backup` and `restore` of a build without the feature `redb`.

use std::path::Path;

use super::Ran;
use crate::args::Restore;
use crate::failure::{Failure, code};
use crate::output::Output;
use crate::settings::Settings;

pub(super) async fn backup(_: Output, _: &Settings, _: &Path, _: bool) -> Ran {
    none().await
}

pub(super) async fn restore(_: Output, _: &Settings, _: &Restore) -> Ran {
    none().await
}

async fn none() -> Ran {
    let text =
        "this build has no store in a file\nhelp: cargo install tallygate-cli --features redb";
    Err(Failure::new(code::FILE, text))
}
