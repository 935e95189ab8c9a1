//! `health`: what is wrong with a service that runs, as its own `gate.health()` has it.

use super::Ran;
use super::tenant::{list, second, text};
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table};
use crate::place::Place;

pub(super) async fn run(out: Output, place: &Place) -> Ran {
    let Place::Service(client) = place else {
        let text = "health is a service's: write --url with its admin socket or the place of its \
                    routes";
        let help = "`tallygate doctor` checks whether a service could start here";
        return Err(Failure::usage(format!("{text}\nhelp: {help}")));
    };
    let health = client.get("/health").await?;
    let troubles = list(&health["troubles"]);
    let is_ready = health["ready"] == true;
    let code = if is_ready && troubles.is_empty() { code::OK } else { code::FAILURE };
    if out.json {
        out.document(&health)?;
        return Ok(code);
    }
    let mut table = Table::of_pairs();
    table.pair("of", client.shown());
    let (word, colour) = match (is_ready, troubles.is_empty()) {
        (false, _) => ("not ready", Colour::Red),
        (true, false) => ("in trouble", Colour::Red),
        (true, true) => ("healthy", Colour::Green),
    };
    table.coloured(["state".to_owned(), word.to_owned()], (1, colour));
    troubles.iter().for_each(|it| table.pair("trouble", text(it)));
    let lag = health["flush-lag-ms"].as_u64();
    table.pair("flush lag", lag.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")));
    let reported = &health["last-report"];
    let reported = if reported.is_null() { "none".to_owned() } else { text(&second(reported)) };
    table.pair("last report", reported);
    out.table(&table)?;
    Ok(code)
}
