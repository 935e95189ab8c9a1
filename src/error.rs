//! Errors outside of requests: opening, reloading, closing. A refusal is not an error.

use crate::directory::DirectoryError;
use crate::ledger::collect::RecoverError;
use crate::ledger::flush::FlushError;
use crate::store::StoreError;

/// Why a gate could not be opened, asked or closed.
///
/// `Debug` prints the same text as `Display`, because people read it when `main` returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}")]
    File {
        /// The path as given.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The service file has settings that cannot work. The text lists all of them, each with line,
    /// column and what to write instead.
    #[error("{0}")]
    Config(String),
    /// The plan file has settings that cannot work. The text lists all of them, each with line,
    /// column and what to write instead.
    #[error("{0}")]
    Plans(#[from] crate::catalog::PlanErrors),
    /// The plan file divides a meter's unit into another number of `parts` than its stored amounts
    /// are counted in.
    #[error("{0}")]
    Parts(String),
    /// A call to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory refused a change.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The usage journal cannot be used.
    #[error("{0}")]
    Journal(String),
    /// Usage could not be written to the store by a flush or at close.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// There is no tenant with this outer id.
    #[error("no tenant `{0}`: create it with `gate.directory().tenant(..).save()`")]
    NoTenant(String),
    /// [`Gate::meter`](crate::Gate::meter) was given a name that nothing can be counted under.
    #[error("{0}")]
    NoMeter(String),
    /// [`Gate::check_routes`](crate::Gate::check_routes) found patterns of the plan file that no
    /// route of the app has: one line for each, with the line in the plan file and the nearest
    /// route. Or a layer, or [`Gate::check_operations`](crate::Gate::check_operations), was given
    /// the name of a route that the plan file does not have.
    #[error("{0}")]
    Routes(String),
    /// A call to Stripe failed.
    #[error(transparent)]
    Stripe(#[from] crate::billing::sink::SinkError),
    /// The service file has no `[stripe]`.
    #[error("the service file has no [stripe]")]
    NoStripe,
    /// The system provided no randomness.
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
