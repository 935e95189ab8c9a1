//! The files that a gate is opened with, read and checked: the service file, the plan file, and the
//! secrets that they name.
//!
//! A service file that is missing is an empty one, for every key has a default. A path into a
//! folder that is not there, or a link that leads nowhere, is a mistake of the caller's or of a
//! mount, and stays an error, as does a missing plan file: it has no default.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::alerts;
use super::catalogs::PlanSource;
use super::scopes::Yields;
use super::settings::Settings;
use super::sources::{self, ByHost, Sources};
use crate::catalog::Catalog;
use crate::clock::{Clock, Now, time_at};
use crate::config::{Config, DEFAULT_PEPPER_ENV};
use crate::error::Error;
use crate::identity::Identifier;
use crate::notice::notice;
use crate::notify::Notifier;
use crate::text_file::{self, OffRuntime};

/// A plan file to begin with.
const FIRST_PLANS: &str = "default-plan = \"free\"

[plan.free]
rate.default   = \"2/s burst 5\"
quota.requests = \"10k/month\"
";

/// Where the service file comes from.
#[derive(Clone)]
pub(super) enum ConfigSource {
    File(PathBuf),
    Text(String),
}

impl ConfigSource {
    /// The service file, with the environment laid over; and the absolute path at which it is
    /// missing.
    pub(super) fn read(&self) -> Result<(Config, Option<PathBuf>), Error> {
        let parsed = match self {
            Self::Text(text) => Config::parse("tallygate.toml", text, []).map(|it| (it, None)),
            Self::File(path) => {
                let (text, missing) = match text_file::text(path) {
                    Ok(text) => (text, None),
                    Err(error) if may_be_missing(path, &error) => {
                        (String::new(), Some(absolute(path)))
                    }
                    Err(source) => return Err(at(path, source)),
                };
                let parsed = Config::parse(&path.to_string_lossy(), &text, std::env::vars());
                parsed.map(|config| (config, missing))
            }
        };
        parsed.map_err(|errors| Error::Config(errors.to_string()))
    }
}

/// Whether the file is plainly absent from a folder that is there.
fn may_be_missing(path: &Path, error: &io::Error) -> bool {
    let is_absent = |path: &Path| {
        std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    error.kind() == ErrorKind::NotFound
        && is_absent(path)
        && absolute(path).parent().is_some_and(Path::is_dir)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// An error with a file, whose path is shown in full where nothing is there.
fn at(path: &Path, source: io::Error) -> Error {
    let path = match source.kind() {
        ErrorKind::NotFound => absolute(path),
        _ => path.to_owned(),
    };
    Error::File { path: path.display().to_string(), source }
}

/// The error for a plan file that is missing, with one to write.
fn no_plans(path: &Path) -> Error {
    let text = format!(
        "there is no plan file here\nhelp: write one, or name another (`[plans] file = \"..\"` in \
         the service file). One to begin with:\n\n{FIRST_PLANS}"
    );
    at(path, io::Error::new(ErrorKind::NotFound, text))
}

/// What the host has handed in.
pub(super) struct Given {
    pub(super) source: ConfigSource,
    pub(super) plans: Option<PlanSource>,
    pub(super) has_store: bool,
    pub(super) has_identify: bool,
    /// The program serves no requests.
    pub(super) work_only: bool,
    /// Whether alerts are sent from here.
    pub(super) sends_alerts: bool,
    /// Destinations of alerts, some of which the service file may name.
    pub(super) notifiers: Vec<Arc<dyn Notifier>>,
    /// For the times of signatures.
    pub(super) clock: Arc<dyn Clock>,
    #[cfg(feature = "stripe")]
    pub(super) stripe: Option<crate::config::StripeConfig>,
}

/// The contents of the files that a gate is opened with.
pub(super) struct AsWritten {
    pub(super) config: Config,
    pub(super) plans: PlanSource,
    pub(super) catalog: Catalog,
    pub(super) identifier: Identifier,
    /// API keys are off for lack of a pepper.
    pub(super) keys_are_off: bool,
    pub(super) yields: Yields,
    pub(super) settings: Settings,
    #[cfg(feature = "stripe")]
    pub(super) stripe: Option<super::billing::StripeSetup>,
    /// The destinations of alerts: those of the service file, then the host's.
    pub(super) notifiers: Vec<Arc<dyn Notifier>>,
    pub(super) said: Said,
}

/// What is to be logged of the files, by the task that opens the gate: a subscriber may be that
/// thread's alone.
pub(super) struct Said {
    /// The service file is missing here.
    missing: Option<PathBuf>,
    /// A pepper was made here.
    pepper: Option<PathBuf>,
    /// The service file has no way of identifying callers, and the program has no `Identify`.
    only_named: bool,
}

impl Said {
    pub(super) fn log(&self) {
        if let Some(path) = &self.missing {
            notice!(info, "no service file at {}: every key has its default", path.display());
        }
        if self.only_named {
            notice!(
                info,
                "`identify = []`: a request has a caller only where the layer finds one \
                 (`GateLayer::caller`)"
            );
        }
        if let Some(path) = &self.pepper {
            notice!(
                warn,
                "no pepper is configured, so one was made for this new store: {}. Keep it with the \
                 store: without it every API key is unknown. In production give the service a \
                 secret of its own before its first start: \
                 export {DEFAULT_PEPPER_ENV}=$(openssl rand -hex 32)",
                path.display()
            );
        }
    }
}

impl Given {
    /// Reads and checks all files, off the runtime unless the host has passed them as text.
    pub(super) async fn read(self, now: Now) -> Result<AsWritten, Error> {
        let is_text = matches!(self.source, ConfigSource::Text(_));
        if is_text && self.plans.as_ref().is_some_and(|plans| !plans.is_file()) {
            return self.read_here(now);
        }
        let path = match &self.source {
            ConfigSource::File(path) => path.display().to_string(),
            ConfigSource::Text(_) => "the plan file".to_owned(),
        };
        let slow = |source| Error::File { path: format!("{path}, or a file it names"), source };
        OffRuntime::default().run(move || self.read_here(now)).await.map_err(slow)?
    }

    /// Reads and checks them all, on this thread.
    fn read_here(self, now: Now) -> Result<AsWritten, Error> {
        let (mut config, missing) = self.source.read()?;
        // Lists of keys say what each may do, also in a program without requests.
        let unlisted = sources::unlisted(&config);
        if self.work_only {
            config.identify.clear();
            config.ingest.token = None;
        }
        let file = || PlanSource::file(&config.plans.file);
        let plans = self.plans.unwrap_or_else(file);
        let (name, text) = plans.read_here().map_err(|error| match (error, plans.path()) {
            (Error::File { source, .. }, Some(path)) if source.kind() == ErrorKind::NotFound => {
                no_plans(path)
            }
            (error, _) => error,
        })?;
        let catalog = Catalog::parse(&name, &text, time_at(now.wall_ms))?;
        let yields = if self.work_only {
            Yields::of_work(&config)
        } else {
            Yields::of(&config, self.has_identify)
        };
        yields.check(&name, &catalog)?;
        #[cfg(not(feature = "stripe"))]
        sources::no_stripe(&config)?;
        #[cfg(feature = "stripe")]
        let stripe = super::billing::stripe(self.stripe.as_ref().or(config.stripe.as_ref()))?;
        let settings = Settings::new(&config)?;
        let (sends, clock) = (self.sends_alerts, &self.clock);
        let notifiers = alerts::notifiers(&config.notify, self.notifiers, sends, clock)?;
        // Last, for it may make a pepper: a start that another mistake ends has made nothing.
        let by_host = ByHost { store: self.has_store, identify: self.has_identify };
        let Sources { identifier, made_pepper, keys_are_off } =
            sources::identifier(&config, unlisted, by_host)?;
        let only_named = config.identify.is_empty() && !self.has_identify && !self.work_only;
        Ok(AsWritten {
            settings,
            yields,
            config,
            plans,
            catalog,
            identifier,
            #[cfg(feature = "stripe")]
            stripe,
            keys_are_off,
            notifiers,
            said: Said { missing, pepper: made_pepper, only_named },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_file_is_empty_where_it_is_plainly_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: PathBuf| ConfigSource::File(path).read();
        let absent = folder.path().join("tallygate.toml");
        let (config, missing) = file(absent.clone()).unwrap();
        assert_eq!(missing.as_ref(), Some(&absent));
        let (empty, _) = ConfigSource::Text(String::new()).read().unwrap();
        assert_eq!(config, empty);

        let error = file(folder.path().join("gone/tallygate.toml")).unwrap_err();
        assert!(error.to_string().contains("gone/tallygate.toml"), "{error}");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.path().join("unmounted"), &absent).unwrap();
            assert!(file(absent.clone()).is_err(), "a link that leads nowhere");
            std::fs::remove_file(&absent).unwrap();
        }
        std::fs::write(&absent, "[store]\nkind = \"memory\"\n").unwrap();
        let (config, missing) = file(absent).unwrap();
        assert!(missing.is_none() && config != empty);
    }

    #[tokio::test]
    async fn a_plan_file_that_is_missing_is_named_in_full_with_one_that_works() {
        let builder = crate::testing::builder("").plans_file("no-such-plans.toml");
        let error = builder.open().await.unwrap_err().to_string();
        let path = std::env::current_dir().unwrap().join("no-such-plans.toml");
        assert!(error.starts_with(&format!("{}: there is no plan", path.display())), "{error}");
        assert!(error.ends_with(FIRST_PLANS), "{error}");
        crate::testing::builder(FIRST_PLANS).open().await.unwrap().close().await.unwrap();
    }
}
