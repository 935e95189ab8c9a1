//! Outer ids and their surrogates: an id is claimed once, until its tenant is erased.

use sha2::{Digest, Sha256};

use super::write::{Made, make};
use super::{Directory, DirectoryError, Surrogate};
use crate::identity::hex;
use crate::store::layout::{check_format, format};
use crate::store::{Change, Item, Key, StoreError, StoreErrorKind, Value, When, Write};

const FORMAT: i64 = 1;
pub(super) const TENANT: &str = "tenant";

impl Directory {
    /// The surrogate of this id, if it has one.
    pub(super) async fn read_name(&self, id: &str) -> Result<Option<Surrogate>, StoreError> {
        let item = self.inner.store.read(self.name_key(id)).await?;
        item.map(|item| surrogate(&item)).transpose()
    }

    /// The surrogate of this id; claims a fresh one if it has none.
    pub(super) async fn claim_name(&self, id: &str) -> Result<Surrogate, DirectoryError> {
        if let Some(found) = self.read_name(id).await? {
            return Ok(found);
        }
        let fresh = Surrogate::draw()?;
        match make(&*self.inner.store, entry(self.name_key(id), fresh)).await? {
            Made::Yes(_) => Ok(fresh),
            // Ours after a lost reply, or that of a faster process: the stored one holds.
            Made::No(Some(item)) | Made::Perhaps(Some(item)) => Ok(surrogate(&item)?),
            Made::No(None) | Made::Perhaps(None) => Err(DirectoryError::Busy),
        }
    }

    pub(super) fn name_key(&self, id: &str) -> Key {
        self.inner.space.name(&hex(&Sha256::digest(id)))
    }
}

impl Surrogate {
    /// Draws a random one.
    pub(crate) fn draw() -> Result<Self, crate::random::Error> {
        let mut random = [0; 16];
        crate::random::fill(&mut random)?;
        Ok(Self::new(u128::from_be_bytes(random)))
    }

    /// Parses the `Display` form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| digits).map(Self::new)
    }
}

/// An item that says whose this id is.
pub(super) fn entry(key: Key, tenant: Surrogate) -> Write {
    let change = vec![
        Change::Set(format(FORMAT).0, format(FORMAT).1),
        Change::Set(TENANT.into(), Value::Text(tenant.to_string())),
    ];
    Write { key, when: vec![When::Absent], change }
}

/// The tenant that such an item names.
pub(super) fn surrogate(item: &Item) -> Result<Surrogate, StoreError> {
    check_format(item, FORMAT, "a tenant's name")?;
    item.text(TENANT)
        .and_then(Surrogate::parse)
        .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "a tenant's name has no surrogate"))
}
