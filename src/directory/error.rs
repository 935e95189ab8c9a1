//! Errors of directory changes.

use crate::store::StoreError;

/// The reason a change of the directory was not made. No message holds a credential.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The store failed. If its kind is `Unknown`, the change may have been made: make the same
    /// change again, nothing is done twice.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The outer id is not valid.
    #[error(
        "a tenant id has 1 to 256 characters and no control characters, and does not begin with `~`"
    )]
    TenantId,
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NoTenant,
    /// The catalog has no such plan.
    #[error("there is no plan {0:?} in the plan file")]
    UnknownPlan(String),
    /// The catalog has no such meter.
    #[error("there is no meter {0:?} in the plan file")]
    UnknownMeter(String),
    /// A grant of zero units.
    #[error("a grant of 0 units gives nothing: write how many")]
    NoUnits,
    /// More units than can be counted.
    #[error("a grant of {meter:?} has at most {most} units: write a smaller number")]
    TooManyUnits {
        /// The meter, by name.
        meter: String,
        /// Most units.
        most: u64,
    },
    /// The tenant's plan does not limit the meter of a grant, so that none of it would be spent.
    #[error(
        "the plan {plan:?} does not limit {meter:?}, so the grant could not be spent: \
         write `quota.{meter}` in the plan, or give the tenant one that has it"
    )]
    NotLimited {
        /// The meter, by name.
        meter: String,
        /// The plan that the tenant would be on.
        plan: String,
    },
    /// The tenant has no quota of this id.
    #[error("this tenant has no quota {limit:?}: write one of {known:?}")]
    UnknownLimit {
        /// The id.
        limit: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The quota is one for each user, key, address or the like, and a grant is the tenant's.
    #[error("the quota {0:?} is not the whole tenant's: give it units instead, with a grant")]
    NotTenantWide(String),
    /// An override's changes are not valid in a `[tenant.x]` table.
    #[error("override: {0}")]
    Changes(String),
    /// An exception without a reason.
    #[error("an override needs a note that says why: add .note(\"..\")")]
    NoteNeeded,
    /// A text is empty or too long.
    #[error("{what} must have 1 to {most} characters and no control characters")]
    Text {
        /// Name of the text.
        what: &'static str,
        /// Most characters.
        most: usize,
    },
    /// The record, or one save, has too many entries of a kind.
    #[error("a tenant has at most {most} {what}: end one first")]
    TooMany {
        /// The kind of entry there are too many of.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// A grant with this id exists and differs.
    #[error("the grant {0:?} already exists and differs: a new grant needs a new id")]
    GrantDiffers(String),
    /// The tenant was erased, or is being erased.
    #[error("this tenant was erased, and is not changed any more")]
    Erased,
    /// A tenant cannot be erased while its customer has a live subscription.
    #[error(
        "its customer {customer} has a live subscription at the billing service, which would bill \
         it for nothing: end that first, then erase the tenant"
    )]
    SubscriptionLives {
        /// The customer, by its name there.
        customer: String,
    },
    /// The reason of an erasure, or its actor, has the tenant's id in it.
    #[error("reason and actor of an erasure stay on record: leave the tenant's id out of them")]
    NamesErased,
    /// Concurrent changes of the tenant kept interfering: save again.
    #[error("concurrent changes to this tenant: try again")]
    Busy,
    /// The service file has no pepper to hash a new key with.
    #[error("keys need a pepper: write pepper = [{{ id = \"1\", env = \"TALLYGATE_PEPPER\" }}]")]
    NoPepper,
    /// The end of a new key is not in the future.
    #[error("the end of this key is past already: it would never work")]
    EndIsPast,
    /// This cannot be the name of a permission.
    #[error("{0:?} is no permission: 1 to 64 visible characters of ASCII, without `\"` and `\\`")]
    Permission(String),
    /// A key has too many permissions.
    #[error("a key has at most {most} permissions: make two keys, or fewer permissions")]
    TooManyPermissions {
        /// Most permissions.
        most: usize,
    },
    /// This cannot be an idempotency key.
    #[error("an idempotency key has 1 to {most} visible characters of ASCII")]
    Once {
        /// Most characters.
        most: usize,
    },
    /// A request with this idempotency key has made the key with this id.
    #[error("the key {0} was made already for this idempotency key: rotate it if it was lost")]
    MadeAlready(String),
    /// The imported credential belongs to another tenant, was revoked, or has expired.
    #[error("this credential is in use by another tenant, was revoked, or has expired")]
    CredentialTaken,
    /// The customer at the billing service belongs to another tenant.
    #[error("this customer belongs to another tenant")]
    CustomerTaken,
    /// The tenant has no such key.
    #[error("this tenant has no key {0:?}")]
    NoKey(String),
    /// The system has no randomness.
    #[error("no randomness from the system: {0}")]
    Random(String),
}

impl From<crate::random::Error> for DirectoryError {
    fn from(error: crate::random::Error) -> Self {
        Self::Random(error.to_string())
    }
}

/// Most characters of a plan's, meter's, key's or account's name.
pub(super) const MAX_NAME: usize = 64;

/// Accepts a line of 1 to `most` characters without controls.
pub(super) fn check_text(
    text: &str,
    what: &'static str,
    most: usize,
) -> Result<(), DirectoryError> {
    check(text, what, most, |_| false)
}

/// The same for a text in which tabs and line ends occur: a note, or TOML.
pub(super) fn check_lines(
    text: &str,
    what: &'static str,
    most: usize,
) -> Result<(), DirectoryError> {
    check(text, what, most, |c| matches!(c, '\n' | '\r' | '\t'))
}

fn check(
    text: &str,
    what: &'static str,
    most: usize,
    passes: impl Fn(char) -> bool,
) -> Result<(), DirectoryError> {
    let is_short = !text.is_empty() && text.chars().count() <= most;
    if is_short && text.chars().all(|c| !c.is_control() || passes(c)) {
        return Ok(());
    }
    Err(DirectoryError::Text { what, most })
}
