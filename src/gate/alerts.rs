//! The gate's destinations of alerts: those of the service file and those of the host.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::health::Trouble;
use crate::clock::Clock;
use crate::config::{self, NotifyConfig};
use crate::error::Error;
use crate::notify::NotifierFuture;
use crate::notify::kinds;
use crate::notify::{AlertDelivery, AlertQueue, Destination, NotDelivered, Notification, Notifier};

/// Alerts that wait for so long are trouble, though none fails.
const LATE: Duration = Duration::from_secs(900);

/// The gate's parts for alerts.
pub(crate) struct Alerts {
    pub(crate) queue: Arc<AlertQueue>,
    pub(super) senders: OnceLock<Vec<AlertDelivery>>,
}

impl Alerts {
    pub(super) fn new(queue: Arc<AlertQueue>) -> Self {
        Self { queue, senders: OnceLock::new() }
    }

    /// What is wrong with deliveries of this process.
    pub(super) fn troubles(&self, troubles: &mut Vec<Trouble>) {
        for to in &self.queue.destinations {
            let state = to.state();
            let late = || (state.oldest >= LATE).then(|| "it takes them slowly".to_owned());
            if let Some(error) = state.error.or_else(late) {
                troubles.push(Trouble::AlertsWait {
                    destination: to.name().to_owned(),
                    waiting: state.waiting,
                    oldest: state.oldest,
                    error,
                });
            }
        }
    }
}

/// The destinations of the service file and of the host.
pub(super) fn destinations(
    written: Vec<Arc<dyn Notifier>>,
    own: Vec<Arc<dyn Notifier>>,
    sends: bool,
) -> Result<Vec<Destination>, Error> {
    let all: Vec<_> = written.into_iter().chain(own).collect();
    for (at, notifier) in all.iter().enumerate() {
        let name = notifier.name();
        if !config::is_destination(name) {
            let message = "a notifier's name is 1 to 64 characters of a-z, 0-9 and -";
            return Err(Error::Config(format!("{message}, not `{name}`")));
        }
        if all[..at].iter().any(|other| other.name() == name) {
            return Err(Error::Config(format!("two destinations of alerts are named `{name}`")));
        }
    }
    if all.len() > config::MAX_DESTINATIONS {
        let most = config::MAX_DESTINATIONS;
        return Err(Error::Config(format!("more than {most} destinations of alerts")));
    }
    Ok(all.into_iter().map(|notifier| Destination::new(notifier, sends)).collect())
}

/// The destinations of the service file, with their secrets read where this process sends.
pub(super) fn written(
    tables: &[NotifyConfig],
    sends: bool,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Arc<dyn Notifier>>, Error> {
    let mut all: Vec<Arc<dyn Notifier>> = Vec::new();
    for table in tables {
        all.push(if sends { sender(table, clock)? } else { Arc::new(ByOthers(table.clone())) });
    }
    Ok(all)
}

#[cfg(feature = "notify")]
fn sender(table: &NotifyConfig, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Notifier>, Error> {
    let env = |name: &str| std::env::var(name).ok();
    let notifier = crate::notify::web::HttpNotifier::new(table, &env, clock.clone());
    Ok(Arc::new(notifier.map_err(Error::Config)?))
}

/// Refuses a setting whose feature is not built in, rather than ignore it.
#[cfg(not(feature = "notify"))]
fn sender(_: &NotifyConfig, _: &Arc<dyn Clock>) -> Result<Arc<dyn Notifier>, Error> {
    let message = "[[notify]] needs the feature `notify` of tallygate, which is off here";
    Err(Error::Config(message.into()))
}

/// A destination that only other processes send to.
struct ByOthers(NotifyConfig);

impl Notifier for ByOthers {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn wants(&self, kind: &str) -> bool {
        self.0.wants(kinds::word(kind))
    }

    fn deliver(&self, _: Notification) -> NotifierFuture {
        Box::pin(async { Err(NotDelivered::Later("this process does not send".to_owned())) })
    }
}
