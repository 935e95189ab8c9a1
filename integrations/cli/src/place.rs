//! Where a command goes: to a service that runs, if the command line or the environment names one,
//! and else to the store.
//!
//! # Laws
//!
//! 1. One place decides. A command whose work only the store has is refused where a service is
//!    named, also by the environment: nothing is changed elsewhere than it was meant.
//! 2. Over a service a command prints what it prints over the store, and ends with the same code.
//! 3. The history names the operator that the service knows: a name of the command line's is no
//!    proof, and is refused.

use crate::args::Global;
use crate::client::{Client, URL};
use crate::failure::Failure;
use crate::settings::Settings;

/// Where a command goes.
pub(crate) enum Place {
    /// To the store that the service file names.
    Store(Box<Settings>),
    /// To a service that runs.
    Service(Box<Client>),
}

impl Place {
    pub(crate) fn of(global: &Global) -> Result<Self, Failure> {
        match url(global) {
            Some(url) => Ok(Self::Service(Box::new(Client::new(&url, &global.far)?))),
            None => {
                without_url(global)?;
                Ok(Self::Store(Box::new(Settings::read(&global.service)?)))
            }
        }
    }
}

/// The settings for a command that has no route: `what` it is, and what to do `instead`.
pub(crate) fn of_store(global: &Global, what: &str, instead: &str) -> Result<Settings, Failure> {
    no_route(global, what, instead)?;
    Settings::read(&global.service)
}

/// The same for a command that reads the settings itself.
pub(crate) fn no_route(global: &Global, what: &str, instead: &str) -> Result<(), Failure> {
    if url(global).is_some() {
        let text = format!("`{what}` works on the store, and has no route of a service");
        let help = format!("{instead}; without --url and {URL} it opens the store");
        return Err(Failure::usage(format!("{text}\nhelp: {help}")));
    }
    without_url(global)
}

/// For a command that needs no store: a service that the environment names is none of its business.
pub(crate) fn of_neither(global: &Global) -> Result<(), Failure> {
    match &global.far.url {
        Some(url) if !url.is_empty() => {
            let text = "this command asks no service: leave --url out";
            Err(Failure::usage(text))
        }
        _ => without_url(global),
    }
}

/// What an option of the command line that only the store has needs.
pub(crate) fn without_actor(actor: Option<&String>) -> Result<(), Failure> {
    match actor {
        None => Ok(()),
        Some(_) => Err(Failure::usage(
            "over a service the history names the operator whose token it is, or the user at its \
             socket: leave --actor out",
        )),
    }
}

/// Every change over a service has a reason.
pub(crate) fn reason(said: Option<&String>) -> Result<&str, Failure> {
    let text = "over a service every change of a tenant needs a reason: write --reason \"..\"";
    said.map(String::as_str).ok_or_else(|| Failure::usage(text))
}

/// The place that is named, by the command line before the environment. An empty one names none.
fn url(global: &Global) -> Option<String> {
    let said = global.far.url.clone().or_else(|| std::env::var(URL).ok());
    said.map(|url| url.trim().to_owned()).filter(|url| !url.is_empty())
}

fn without_url(global: &Global) -> Result<(), Failure> {
    let far = &global.far;
    let stray =
        [(far.token_file.is_some(), "--token-file"), (far.insecure_http, "--insecure-http")];
    match stray.iter().find(|(is_there, _)| *is_there && url(global).is_none()) {
        Some((_, name)) => Err(Failure::usage(format!("{name} is for a service: write --url too"))),
        None => Ok(()),
    }
}
