//! Credentials of a tenant: created, imported, listed, revoked.
//!
//! A credential is two items: `C#scheme#hash` holds its tenant and whether it was revoked, and is
//! the truth; `T#tenant#C / id` lists it. It is listed first and usable second, so that a writer's
//! death leaves at worst a listed key that was never shown. It is revoked first and listed as
//! revoked second. Either is completed by repeating it.

use std::time::SystemTime;

use super::edit::Announced;
use super::error::{MAX_NAME, check_text};
use super::write::{Made, make};
use super::{Directory, DirectoryError, Edit, Found, News, Surrogate};
use crate::clock::time_at;
use crate::identity::{ApiKey, CredentialHash, hex};
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, Key, StoreError, StoreErrorKind, Value, When, Write};

/// Most working keys of a tenant.
pub(super) const MAX_KEYS: usize = 1_000;

const FORMAT: i64 = 1;
const TENANT: &str = "tenant";
const KEY: &str = "key";
const NAME: &str = "name";
const SCHEME: &str = "scheme";
const HASH: &str = "hash";
const MADE: &str = "made";
const REVOKED: &str = "revoked";

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

/// Public data of a key. [`Tenant::keys`](super::Tenant::keys) lists them;
/// [`Tenant::revoke_key`](super::Tenant::revoke_key) takes the id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its hash scheme: `hmac-ID` with the pepper's id, or `sha256`.
    pub scheme: String,
    /// When it was made or imported.
    pub made: SystemTime,
    /// Whether it works.
    pub state: KeyState,
}

/// Whether a key works. In [`KeyInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// The key works.
    Active,
    /// The key worked until it was revoked.
    Revoked,
    /// The key never worked: its creation was cut short, and it was never shown.
    Incomplete,
}

impl Directory {
    pub(super) async fn make_key(
        &self,
        tenant: Surrogate,
        name: &str,
    ) -> Result<NewKey, DirectoryError> {
        let pepper = self.inner.peppers.newest().ok_or(DirectoryError::NoPepper)?;
        let key = ApiKey::draw()?;
        let hash = pepper.hash(key.expose().as_bytes());
        let id = self.add_key(tenant, name, &hash).await?;
        Ok(NewKey { id, name: name.to_owned(), key })
    }

    /// Assigns the credential to this tenant and returns the id of its key.
    pub(super) async fn add_key(
        &self,
        tenant: Surrogate,
        name: &str,
        hash: &CredentialHash,
    ) -> Result<String, DirectoryError> {
        check_text(name, "a key's name", MAX_NAME)?;
        if let Some(held) = self.read_credential(hash).await? {
            return held.adopt(tenant);
        }
        let listed = self.query_all(self.list_key(tenant, "").pk).await?;
        if listed.iter().filter(|(_, item)| item.int(REVOKED).is_none()).count() >= MAX_KEYS {
            return Err(DirectoryError::TooMany { what: "keys", most: MAX_KEYS });
        }
        let id = format!("k{:016x}", crate::random::u64()?);
        self.list_and_make(tenant, &id, name, hash).await
    }

    /// Lists the key under this id, then makes its credential. Returns the id under which it works.
    pub(super) async fn list_and_make(
        &self,
        tenant: Surrogate,
        id: &str,
        name: &str,
        hash: &CredentialHash,
    ) -> Result<String, DirectoryError> {
        let made = Edit::KeyMade { id: id.to_owned(), name: name.to_owned() };
        self.announce_key(tenant, made).await?;
        let listing = listing(self.list_key(tenant, id), name, hash, self.now_ms());
        match make(&*self.inner.store, listing).await? {
            Made::Yes(_) => {}
            // After a lost reply it may be ours.
            Made::Perhaps(Some(item)) if KeyItem::read(&item)?.hash == *hash => {}
            Made::No(_) | Made::Perhaps(_) => return Err(DirectoryError::Busy),
        }
        let credential = credential(self.credential_key(hash), tenant, id, None);
        match make(&*self.inner.store, credential).await? {
            Made::Yes(_) => Ok(id.to_owned()),
            Made::No(Some(item)) | Made::Perhaps(Some(item)) => {
                let held = CredentialItem::read(&item)?;
                if held.key != id {
                    // Another tenant was faster; our listing names a key that is theirs.
                    self.unlist(tenant, id).await?;
                }
                held.adopt(tenant)
            }
            Made::No(None) | Made::Perhaps(None) => Err(DirectoryError::Busy),
        }
    }

    pub(super) async fn list_keys(&self, tenant: Surrogate) -> Result<Vec<KeyInfo>, StoreError> {
        let listed = self.query_all(self.list_key(tenant, "").pk).await?;
        let mut keys = Vec::with_capacity(listed.len());
        for (id, item) in listed {
            let listed = KeyItem::read(&item)?;
            let state = self.key_state(tenant, &id, &listed).await?;
            let scheme = listed.hash.scheme.to_string();
            let (name, made_ms) = (listed.name, listed.made_ms);
            keys.push(KeyInfo { id, name, scheme, made: time_at(made_ms), state });
        }
        Ok(keys)
    }

    /// Whether a listed key works.
    pub(super) async fn key_state(
        &self,
        tenant: Surrogate,
        id: &str,
        listed: &KeyItem,
    ) -> Result<KeyState, StoreError> {
        if listed.revoked {
            return Ok(KeyState::Revoked);
        }
        Ok(match self.read_credential(&listed.hash).await? {
            Some(held) if held.tenant != tenant || held.key != id => KeyState::Incomplete,
            Some(held) if held.revoked => KeyState::Revoked,
            Some(_) => KeyState::Active,
            None => KeyState::Incomplete,
        })
    }

    pub(super) async fn revoke(&self, tenant: Surrogate, id: &str) -> Result<(), DirectoryError> {
        let no_key = || DirectoryError::NoKey(id.to_owned());
        let list_key = self.list_key(tenant, id);
        let item = self.inner.store.read(list_key.clone()).await?.ok_or_else(no_key)?;
        let listed = KeyItem::read(&item)?;
        if listed.revoked {
            return Ok(());
        }
        self.announce_key(tenant, Edit::KeyRevoked { id: id.to_owned() }).await?;
        // Even on failure: it may have been revoked anyway.
        let untold = self.inner.feed.tell_in_any_case(News::Revoked(tenant));
        let revoked = self.revoke_credential(tenant, id, &listed.hash).await;
        drop(untold);
        revoked?;
        self.inner.feed.announced().await;
        let mark = Write {
            key: list_key,
            when: vec![When::Exists],
            change: vec![Change::Set(REVOKED.into(), Value::Int(self.now_ms()))],
        };
        make(&*self.inner.store, mark).await?;
        Ok(())
    }

    /// Changes the credential item, which is the truth about a key.
    async fn revoke_credential(
        &self,
        tenant: Surrogate,
        id: &str,
        hash: &CredentialHash,
    ) -> Result<(), DirectoryError> {
        let key = self.credential_key(hash);
        let revoke = Write {
            key: key.clone(),
            when: vec![
                When::Equals(TENANT.into(), Value::Text(tenant.to_string())),
                When::Equals(KEY.into(), Value::Text(id.to_owned())),
                When::Missing(REVOKED.into()),
            ],
            change: vec![Change::Set(REVOKED.into(), Value::Int(self.now_ms()))],
        };
        match make(&*self.inner.store, revoke).await? {
            // Already revoked, or no key that ever worked under this id.
            Made::Yes(_) | Made::No(Some(_)) | Made::Perhaps(Some(_)) => return Ok(()),
            Made::No(None) | Made::Perhaps(None) => {}
        }
        // Its creation was cut short, or is slow: it must not begin to work after this.
        let never = credential(key, tenant, id, Some(self.now_ms()));
        match make(&*self.inner.store, never).await? {
            Made::Yes(_) => Ok(()),
            Made::Perhaps(Some(item)) if CredentialItem::read(&item)?.revoked => Ok(()),
            // It began to work in between: another revocation will find it.
            _ => Err(DirectoryError::Busy),
        }
    }

    /// The tenant of this credential, with hashes tried in order; `None` if it is unknown or
    /// revoked.
    pub(super) async fn find_credential(
        &self,
        hashes: &[CredentialHash],
    ) -> Result<Option<Found>, StoreError> {
        for hash in hashes {
            if let Some(held) = self.read_credential(hash).await? {
                let found = Found { surrogate: held.tenant, key_id: held.key.into() };
                return Ok((!held.revoked).then_some(found));
            }
        }
        Ok(None)
    }

    async fn read_credential(
        &self,
        hash: &CredentialHash,
    ) -> Result<Option<CredentialItem>, StoreError> {
        let item = self.inner.store.read(self.credential_key(hash)).await?;
        item.map(|item| CredentialItem::read(&item)).transpose()
    }

    async fn unlist(&self, tenant: Surrogate, id: &str) -> Result<(), StoreError> {
        let key = self.list_key(tenant, id);
        let gone = Write { key, when: Vec::new(), change: vec![Change::Delete] };
        self.inner.store.write(gone).await.map(|_| ())
    }

    async fn announce_key(&self, tenant: Surrogate, edit: Edit) -> Result<u64, DirectoryError> {
        let (at_ms, edits) = (self.now_ms(), vec![edit]);
        self.announce(tenant, &Announced { at_ms, version: 0, parent: 0, note: None, edits }).await
    }

    pub(super) fn list_key(&self, tenant: Surrogate, id: &str) -> Key {
        self.inner.space.tenant_credential(tenant, id)
    }

    fn credential_key(&self, hash: &CredentialHash) -> Key {
        self.inner.space.credential(&hash.scheme, &hex(&hash.hash))
    }
}

fn listing(key: Key, name: &str, hash: &CredentialHash, now_ms: i64) -> Write {
    let text =
        |name: &'static str, value: &str| Change::Set(name.into(), Value::Text(value.to_owned()));
    Write {
        key,
        when: vec![When::Absent],
        change: vec![
            Change::Set(format(FORMAT).0, format(FORMAT).1),
            text(NAME, name),
            text(SCHEME, &hash.scheme),
            Change::Set(HASH.into(), Value::Bytes(hash.hash.to_vec())),
            Change::Set(MADE.into(), Value::Int(now_ms)),
        ],
    }
}

fn credential(key: Key, tenant: Surrogate, id: &str, revoked: Option<i64>) -> Write {
    let mut change = vec![
        Change::Set(format(FORMAT).0, format(FORMAT).1),
        Change::Set(TENANT.into(), Value::Text(tenant.to_string())),
        Change::Set(KEY.into(), Value::Text(id.to_owned())),
    ];
    change.extend(revoked.map(|at_ms| Change::Set(REVOKED.into(), Value::Int(at_ms))));
    Write { key, when: vec![When::Absent], change }
}

/// A `C#` item.
struct CredentialItem {
    tenant: Surrogate,
    key: String,
    revoked: bool,
}

impl CredentialItem {
    fn read(item: &Item) -> Result<Self, StoreError> {
        check_format(item, FORMAT, "a credential")?;
        let tenant = item.text(TENANT).and_then(Surrogate::parse);
        let (tenant, key) = tenant.zip(item.text(KEY)).ok_or_else(|| damaged("a credential"))?;
        Ok(Self { tenant, key: key.to_owned(), revoked: item.int(REVOKED).is_some() })
    }

    /// The id of the key, if it belongs to this tenant and works.
    fn adopt(self, tenant: Surrogate) -> Result<String, DirectoryError> {
        if self.tenant == tenant && !self.revoked {
            return Ok(self.key);
        }
        Err(DirectoryError::CredentialTaken)
    }
}

/// A `T#tenant#C` item.
pub(super) struct KeyItem {
    pub(super) name: String,
    hash: CredentialHash,
    made_ms: i64,
    pub(super) revoked: bool,
}

impl KeyItem {
    pub(super) fn read(item: &Item) -> Result<Self, StoreError> {
        check_format(item, FORMAT, "a key's listing")?;
        let read = || {
            let hash = item.bytes(HASH)?.try_into().ok()?;
            Some(Self {
                name: item.text(NAME)?.to_owned(),
                hash: CredentialHash { scheme: item.text(SCHEME)?.into(), hash },
                made_ms: item.int(MADE)?,
                revoked: item.int(REVOKED).is_some(),
            })
        };
        read().ok_or_else(|| damaged("a key's listing"))
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("{what} cannot be read"))
}
