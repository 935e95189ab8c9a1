//! Credentials of a tenant: created, imported, listed, revoked.
//!
//! A credential is two items: `C#scheme#hash` holds its tenant and whether it was revoked, and is
//! the truth; `T#tenant#C / id` lists it. It is listed first and usable second, so that a writer's
//! death leaves at worst a listed key that was never shown. It is revoked first and listed as
//! revoked second. Either is completed by repeating it.

use std::time::{Duration, SystemTime};

use super::edit::Announced;
use super::new_key::{KeyOptions, NewKey};
use super::once::Once;
use super::write::{Made, make};
use super::{Directory, DirectoryError, Edit, Found, News, Role, Surrogate};
use crate::clock::time_at;
use crate::identity::{ApiKey, CredentialHash, Permissions, hex};
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, Key, StoreError, StoreErrorKind, Value, When, Write};

/// Most working keys of a tenant.
pub(super) const MAX_KEYS: usize = 1_000;

/// Attempts at ending a key that others are ending, too.
const ATTEMPTS: usize = 8;

const FORMAT: i64 = 1;
const TENANT: &str = "tenant";
const KEY: &str = "key";
const NAME: &str = "name";
const SCHEME: &str = "scheme";
const HASH: &str = "hash";
const MADE: &str = "made";
const REVOKED: &str = "revoked";
/// The first instant at which it no longer works, in both items; missing without an end.
const UNTIL: &str = "until";
/// What it may do, in both items; missing where no permissions were given.
const MAY: &str = "may";
/// Start of the hour in which it was last used, in the credential alone.
const USED: &str = "used";
/// Uses are on record to the hour: a key that is always in use costs a write an hour.
const HOUR_MS: i64 = 60 * 60 * 1_000;
/// An operator's role, in both items; missing in those of tenants' keys.
const ROLE: &str = "role";

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
    /// First instant at which it no longer works, if it has an end.
    pub expires: Option<SystemTime>,
    /// What it may do, by name: what it was made with, or what `[[identify]] permissions` of the
    /// service file says of keys that were made without.
    pub permissions: Vec<String>,
    /// Start of the hour, in UTC, in which it was last used; `None`: never. A use is on
    /// record within half a minute.
    pub last_used: Option<SystemTime>,
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
    /// The key worked until its end.
    Expired,
    /// The key never worked: its creation was cut short, and it was never shown.
    Incomplete,
}

impl Directory {
    /// Whose the key with this plain SHA-256 is, and whether it works: for imports, which look
    /// before they write.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn owner_of_sha256(
        &self,
        hash: [u8; 32],
    ) -> Result<Option<(Surrogate, bool)>, StoreError> {
        let held = self.read_credential(&CredentialHash::sha256(hash)).await?;
        let works = |held: &CredentialItem| !held.revoked && !held.has_ended(self.now_ms());
        Ok(held.map(|held| (held.tenant, works(&held))))
    }

    pub(super) async fn make_key(
        &self,
        tenant: Surrogate,
        options: KeyOptions,
    ) -> Result<NewKey, DirectoryError> {
        if let Some(once) = &options.once {
            options.check(self.now_ms())?;
            return self.make_key_once(tenant, &options, once).await;
        }
        let (key, hash) = self.draw_key()?;
        let id = self.add_key(tenant, &options, &hash).await?;
        Ok(NewKey { id, name: options.name, key })
    }

    /// Whether such a key could be made now; nothing is written.
    pub(super) async fn could_make_key(
        &self,
        tenant: Surrogate,
        options: &KeyOptions,
    ) -> Result<(), DirectoryError> {
        self.check_actor()?;
        options.check(self.now_ms())?;
        self.draw_key()?;
        let record = self.read_record(tenant).await?;
        if record.is_some_and(|record| record.erased_ms.is_some()) {
            return Err(DirectoryError::Erased);
        }
        self.check_room(tenant).await
    }

    /// A fresh key, and its hash under the newest pepper.
    pub(super) fn draw_key(&self) -> Result<(ApiKey, CredentialHash), DirectoryError> {
        let pepper = self.inner.peppers.newest().ok_or(DirectoryError::NoPepper)?;
        let key = self.inner.key_form.draw()?;
        let hash = pepper.hash(key.expose().as_bytes());
        Ok((key, hash))
    }

    /// Assigns the credential to this tenant and returns the id of its key.
    pub(super) async fn add_key(
        &self,
        tenant: Surrogate,
        options: &KeyOptions,
        hash: &CredentialHash,
    ) -> Result<String, DirectoryError> {
        let now_ms = self.now_ms();
        options.check(now_ms)?;
        if let Some(held) = self.read_credential(hash).await? {
            return held.adopt(tenant, now_ms);
        }
        self.check_room(tenant).await?;
        let id = format!("k{:016x}", crate::random::u64()?);
        self.list_and_make(tenant, &id, options, hash).await
    }

    /// Whether the tenant may have another key.
    pub(super) async fn check_room(&self, tenant: Surrogate) -> Result<(), DirectoryError> {
        match self.count_keys(tenant).await?.working >= MAX_KEYS {
            true => Err(DirectoryError::TooMany { what: "keys", most: MAX_KEYS }),
            false => Ok(()),
        }
    }

    /// Lists the key under this id, then makes its credential. Returns the id under which it works.
    pub(super) async fn list_and_make(
        &self,
        tenant: Surrogate,
        id: &str,
        options: &KeyOptions,
        hash: &CredentialHash,
    ) -> Result<String, DirectoryError> {
        let (name, expires) = (options.name.clone(), options.expires_ms);
        let permissions = options.permissions.as_ref().map(|it| it.as_str().to_owned());
        let made = Edit::KeyMade { id: id.to_owned(), name, expires, permissions };
        self.announce_key(tenant, made).await?;
        if let Some(until_ms) = expires {
            self.raise_key(tenant, (id, &options.name), until_ms).await?;
        }
        let listing = listing(self.list_key(tenant, id), options, hash, self.now_ms());
        match make(&*self.inner.store, listing).await? {
            Made::Yes(_) => {}
            // After a lost reply it may be ours.
            Made::Perhaps(Some(item)) if KeyItem::read(&item)?.hash == *hash => {}
            Made::No(_) | Made::Perhaps(_) => return Err(DirectoryError::Busy),
        }
        let mut credential = credential(self.credential_key(hash), tenant, id);
        credential.change.extend(options.more());
        match make(&*self.inner.store, credential).await? {
            Made::Yes(_) => {
                // It may have been erased meanwhile, which has not seen this key.
                self.refuse_erased(tenant).await?;
                Ok(id.to_owned())
            }
            Made::No(Some(item)) | Made::Perhaps(Some(item)) => {
                let held = CredentialItem::read(&item)?;
                if held.key != id {
                    // Another tenant was faster; our listing names a key that is theirs.
                    self.unlist(tenant, id).await?;
                }
                held.adopt(tenant, self.now_ms())
            }
            Made::No(None) | Made::Perhaps(None) => Err(DirectoryError::Busy),
        }
    }

    pub(super) async fn list_keys(&self, tenant: Surrogate) -> Result<Vec<KeyInfo>, StoreError> {
        Ok(self.list_tokens(tenant).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// The same with their roles, which only operators' tokens have.
    pub(super) async fn list_tokens(
        &self,
        tenant: Surrogate,
    ) -> Result<Vec<(KeyInfo, Option<Role>)>, StoreError> {
        let listed = self.query_all(self.list_key(tenant, "").pk).await?;
        let mut keys = Vec::with_capacity(listed.len());
        for (id, item) in listed {
            let listed = KeyItem::read(&item)?;
            let held = self.held(tenant, &id, &listed).await?;
            let role = listed.role;
            keys.push((self.info(id, listed, held.as_ref()), role));
        }
        Ok(keys)
    }

    /// The public data of a key by its two items.
    pub(super) fn info(
        &self,
        id: String,
        listed: KeyItem,
        held: Option<&CredentialItem>,
    ) -> KeyInfo {
        let unlisted = match listed.role {
            Some(_) => Permissions::default(), // an operator's token is on no route of a plan file
            None => self.inner.key_form.unlisted.clone(),
        };
        let permissions = listed.permissions.as_ref().unwrap_or(&unlisted);
        KeyInfo {
            id,
            scheme: listed.hash.scheme.to_string(),
            made: time_at(listed.made_ms),
            expires: listed.until_ms.map(time_at),
            permissions: permissions.iter().map(str::to_owned).collect(),
            last_used: held.and_then(|held| held.used_ms).map(time_at),
            state: listed.state(held, self.now_ms()),
            name: listed.name,
        }
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
        let held = self.held(tenant, id, listed).await?;
        Ok(listed.state(held.as_ref(), self.now_ms()))
    }

    /// The credential of a listed key, if it is this key's.
    pub(super) async fn held(
        &self,
        tenant: Surrogate,
        id: &str,
        listed: &KeyItem,
    ) -> Result<Option<CredentialItem>, StoreError> {
        let held = self.read_credential(&listed.hash).await?;
        Ok(held.filter(|held| held.tenant == tenant && held.key == id))
    }

    pub(super) async fn write_use(&self, hash: &CredentialHash) -> Result<(), StoreError> {
        let note = Write {
            key: self.credential_key(hash),
            when: vec![When::Exists, When::Missing(REVOKED.into())],
            change: vec![Change::Set(USED.into(), Value::Int(hour_of(self.now_ms())))],
        };
        make(&*self.inner.store, note).await.map(|_| ())
    }

    pub(super) async fn revoke(&self, tenant: Surrogate, id: &str) -> Result<(), DirectoryError> {
        let listed = self.listed_key(tenant, id).await?;
        if listed.revoked {
            return Ok(());
        }
        self.announce_change_of_key(tenant, Edit::KeyRevoked { id: id.to_owned() }).await?;
        // Even on failure: it may have been revoked anyway.
        let untold = self.inner.feed.tell_in_any_case(News::Revoked(tenant));
        let revoked = self.revoke_credential(tenant, id, &listed.hash).await;
        drop(untold);
        revoked?;
        self.inner.feed.announced().await;
        self.mark_revoked(tenant, id, None).await
    }

    /// Lists a key as revoked, under another name where one is given.
    async fn mark_revoked(
        &self,
        tenant: Surrogate,
        id: &str,
        name: Option<&str>,
    ) -> Result<(), DirectoryError> {
        let mut change = vec![Change::Set(REVOKED.into(), Value::Int(self.now_ms()))];
        change.extend(name.map(|name| Change::Set(NAME.into(), Value::Text(name.to_owned()))));
        let key = self.list_key(tenant, id);
        make(&*self.inner.store, Write { key, when: vec![When::Exists], change }).await?;
        Ok(())
    }

    /// Changes the credential item, which is the truth about a key.
    async fn revoke_credential(
        &self,
        tenant: Surrogate,
        id: &str,
        hash: &CredentialHash,
    ) -> Result<(), DirectoryError> {
        let revoke = Write {
            key: self.credential_key(hash),
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
        self.keep_from_working(tenant, id, hash).await
    }

    /// Revokes a key that is listed and does not work yet. [`DirectoryError::Busy`]: it has begun
    /// to work, and its maker may have shown it by now.
    pub(super) async fn revoke_incomplete(
        &self,
        tenant: Surrogate,
        id: &str,
    ) -> Result<(), DirectoryError> {
        let listed = self.listed_key(tenant, id).await?;
        if listed.revoked {
            return Ok(());
        }
        self.announce_key(tenant, Edit::KeyRevoked { id: id.to_owned() }).await?;
        self.keep_from_working(tenant, id, &listed.hash).await?;
        self.mark_revoked(tenant, id, None).await
    }

    /// Makes the credential of a key as one that is revoked: its creation was cut short, or is
    /// slow, and it must not begin to work after this.
    async fn keep_from_working(
        &self,
        tenant: Surrogate,
        id: &str,
        hash: &CredentialHash,
    ) -> Result<(), DirectoryError> {
        let key = self.credential_key(hash);
        let mut never = credential(key, tenant, id);
        never.change.push(Change::Set(REVOKED.into(), Value::Int(self.now_ms())));
        match make(&*self.inner.store, never).await? {
            Made::Yes(_) => Ok(()),
            Made::No(Some(item)) | Made::Perhaps(Some(item))
                if CredentialItem::read(&item)?.revoked =>
            {
                Ok(())
            }
            // It began to work in between: another revocation will find it.
            _ => Err(DirectoryError::Busy),
        }
    }

    /// Revokes all keys of an erased tenant. Their entries stay in the list, without a name.
    pub(super) async fn revoke_and_unname(&self, tenant: Surrogate) -> Result<(), DirectoryError> {
        for (id, item) in self.query_all(self.list_key(tenant, "").pk).await? {
            let listed = KeyItem::read(&item)?;
            if listed.revoked && listed.name.is_empty() {
                continue;
            }
            self.revoke_credential(tenant, &id, &listed.hash).await?;
            self.mark_revoked(tenant, &id, Some("")).await?;
        }
        Ok(())
    }

    /// Makes a key of the same name that may do the same until the same end, and ends the old one
    /// after `overlap`. [`DirectoryError::MadeAlready`]: by a request with this idempotency key.
    pub(super) async fn rotate_key(
        &self,
        tenant: Surrogate,
        id: &str,
        overlap: Duration,
        once: Option<&str>,
    ) -> Result<NewKey, DirectoryError> {
        let listed = self.listed_key(tenant, id).await?;
        let once = once.map(|once| Once::of_rotation(id, once));
        if self.key_state(tenant, id, &listed).await? != KeyState::Active {
            // The request may be repeated because its answer was lost.
            let made = match &once {
                Some(once) => self.made_by(tenant, once).await?,
                None => None,
            };
            return Err(made.map_or_else(
                || DirectoryError::NoKey(id.to_owned()),
                DirectoryError::MadeAlready,
            ));
        }
        let (permissions, expires_ms) = (listed.permissions, listed.until_ms);
        let options = KeyOptions { permissions, expires_ms, once, ..KeyOptions::new(listed.name) };
        let made = match self.make_key(tenant, options).await {
            // The request before this one may have been cut off here.
            Err(error @ DirectoryError::MadeAlready(_)) => Err(error),
            made => Ok(made?),
        };
        let overlap_ms = i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX);
        self.end_key(tenant, id, self.now_ms().saturating_add(overlap_ms)).await?;
        made
    }

    /// Ends a key at this instant, unless it ends before.
    pub(super) async fn end_key(
        &self,
        tenant: Surrogate,
        id: &str,
        at_ms: i64,
    ) -> Result<(), DirectoryError> {
        let listed = self.listed_key(tenant, id).await?;
        if listed.revoked || listed.until_ms.is_some_and(|until| until <= at_ms) {
            return Ok(());
        }
        self.announce_change_of_key(tenant, Edit::KeyEnds { id: id.to_owned(), at: at_ms }).await?;
        self.raise_key(tenant, (id, &listed.name), at_ms).await?;
        // As with a revocation: callers in memory are looked up again, and find their end.
        let untold = self.inner.feed.tell_in_any_case(News::Revoked(tenant));
        let ended = self.end_credential(tenant, id, (&listed.hash, at_ms)).await;
        drop(untold);
        ended?;
        self.inner.feed.announced().await;
        let mark = Write {
            key: self.list_key(tenant, id),
            when: vec![When::Exists],
            change: vec![set_until(at_ms)],
        };
        make(&*self.inner.store, mark).await?;
        Ok(())
    }

    /// The same for the credential item, which is the truth about a key. Its end moves only to an
    /// earlier instant, whatever order ends are set in.
    async fn end_credential(
        &self,
        tenant: Surrogate,
        id: &str,
        (hash, at_ms): (&CredentialHash, i64),
    ) -> Result<(), DirectoryError> {
        for _ in 0..ATTEMPTS {
            let Some(held) = self.read_credential(hash).await? else { break };
            if held.tenant != tenant || held.key != id || held.revoked || held.has_ended(at_ms) {
                return Ok(());
            }
            let as_read = match held.until_ms {
                Some(until) => When::Equals(UNTIL.into(), Value::Int(until)),
                None => When::Missing(UNTIL.into()),
            };
            let end = Write {
                key: self.credential_key(hash),
                when: vec![When::Exists, as_read],
                change: vec![set_until(at_ms)],
            };
            if let Made::Yes(_) = make(&*self.inner.store, end).await? {
                return Ok(());
            }
        }
        // Its creation was cut short or is slow, or others keep ending it.
        Err(DirectoryError::Busy)
    }

    pub(super) async fn listed_key(
        &self,
        tenant: Surrogate,
        id: &str,
    ) -> Result<KeyItem, DirectoryError> {
        let found = self.find_key(tenant, id).await?;
        found.ok_or_else(|| DirectoryError::NoKey(id.to_owned()))
    }

    pub(super) async fn find_key(
        &self,
        tenant: Surrogate,
        id: &str,
    ) -> Result<Option<KeyItem>, StoreError> {
        let item = self.inner.store.read(self.list_key(tenant, id)).await?;
        item.map(|item| KeyItem::read(&item)).transpose()
    }

    /// The tenant of this credential, with hashes tried in order; `None` if it is unknown, revoked
    /// or past its end.
    pub(super) async fn find_credential(
        &self,
        hashes: &[CredentialHash],
    ) -> Result<Option<Found>, StoreError> {
        for hash in hashes {
            if let Some(held) = self.read_credential(hash).await? {
                let works = !held.revoked && !held.has_ended(self.now_ms());
                let expires_ms = held.until_ms.unwrap_or(i64::MAX);
                let (surrogate, key_id) = (held.tenant, held.key.into());
                let unlisted = || self.inner.key_form.unlisted.clone();
                let permissions = held.permissions.unwrap_or_else(unlisted);
                let is_noted = held.used_ms.is_some_and(|used| used >= hour_of(self.now_ms()));
                let unnoted = (!is_noted).then(|| hash.clone());
                let found = Found { surrogate, key_id, permissions, expires_ms, unnoted };
                return Ok(works.then_some(found));
            }
        }
        Ok(None)
    }

    pub(super) async fn read_credential(
        &self,
        hash: &CredentialHash,
    ) -> Result<Option<CredentialItem>, StoreError> {
        let item = self.inner.store.read(self.credential_key(hash)).await?;
        item.map(|item| CredentialItem::read(&item)).transpose()
    }

    pub(super) async fn unlist(&self, tenant: Surrogate, id: &str) -> Result<(), StoreError> {
        let key = self.list_key(tenant, id);
        let gone = Write { key, when: Vec::new(), change: vec![Change::Delete] };
        self.inner.store.write(gone).await.map(|_| ())
    }

    /// The same for a change of a key that may be in memory.
    async fn announce_change_of_key(
        &self,
        tenant: Surrogate,
        edit: Edit,
    ) -> Result<(), DirectoryError> {
        // Side by side: both are to be on record before the change is made.
        let begins = self.inner.beginnings.begins(News::Revoked(tenant));
        let (announced, begun) = tokio::join!(self.announce_key(tenant, edit), begins);
        begun?;
        announced.map(drop)
    }

    async fn announce_key(&self, tenant: Surrogate, edit: Edit) -> Result<u64, DirectoryError> {
        let (at_ms, edits, actor) = (self.now_ms(), vec![edit], self.actor());
        let entry = Announced { at_ms, version: 0, parent: 0, note: None, actor, edits };
        let id = self.announce(tenant, &entry).await?;
        self.refuse_erased(tenant).await?;
        Ok(id)
    }

    pub(super) fn list_key(&self, tenant: Surrogate, id: &str) -> Key {
        self.inner.space.tenant_credential(tenant, id)
    }

    fn credential_key(&self, hash: &CredentialHash) -> Key {
        self.inner.space.credential(&hash.scheme, &hex(&hash.hash))
    }
}

fn listing(key: Key, options: &KeyOptions, hash: &CredentialHash, now_ms: i64) -> Write {
    let text =
        |name: &'static str, value: &str| Change::Set(name.into(), Value::Text(value.to_owned()));
    let mut change = vec![
        Change::Set(format(FORMAT).0, format(FORMAT).1),
        text(NAME, &options.name),
        text(SCHEME, &hash.scheme),
        Change::Set(HASH.into(), Value::Bytes(hash.hash.to_vec())),
        Change::Set(MADE.into(), Value::Int(now_ms)),
    ];
    change.extend(options.more());
    Write { key, when: vec![When::Absent], change }
}

/// Start of the hour of an instant.
fn hour_of(at_ms: i64) -> i64 {
    at_ms - at_ms.rem_euclid(HOUR_MS)
}

fn set_until(at_ms: i64) -> Change {
    Change::Set(UNTIL.into(), Value::Int(at_ms))
}

fn credential(key: Key, tenant: Surrogate, id: &str) -> Write {
    let change = vec![
        Change::Set(format(FORMAT).0, format(FORMAT).1),
        Change::Set(TENANT.into(), Value::Text(tenant.to_string())),
        Change::Set(KEY.into(), Value::Text(id.to_owned())),
    ];
    Write { key, when: vec![When::Absent], change }
}

impl KeyOptions {
    /// What is in both items.
    fn more(&self) -> impl Iterator<Item = Change> {
        let role = self.role.map(|role| Value::Text(role.as_str().to_owned()));
        let role = role.map(|role| Change::Set(ROLE.into(), role));
        let may = self.permissions.as_ref().map(|may| Value::Text(may.as_str().to_owned()));
        let may = may.map(|may| Change::Set(MAY.into(), may));
        self.expires_ms.map(set_until).into_iter().chain(role).chain(may)
    }
}

/// A `C#` item.
pub(super) struct CredentialItem {
    pub(super) tenant: Surrogate,
    pub(super) key: String,
    pub(super) revoked: bool,
    pub(super) role: Option<Role>,
    pub(super) until_ms: Option<i64>,
    permissions: Option<Permissions>,
    used_ms: Option<i64>,
}

impl CredentialItem {
    fn read(item: &Item) -> Result<Self, StoreError> {
        check_format(item, FORMAT, "a credential")?;
        let tenant = item.text(TENANT).and_then(Surrogate::parse);
        let (tenant, key) = tenant.zip(item.text(KEY)).ok_or_else(|| damaged("a credential"))?;
        let (revoked, until_ms) = (item.int(REVOKED).is_some(), item.int(UNTIL));
        let role = item.text(ROLE).and_then(Role::parse);
        let permissions = item.text(MAY).map(Permissions::of);
        let (key, used_ms) = (key.to_owned(), item.int(USED));
        Ok(Self { tenant, key, revoked, role, until_ms, permissions, used_ms })
    }

    pub(super) fn has_ended(&self, now_ms: i64) -> bool {
        self.until_ms.is_some_and(|until| until <= now_ms)
    }

    /// The id of the key, if it belongs to this tenant and works.
    fn adopt(self, tenant: Surrogate, now_ms: i64) -> Result<String, DirectoryError> {
        if self.tenant == tenant && !self.revoked && !self.has_ended(now_ms) {
            return Ok(self.key);
        }
        Err(DirectoryError::CredentialTaken)
    }
}

/// A `T#tenant#C` item.
pub(super) struct KeyItem {
    pub(super) name: String,
    pub(super) hash: CredentialHash,
    made_ms: i64,
    pub(super) until_ms: Option<i64>,
    pub(super) role: Option<Role>,
    permissions: Option<Permissions>,
    pub(super) revoked: bool,
}

impl KeyItem {
    /// Whether it was revoked, or is past its end.
    pub(super) fn has_ended(&self, now_ms: i64) -> bool {
        self.revoked || self.until_ms.is_some_and(|until| until <= now_ms)
    }

    /// Whether it works, by its credential.
    fn state(&self, held: Option<&CredentialItem>, now_ms: i64) -> KeyState {
        match held {
            _ if self.revoked => KeyState::Revoked,
            Some(held) if held.revoked => KeyState::Revoked,
            Some(held) if held.has_ended(now_ms) => KeyState::Expired,
            Some(_) => KeyState::Active,
            None => KeyState::Incomplete,
        }
    }

    pub(super) fn read(item: &Item) -> Result<Self, StoreError> {
        check_format(item, FORMAT, "a key's listing")?;
        let read = || {
            let hash = item.bytes(HASH)?.try_into().ok()?;
            Some(Self {
                name: item.text(NAME)?.to_owned(),
                hash: CredentialHash { scheme: item.text(SCHEME)?.into(), hash },
                made_ms: item.int(MADE)?,
                until_ms: item.int(UNTIL),
                role: item.text(ROLE).and_then(Role::parse),
                permissions: item.text(MAY).map(Permissions::of),
                revoked: item.int(REVOKED).is_some(),
            })
        };
        read().ok_or_else(|| damaged("a key's listing"))
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("{what} cannot be read"))
}
