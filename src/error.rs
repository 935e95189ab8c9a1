//! What can go wrong outside a request: opening, reloading, closing. A refusal is not an error.

use crate::directory::DirectoryError;
use crate::ledger::collect::RecoverError;
use crate::ledger::flush::FlushError;
use crate::store::StoreError;

/// Why a gate could not be opened, asked or closed.
///
/// `Debug` shows the same text as `Display`: returned from `main`, it is read by a person.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}")]
    File {
        /// As it was given.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// `tallygate.toml` says something that cannot work; all of it is listed.
    #[error("{0}")]
    Config(String),
    /// `plans.toml` says something that cannot work; all of it is listed.
    #[error("{0}")]
    Plans(#[from] crate::catalog::PlanErrors),
    /// A plan file would count a meter in other parts of its unit than what is stored of it.
    #[error("{0}")]
    Parts(String),
    /// The store did not do what was needed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory refused.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The usage journal cannot be used.
    #[error("{0}")]
    Journal(String),
    /// Usage was left unwritten at close.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// There is no such tenant.
    #[error("there is no tenant `{0}`: make it with `gate.directory().tenant(..).save()`")]
    NoTenant(String),
    /// Stripe did not do it.
    #[error(transparent)]
    Stripe(#[from] crate::billing::sink::SinkError),
    /// There is no Stripe to do it.
    #[error("there is no [stripe] in the service file")]
    NoStripe,
    /// The system gave no randomness.
    #[error("no randomness from the system: {0}")]
    Random(String),
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<RecoverError> for Error {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Journal { .. } => Self::Journal(error.to_string()),
            RecoverError::Store(error) => Self::Store(error),
        }
    }
}

impl Error {
    pub(crate) fn journal(message: impl Into<String>) -> Self {
        Self::Journal(message.into())
    }
}
