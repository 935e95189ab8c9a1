//! Opening a gate: the checks before the first request, and the start of its tasks.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::Gate;
use super::alert_tasks;
use super::alerts::{self, Alerts};
use super::as_written::{AsWritten, ConfigSource, Given};
#[cfg(feature = "stripe")]
use super::billing::Billing;
use super::busiest_read::BusiestRead;
use super::catalogs::{self, Catalogs, PlanSource};
use super::credentials::Credentials;
use super::in_hand::InHand;
use super::inner::{CatalogCheck, Inner, Leasing, Outbound, Recording, Teardown};
use super::once::{CLAIMS, CLAIMS_IN_HAND};
use super::peppers::{self, Keys};
use super::pools_read::PoolsRead;
use super::promises::promises;
use super::settings::{OnRefusal, Settings};
use super::tenants::Tenants;
use super::{maintain, rates, stores};
use crate::catalog::Catalog;
use crate::clock::{Clock, Now, SystemClock};
use crate::config::{AwsService, CapacityConfig, Config, FlushMode, StoreKind};
use crate::decision::Refusal;
use crate::decision_log::DecisionLog;
use crate::directory::{Directory, TenantSource};
use crate::error::Error;
use crate::events::EventCounter;
use crate::identity::{CredentialHasher, Identify};
use crate::ids::{NodeId, WriterId};
use crate::ledger::claims::Settler;
use crate::ledger::collect;
use crate::ledger::flush::{FlushSettings, Flusher};
use crate::ledger::journal::Journal;
use crate::ledger::journal_thread::JournalKeeper;
use crate::ledger::log::LogWriter;
use crate::ledger::place::JournalPath;
use crate::ledger::totals::Ledger;
use crate::notify::{AlertQueue, Notifier};
use crate::places::Places;
use crate::policy::resolve::LiveCatalog;
use crate::quota::alert::Alert;
use crate::rates::Sharing;
use crate::renewal::{LeaseRenewer, OnAlert, Recovery, RenewerContext};
use crate::sheets::capacity::Capacity;
use crate::sheets::hub::Hub;
use crate::store::layout::Space;
use crate::store::store_id::StoreId;
use crate::store::{Store, StoreError, StoreErrorKind};
use crate::wire::{Reply, WireOptions};

/// Longest that one step of opening waits for the store: each takes a few calls, of 3 s at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Builds a [`Gate`] from a service file and from parts that the host supplies: a store, a clock,
/// identification, hooks. Begin with [`Gate::builder`], end with [`open`](Self::open).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tallygate::store::Memory;
/// use tallygate::{GateBuilder, ManualClock};
///
/// let service = "[[identify]]\nheader = \"x-tenant\"\n[proxy]\ntrust = [\"10.0.0.0/8\"]\n\
///                [store]\nkind = \"memory\"";
/// let gate = GateBuilder::from_text(service)
///     .plans("default-plan = \"free\"\n[plan.free]\nrate.all = \"5/s\"") // or a file
///     .store(Memory::new())                        // or as the service file says
///     .clock(ManualClock::at_unix_ms(1_767_225_600_000)) // for tests: the system's otherwise
///     .open()
///     .await?;
/// gate.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use = "call `open`"]
pub struct GateBuilder {
    source: ConfigSource,
    plans: Option<PlanSource>,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) clock: Option<Arc<dyn Clock>>,
    custom: Option<Arc<dyn Identify>>,
    tenants: Option<Arc<dyn TenantSource>>,
    on_refusal: Option<OnRefusal>,
    on_alert: Option<OnAlert>,
    wire: Option<WireOptions>,
    strict_rates: bool,
    work_only: bool,
    notifiers: Vec<Arc<dyn Notifier>>,
    sends_alerts: bool,
    #[cfg(feature = "stripe")]
    sends_reports: bool,
    #[cfg(feature = "stripe")]
    stripe: Option<crate::config::StripeConfig>,
}

impl GateBuilder {
    pub(crate) fn file(path: &Path) -> Self {
        Self::from(ConfigSource::File(path.to_owned()))
    }

    /// Begins a gate with this text as its service file. Environment variables do not override it.
    pub fn from_text(text: &str) -> Self {
        Self::from(ConfigSource::Text(text.to_owned()))
    }

    fn from(source: ConfigSource) -> Self {
        Self {
            source,
            plans: None,
            store: None,
            clock: None,
            custom: None,
            tenants: None,
            on_refusal: None,
            on_alert: None,
            wire: None,
            strict_rates: false,
            work_only: false,
            notifiers: Vec::new(),
            sends_alerts: true,
            #[cfg(feature = "stripe")]
            sends_reports: true,
            #[cfg(feature = "stripe")]
            stripe: None,
        }
    }

    /// Uses this store instead of the one in the service file.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Reads the plan file at this path instead of the one in the service file.
    pub fn plans_file(mut self, path: impl AsRef<Path>) -> Self {
        self.plans = Some(PlanSource::file(path.as_ref()));
        self
    }

    /// Uses this text as the plan file. Without a file there is nothing to reload.
    pub fn plans(mut self, text: &str) -> Self {
        self.plans = Some(PlanSource::Text(text.into()));
        self
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn shared_plans(mut self, plans: Arc<std::sync::Mutex<Arc<str>>>) -> Self {
        self.plans = Some(PlanSource::Shared(plans));
        self
    }

    /// Uses this clock instead of the system's, for tests ([`ManualClock`](crate::ManualClock)).
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Identifies callers by the host's own code, before the `[[identify]]` tables of the service
    /// file are tried.
    pub fn identify(mut self, identify: impl Identify) -> Self {
        self.custom = Some(Arc::new(identify));
        self
    }

    /// Takes which tenants there are, their plans, exceptions and payment states from the host's
    /// own
    /// tables, instead of from who calls and from edits of the directory.
    ///
    /// What the source says is written into the directory's record where that says otherwise, with
    /// history. So the directory keeps, as ever, each tenant's surrogate, its grants, addons, keys
    /// and suspension, its anchor and billing account, and all usage; and the source's word, for
    /// leases, reports and bills. An edit of plan, exceptions or payment by hand lasts until the
    /// source is next asked. A live Stripe subscription takes precedence, and
    /// [`Caller::plan`](crate::identity::Caller::plan) and `[identity] unknown = "create"` have no
    /// effect.
    pub fn tenants(mut self, source: impl TenantSource) -> Self {
        self.tenants = Some(Arc::new(source));
        self
    }

    /// Replaces the default problem responses: `hook` returns the reply to send, or `None` for the
    /// default one. The [`Refusal`] names the tenant, its user and key, the plan and, in
    /// [`call`](Refusal::call), the route and the request with its headers; the hook chooses which
    /// of these the client sees. It is not called for gRPC.
    ///
    /// ```
    /// # let mut runtime = tokio::runtime::Builder::new_current_thread();
    /// # runtime.enable_all().build().unwrap().block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// use tallygate::wire::Reply;
    /// use tallygate::{Reason, Refusal};
    ///
    /// let plans = "default-plan = \"free\"\n[plan.free]\nrate.all = \"5/s\"";
    /// let gate = tallygate::testing::builder(plans)
    ///     .on_refusal(|refusal| {
    ///         let is_rate = matches!(refusal.reason, Reason::Exhausted);
    ///         is_rate.then(|| Reply { status: 429, headers: vec![], body: b"slow down".to_vec() })
    ///     })
    ///     .open()
    ///     .await?;
    /// let reply = gate.refusal_reply(&Refusal::new(Reason::Exhausted));
    /// assert_eq!(reply.body, b"slow down");
    /// # }
    /// # Ok::<(), tallygate::Error>(()) }).unwrap();
    /// ```
    pub fn on_refusal(
        mut self,
        hook: impl Fn(&Refusal) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        self.on_refusal = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` when a tenant passes an `alert` percentage of a quota, once per window and
    /// percentage over all processes. It runs on a task of the gate and must not block.
    pub fn on_alert(mut self, hook: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        self.on_alert = Some(Arc::new(hook));
        self
    }

    /// Adds a destination of alerts, beside those of the service file, or sends to one of these
    /// that is of this name and an `sns` or `eventbridge`: what an operator must hear of is kept in
    /// the store until it has been delivered. `docs/alerts.md` lists the kinds.
    pub fn notifier(mut self, notifier: impl Notifier) -> Self {
        self.notifiers.push(Arc::new(notifier));
        self
    }

    /// Sets whether this process may send alerts. On by default. Off for a program that ends soon:
    /// it writes the alerts of what it does, and the service sends them. The secrets of
    /// `[[notify]]` are not read then.
    pub fn sends_alerts(mut self, sends: bool) -> Self {
        self.sends_alerts = sends;
        self
    }

    /// Sets whether this process reports to Stripe by itself, every `stripe.report-every` and as it
    /// closes. Off for the operator's command, which looks at what is on its way.
    #[cfg(feature = "stripe")]
    #[doc(hidden)]
    pub fn sends_reports(mut self, sends: bool) -> Self {
        self.sends_reports = sends;
        self
    }

    /// Sets which limit headers are sent, in place of the service file's `http.limit-headers`, and
    /// how problem bodies name their types.
    pub fn wire(mut self, options: WireOptions) -> Self {
        self.wire = Some(options);
        self
    }

    /// Sets whether rates without `strict` in the plan file are strict: leased from the store in
    /// slots of five seconds, instead of shared among the processes. Off by default. Switch it on
    /// for many short-lived or frozen processes that cannot count one another, as on Lambda. Such a
    /// process shares rates only if its plan file has one with `strict = false` when it opens.
    ///
    /// If processes with and without this setting use one table, each kind admits up to the whole
    /// rate: write `strict` in the plan file then.
    pub fn strict_rates(mut self, strict: bool) -> Self {
        self.strict_rates = strict;
        self
    }

    /// For a program that serves no requests, such as a queue's worker: opens the gate with the
    /// service file of the programs that do, but without what only they need. `[[identify]]` is as
    /// `identify = []`, so that no pepper and no secret of a JWT is asked for, and `ingest.token`
    /// is not read; limits may go by scopes that only [`Ask::scope`](crate::Ask::scope) names.
    ///
    /// A request that reaches such a gate has no caller (401). API keys are made, and revoked, in
    /// the programs that know them.
    pub fn work_only(mut self) -> Self {
        self.work_only = true;
        self
    }

    /// Bills into this Stripe account instead of the one in the service file.
    #[cfg(feature = "stripe")]
    pub fn stripe(mut self, stripe: crate::billing::StripeConfig) -> Self {
        self.stripe = Some(stripe);
        self
    }

    /// The name of the DynamoDB table in the service file, or in the environment variable that
    /// overrides it; `None` if the store is of another kind. The host makes a client for the table
    /// and passes the store to [`store`](Self::store). Blocks while the file is read.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the file cannot be read, [`Error::Config`] with all its mistakes.
    pub fn dynamodb_table(&self) -> Result<Option<String>, Error> {
        match self.config()?.store.kind {
            StoreKind::Dynamodb { table } => Ok(Some(table)),
            _ => Ok(None),
        }
    }

    /// The topics of SNS that `[[notify]]` of the service file names: the name of each destination,
    /// and the topic's ARN. The host hands in what sends to each, under that name, with
    /// [`notifier`](Self::notifier): `tallygate_notify_aws::hand_in` does. Blocks while the file
    /// is read, and what it names.
    ///
    /// # Errors
    ///
    /// As [`dynamodb_table`](Self::dynamodb_table), and [`Error::Config`] if a reference to an ARN
    /// leads to none.
    pub fn sns_topics(&self) -> Result<Vec<(String, String)>, Error> {
        alerts::of_aws(&self.config()?, AwsService::Sns)
    }

    /// The event buses of EventBridge there, as [`sns_topics`](Self::sns_topics): the name of each
    /// destination, and the bus, which is a name or an ARN.
    ///
    /// # Errors
    ///
    /// As [`sns_topics`](Self::sns_topics).
    pub fn event_buses(&self) -> Result<Vec<(String, String)>, Error> {
        alerts::of_aws(&self.config()?, AwsService::EventBridge)
    }

    /// Reads and checks the files.
    async fn as_written(&self, clock: &Arc<dyn Clock>, now: Now) -> Result<AsWritten, Error> {
        let given = Given {
            source: self.source.clone(),
            plans: self.plans.clone(),
            has_store: self.store.is_some(),
            has_identify: self.custom.is_some(),
            work_only: self.work_only,
            sends_alerts: self.sends_alerts,
            notifiers: self.notifiers.clone(),
            clock: clock.clone(),
            #[cfg(feature = "stripe")]
            stripe: self.stripe.clone(),
        };
        given.read(now).await
    }

    /// The service file as [`open`](Self::open) will read it, with the environment laid over.
    pub(in crate::gate) fn config(&self) -> Result<Config, Error> {
        self.source.read().map(|(config, _)| config)
    }

    /// Whether [`open`](Self::open) would get as far as the store: reads and checks the files, each
    /// secret that they name, certificates and proxy of the HTTPS client, and the place of the log
    /// of decisions. Makes nothing that stays and asks no other machine, if the service file has
    /// its store in memory: beside a new one on disk a pepper is made. For the operator's command.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    #[doc(hidden)]
    pub async fn check_start(self) -> Result<(), Error> {
        let clock = self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()));
        let AsWritten { config, notifiers, .. } = self.as_written(&clock, clock.now()).await?;
        alerts::destinations(notifiers, self.sends_alerts)?;
        let decisions = DecisionLog::check(config.decisions.as_ref()).await;
        decisions.map_err(|error| no_decisions(&config, &error))
    }

    /// Opens the gate: reads and checks the files, opens the store, recovers the journal of a dead
    /// process, starts the tasks, and logs each exception to the promises.
    ///
    /// # Errors
    ///
    /// See [`Error`]: whatever would make requests fail later is reported now.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn open(self) -> Result<Gate, Error> {
        let clock = self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()));
        let now = clock.now();
        let AsWritten {
            config,
            plans,
            catalog,
            identifier,
            keys_are_off,
            yields,
            settings,
            #[cfg(feature = "stripe")]
            stripe,
            notifiers,
            said,
        } = self.as_written(&clock, now).await?;
        said.log();
        catalogs::warn_of(&catalog);
        yields.tell(&catalog);
        #[cfg(feature = "jwt")]
        super::sources::fetch_keys(&identifier, now).await;
        let store = match self.store.clone() {
            Some(store) => store,
            None => stores::open(&config.store.kind).await?,
        };
        let space = Space::new(&config.store.space);
        let (peppers, key_form) = (identifier.peppers().clone(), identifier.key_form().clone());
        let keys = if keys_are_off { Keys::Off } else { Keys::Under(&peppers) };
        let begun = begin(&*store, &space, catalog, keys, now);
        let (live, mut log, [begun_ms, published_ms]) = answered(&*store, begun).await?;
        let live = Arc::new(ArcSwap::from_pointee(live));
        let writer = log.writer().clone();
        let (journal, dead) = journal(&config, &*store, &mut log, now.wall_ms).await?;
        let to = alerts::destinations(notifiers, self.sends_alerts)?;
        let alerts = Arc::new(AlertQueue::new(store.clone(), space.clone(), clock.clone(), to));
        let (hub, queue) = Hub::new(clock.clone());
        hub.incarnation.begin(writer.incarnation);
        hub.without_value.be(config.identity.no_scope);
        if let Some(CapacityConfig { requests, kept }) = config.capacity {
            hub.capacity.get_or_init(|| Box::new(Capacity::new(requests, kept)));
        }
        if store.promise().shared {
            hub.first_reads.expect_pools();
        }
        let flush = FlushSettings {
            mode: settings.mode,
            every: config.flush.every,
            max_write_units: config.flush.max_write_units,
        };
        let (refreshes, refresh_queue) = mpsc::channel(maintain::REFRESH_QUEUE);
        let ctx = RenewerContext {
            store: store.clone(),
            hub: hub.clone(),
            space: space.clone(),
            on_alert: self.on_alert,
            alerts: alerts.clone(),
            recovery: Arc::new(Recovery::new(dead)),
        };
        let check = CatalogCheck(live.clone());
        let me = NodeId::of_first(writer.incarnation);
        let joining = rates::join(&store, &clock, &space, &live, me, self.strict_rates);
        let joined = answered(&*store, joining).await?;
        promises(&config, &*store, &live.load());
        #[cfg(feature = "stripe")]
        let opening = Billing::open(stripe, &store, &clock, &config.store.space);
        #[cfg(feature = "stripe")]
        let billing = answered(&*store, async { Ok(opening.await?) }).await?;
        let decisions = DecisionLog::open(config.decisions.as_ref()).await;
        let decisions = decisions.map_err(|error| no_decisions(&config, &error))?;
        let recording = Recording {
            flusher: Flusher::start(hub.clone(), store.clone(), log, journal, flush),
            settler: Settler::start(store.clone(), clock.clone()),
            events: EventCounter::new(store.clone(), writer.space.clone(), clock.clone()),
            ledger: Ledger::new(store.clone(), writer.clone()).begun(begun_ms),
            decisions,
            pools_read: PoolsRead::default(),
            busiest_read: BusiestRead::default(),
            claims: Places::new(CLAIMS, CLAIMS_IN_HAND),
            said_no_digest: AtomicBool::new(false),
        };
        let catalogs = Catalogs::new(
            plans,
            live.clone(),
            yields,
            (store.clone(), writer.space.clone()),
            clock.clone(),
            published_ms,
        );
        let keys = (peppers, key_form);
        let directory = Directory::new(store, space, clock.clone(), keys, check, alerts.clone());
        let tenants =
            Tenants::new((directory, self.tenants), &settings, live, hub.clone(), refreshes);
        let inner = Arc::new(Inner {
            settings: Settings { on_refusal: self.on_refusal, ..settings.with_wire(self.wire) },
            catalogs,
            credentials: Credentials {
                keys_go_in: identifier.keys_go_in().map(Arc::from),
                identifier,
                custom: self.custom,
                hasher: CredentialHasher::new().map_err(|e| Error::Random(e.to_string()))?,
                said_no_caller: AtomicBool::new(false),
                said_no_key: AtomicBool::new(false),
            },
            tenants,
            leasing: Leasing {
                writer,
                renewer: LeaseRenewer::start(ctx.clone(), queue),
                ctx,
                sharing: OnceLock::new(),
            },
            recording,
            teardown: Teardown {
                in_hand: InHand::new(),
                maintenance: OnceLock::new(),
                closing: AtomicBool::new(false),
                closed: tokio::sync::OnceCell::new(),
            },
            outbound: Outbound {
                alerts: Alerts::new(alerts),
                #[cfg(feature = "stripe")]
                billing,
            },
            clock,
            hub,
        });
        crate::telemetry::catalog_info(inner.catalogs.live.load().revision, None);
        let hears: Weak<Inner> = Arc::downgrade(&inner);
        inner.tenants.directory.feed().heard_by(hears);
        if let Some(joined) = joined {
            inner.hub.throttled.share();
            inner.leasing.sharing.get_or_init(|| Sharing::start(joined, Arc::downgrade(&inner)));
        }
        #[cfg(feature = "stripe")]
        if self.sends_reports {
            super::reports::start(&inner);
        }
        alert_tasks::start(&inner)?;
        inner.teardown.maintenance.get_or_init(|| maintain::start(&inner, refresh_queue));
        Ok(Gate { inner })
    }
}

/// The error of a log of decisions that cannot be written.
fn no_decisions(config: &Config, error: &std::io::Error) -> Error {
    let path = config.decisions.as_ref().map(|it| it.file.display().to_string());
    let path = path.unwrap_or_default();
    Error::Config(format!(
        "the log of decisions at {path} cannot be written: {error}. Name another place \
         (`decisions.file`), or leave `[decisions]` out"
    ))
}

/// Waits for the store as long as opening may. A store that takes calls and never answers would
/// keep a service from starting without a word.
async fn answered<T>(
    store: &dyn Store,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let answered = tokio::time::timeout(ANSWER_WITHIN, work).await;
    answered.unwrap_or_else(|_| {
        let message = format!(
            "{} has not answered within {ANSWER_WITHIN:?}: check that it exists and that this \
             process can reach it",
            store.name()
        );
        Err(StoreError::new(StoreErrorKind::Unavailable, message).into())
    })
}

/// Puts the catalog into force, and begins a log. Side by side, so that a cold start waits twice;
/// nothing is written before the store has been looked at. What is wrong with it says more than
/// what could not be read.
async fn begin(
    store: &dyn Store,
    space: &Space,
    catalog: Catalog,
    keys: Keys<'_>,
    now: Now,
) -> Result<(LiveCatalog, LogWriter, [Option<i64>; 2]), Error> {
    let (checked, published) = tokio::join!(store.check(), catalogs::published(store, space));
    checked?;
    let published = published?;
    let (published, log, same) = tokio::join!(
        catalogs::publish(store, space, &catalog, published, now.wall_ms),
        LogWriter::begin(store, space.clone(), now.wall_ms),
        peppers::check(store, space, keys),
    );
    let (published, log) = (published?, log?);
    same?;
    let catalog = published.in_force(catalog);
    let published_ms = [published.since_ms, published.newest_ms];
    Ok((LiveCatalog::new(catalog, published.revision, 1), log, published_ms))
}

impl Gate {
    /// Reads the plan file now and applies it at once. Otherwise a changed file is applied once two
    /// checks, a second apart, have found it the same. Returns whether the plans in force have
    /// changed.
    ///
    /// # Errors
    ///
    /// [`Error::Plans`] with all mistakes of the file, or another reason why it is not applied. The
    /// plans in force stay.
    pub async fn reload(&self) -> Result<bool, Error> {
        self.inner.catalogs.reload().await
    }

    /// The directory: finds, creates and changes tenants, their plans, grants and keys.
    pub fn directory(&self) -> &Directory {
        &self.inner.tenants.directory
    }

    /// The catalog in force.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.inner.catalogs.live.load().catalog.clone()
    }
}

/// Recovers the journals of processes before. Also: whose they were.
async fn journal(
    config: &Config,
    store: &dyn Store,
    log: &mut LogWriter,
    now_ms: i64,
) -> Result<(Option<JournalKeeper>, Vec<WriterId>), Error> {
    let path = &config.flush.journal_path;
    // What a process in another mode left behind is carried over all the same.
    let wanted = config.flush.mode == FlushMode::Journal;
    // A store in memory is gone with its process: the next one is where its use goes on.
    let is_memory = matches!(config.store.kind, StoreKind::Memory);
    if !wanted && (is_memory || !JournalPath::was_taken(path)) {
        return Ok((None, Vec::new()));
    }
    let home = StoreId::of(store, &log.space()).await?;
    let is_of_another = |path: &Path| match is_memory {
        true => Ok(false),
        false => Journal::is_of_another(path, home),
    };
    let places = JournalPath::free(path, is_of_another);
    let no_place = |e| Error::journal(format!("the journal at {}: {e}", path.display()));
    if wanted {
        Journal::check_writable(path).map_err(|e| {
            let path = path.display();
            Error::journal(format!(
                "the journal at {path} cannot be written: {e}. Name another place \
                 (`flush.journal-path`), or another `flush.mode`"
            ))
        })?;
    }
    let (mut ours, mut dead) = (None, Vec::new());
    for place in places.map_err(no_place)? {
        let writer = log.writer().clone();
        let found = collect::recover(store, &writer, log, (&place.path, home), now_ms).await?;
        dead.extend(found.1);
        ours.get_or_insert(found.0.keep(place));
    }
    let ours = ours.filter(|_| wanted).map(JournalKeeper::start).transpose().map_err(no_place)?;
    Ok((ours, dead))
}

impl std::fmt::Debug for GateBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateBuilder").finish_non_exhaustive()
    }
}
