//! `tenant`: list, show, change. `read` has what only reads, `change` and `erase` what writes,
//! `kept` where tenants are, `shown` how a tenant and its history are printed.

mod change;
mod erase;
mod kept;
mod read;
mod refusals;
mod shown;

pub(super) use read::print_history;
pub(super) use shown::{Entry, list, second, text};
#[cfg(feature = "stripe")]
pub(super) use shown::{changes, json_of};

use super::Ran;
use crate::args::Tenant;
use crate::output::Output;
use crate::place::Place;

pub(super) async fn run(out: Output, place: &Place, what: Tenant) -> Ran {
    match what {
        Tenant::List(which) => read::list(out, place, &which).await,
        Tenant::Show { id } => read::show(out, place, &id).await,
        Tenant::Refusals { id, limit, log } => refusals::run(out, place, &id, limit, log).await,
        Tenant::Erase { id, how } => erase::run(out, place, &id, &how).await,
        Tenant::History { id } => read::history(out, place, &id).await,
        what => change::run(out, place, what).await,
    }
}
