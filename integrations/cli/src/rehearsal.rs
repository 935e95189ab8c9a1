//! What a change would do: it is made on a copy of the tenant in a gate in memory, under the same
//! plan file, so that the library checks it as it would check the change itself.
//!
//! Not in the copy: grants that were given and have ended (such a grant would not be given again),
//! a live subscription, and usage.

use tallygate::directory::{Directory, TenantRecord};
use tallygate::{Gate, GateBuilder};

use crate::failure::Failure;
use crate::service::NoCallers;
use crate::settings::Settings;

/// A gate in memory.
pub(crate) struct Rehearsal(Gate);

impl Rehearsal {
    pub(crate) async fn begin(settings: &Settings) -> Result<Self, Failure> {
        let builder = GateBuilder::from_text("[store]\nkind = \"memory\"\n").identify(NoCallers);
        Ok(Self(builder.plans_file(settings.plans_file()).open().await?))
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Directory {
        self.0.directory()
    }

    /// Makes a copy of a tenant. What the plan file does not allow any more is left out.
    pub(crate) async fn copy(&self, of: &TenantRecord) -> Result<(), Failure> {
        let tenant = self.directory().tenant(&of.id).save().await?;
        let edits = [
            of.plan.as_ref().map(|plan| tenant.edit().plan(plan)),
            Some(tenant.edit().payment_since(of.payment, of.payment_since())),
            of.suspended.then(|| tenant.edit().suspend()),
            (!of.addons.is_empty()).then(|| tenant.edit().addons(of.addons.clone())),
            of.account.clone().map(|account| tenant.edit().account(Some(account))),
        ];
        let overrides = of.overrides.iter();
        let overrides =
            overrides.map(|it| tenant.edit().override_(&it.changes, it.until(), &it.note));
        let grants = of.grants.iter().map(|it| tenant.edit().grant(it.clone()));
        for edit in edits.into_iter().flatten().chain(overrides).chain(grants) {
            let _ = edit.save().await;
        }
        Ok(())
    }
}
