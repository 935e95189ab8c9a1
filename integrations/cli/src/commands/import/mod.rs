//! `import`: tenants, keys and limits from elsewhere.
//!
//! # Laws
//!
//! 1. A file is read and checked to its end, against the plan file and the store, before anything
//!    is written. Every row that is wrong is named, with its reason; while there is one nothing is
//!    written, unless `--skip-wrong` leaves it out.
//! 2. The same import again changes nothing. One that was cut off is completed by the same again.
//! 3. No key is printed, logged, or put into an error. The store has its SHA-256.
//! 4. A limit of another limiter is never faster here, and what is less of it is said.
//! 5. A file has at most so many bytes and rows: all that it says is in memory at once.

use std::io::Read as _;
use std::path::Path;

use super::Ran;
use crate::args::{ApiGateway, Global, Import};
use crate::failure::Failure;
use crate::output::Output;
use crate::place::{of_neither, of_store};

mod apply;
mod csv_file;
mod gateway_keys;
mod gateway_plans;
mod governor;
mod json;
mod key;
mod look;
mod plan_file;
mod rate;
mod rows;
mod throttle;

/// Most bytes of a file: some three hundred for each of the most rows.
const MOST_BYTES: u64 = 32 << 20;

pub(super) async fn run(out: Output, global: &Global, what: Import) -> Ran {
    match what {
        Import::Csv { file, how } => {
            let settings = of_store(global, "import csv", super::STOP)?;
            let read = csv_file::read(&bytes(&file)?, &key::prefixes(&settings));
            let read = read.map_err(|it| it.within(&file))?;
            apply::run(out, &settings, (&file, read), &how).await
        }
        Import::ApiGateway(what) => gateway(out, global, &what).await,
        Import::TowerGovernor(what) => {
            of_neither(global)?;
            governor::read(&what)?.print(out, what.output.as_deref())
        }
    }
}

async fn gateway(out: Output, global: &Global, what: &ApiGateway) -> Ran {
    let of_plans = |it: Failure| it.within(&what.usage_plans);
    let plans = gateway_plans::read(&bytes(&what.usage_plans)?).map_err(of_plans)?;
    let Some(file) = &what.keys else {
        of_neither(global)?;
        let text = gateway_plans::file(&plans).map_err(of_plans)?;
        return text.print(out, what.output.as_deref());
    };
    let settings = of_store(global, "import api-gateway --keys", super::STOP)?;
    let mut of_plans = Vec::new();
    for (id, file) in &what.plan_keys {
        let keys = gateway_keys::in_plan(&bytes(file)?).map_err(|it| it.within(file))?;
        of_plans.push((id.as_str(), keys));
    }
    let sources = gateway_keys::Sources { plans: &plans, of_plans: &of_plans, what };
    let read = sources.read(&bytes(file)?, &key::prefixes(&settings));
    let read = read.map_err(|it| it.within(file))?;
    apply::run(out, &settings, (file, read), &what.how).await
}

/// A file's content, up to [`MOST_BYTES`].
fn bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    let of_file = |error: std::io::Error| Failure::of_file(file, &error);
    let mut bytes = Vec::new();
    let from = std::fs::File::open(file).map_err(of_file)?;
    from.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(of_file)?;
    if bytes.len() as u64 > MOST_BYTES {
        let text = format!("{}: more than {} MiB", file.display(), MOST_BYTES >> 20);
        return Err(Failure::usage(text + "\nhelp: split it; parts are imported one by one"));
    }
    Ok(bytes)
}
