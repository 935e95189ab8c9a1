//! Erasing a tenant: what identifies people goes, what was counted stays, under its surrogate.
//!
//! # Laws
//!
//! 1. The record is written first, over the version that was looked at: from then on the tenant is
//!    suspended for good, and no change of it is accepted. All that follows only removes, may be
//!    repeated, and is completed by repeating the erasure after a crash.
//! 2. The outer id is freed last. Until then an erasure that was cut short is found by it.
//! 3. A writer that an erasure overtakes removes what it has just written: it looks at the record
//!    after its write, and the erasure looks for such writes after the record's.
//! 4. No entry of the history goes, and none of the past grants and keys: their texts do.
//!
//! What is owed stays owed. The customer's name at the billing service is in the record's eras and
//! in the usage log, which are the accounts; what was used until the erasure is sent there.

use super::edit::{Announced, Edit};
use super::names::{entry, surrogate};
use super::record::TenantRecord;
use super::write::make;
use super::{Directory, DirectoryError, News, Surrogate, Tenant};
use crate::identity::is_own_id;
use crate::store::{Change, Key, StoreError, Value, When, Write, until_known_at_once};

/// The beginning of the ids of erased tenants: no caller and no host can name one.
const PREFIX: &str = "~erased-";

/// Shortest id that is looked for in a reason: a letter or two stand in any sentence.
const NAMED: usize = 3;

impl Directory {
    /// Erases the tenant with this outer id: the id itself, the names of its keys, overrides, all
    /// reasons and actors of its history, and alerts that wait for delivery. Its keys stop working:
    /// in this process at once, in others within two seconds. The id is free for another tenant.
    ///
    /// What was used, and what is owed, is kept under the surrogate: the tenant is found by its new
    /// id, `~erased-` and the surrogate, and what it used until now is billed as before. `note` is
    /// the reason; it stays in the history, beside the actor of this handle.
    ///
    /// Cut short, it is completed by another call with the same id.
    ///
    /// ```no_run
    /// # async fn example(directory: tallygate::directory::Directory)
    /// # -> Result<(), tallygate::directory::DirectoryError> {
    /// let erased = directory.by("kim").erase("ann@example.com", "request 4711").await?;
    /// assert!(erased.record().erased().is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// There is no such tenant, its customer has a live subscription, the reason names it, or the
    /// store fails.
    pub async fn erase(&self, id: &str, note: &str) -> Result<Tenant, DirectoryError> {
        let found = self.to_erase(id, note).await?;
        let erased = found.edit().with(Edit::Erased).note(note).save().await?;
        let tenant = erased.record().surrogate;
        self.forget(tenant, Some(id).filter(|id| !is_own_id(id))).await?;
        Ok(erased)
    }

    /// The tenant that [`erase`](Self::erase) would erase. For the operator's command.
    ///
    /// # Errors
    ///
    /// As that.
    #[doc(hidden)]
    pub async fn to_erase(&self, id: &str, note: &str) -> Result<Tenant, DirectoryError> {
        let found = self.find(id).await?.ok_or(DirectoryError::NoTenant)?;
        found.record.may_be_erased()?;
        let named = |text: &str| is_named(id, text);
        if named(note) || self.actor.as_deref().is_some_and(named) {
            return Err(DirectoryError::NamesErased);
        }
        Ok(found)
    }

    /// Removes what an erased tenant has left behind, and frees its outer id.
    async fn forget(&self, tenant: Surrogate, id: Option<&str>) -> Result<(), DirectoryError> {
        let own = own_id(tenant);
        make(&*self.inner.store, entry(self.name_key(&own), tenant)).await?;
        self.enlist(tenant, &own).await?;
        self.forget_keys(tenant).await?;
        self.forget_texts(tenant).await?;
        self.inner.alerts.forget(tenant, id).await?;
        let Some(id) = id else { return Ok(()) };
        // The list before the name: a tenant that takes the name is listed under it.
        self.remove(self.place_in_list(id), tenant).await?;
        self.remove(self.name_key(id), tenant).await?;
        Ok(())
    }

    /// Removes what a change has written of a tenant that was erased meanwhile.
    pub(super) async fn forget_overtaken(
        &self,
        tenant: Surrogate,
        id: Option<&str>,
    ) -> Result<(), DirectoryError> {
        self.forget_texts(tenant).await?;
        self.inner.alerts.forget(tenant, id).await?;
        if let Some(id) = id {
            self.remove(self.place_in_list(id), tenant).await?;
        }
        Ok(())
    }

    /// Fails if the tenant was erased, and removes what has been written of its keys since.
    pub(super) async fn refuse_erased(&self, tenant: Surrogate) -> Result<(), DirectoryError> {
        let record = self.read_record(tenant).await?;
        if record.is_none_or(|record| record.erased_ms.is_none()) {
            return Ok(());
        }
        self.forget_keys(tenant).await?;
        self.forget_texts(tenant).await?;
        self.inner.alerts.forget(tenant, None).await?;
        Err(DirectoryError::Erased)
    }

    /// Revokes all keys, and takes their names off the list.
    async fn forget_keys(&self, tenant: Surrogate) -> Result<(), DirectoryError> {
        // Even on failure: some may have been revoked.
        self.inner.beginnings.begins(News::Revoked(tenant)).await?;
        let untold = self.inner.feed.tell_in_any_case(News::Revoked(tenant));
        let forgotten = self.revoke_and_unname(tenant).await;
        drop(untold);
        self.inner.feed.announced().await;
        forgotten
    }

    /// Takes the texts out of the past grants and of the history.
    async fn forget_texts(&self, tenant: Surrogate) -> Result<(), DirectoryError> {
        self.forget_notes_of_grants(tenant).await?;
        self.forget_texts_of_history(tenant).await
    }

    /// Removes an item that says whose an id is, if it is this tenant's.
    async fn remove(&self, key: Key, tenant: Surrogate) -> Result<(), StoreError> {
        let Some(item) = self.inner.store.read(key.clone()).await? else { return Ok(()) };
        if surrogate(&item)? != tenant {
            return Ok(());
        }
        let is_its = When::Equals(super::names::TENANT.into(), Value::Text(tenant.to_string()));
        let write = Write { key, when: vec![is_its], change: vec![Change::Delete] };
        // Refused: it is gone already, or another tenant's by now.
        until_known_at_once(&*self.inner.store, write).await.map(drop)
    }
}

impl TenantRecord {
    fn may_be_erased(&self) -> Result<(), DirectoryError> {
        if !self.has_live_subscription() {
            return Ok(());
        }
        let customer = self.account.clone().unwrap_or_default();
        Err(DirectoryError::SubscriptionLives { customer })
    }

    /// Leaves what the accounts need. The plan stays, and the end of a subscription.
    pub(super) fn erase(&mut self, now_ms: i64) -> Result<(), DirectoryError> {
        self.may_be_erased()?;
        if self.erased_ms.is_some() {
            return Ok(());
        }
        self.id = own_id(self.surrogate);
        (self.erased_ms, self.suspended) = (Some(now_ms), true);
        self.overrides.clear();
        self.grants.clear();
        self.sell_addons(&[]);
        // What was used so far stays with its customer.
        self.link(None, now_ms);
        Ok(())
    }
}

impl Announced {
    /// The entry without what people have written; `None`: it is so already. That of an erasure
    /// keeps its reason and actor.
    pub(super) fn without_texts(&self) -> Option<Self> {
        if self.edits.contains(&Edit::Erased) {
            return None;
        }
        let edits = self.edits.iter().map(Edit::without_texts).collect();
        let bare = Self { note: None, actor: None, edits, ..self.clone() };
        (bare != *self).then_some(bare)
    }
}

impl Edit {
    fn without_texts(&self) -> Self {
        let mut bare = self.clone();
        match &mut bare {
            Edit::Override(it) => {
                it.changes.clear();
                it.note.clear();
            }
            Edit::Grant(it) => it.note = None,
            Edit::KeyMade { name, .. } => name.clear(),
            _ => {}
        }
        bare
    }
}

/// The id of an erased tenant.
fn own_id(tenant: Surrogate) -> String {
    format!("{PREFIX}{tenant}")
}

/// Whether a text has the id in it, as a word.
fn is_named(id: &str, text: &str) -> bool {
    let (id, text) = (id.to_lowercase(), text.to_lowercase());
    id.chars().count() >= NAMED
        && text.match_indices(&id).any(|(at, found)| {
            let before = text[..at].chars().next_back();
            let after = text[at + found.len()..].chars().next();
            !before.into_iter().chain(after).any(char::is_alphanumeric)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_a_tenant_where_its_id_is_a_word_of_it() {
        for (id, text, is) in [
            ("ann@example.com", "asked by Ann@Example.com.", true),
            ("acme", "acme", true),
            ("acme", "acme's request", true),
            ("acme", "acmetonia", false),
            ("acme", "an acme, and macme", true),
            ("a", "a request", false),
            ("é-1", "as (É-1) wrote", true),
            ("acme", "request 4711", false),
        ] {
            assert_eq!(is_named(id, text), is, "{id}: {text}");
        }
    }
}
