//! Why a command failed: a text that says what to do, and the exit code for scripts. Law: the codes
//! are those of `docs/cli.md`, and each kind of failure has one.

use tallygate::Error;
use tallygate::billing::report::ReportError;
use tallygate::directory::DirectoryError;
use tallygate::store::StoreError;

/// Exit codes.
pub(crate) mod code {
    /// Done.
    pub(crate) const OK: u8 = 0;
    /// It did not work, and none of the others says why.
    pub(crate) const FAILURE: u8 = 1;
    /// The command line is wrong, or a value in it.
    pub(crate) const USAGE: u8 = 2;
    /// The plan file or the service file is wrong, or something that it names.
    pub(crate) const FILE: u8 = 3;
    /// What the command is about is not there.
    pub(crate) const NOT_FOUND: u8 = 4;
    /// Without `--yes` where there is no terminal, or without the rights.
    pub(crate) const NOT_PERMITTED: u8 = 5;
    /// Something else is in the way: another process, another change, what is there already.
    pub(crate) const CONFLICT: u8 = 6;
    /// It worked, and found differences.
    pub(crate) const DIFFERENCES: u8 = 7;
}

/// What a library says of a redb file that another process has open.
const HELD: &str = "already open in another process";

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What is wrong and what to do; empty: nothing is said.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(code::USAGE, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(code::NOT_FOUND, text)
    }

    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self::new(code::CONFLICT, text)
    }

    /// The same, of what a file says.
    pub(crate) fn within(self, path: &std::path::Path) -> Self {
        Self { text: format!("{}: {}", path.display(), self.text), ..self }
    }

    /// There is no such tenant.
    pub(crate) fn no_tenant(id: &str) -> Self {
        Self::not_found(format!(
            "there is no tenant {id:?}\nhelp: `tallygate tenant list` shows them, `tallygate \
             tenant create` makes one"
        ))
    }

    /// Whether it says that there is no such tenant.
    pub(crate) fn is_no_tenant(&self, id: &str) -> bool {
        self.code == code::NOT_FOUND && self.text == Self::no_tenant(id).text
    }

    /// A file could not be read or written.
    pub(crate) fn of_file(path: &std::path::Path, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => code::NOT_FOUND,
            std::io::ErrorKind::PermissionDenied => code::NOT_PERMITTED,
            std::io::ErrorKind::AlreadyExists => code::CONFLICT,
            _ => code::FAILURE,
        };
        Self::new(code, format!("{}: {error}", path.display()))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        if text.contains(HELD) {
            let help = "if it is the service, ask it with --url: at its admin socket \
                        (unix:/run/acme/tallygate.sock) or the place of its operator's routes \
                        (docs/admin.md); or stop that process first";
            return Self::conflict(format!("{text}\nhelp: {help}"));
        }
        let refused = ["Permission denied", "AccessDenied", "not authorized"];
        let code = match refused.iter().any(|it| text.contains(it)) {
            true => code::NOT_PERMITTED,
            false => code::FAILURE,
        };
        Self::new(code, text)
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        use DirectoryError as E;
        let text = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::NoTenant | E::NoKey(_) | E::UnknownPlan(_) | E::UnknownMeter(_) => {
                Self::not_found(text)
            }
            E::UnknownLimit { .. } => Self::not_found(text),
            E::Busy
            | E::MadeAlready(_)
            | E::CredentialTaken
            | E::CustomerTaken
            | E::Erased
            | E::SubscriptionLives { .. }
            | E::GrantDiffers(_) => Self::conflict(text),
            E::NotLimited { .. } | E::TooMany { .. } => Self::conflict(text),
            E::NoPepper => Self::new(code::FILE, format!("{text} in the service file")),
            E::NoteNeeded => Self::usage("an override needs a reason: write --reason \"..\""),
            E::Random(_) => Self::new(code::FAILURE, text),
            _ => Self::usage(text),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Store(error) => error.into(),
            Error::Directory(error) => error.into(),
            Error::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::new(code::NOT_PERMITTED, text)
            }
            Error::File { .. } | Error::Config(_) | Error::Plans(_) | Error::Parts(_) => {
                Self::new(code::FILE, text)
            }
            Error::NoStripe => Self::new(code::FILE, text),
            Error::NoTenant(id) => Self::no_tenant(&id),
            Error::NoMeter(_) => Self::not_found(text),
            _ => Self::new(code::FAILURE, text),
        }
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        let text = error.to_string();
        match error {
            ReportError::Store(error) => error.into(),
            ReportError::NoService => Self::new(
                code::FILE,
                format!("{text}: nothing is billed. docs/billing.md says how to set it up"),
            ),
            ReportError::Restored => Self::conflict(text),
            _ => Self::new(code::FAILURE, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use tallygate::store::StoreErrorKind;

    use super::*;

    #[test]
    fn a_store_that_refuses_is_told_from_one_that_is_away_and_one_that_is_held() {
        let of = |text: &str| Failure::from(StoreError::new(StoreErrorKind::Unavailable, text));
        assert_eq!(of("a.redb cannot be opened: Permission denied").code, code::NOT_PERMITTED);
        assert_eq!(of("AccessDeniedException: no").code, code::NOT_PERMITTED);
        assert_eq!(of("no answer").code, code::FAILURE);
        let held = of("a.redb is already open in another process: several");
        assert!(held.code == code::CONFLICT && held.text.contains("--url"));
    }
}
