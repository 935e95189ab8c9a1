//! Secrets: written as references to their sources, and kept in a type that never shows them.
//!
//! A secret is read on demand, not when the file is parsed, so that checking a file needs no
//! secrets.

use std::fmt;
use std::path::PathBuf;

/// Longest secret read from a file, in bytes. Peppers and keys have some dozens; anything longer is
/// the wrong file.
pub(crate) const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A secret in memory. `Debug` and `Display` do not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps this text as a secret.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Callers keep it out of logs and errors.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A secret that cannot be read or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\nhelp: {help}")]
pub(crate) struct SecretError {
    /// The field it is for, and the error.
    pub message: String,
    /// The suggested fix.
    pub help: String,
}

/// The source of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// `{ env = ".." }`: this environment variable.
    Env(String),
    /// `{ file = ".." }`: this file, without a trailing newline.
    File(PathBuf),
    /// `{ secret = ".." }`: AWS Secrets Manager, by this name.
    SecretsManager(String),
    /// `{ ssm = ".." }`: the AWS Systems Manager parameter of this name.
    ParameterStore(String),
}

/// A reference to a secret, as written in the service file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretRef {
    /// The field it is for, named in errors: `stripe.key`.
    pub field: String,
    /// Its source.
    pub source: SecretSource,
}

impl SecretRef {
    /// Reads the secret. `env` looks up an environment variable.
    ///
    /// # Errors
    ///
    /// If it is missing, empty, not UTF-8 text or above [`MAX_SECRET_BYTES`], and for sources that
    /// this build does not support.
    pub(crate) fn resolve(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secret, SecretError> {
        let text = match &self.source {
            SecretSource::Env(name) => env(name).ok_or_else(|| {
                self.error(
                    format!("the environment variable {name} is not set"),
                    "set it, or name another one in the service file",
                )
            })?,
            SecretSource::File(path) => read(path).map_err(|error| {
                self.error(
                    format!("{} cannot be read: {error}", path.display()),
                    "a secret's file holds the secret as text, and the service may read it",
                )
            })?,
            SecretSource::SecretsManager(_) | SecretSource::ParameterStore(_) => {
                return Err(self.error(
                    "this build has no AWS secrets source".into(),
                    "use { env = \"..\" } or { file = \"..\" }, and let the platform put it there",
                ));
            }
        };
        match text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line))
        {
            "" => Err(self.error("the secret is empty".into(), "put the secret there")),
            secret => Ok(Secret::new(secret)),
        }
    }

    pub(super) fn error(&self, message: String, help: &str) -> SecretError {
        SecretError { message: format!("{}: {message}", self.field), help: help.to_owned() }
    }
}

fn read(path: &std::path::Path) -> std::io::Result<String> {
    let bytes = crate::text_file::bytes(path, MAX_SECRET_BYTES as usize)?;
    // The bytes are not shown: they may be a secret.
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(source: SecretSource) -> SecretRef {
        SecretRef { field: "stripe.key".into(), source }
    }

    #[test]
    fn a_secret_is_shown_by_nothing_but_expose() {
        let secret = Secret::new("sk_test_xyz");
        assert!(!format!("{secret} {secret:?} {:#?}", Some(&secret)).contains("xyz"));
        assert_eq!(secret.expose(), "sk_test_xyz");
    }

    #[test]
    fn a_file_gives_its_text_without_the_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let none = |_: &str| None;
        let resolve = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            at(SecretSource::File(path.clone())).resolve(&none)
        };
        assert_eq!(resolve(b" s3 \r\n").unwrap().expose(), " s3 ");
        assert!(resolve(b"\n").unwrap_err().message.contains("empty"));
        assert!(resolve(b"\xff\xff").is_err());
        assert!(resolve(&vec![b'x'; MAX_SECRET_BYTES as usize]).is_ok());
        assert!(resolve(&vec![b'x'; MAX_SECRET_BYTES as usize + 1]).is_err());
    }

    #[test]
    fn what_is_not_there_is_named_with_its_field() {
        let error = at(SecretSource::Env("KEY".into())).resolve(&|_| None).unwrap_err();
        assert_eq!(error.message, "stripe.key: the environment variable KEY is not set");
        let error = at(SecretSource::ParameterStore("/k".into())).resolve(&|_| None).unwrap_err();
        assert!(error.message.contains("no AWS secrets source"));
    }
}
