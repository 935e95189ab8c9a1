//! What an operator changes.

use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::path::Route;
use super::{Admin, AdminRequest, KnownOperator, MAX_BODY, object, written};
use crate::clock::time_at;
use crate::directory::{Directory, DirectoryError, Grant, Tenant, TenantEdit};
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
    /// Where it comes from; left out: the operator.
    source: Option<String>,
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
struct Ended {
    reason: String,
}

/// How a change is asked for.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// It is checked, and not made.
    pub(super) dry: bool,
    /// The idempotency key of the request.
    pub(super) once: Option<&'a str>,
}

impl Admin {
    /// The answer to a change; `None`: nothing is changed there by this method.
    pub(super) async fn change(
        &self,
        route: &Route,
        operator: &KnownOperator,
        request: AdminRequest<'_>,
    ) -> Result<Option<Reply>, Reply> {
        if !route.methods().split(", ").any(|method| method == request.method) {
            return Ok(None);
        }
        let directory = self.gate.directory().by(operator.name.as_str());
        let how = How { dry: is_dry(request.query)?, once: once(request.once)? };
        let (method, body, dry) = (request.method, Body(request.body), how.dry);
        Ok(Some(match (method, route) {
            ("POST", Route::Tenants) => self.make(&directory, body.read()?, dry).await?,
            ("PATCH", Route::Tenant(id)) => {
                let edit = patch(self.edit(&directory, id).await?, body.read()?)?;
                self.saved(200, edit, dry).await?
            }
            ("DELETE", Route::Tenant(id)) => {
                self.erase(&directory, id, &reason(body.read::<Ended>()?.reason)?, dry).await?
            }
            ("POST", Route::Grants(id)) => {
                let (edit, now) = (self.edit(&directory, id).await?, self.now());
                let new: NewGrant = body.read()?;
                let grant_id = new.id.clone();
                self.given(grant(edit, new, now)?, &grant_id, dry).await?
            }
            ("DELETE", Route::Grant(id, grant)) => {
                let (edit, ended) = (self.edit(&directory, id).await?, body.read::<Ended>()?);
                self.saved(200, edit.end_grant(grant).note(reason(ended.reason)?), dry).await?
            }
            ("POST", Route::Overrides(id)) => {
                let (edit, now) = (self.edit(&directory, id).await?, self.now());
                let edit = overridden(edit, body.read()?, now)?;
                self.saved(201, edit, dry).await?
            }
            ("DELETE", Route::Overrides(id)) => {
                let (edit, ended) = (self.edit(&directory, id).await?, body.read::<Ended>()?);
                self.saved(200, edit.end_overrides().note(reason(ended.reason)?), dry).await?
            }
            ("DELETE", Route::Override(id, item)) => {
                let (edit, ended) = (self.edit(&directory, id).await?, body.read::<Ended>()?);
                self.saved(200, edit.end_override(item).note(reason(ended.reason)?), dry).await?
            }
            ("POST", Route::Resets(id)) => {
                let (tenant, reset) = (self.of(&directory, id).await?, body.read()?);
                self.reset(&tenant, reset, how).await?
            }
            ("DELETE", Route::Token(id)) => self.revoke_operator(&directory, id, how).await?,
            (_, Route::Keys(id) | Route::Key(id, _) | Route::Rotation(id, _)) => {
                let tenant = self.of(&directory, id).await?;
                return self.change_key(&tenant, (method, route), &body, how).await;
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn now(&self) -> SystemTime {
        time_at(self.gate.inner.clock.now().wall_ms)
    }

    async fn make(&self, directory: &Directory, new: NewTenant, dry: bool) -> Result<Reply, Reply> {
        let edit = directory.tenant(&new.id).note(reason(new.reason)?);
        let found = directory.find(&new.id).await.map_err(|error| self.refused(&error.into()))?;
        match found {
            None => self.saved(201, new.plan.into_iter().fold(edit, TenantEdit::plan), dry).await,
            // As a repeated request finds it.
            Some(made) if new.plan.is_none() || made.record().plan == new.plan => {
                let shown = if dry { written::would_be(None) } else { self.tenant(&made) };
                Ok(written::json(200, &shown))
            }
            Some(_) => {
                let detail = "There is such a tenant, on another plan: change it with PATCH.";
                Err(plain_problem(409, "Conflict", detail))
            }
        }
    }

    async fn erase(
        &self,
        directory: &Directory,
        id: &str,
        why: &str,
        dry: bool,
    ) -> Result<Reply, Reply> {
        let refused = |error: DirectoryError| self.refused(&error.into());
        if !dry {
            let erased = directory.erase(id, why).await.map_err(refused)?;
            let recording = &self.gate.inner.recording;
            recording.decisions.forget(id);
            recording.busiest_read.forget();
            return Ok(written::json(200, &self.tenant(&erased)));
        }
        let tenant = directory.to_erase(id, why).await.map_err(refused)?;
        let keys = tenant.keys().await.map_err(refused)?.len();
        let history = tenant.history().await.map_err(refused)?.len();
        let (overrides, grants) = (tenant.record().overrides.len(), tenant.record().grants.len());
        let would = json!({
            "dry-run": true, "id": id, "keys": keys, "history": history, "overrides": overrides,
            "grants": grants,
        });
        Ok(written::json(200, &would))
    }

    async fn reset(&self, tenant: &Tenant, reset: NewReset, how: How<'_>) -> Result<Reply, Reply> {
        let why = reason(reset.reason)?;
        let given = match how.dry {
            true => self.gate.rehearse_reset_once(tenant, &reset.limit, &why, how.once).await,
            false => self.gate.reset_quota_once(tenant, &reset.limit, &why, how.once).await,
        };
        let given = given.map_err(|error| self.refused(&error))?;
        let grant = given.as_ref().map(written::grant);
        if how.dry {
            return Ok(written::json(200, &json!({ "dry-run": true, "grant": grant })));
        }
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

    async fn saved(&self, status: u16, edit: TenantEdit, dry: bool) -> Result<Reply, Reply> {
        if dry {
            return self.rehearsed(edit).await;
        }
        let saved = edit.save().await.map_err(|error| self.refused(&error.into()))?;
        Ok(written::json(status, &self.tenant(&saved)))
    }

    async fn rehearsed(&self, edit: TenantEdit) -> Result<Reply, Reply> {
        let entry = edit.rehearse().await.map_err(|error| self.refused(&error.into()))?;
        Ok(written::json(200, &written::would_be(entry.as_ref())))
    }

    /// The tenant with its new grant. A grant is given once, so that one which has ended is not
    /// there after a repeated request.
    async fn given(&self, edit: TenantEdit, grant: &str, dry: bool) -> Result<Reply, Reply> {
        if dry {
            return self.rehearsed(edit).await;
        }
        let saved = edit.save().await.map_err(|error| self.refused(&error.into()))?;
        if saved.record().grants.iter().any(|held| held.id == grant) {
            return Ok(written::json(201, &self.tenant(&saved)));
        }
        let detail = format!(
            "The grant `{grant}` was given before and has ended: give another one under a new id."
        );
        Err(plain_problem(409, "Conflict", &detail))
    }
}

/// Whether a change is to be checked alone: `?dry-run=true`.
fn is_dry(query: &str) -> Result<bool, Reply> {
    match query {
        "" | "dry-run=false" => Ok(false),
        "dry-run=true" => Ok(true),
        _ => {
            let detail = "Of a change only dry-run=true may be asked.";
            Err(plain_problem(400, "Bad query", detail))
        }
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
    let grant = new.source.into_iter().fold(grant, Grant::source);
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

pub(super) fn instant(text: &str) -> Result<SystemTime, Reply> {
    instant_of(text).map_err(|why| plain_problem(422, "Not an instant", &why.to_string()))
}

/// The end of something that begins now.
pub(super) fn instant_after(now: SystemTime, text: &str) -> Result<SystemTime, Reply> {
    let end = instant(text)?;
    match end > now {
        true => Ok(end),
        false => {
            let detail = "The end is past already. What is to end now is revoked, or deleted.";
            Err(plain_problem(422, "The end is past", detail))
        }
    }
}

/// A request's body; `None` for one that is too long.
pub(super) struct Body<'a>(Option<&'a [u8]>);

impl Body<'_> {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        let Some(body) = self.0.filter(|body| body.len() <= MAX_BODY) else {
            return Err(plain_problem(413, "Body too long", "At most 16 KiB are read."));
        };
        object::read(body).map_err(|error| {
            let detail = format!("The body is a JSON object: {error}.");
            plain_problem(400, "Bad body", &detail)
        })
    }
}
