//! What an import would change, by the plan file and the store, and which of its rows cannot be.
//! Nothing is written here: what the library would refuse is tried on copies in memory.

use tallygate::directory::{Directory, KeyOptions, Tenant};

use super::rows::{KeyRow, TenantRows, Wrong};
use crate::failure::{Failure, code};
use crate::rehearsal::Rehearsal;
use crate::settings::Settings;

/// Tenants of one rehearsal: each is in memory as long as it is.
const AT_ONCE: usize = 1_000;

/// What is to be changed of a tenant.
pub(super) struct Plan {
    pub(super) rows: TenantRows,
    pub(super) is_new: bool,
    pub(super) plan: Option<String>,
    pub(super) account: Option<String>,
    pub(super) keys: Vec<KeyRow>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        !self.is_new && self.plan.is_none() && self.account.is_none() && self.keys.is_empty()
    }
}

/// What there is to change, and what is wrong.
pub(super) async fn look(
    settings: &Settings,
    directory: &Directory,
    tenants: Vec<TenantRows>,
    wrong: &mut Vec<Wrong>,
) -> Result<Vec<Plan>, Failure> {
    let mut plans = Vec::with_capacity(tenants.len());
    let mut stage = Rehearsal::begin(settings).await?;
    for (n, rows) in tenants.into_iter().enumerate() {
        if n > 0 && n % AT_ONCE == 0 {
            stage = Rehearsal::begin(settings).await?;
        }
        let before = wrong.len();
        wrong.extend(refused(stage.directory(), &rows).await?);
        let others = rows.count.saturating_sub(1);
        let plan = match wrong.len() == before {
            true => plan(directory, rows, wrong).await?,
            false => None,
        };
        if plan.is_none() && others > 0 {
            let last = wrong.last_mut();
            last.into_iter().for_each(|it| it.why += "; the tenant's other rows go with it");
        }
        plans.extend(plan);
    }
    Ok(plans)
}

/// Why the library would refuse a tenant that these rows describe.
async fn refused(stage: &Directory, rows: &TenantRows) -> Result<Option<Wrong>, Failure> {
    let edit = stage.tenant(&rows.id);
    let edit = rows.plan.iter().fold(edit, |edit, (_, plan)| edit.plan(plan));
    let account = rows.account.as_ref().map(|(_, account)| account.clone());
    let edit = account.into_iter().fold(edit, |edit, it| edit.account(Some(it)));
    let tenant = match edit.save().await {
        Ok(tenant) => tenant,
        Err(error) => {
            let places = [&rows.plan, &rows.account];
            let at = places.iter().find_map(|it| it.as_ref().map(|(at, _)| *at));
            let why = unless_broken(error.into())?;
            return Ok(Some(Wrong { at: at.unwrap_or(rows.at), why }));
        }
    };
    for (at, key) in &rows.keys {
        let options = KeyOptions::new(&key.name);
        if let Err(error) = tenant.import_key_sha256(options, key.sha256).await {
            return Ok(Some(Wrong { at: *at, why: unless_broken(error.into())? }));
        }
    }
    Ok(None)
}

/// Why a change was refused; an error where the store has failed.
pub(super) fn unless_broken(failure: Failure) -> Result<String, Failure> {
    match failure.code {
        code::FAILURE | code::NOT_PERMITTED | code::FILE => Err(failure),
        _ => Ok(failure.text),
    }
}

/// What is to be changed of a tenant; `None`: what is in the store is in the way of its rows.
async fn plan(
    directory: &Directory,
    rows: TenantRows,
    wrong: &mut Vec<Wrong>,
) -> Result<Option<Plan>, Failure> {
    let tenant = directory.find(&rows.id).await?;
    let record = tenant.as_ref().map(Tenant::record);
    let plan = rows.plan.as_ref().map(|(_, plan)| plan);
    let plan = plan.filter(|plan| record.and_then(|it| it.plan.as_ref()) != Some(*plan)).cloned();
    let before = wrong.len();
    let mut account = None;
    if let Some((at, asked)) = &rows.account {
        match record.and_then(|it| it.account.as_ref()) {
            Some(linked) if linked == asked => {}
            Some(linked) => {
                let why = format!("{:?} has the account {linked:?} already", rows.id);
                wrong.push(Wrong { at: *at, why });
            }
            None if is_taken(directory, asked, tenant.as_ref()).await? => {
                let why = format!("the account {asked:?} is another tenant's");
                wrong.push(Wrong { at: *at, why });
            }
            None => account = Some(asked.clone()),
        }
    }
    let mut keys = Vec::new();
    for (at, key) in &rows.keys {
        let own = record.map(|it| it.surrogate);
        match directory.owner_of_sha256(key.sha256).await? {
            None => keys.push(key.clone()),
            Some((owner, true)) if Some(owner) == own => {}
            Some((owner, _)) => {
                let why = match Some(owner) == own {
                    true => "its key was revoked, or has expired: it is not made to work again",
                    false => "its key is another tenant's",
                };
                wrong.push(Wrong { at: *at, why: why.to_owned() });
            }
        }
    }
    let is_new = tenant.is_none();
    Ok((wrong.len() == before).then_some(Plan { rows, is_new, plan, account, keys }))
}

/// Whether an account is another tenant's.
async fn is_taken(
    directory: &Directory,
    account: &str,
    tenant: Option<&Tenant>,
) -> Result<bool, Failure> {
    let owner = directory.lookup_customer(account).await?;
    Ok(owner.is_some_and(|owner| tenant.is_none_or(|it| it.record().surrogate != owner)))
}
