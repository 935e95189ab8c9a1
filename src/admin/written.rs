//! The JSON of the operator's routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::clock::unix_ms;
use crate::directory::{
    ChangeOutcome, DirectoryError, Grant, HistoryEntry, KeyInfo, KeyState, Operator, Override,
    TenantRecord,
};
use crate::error::Error;
use crate::gate::status_word;
use crate::policy::origin::Origin;
use crate::policy::resolve::{Resolved, SetBy};
use crate::store::StoreErrorKind;
use crate::wire::{PROBLEM_JSON, Reply, rfc3339};

pub(crate) fn json(status: u16, body: &Value) -> Reply {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", "no-store".to_owned()),
    ];
    Reply { status, headers, body: body.to_string().into_bytes() }
}

pub(super) fn at(time: SystemTime) -> String {
    rfc3339(unix_ms(time))
}

/// `GET /billing` of a service that bills nothing.
pub(super) fn bills_nothing() -> Value {
    json!({
        "stripe": false, "last-report": null, "error": null, "reporter-until": null, "states": {},
        "oldest": null, "entries": [], "periods": [], "items": 0, "next": null,
    })
}

pub(super) fn tenant(
    record: &TenantRecord,
    holds: &Resolved,
    origins: &BTreeMap<Arc<str>, Origin>,
) -> Value {
    json!({
        "id": record.id,
        "surrogate": record.surrogate.to_string(),
        "plan": &*holds.policy.plan.name,
        "assigned-plan": record.plan,
        "status": &*status_word(&holds.standing),
        "suspended": record.suspended,
        "erased": record.erased().map(at),
        "payment": record.payment,
        "payment-since": at(record.payment_since()),
        "plan-since": at(record.plan_since()),
        "anchor": at(record.anchor()),
        "first-request": record.first_request().map(at),
        "account": record.account,
        "addons": record.addons,
        "grants": record.grants.iter().map(grant).collect::<Vec<_>>(),
        "overrides": record.overrides.iter().map(exception).collect::<Vec<_>>(),
        "origins": origins.iter().map(|(id, of)| (&**id, origin(of))).collect::<BTreeMap<_, _>>(),
        "version": record.version,
    })
}

/// Where a limit comes from that is not its plan's alone.
fn origin(of: &Origin) -> &'static str {
    match of.by {
        SetBy::Override(_) => "override",
        SetBy::Exception => "exception",
        SetBy::Plan => "addon",
    }
}

pub(super) fn grant(grant: &Grant) -> Value {
    json!({
        "id": grant.id,
        "meter": grant.meter,
        "units": grant.units,
        "source": grant.source,
        "expires": grant.expires_at().map(at),
        "reason": grant.note,
    })
}

fn exception(it: &Override) -> Value {
    json!({
        "id": it.id(),
        "changes": it.changes,
        "until": it.until().map(at),
        "reason": it.note,
        "at": at(it.at()),
    })
}

fn state(of: KeyState) -> &'static str {
    match of {
        KeyState::Active => "active",
        KeyState::Revoked => "revoked",
        KeyState::Expired => "expired",
        KeyState::Incomplete => "incomplete",
    }
}

pub(crate) fn key(key: &KeyInfo) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "made": at(key.made),
        "expires": key.expires.map(at),
        "permissions": key.permissions,
        "last-used": key.last_used.map(at),
        "state": state(key.state),
    })
}

/// An operator's token, without its text.
pub(super) fn operator(operator: &Operator) -> Value {
    let token = &operator.token;
    json!({
        "id": token.id,
        "name": token.name,
        "role": operator.role.as_str(),
        "made": at(token.made),
        "expires": token.expires.map(at),
        "state": state(token.state),
    })
}

/// The same for operators, who are asked for the scheme when a pepper goes.
pub(super) fn key_of_tenant(of: &KeyInfo) -> Value {
    let mut shown = key(of);
    shown["scheme"] = json!(of.scheme);
    shown
}

/// What a change would put into the history; `None`: nothing.
pub(super) fn would_be(entry: Option<&HistoryEntry>) -> Value {
    json!({
        "dry-run": true,
        "edits": entry.map(|it| &*it.edits).unwrap_or_default(),
        "actor": entry.and_then(|it| it.actor.as_ref()),
        "reason": entry.and_then(|it| it.note.as_ref()),
    })
}

pub(super) fn entry(entry: &HistoryEntry) -> Value {
    let outcome = match entry.outcome {
        ChangeOutcome::Happened => "happened",
        ChangeOutcome::Pending => "pending",
        ChangeOutcome::Never => "never",
    };
    json!({
        "at": at(entry.at),
        "actor": entry.actor,
        "reason": entry.note,
        "edits": entry.edits,
        "outcome": outcome,
    })
}

/// The answer to a repeated request for a key: the first one's had it, and nothing has it now.
pub(crate) fn made_already(id: &str) -> Reply {
    let body = json!({
        "type": "about:blank",
        "title": "Key made already",
        "status": 409,
        "detail": "A request with this Idempotency-Key has made the key, which was shown with its \
                   answer alone. Rotate the key if it was lost.",
        "key": id,
    });
    let headers =
        vec![("content-type", PROBLEM_JSON.to_owned()), ("cache-control", "no-store".to_owned())];
    Reply { status: 409, headers, body: body.to_string().into_bytes() }
}

/// A problem with a word for programs, where its status alone does not say what it is.
pub(super) fn with_code(problem: Reply, error: &Error) -> Reply {
    let code = match error {
        Error::Directory(DirectoryError::UnknownPlan(_)) => "unknown-plan",
        Error::Directory(DirectoryError::UnknownMeter(_)) | Error::NoMeter(_) => "unknown-meter",
        Error::Directory(DirectoryError::NotLimited { .. }) => "not-limited",
        Error::Directory(DirectoryError::NoPepper) => "no-pepper",
        _ => return problem,
    };
    let Ok(mut body) = serde_json::from_slice::<Value>(&problem.body) else { return problem };
    body["code"] = json!(code);
    Reply { body: body.to_string().into_bytes(), ..problem }
}

/// Status and title for an error of the library; `None`: the store's.
pub(crate) fn problem_of(error: &Error) -> Option<(u16, &'static str)> {
    Some(match error {
        Error::NoTenant(_) | Error::Directory(DirectoryError::NoTenant) => (404, "No such tenant"),
        Error::Directory(DirectoryError::NoKey(_)) => (404, "No such key"),
        Error::Directory(DirectoryError::UnknownLimit { .. }) => (404, "No such quota"),
        Error::Directory(DirectoryError::Store(error)) | Error::Store(error)
            if error.kind != StoreErrorKind::Invalid =>
        {
            return None;
        }
        Error::Directory(
            DirectoryError::Busy
            | DirectoryError::GrantDiffers(_)
            | DirectoryError::TooMany { .. }
            | DirectoryError::CredentialTaken
            | DirectoryError::CustomerTaken
            | DirectoryError::Erased
            | DirectoryError::SubscriptionLives { .. }
            | DirectoryError::NoPepper,
        ) => (409, "Conflict"),
        Error::Directory(_) | Error::NoMeter(_) => (422, "Not accepted"),
        _ => return None,
    })
}

/// An error as a sentence.
pub(crate) fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text.push('.');
    text
}
