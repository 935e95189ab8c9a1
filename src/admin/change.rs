//! What an operator changes.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::path::Route;
use super::{Admin, AdminRequest, KnownOperator, MAX_BODY, object, written};
use crate::clock::time_at;
use crate::directory::{Directory, DirectoryError, Grant, KeyOptions, Tenant, TenantEdit};
use crate::report::instant_of;
use crate::wire::{Reply, plain_problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTenant {
    id: String,
    plan: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedTenant {
    /// `null` is the default plan; left out, the plan stays.
    #[serde(default, deserialize_with = "present")]
    plan: Option<Option<String>>,
    suspended: Option<bool>,
    reason: String,
}

/// A field that is there, if only as `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    id: String,
    meter: String,
    units: u64,
    expires: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOverride {
    changes: String,
    until: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewReset {
    limit: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    expires: Option<String>,
    /// `None`: the service file says what the key may do. An empty list: nothing.
    permissions: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rotation {
    overlap_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ended {
    reason: String,
}

impl Admin {
    /// The answer to a change; `None`: nothing is changed there by this method.
    pub(super) async fn change(
        &self,
        route: &Route,
        operator: &KnownOperator,
        request: AdminRequest<'_>,
    ) -> Result<Option<Reply>, Reply> {
        let directory = self.gate.directory().by(operator.name.as_str());
        let (body, once) = (Body(request.body), once(request.once)?);
        Ok(Some(match (request.method, route) {
            ("POST", Route::Tenants) => self.make(&directory, body.read()?).await?,
            ("PATCH", Route::Tenant(id)) => {
                let edit = patch(self.edit(&directory, id).await?, body.read()?)?;
                self.saved(200, edit).await?
            }
            ("DELETE", Route::Tenant(id)) => {
                let why = reason(body.read::<Ended>()?.reason)?;
                let erased = directory.erase(id, &why).await;
                let erased = erased.map_err(|error| self.refused(&error.into()))?;
                written::json(200, &self.tenant(&erased))
            }
            ("POST", Route::Grants(id)) => {
                let (edit, now) = (self.edit(&directory, id).await?, self.now());
                let new: NewGrant = body.read()?;
                let grant_id = new.id.clone();
                self.given(grant(edit, new, now)?, &grant_id).await?
            }
            ("DELETE", Route::Grant(id, grant)) => {
                let (edit, ended) = (self.edit(&directory, id).await?, body.read::<Ended>()?);
                self.saved(200, edit.end_grant(grant).note(reason(ended.reason)?)).await?
            }
            ("POST", Route::Overrides(id)) => {
                let (edit, now) = (self.edit(&directory, id).await?, self.now());
                let edit = overridden(edit, body.read()?, now)?;
                self.saved(201, edit).await?
            }
            ("DELETE", Route::Override(id, item)) => {
                let (edit, ended) = (self.edit(&directory, id).await?, body.read::<Ended>()?);
                self.saved(200, edit.end_override(item).note(reason(ended.reason)?)).await?
            }
            ("POST", Route::Resets(id)) => {
                let (tenant, reset) = (self.of(&directory, id).await?, body.read()?);
                self.reset(&tenant, reset, once).await?
            }
            ("POST", Route::Keys(id)) => {
                let (tenant, key) = (self.of(&directory, id).await?, body.read::<NewKey>()?);
                let options = KeyOptions::new(key.name);
                let end = key.expires.as_deref().map(instant).transpose()?;
                let options = end.into_iter().fold(options, KeyOptions::expires);
                let options = match key.permissions {
                    Some(names) => names.iter().fold(options.without_any(), KeyOptions::permission),
                    None => options,
                };
                let options = once.into_iter().fold(options, KeyOptions::once);
                self.shown(tenant.new_key(options).await)?
            }
            ("POST", Route::Rotation(id, key)) => {
                let (tenant, rotation) = (self.of(&directory, id).await?, body.read::<Rotation>()?);
                let overlap = Duration::from_secs(rotation.overlap_seconds);
                self.shown(tenant.rotate_key_once(key, overlap, once).await)?
            }
            ("DELETE", Route::Key(id, key)) => {
                let revoked = self.of(&directory, id).await?.revoke_key(key).await;
                revoked.map_err(|error| self.refused(&error.into()))?;
                written::json(200, &json!({ "id": key, "state": "revoked" }))
            }
            _ => return Ok(None),
        }))
    }

    fn now(&self) -> SystemTime {
        time_at(self.gate.inner.clock.now().wall_ms)
    }

    async fn make(&self, directory: &Directory, new: NewTenant) -> Result<Reply, Reply> {
        let edit = directory.tenant(&new.id).note(reason(new.reason)?);
        let found = directory.find(&new.id).await.map_err(|error| self.refused(&error.into()))?;
        match found {
            None => self.saved(201, new.plan.into_iter().fold(edit, TenantEdit::plan)).await,
            // As a repeated request finds it.
            Some(made) if new.plan.is_none() || made.record().plan == new.plan => {
                Ok(written::json(200, &self.tenant(&made)))
            }
            Some(_) => {
                let detail = "There is such a tenant, on another plan: change it with PATCH.";
                Err(plain_problem(409, "Conflict", detail))
            }
        }
    }

    async fn reset(
        &self,
        tenant: &Tenant,
        reset: NewReset,
        once: Option<&str>,
    ) -> Result<Reply, Reply> {
        let why = reason(reset.reason)?;
        let given = self.gate.reset_quota_once(tenant, &reset.limit, &why, once).await;
        let given = given.map_err(|error| self.refused(&error))?;
        let grant = given.as_ref().map(written::grant);
        Ok(written::json(if grant.is_some() { 201 } else { 200 }, &json!({ "grant": grant })))
    }

    /// The tenant with this id, for changes of this operator.
    pub(super) async fn of(&self, directory: &Directory, id: &str) -> Result<Tenant, Reply> {
        let found = directory.find(id).await;
        let found = found.and_then(|found| found.ok_or(DirectoryError::NoTenant));
        found.map_err(|error| self.refused(&error.into()))
    }

    async fn edit(&self, directory: &Directory, id: &str) -> Result<TenantEdit, Reply> {
        Ok(self.of(directory, id).await?.edit())
    }

    async fn saved(&self, status: u16, edit: TenantEdit) -> Result<Reply, Reply> {
        let saved = edit.save().await.map_err(|error| self.refused(&error.into()))?;
        Ok(written::json(status, &self.tenant(&saved)))
    }

    /// The tenant with its new grant. A grant is given once, so that one which has ended is not
    /// there after a repeated request.
    async fn given(&self, edit: TenantEdit, grant: &str) -> Result<Reply, Reply> {
        let saved = edit.save().await.map_err(|error| self.refused(&error.into()))?;
        if saved.record().grants.iter().any(|held| held.id == grant) {
            return Ok(written::json(201, &self.tenant(&saved)));
        }
        let detail = format!(
            "The grant `{grant}` was given before and has ended: give another one under a new id."
        );
        Err(plain_problem(409, "Conflict", &detail))
    }

    /// A new key, in plain text.
    fn shown(
        &self,
        made: Result<crate::directory::NewKey, DirectoryError>,
    ) -> Result<Reply, Reply> {
        let made = match made {
            Err(DirectoryError::MadeAlready(id)) => return Err(written::made_already(&id)),
            made => made.map_err(|error| self.refused(&error.into()))?,
        };
        let body = json!({ "id": made.id, "name": made.name, "key": made.expose() });
        Ok(written::json(201, &body))
    }
}

/// The idempotency key of a request, as text.
fn once(header: Option<&[u8]>) -> Result<Option<&str>, Reply> {
    let detail = "Idempotency-Key has 1 to 255 visible characters of ASCII.";
    let text = |header| std::str::from_utf8(header).ok();
    let bad = || plain_problem(400, "Bad Idempotency-Key", detail);
    header.map(|header| text(header).ok_or_else(bad)).transpose()
}

fn patch(edit: TenantEdit, change: ChangedTenant) -> Result<TenantEdit, Reply> {
    let edit = edit.note(reason(change.reason)?);
    let edit = match change.plan {
        Some(Some(plan)) => edit.plan(plan),
        Some(None) => edit.default_plan(),
        None => edit,
    };
    Ok(match change.suspended {
        Some(true) => edit.suspend(),
        Some(false) => edit.resume(),
        None => edit,
    })
}

fn grant(edit: TenantEdit, new: NewGrant, now: SystemTime) -> Result<TenantEdit, Reply> {
    let end = new.expires.as_deref().map(|end| instant_after(now, end)).transpose()?;
    let grant = Grant::new(new.id, new.meter, new.units).note(reason(new.reason.clone())?);
    Ok(edit.grant(end.into_iter().fold(grant, Grant::expires)).note(new.reason))
}

fn overridden(edit: TenantEdit, new: NewOverride, now: SystemTime) -> Result<TenantEdit, Reply> {
    let until = new.until.as_deref().map(|end| instant_after(now, end)).transpose()?;
    Ok(edit.override_(new.changes, until, reason(new.reason.clone())?).note(new.reason))
}

fn reason(text: String) -> Result<String, Reply> {
    match text.trim().is_empty() {
        true => Err(plain_problem(422, "No reason", "Say why: \"reason\": \"..\".")),
        false => Ok(text),
    }
}

fn instant(text: &str) -> Result<SystemTime, Reply> {
    instant_of(text).map_err(|why| plain_problem(422, "Not an instant", &why.to_string()))
}

/// The end of something that begins now.
fn instant_after(now: SystemTime, text: &str) -> Result<SystemTime, Reply> {
    let end = instant(text)?;
    match end > now {
        true => Ok(end),
        false => {
            let detail = "The end is past already: nothing would come of it.";
            Err(plain_problem(422, "The end is past", detail))
        }
    }
}

/// A request's body; `None` for one that is too long.
struct Body<'a>(Option<&'a [u8]>);

impl Body<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        let Some(body) = self.0.filter(|body| body.len() <= MAX_BODY) else {
            return Err(plain_problem(413, "Body too long", "At most 16 KiB are read."));
        };
        object::read(body).map_err(|error| {
            let detail = format!("The body is a JSON object: {error}.");
            plain_problem(400, "Bad body", &detail)
        })
    }
}
