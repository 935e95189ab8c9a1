//! A key that is to be made, and one that was: its only time in plain text.

use std::time::SystemTime;

use super::error::{MAX_NAME, check_text};
use super::once::Once;
use super::{DirectoryError, Role};
use crate::catalog::is_permission;
use crate::clock::unix_ms;
use crate::identity::{ApiKey, MAX_PERMISSIONS, Permissions};

/// What a new key is to be: its name, and its end if it has one. A name alone will do where a key
/// is made:
///
/// ```no_run
/// use std::time::{Duration, SystemTime};
/// use tallygate::directory::KeyOptions;
///
/// # async fn example(acme: tallygate::directory::Tenant)
/// # -> Result<(), tallygate::directory::DirectoryError> {
/// let ci = acme.new_key("ci").await?;
/// let in_a_week = SystemTime::now() + Duration::from_secs(7 * 24 * 3600);
/// let guest = acme.new_key(KeyOptions::new("auditor").expires(in_a_week)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOptions {
    pub(super) name: String,
    pub(super) expires_ms: Option<i64>,
    /// `None`: the service file says what it may do.
    pub(super) permissions: Option<Permissions>,
    /// The first text that was given as a permission and is none.
    pub(super) wrong: Option<String>,
    /// The idempotency key of the request that makes it.
    pub(super) once: Option<Once>,
    /// An operator's, if it is no tenant's key.
    pub(super) role: Option<Role>,
}

impl KeyOptions {
    /// A key of this name, which is for lists: at most 64 characters. It has no end.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, expires_ms: None, permissions: None, wrong: None, once: None, role: None }
    }

    /// Sets the first instant at which it no longer works.
    #[must_use]
    pub fn expires(mut self, at: SystemTime) -> Self {
        self.expires_ms = Some(unix_ms(at));
        self
    }

    /// Adds a permission, which routes ask for with `needs-permission` in the plan file: at most 64
    /// visible characters of ASCII, without a space, `"` and `\`. A key has at most 32. One without
    /// any may do what `[[identify]] permissions` of the service file says: nothing, by default.
    ///
    /// ```
    /// use tallygate::directory::KeyOptions;
    ///
    /// let ci = KeyOptions::new("ci").permission("reports:read").permission("reports:write");
    /// ```
    #[must_use]
    pub fn permission(mut self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        if is_permission(name) {
            self.permissions = Some(self.permissions.unwrap_or_default().and(name));
        } else {
            self.wrong.get_or_insert_with(|| name.to_owned());
        }
        self
    }

    /// Sets all that it may do, which may be nothing, whatever the service file says.
    pub(crate) fn only(self, permissions: Permissions) -> Self {
        Self { permissions: Some(permissions), ..self }
    }

    /// It may nothing, whatever the service file says, beyond what is added from here on.
    pub(crate) fn without_any(self) -> Self {
        self.only(Permissions::default())
    }

    /// Makes the key once for the request with this idempotency key, of 1 to 255 visible characters
    /// of ASCII: [`new_key`](super::Tenant::new_key) makes it for one of several equal requests, in
    /// any process, and the others get [`DirectoryError::MadeAlready`] with its id. The key was
    /// shown, or lost, with the first answer; where it was lost,
    /// [`rotate_key`](super::Tenant::rotate_key) makes another in its place. The idempotency key is
    /// never forgotten.
    #[must_use]
    pub fn once(mut self, id: impl Into<String>) -> Self {
        self.once = Some(Once::of_operator(id));
        self
    }

    /// The same for a request of the tenant itself.
    pub(crate) fn once_of_tenant(mut self, id: impl Into<String>) -> Self {
        self.once = Some(Once::of_tenant(id));
        self
    }

    pub(super) fn check(&self, now_ms: i64) -> Result<(), DirectoryError> {
        self.once.as_ref().map_or(Ok(()), Once::check)?;
        check_text(&self.name, "a key's name", MAX_NAME)?;
        let names = || self.permissions.iter().flat_map(Permissions::iter);
        let wrong = self.wrong.as_deref().or_else(|| names().find(|name| !is_permission(name)));
        if let Some(wrong) = wrong {
            return Err(DirectoryError::Permission(wrong.to_owned()));
        }
        if names().count() > MAX_PERMISSIONS {
            return Err(DirectoryError::TooManyPermissions { most: MAX_PERMISSIONS });
        }
        match self.expires_ms {
            Some(at_ms) if at_ms <= now_ms => Err(DirectoryError::EndIsPast),
            _ => Ok(()),
        }
    }
}

impl From<&str> for KeyOptions {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for KeyOptions {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

/// A newly created key: the only time it is available in plain text.
///
/// It is shown by [`expose`](Self::expose) alone, never by formatting:
///
/// ```
/// fn show(key: &tallygate::directory::NewKey) {
///     println!("{}", key.expose());
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn show(key: &tallygate::directory::NewKey) {
///     println!("{key}"); // no `Display`
/// }
/// ```
#[derive(Clone)]
pub struct NewKey {
    /// Its id, used to list and revoke it.
    pub id: String,
    /// Its name.
    pub name: String,
    pub(super) key: ApiKey,
}

impl NewKey {
    /// The key in plain text: show it once, store it nowhere.
    pub fn expose(&self) -> &str {
        self.key.expose()
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).field("name", &self.name).finish()
    }
}
