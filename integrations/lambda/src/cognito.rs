//! Cognito user pool triggers: creates a tenant for a confirmed user, and puts the tenant's
//! entitlements into its tokens.
//!
//! # Laws
//!
//! 1. A login is never blocked: on any failure (store away or silent, gate not opened, panic, an
//!    event of another shape) the event goes back unchanged within [`LOGIN_WITHIN`], and the token
//!    lacks the claims. The failure is logged, and counted as `tallygate_logins_total`. The first
//!    event of a process waits at most [`OPEN_WITHIN`] longer.
//! 2. A user's tenant is created once, however often Cognito asks.
//! 3. An event is changed only as described below: groups, roles and other triggers' claims pass.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lambda_http::Error;
use lambda_http::lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::{Map, Value, json};
use tallygate::{Entitlements, Feature, Gate, telemetry};
use tokio::sync::OnceCell;

/// Longest wait of a login for its claims; then its token is issued without them.
pub const LOGIN_WITHIN: Duration = Duration::from_secs(1);

/// Longest wait of a confirmation for its tenant to be created; then the trigger fails.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(3);

/// Longest delay of a process's first event by the opening of the gate, which then continues in the
/// background.
pub const OPEN_WITHIN: Duration = Duration::from_millis(1_500);

/// Cognito's time limit for a trigger, including the start of its process.
const COGNITO_WAITS: Duration = Duration::from_secs(5);

/// The share of that limit reserved for starting the process.
const START: Duration = Duration::from_millis(500);

const _: () = assert!(
    OPEN_WITHIN.as_millis() + CONFIRM_WITHIN.as_millis() + START.as_millis()
        <= COGNITO_WAITS.as_millis()
        && LOGIN_WITHIN.as_millis() <= CONFIRM_WITHIN.as_millis(),
    "a process that has just started answers in time",
);

/// Limit on the features text in a token, in bytes: a token travels with each request, and front
/// doors take 8 to 10 kB of headers.
const MAX_FEATURES: usize = 2_048;

/// A Lambda function that answers the triggers of a Cognito user pool. Make it with
/// [`new`](Self::new), serve with [`run`](Self::run).
///
/// | trigger | done |
/// |---|---|
/// | post confirmation | the tenant is created on the default plan, if missing |
/// | pre token generation, V1 | the ID token gets the claims |
/// | pre token generation, V2 and V3 | the ID token and the access token get them |
/// | any other | the event goes back unchanged |
///
/// The claims are strings: `plan`, `status` (the words of `GET /usage`), and `features` as a JSON
/// object (`{"export":true,"seats":5}`). They are as old as the token: the gate itself decides by
/// the directory, never by them.
///
/// ```no_run
/// # async fn open() -> Result<tallygate::Gate, tallygate::Error> {
/// #     tallygate_lambda::builder("tallygate.toml").open().await
/// # }
/// #[tokio::main]
/// async fn main() -> Result<(), lambda_http::Error> {
///     tallygate_lambda::Cognito::new(open).run().await
/// }
/// ```
#[derive(Clone)]
pub struct Cognito {
    opening: Arc<Opening>,
    attribute: Arc<str>,
}

/// The gate, and the function that opens it.
struct Opening {
    open: Box<dyn Fn() -> Opened + Send + Sync>,
    gate: OnceCell<Gate>,
}

type Opened = Pin<Box<dyn Future<Output = Result<Gate, Error>> + Send>>;

impl Cognito {
    /// Uses the gate that `open` opens. If that fails, it is retried at later events: a table that
    /// is unavailable when the function starts does not stop logins.
    pub fn new<O, F, E>(open: O) -> Self
    where
        O: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Gate, E>> + Send + 'static,
        E: Into<Error> + 'static,
    {
        let open = move || -> Opened {
            let opening = open();
            Box::pin(async move { opening.await.map_err(Into::into) })
        };
        let opening = Opening { open: Box::new(open), gate: OnceCell::new() };
        Self { opening: Arc::new(opening), attribute: "sub".into() }
    }

    /// Takes the tenant's id from this attribute of the user, instead of `sub`, which makes each
    /// user a tenant of its own.
    ///
    /// For an attribute such as `custom:tenant`, no app client may be able to write it: a user who
    /// can would be able to join any tenant.
    #[must_use]
    pub fn tenant_attribute(self, name: &str) -> Self {
        Self { attribute: name.into(), ..self }
    }

    /// Serves the function's invocations until the process ends. There is no usage to flush, and so
    /// no extension that would delay a login.
    ///
    /// # Errors
    ///
    /// The runtime API cannot be reached.
    ///
    /// # Panics
    ///
    /// As [`run`](crate::run).
    pub async fn run(self) -> Result<(), Error> {
        let opening = self.opening.clone();
        if let Err(error) = within(OPEN_WITHIN, async move { opening.gate().await }).await {
            tracing::warn!(%error, "the gate is not open yet: tried again at the next event");
        }
        let handler = service_fn(move |event: LambdaEvent<Value>| {
            let this = self.clone();
            async move { this.answer(event.payload).await }
        });
        Runtime::new(handler).run_concurrent().await
    }

    /// Answers one event, from any trigger.
    ///
    /// # Errors
    ///
    /// For a confirmation only: the tenant could not be created within [`CONFIRM_WITHIN`]. The user
    /// is confirmed all the same and may log in; the tenant is created when the trigger fires again
    /// (after a forgotten password), by your own sign-up, or on first sight where the service file
    /// says `identity.unknown = "create"`.
    pub async fn answer(&self, event: Value) -> Result<Value, Error> {
        let source = event["triggerSource"].as_str().unwrap_or_default();
        if source.starts_with("TokenGeneration_") {
            return Ok(self.claimed(event).await);
        }
        if source.starts_with("PostConfirmation_") {
            let tenant = self.tenant_of(&event).ok_or("the user lacks the tenant's attribute")?;
            let opening = self.opening.clone();
            within(CONFIRM_WITHIN, async move { make(&opening, &tenant).await }).await?;
        }
        Ok(event)
    }

    /// The event with its claims, or unchanged.
    async fn claimed(&self, mut event: Value) -> Value {
        let (Some(shape), Some(tenant)) = (Shape::of(&event), self.tenant_of(&event)) else {
            tracing::warn!(version = %event["version"], "a login names no tenant");
            telemetry::login("unknown");
            return event;
        };
        let opening = self.opening.clone();
        let asked =
            within(
                LOGIN_WITHIN,
                async move { Ok(opening.gate().await?.entitlements(&tenant).await?) },
            );
        match asked.await {
            Ok(Some(has)) => {
                shape.put(&mut event, &claims(&has));
                telemetry::login("told");
            }
            Ok(None) => {
                tracing::warn!("a login's tenant is not in the directory");
                telemetry::login("unknown");
            }
            Err(error) => {
                tracing::error!(%error, "a login goes on without claims");
                telemetry::login("failed");
            }
        }
        event
    }

    fn tenant_of(&self, event: &Value) -> Option<String> {
        let value = event["request"]["userAttributes"].get(&*self.attribute)?.as_str()?;
        Some(value.to_owned()).filter(|id| !id.is_empty())
    }
}

impl fmt::Debug for Cognito {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cognito").field("attribute", &self.attribute).finish_non_exhaustive()
    }
}

impl Opening {
    async fn gate(&self) -> Result<Gate, Error> {
        Ok(self.gate.get_or_try_init(|| (self.open)()).await?.clone())
    }
}

async fn make(opening: &Opening, tenant: &str) -> Result<(), Error> {
    let gate = opening.gate().await?;
    // An existing tenant stays as it is, with its history.
    gate.directory().tenant(tenant).note("confirmed its sign-up with Cognito").save().await?;
    Ok(())
}

/// Waits at most this long for the work, run as a task of its own: a panic becomes an error here,
/// and a gate that is slow to open continues opening after the wait has ended.
async fn within<T: Send + 'static>(
    most: Duration,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::time::timeout(most, tokio::spawn(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(panicked)) => Err(panicked.into()),
        Err(_) => Err(format!("no answer within {most:?}").into()),
    }
}

/// The place for the claims in each event version.
#[derive(Clone, Copy)]
enum Shape {
    /// The ID token only.
    V1,
    /// V2, and V3 with the same response: both tokens.
    V2,
}

impl Shape {
    fn of(event: &Value) -> Option<Self> {
        match event["version"].as_str()? {
            "1" => Some(Self::V1),
            "2" | "3" => Some(Self::V2),
            _ => None,
        }
    }

    fn put(self, event: &mut Value, claims: &[(&str, String)]) {
        let groups = event["request"]["groupConfiguration"].clone();
        let Some(event) = event.as_object_mut() else { return };
        let response = object(event, "response");
        let details = match self {
            Self::V1 => object(response, "claimsOverrideDetails"),
            Self::V2 => object(response, "claimsAndScopeOverrideDetails"),
        };
        // If a detailed response has no groups, Cognito removes the user from its groups.
        if groups.is_object() && details.get("groupOverrideDetails").is_none_or(Value::is_null) {
            details.insert("groupOverrideDetails".to_owned(), groups);
        }
        match self {
            Self::V1 => add(details, claims),
            Self::V2 => {
                for token in ["idTokenGeneration", "accessTokenGeneration"] {
                    add(object(details, token), claims);
                }
            }
        }
    }
}

fn add(token: &mut Map<String, Value>, claims: &[(&str, String)]) {
    let added = object(token, "claimsToAddOrOverride");
    for (name, value) in claims {
        added.insert((*name).to_owned(), Value::from(value.as_str()));
    }
}

/// The object of this name, created if it is missing or `null`, as in an event not answered yet.
fn object<'a>(of: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    if !of.get(name).is_some_and(Value::is_object) {
        of.insert(name.to_owned(), json!({}));
    }
    of.get_mut(name).and_then(Value::as_object_mut).expect("made an object above if it was none")
}

/// All are strings, which every front door passes on unchanged.
pub(crate) fn claims(has: &Entitlements) -> Vec<(&'static str, String)> {
    let mut claims = vec![("plan", has.plan.to_string()), ("status", has.status.to_string())];
    let value = |feature: &Feature| match feature {
        Feature::Flag(on) => Value::from(*on),
        Feature::Number(n) => Value::from(*n),
        Feature::Unlimited => Value::from("unlimited"),
        Feature::Text(text) => Value::from(&**text),
    };
    let features: Map<String, Value> =
        has.features.iter().map(|(name, feature)| (name.to_string(), value(feature))).collect();
    let features = Value::Object(features).to_string();
    if features.len() <= MAX_FEATURES {
        claims.push(("features", features));
    } else {
        tracing::warn!(bytes = features.len(), "a plan's features are too long for a token");
    }
    claims
}
