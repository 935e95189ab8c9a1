//! The gate's destinations of alerts: those of the service file and those of the host.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::health::Trouble;
use crate::clock::Clock;
use crate::config::{self, AwsService, Config, HttpTarget, NotifyConfig, NotifyTarget};
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

/// Checks all destinations together.
pub(super) fn destinations(
    all: Vec<Arc<dyn Notifier>>,
    sends: bool,
) -> Result<Vec<Destination>, Error> {
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

/// The destinations of the service file, with their secrets read where this process sends, and then
/// those that the host has handed in beside them.
pub(super) fn notifiers(
    tables: &[NotifyConfig],
    mut own: Vec<Arc<dyn Notifier>>,
    sends: bool,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Arc<dyn Notifier>>, Error> {
    let mut all: Vec<Arc<dyn Notifier>> = Vec::new();
    for table in tables {
        let notifier: Arc<dyn Notifier> = match &table.to {
            NotifyTarget::Aws { service, .. } => {
                let handed_in = own.iter().position(|it| it.name() == table.name);
                match handed_in.map(|at| own.remove(at)) {
                    Some(by) => Arc::new(HandedIn { table: table.clone(), by }),
                    None if sends => return Err(no_client(table, *service)),
                    None => Arc::new(ByOthers(table.clone())),
                }
            }
            NotifyTarget::Http(to) if sends => sender(table, to, clock)?,
            NotifyTarget::Http(_) => Arc::new(ByOthers(table.clone())),
        };
        all.push(notifier);
    }
    all.append(&mut own);
    Ok(all)
}

#[cfg(feature = "notify")]
fn sender(
    table: &NotifyConfig,
    to: &HttpTarget,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Notifier>, Error> {
    let notifier = crate::notify::web::HttpNotifier::new(table, to, &env, clock.clone());
    Ok(Arc::new(notifier.map_err(Error::Config)?))
}

/// Refuses a setting whose feature is not built in, rather than ignore it.
#[cfg(not(feature = "notify"))]
fn sender(
    _: &NotifyConfig,
    _: &HttpTarget,
    _: &Arc<dyn Clock>,
) -> Result<Arc<dyn Notifier>, Error> {
    let message = "[[notify]] needs the feature `notify` of tallygate, which is off here";
    Err(Error::Config(message.into()))
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The error of a service of AWS that this program has no client for.
fn no_client(table: &NotifyConfig, service: AwsService) -> Error {
    let (name, place, key) = (&table.name, service.place(), service.key());
    Error::Config(format!(
        "[[notify]] `{name}` is {place}, and this program has handed in no client for it\n\
         help: add the crate tallygate-notify-aws with its feature `{key}`, and open the gate with \
         `tallygate_notify_aws::hand_in(Gate::builder(\"tallygate.toml\"), &aws)?.open()`; or hand \
         in a `Notifier` of that name"
    ))
}

/// Name and address of each destination of this service.
pub(super) fn of_aws(config: &Config, service: AwsService) -> Result<Vec<(String, String)>, Error> {
    let mut all = Vec::new();
    for table in &config.notify {
        let NotifyTarget::Aws { service: of, address } = &table.to else { continue };
        if *of != service {
            continue;
        }
        let address = address.resolve(&env).map_err(|error| Error::Config(error.to_string()))?;
        // One that is kept elsewhere was not checked with the file, and may be another secret.
        if !service.has(address.expose()) {
            let ((mistake, help), name) = (service.mistake(), &table.name);
            return Err(Error::Config(format!("[[notify]] `{name}`: {mistake}\nhelp: {help}")));
        }
        all.push((table.name.clone(), address.expose().to_owned()));
    }
    Ok(all)
}

/// A destination of the service file that the host sends to.
struct HandedIn {
    table: NotifyConfig,
    by: Arc<dyn Notifier>,
}

impl Notifier for HandedIn {
    fn name(&self) -> &str {
        &self.table.name
    }

    fn wants(&self, kind: &str) -> bool {
        self.table.wants(kinds::word(kind)) && self.by.wants(kind)
    }

    fn deliver(&self, alert: Notification) -> NotifierFuture {
        self.by.deliver(alert)
    }
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
