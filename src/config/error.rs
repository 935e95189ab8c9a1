//! Errors of a service file: position, words at fault, and what to write instead.
//!
//! A possible secret is never among the words.

use std::fmt;

use crate::text_file::list;

/// All errors of a service file, in the order of the file; of a file with thousands of mistakes, a
/// thousand of them. The first 50 are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.0, "\n")
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// The file or environment variable it is in; empty if neither.
    pub file: String,
    /// Line, from 1; 0 for none.
    pub line: u32,
    /// Column in characters, from 1; 0 for none.
    pub column: u32,
    /// The words at fault; empty where they may be a secret.
    pub words: String,
    /// The error.
    pub message: String,
    /// The suggested fix.
    pub help: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, "{file}: ")?,
            (file, line) => write!(f, "{file}:{line}:{}: ", self.column)?,
        }
        f.write_str(&self.message)?;
        if !self.words.is_empty() {
            write!(f, "\n  found: {}", self.words)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}
