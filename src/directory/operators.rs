//! Operators: those who may ask and change through the admin routes, each with a token of its own.
//!
//! A token is made, listed, ended and revoked as a tenant's key is, of a surrogate that no tenant
//! has: as a tenant's key it is unknown, and a tenant's key is no token. Its hash needs no pepper,
//! which a host without API keys does not have: of 256 random bits none can be found by its hash.

use sha2::{Digest, Sha256};

use super::keys::KeyItem;
use super::new_key::{KeyOptions, NewKey};
use super::role::Role;
use super::{Directory, DirectoryError, HistoryEntry, KeyInfo, Surrogate};
use crate::identity::{CredentialHash, KeyForm};
use crate::store::StoreError;

/// Beginning of tokens: they are distinguished from keys at sight, and by secret scanners.
const PREFIX: &str = "tgop_";

/// Longest token that is read.
const MAX_TOKEN: usize = 128;

/// An operator. [`Directory::operators`] lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operator {
    /// What is kept of the token; its name is the operator's.
    pub token: KeyInfo,
    /// What the operator may do.
    pub role: Role,
}

impl Directory {
    /// The tokens' surrogate.
    const OPERATORS: Surrogate = Surrogate::new(1);

    /// Makes an operator's token, returned in plain text only this once: of the operator's name, or
    /// of [`KeyOptions`] with an end.
    ///
    /// ```no_run
    /// # async fn example(gate: tallygate::Gate)
    /// # -> Result<(), tallygate::directory::DirectoryError> {
    /// use tallygate::directory::Role;
    ///
    /// let token = gate.directory().new_operator("kim@example.com", Role::Write).await?;
    /// println!("your token, shown once: {}", token.expose());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Tenant::new_key`](super::Tenant::new_key).
    pub async fn new_operator(
        &self,
        name: impl Into<KeyOptions>,
        role: Role,
    ) -> Result<NewKey, DirectoryError> {
        let options = KeyOptions { role: Some(role), ..name.into() };
        let key = KeyForm::with_prefix(PREFIX).draw()?;
        let id = self.add_key(Self::OPERATORS, &options, &hash(key.expose().as_bytes())).await?;
        Ok(NewKey { id, name: options.name, key })
    }

    /// All operators, including those whose token was revoked or has expired, oldest token first.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn operators(&self) -> Result<Vec<Operator>, DirectoryError> {
        let tokens = self.list_tokens(Self::OPERATORS).await?.into_iter();
        // Each was made with a role; one that cannot be read may do the least.
        let operator =
            |(token, role): (_, Option<_>)| Operator { token, role: role.unwrap_or(Role::Read) };
        let mut operators: Vec<_> = tokens.map(operator).collect();
        operators.sort_by(|a, b| (a.token.made, &a.token.id).cmp(&(b.token.made, &b.token.id)));
        Ok(operators)
    }

    /// Revokes an operator's token by its id. Every process refuses it from then on.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::NoKey`] if there is no such token, or the store's error.
    pub async fn revoke_operator(&self, id: &str) -> Result<(), DirectoryError> {
        self.revoke(Self::OPERATORS, id).await
    }

    /// Which tokens were made and revoked, when and by whom, oldest first.
    ///
    /// # Errors
    ///
    /// The store's error.
    pub async fn operators_history(&self) -> Result<Vec<HistoryEntry>, DirectoryError> {
        Ok(self.read_history(Self::OPERATORS).await?)
    }

    /// The name and role of the operator with this token; `None` if it is none, or no longer one. A
    /// mistyped one costs no read of the store.
    pub(crate) async fn operator(
        &self,
        token: &[u8],
    ) -> Result<Option<(String, Role)>, StoreError> {
        let form = KeyForm::with_prefix(PREFIX);
        let is_one = token.starts_with(PREFIX.as_bytes()) && token.len() <= MAX_TOKEN;
        if !is_one || form.is_broken(token) {
            return Ok(None);
        }
        let Some(held) = self.read_credential(&hash(token)).await? else { return Ok(None) };
        let works =
            held.tenant == Self::OPERATORS && !held.revoked && !held.has_ended(self.now_ms());
        let Some(role) = held.role.filter(|_| works) else { return Ok(None) };
        let listed = self.inner.store.read(self.list_key(Self::OPERATORS, &held.key)).await?;
        let listed = listed.map(|item| KeyItem::read(&item)).transpose()?;
        Ok(listed.map(|listed| (listed.name, role)))
    }
}

fn hash(token: &[u8]) -> CredentialHash {
    CredentialHash::sha256(Sha256::digest(token).into())
}
