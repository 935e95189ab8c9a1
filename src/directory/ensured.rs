//! A key that is made once by its name, however often it is asked for, and by how many processes.
//!
//! # Laws
//!
//! 1. Keys that are ensured have numbered ids, made from tenant, name and number. Two processes
//!    that make the same one meet at its listing, which the store gives to one of them.
//! 2. A listing without a credential is of a process that died, or that is at work: it is revoked,
//!    so that its key cannot begin to work, and the next number is taken. So at most one of these
//!    keys works.
//! 3. Within a process calls take turns, so that none takes another for dead.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::keys::{KeyItem, MAX_KEYS};
use super::{Directory, DirectoryError, KeyOptions, KeyState, NewKey, Surrogate};
use crate::identity::hex;

/// Most attempts of a call: one is lost only to another process that makes the same key.
const ATTEMPTS: usize = 8;

/// Hex digits of an id, as in those of other keys.
const ID_DIGITS: usize = 16;

/// How one attempt ended.
enum Attempt {
    Made(NewKey),
    /// The tenant has a working key of this name.
    Has,
    /// Another process was at work on it.
    Lost,
}

impl Directory {
    pub(super) async fn ensure_key(
        &self,
        tenant: Surrogate,
        options: &KeyOptions,
    ) -> Result<Option<NewKey>, DirectoryError> {
        options.check(self.now_ms())?;
        let _turn = self.inner.ensuring.lock().await;
        for _ in 0..ATTEMPTS {
            match self.attempt(tenant, options).await? {
                Attempt::Made(key) => return Ok(Some(key)),
                Attempt::Has => return Ok(None),
                Attempt::Lost => {}
            }
        }
        Err(DirectoryError::Busy)
    }

    async fn attempt(
        &self,
        tenant: Surrogate,
        options: &KeyOptions,
    ) -> Result<Attempt, DirectoryError> {
        let name = &options.name;
        let listed = self.query_all(self.list_key(tenant, "").pk).await?;
        let keys = listed.into_iter().map(|(id, item)| Ok((id, KeyItem::read(&item)?)));
        let keys = keys.collect::<Result<BTreeMap<String, KeyItem>, DirectoryError>>()?;
        let numbered = |number: usize| id(tenant, name, number);
        // Those before it are there.
        let next = (0..).find(|number| !keys.contains_key(&numbered(*number))).unwrap_or(0);
        for (id, key) in keys.iter().filter(|(_, key)| key.name == *name && !key.revoked) {
            match self.key_state(tenant, id, key).await? {
                KeyState::Active => return Ok(Attempt::Has),
                KeyState::Incomplete if (0..next).any(|number| numbered(number) == *id) => {
                    match self.revoke_incomplete(tenant, id).await {
                        // It has begun to work: the next attempt will find it.
                        Err(DirectoryError::Busy) => return Ok(Attempt::Lost),
                        revoked => revoked?,
                    }
                }
                _ => {}
            }
        }
        let now_ms = self.now_ms();
        if keys.values().filter(|key| !key.has_ended(now_ms)).count() >= MAX_KEYS {
            return Err(DirectoryError::TooMany { what: "keys", most: MAX_KEYS });
        }
        self.make_numbered(tenant, options, &numbered(next)).await
    }

    async fn make_numbered(
        &self,
        tenant: Surrogate,
        options: &KeyOptions,
        id: &str,
    ) -> Result<Attempt, DirectoryError> {
        let (key, hash) = self.draw_key()?;
        match self.list_and_make(tenant, id, options, &hash).await {
            Ok(id) => Ok(Attempt::Made(NewKey { id, name: options.name.clone(), key })),
            // Another process was listed first, or has revoked ours before it worked.
            Err(DirectoryError::Busy | DirectoryError::CredentialTaken) => Ok(Attempt::Lost),
            Err(error) => Err(error),
        }
    }
}

/// The id of the ensured key with this number, from 0.
pub(super) fn id(tenant: Surrogate, name: &str, number: usize) -> String {
    let digest = Sha256::digest(format!("{tenant} {number} {name}"));
    format!("k{}", &hex(&digest)[..ID_DIGITS])
}
