//! `tenant`: list, show, change. `read` has what only reads, `change` and `erase` what writes,
//! `shown` how a tenant and its history are printed.

mod change;
mod erase;
mod read;
mod refusals;
mod shown;

pub(super) use read::print_history;
#[cfg(feature = "stripe")]
pub(super) use shown::{changes, json_of};

use super::{Ran, actor};
use crate::args::Tenant;
use crate::output::Output;
use crate::settings::Settings;

pub(super) async fn run(out: Output, settings: &Settings, what: Tenant) -> Ran {
    match what {
        Tenant::List(which) => read::list(out, settings, &which).await,
        Tenant::Show { id } => read::show(out, settings, &id).await,
        Tenant::Refusals { id, limit, log } => refusals::run(out, settings, &id, limit, log),
        Tenant::Erase { id, how } => erase::run(out, settings, &id, &how).await,
        Tenant::History { id } => read::history(out, settings, &id).await,
        what => change::run(out, settings, what).await,
    }
}
