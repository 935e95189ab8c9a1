//! `key`: a new key is printed alone on standard output, once.

use std::time::SystemTime;

use serde_json::{Value, json};
use tallygate::directory::{
    Directory, DirectoryError, KeyInfo, KeyOptions, KeyState, NewKey, Tenant,
};

use super::{Ran, actor};
use crate::args::{Destroy, Key, KeyWrite, Write};
use crate::ask::allowed;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::rehearsal::Rehearsal;
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::{When, now, written, written_or};

/// Digits of a SHA-256.
const DIGITS: usize = 64;

/// A change of a tenant's keys.
enum Change {
    Create(KeyOptions),
    Rotate(String, std::time::Duration),
    Expire(String, SystemTime),
    Revoke(String),
    Import(KeyOptions, [u8; DIGITS / 2]),
}

/// What came of it.
enum Done {
    Made(NewKey),
    Imported(String),
    Ended(String),
}

pub(super) async fn run(out: Output, settings: &Settings, what: Key) -> Ran {
    let (id, how, change) = match what {
        Key::List { id } => return list(out, settings, &id).await,
        Key::Create { id, name, expires, permission, write } => {
            let options = permitted(options(name, expires)?, &permission);
            (id, write, Change::Create(options))
        }
        Key::Rotate { id, key, overlap, write } => (id, write, Change::Rotate(key, overlap)),
        Key::Expire { id, key, at, write } => (id, write, Change::Expire(key, instant(at)?)),
        Key::Revoke { id, key, yes, write } => {
            let KeyWrite { dry_run, actor } = write.clone();
            let how = Destroy { yes, write: Write { dry_run, actor, reason: None } };
            allowed(&format!("revoke the key {key:?} of {id:?}"), &how)?;
            (id, write, Change::Revoke(key))
        }
        Key::ImportSha256 { id, hash, name, expires, permission, write } => {
            let options = permitted(options(name, expires)?, &permission);
            (id, write, Change::Import(options, sha256(&hash)?))
        }
    };
    let opened = match change {
        Change::Create(_) | Change::Rotate(..) => For::Keys,
        _ => For::Tenants,
    };
    with_gate(settings, opened, async |gate| {
        let tenant = find(&gate.directory().by(actor(how.actor.as_ref())), &id).await?;
        if how.dry_run {
            return rehearse(out, settings, &tenant, &how, &change).await;
        }
        told(out, &id, make(&tenant, &change).await?)
    })
    .await
}

async fn find(directory: &Directory, id: &str) -> Result<Tenant, Failure> {
    directory.find(id).await?.ok_or_else(|| Failure::no_tenant(id))
}

async fn make(tenant: &Tenant, change: &Change) -> Result<Done, Failure> {
    Ok(match change {
        Change::Create(options) => Done::Made(tenant.new_key(options.clone()).await?),
        Change::Rotate(key, overlap) => Done::Made(tenant.rotate_key(key, *overlap).await?),
        Change::Expire(key, at) => {
            tenant.expire_key(key, *at).await?;
            Done::Ended(key.clone())
        }
        Change::Revoke(key) => {
            tenant.revoke_key(key).await?;
            Done::Ended(key.clone())
        }
        Change::Import(options, hash) => {
            Done::Imported(tenant.import_key_sha256(options.clone(), *hash).await?)
        }
    })
}

fn told(out: Output, id: &str, done: Done) -> Ran {
    match done {
        Done::Made(new) if out.json => {
            let key = new.expose();
            let document = json!({ "id": new.id, "tenant": id, "name": new.name, "key": key });
            out.document(&document)?;
        }
        Done::Made(new) => {
            say(&format!("key {} ({}) of {id}: shown this once", new.id, new.name));
            out.line(new.expose())?;
        }
        Done::Imported(key) if out.json => out.document(&json!({ "id": key, "tenant": id }))?,
        Done::Ended(key) if out.json => out.document(&json!({ "id": key, "tenant": id }))?,
        Done::Imported(key) | Done::Ended(key) => out.line(&key)?,
    }
    Ok(code::OK)
}

/// Makes a new or imported key on a copy, and does not show it; of a key that is there, says
/// what would become of it.
async fn rehearse(
    out: Output,
    settings: &Settings,
    tenant: &Tenant,
    how: &KeyWrite,
    change: &Change,
) -> Ran {
    let id = &tenant.record().id;
    let would = match change {
        Change::Create(_) | Change::Import(..) => {
            let stage = Rehearsal::begin(settings).await?;
            stage.copy(tenant.record()).await?;
            let copy = find(&stage.directory().by(actor(how.actor.as_ref())), id).await?;
            make(&copy, change).await?;
            "a new key".to_owned()
        }
        Change::Rotate(key, _) => format!("{} replaced by another", working(tenant, key).await?),
        Change::Expire(key, at) => {
            format!("{} ended at {}", known(tenant, key).await?, written(*at))
        }
        Change::Revoke(key) => format!("{} revoked", known(tenant, key).await?),
    };
    say("dry run: nothing was written");
    match out.json {
        true => out.document(&json!({ "dry_run": true, "tenant": id, "would": would }))?,
        false => out.line(&format!("{id}: {would}"))?,
    }
    Ok(code::OK)
}

/// A key of the tenant, by its id.
async fn known(tenant: &Tenant, key: &str) -> Result<String, Failure> {
    found(tenant, key, |_| true).await
}

/// The same for one that works.
async fn working(tenant: &Tenant, key: &str) -> Result<String, Failure> {
    found(tenant, key, |it| it.state == KeyState::Active).await
}

async fn found(
    tenant: &Tenant,
    key: &str,
    is: impl Fn(&KeyInfo) -> bool,
) -> Result<String, Failure> {
    let keys = tenant.keys().await?;
    let found = keys.iter().find(|it| it.id == key && is(it));
    let found = found.ok_or_else(|| DirectoryError::NoKey(key.to_owned()))?;
    Ok(format!("key {key} ({})", found.name))
}

/// `key list`.
async fn list(out: Output, settings: &Settings, id: &str) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        let tenant = find(gate.directory(), id).await?;
        let mut table = Table::new([
            "ID",
            "NAME",
            "STATE",
            "MADE",
            "EXPIRES",
            "LAST USED",
            "SCHEME",
            "PERMISSIONS",
        ]);
        let mut keys = tenant.keys().await?;
        // By their ids, which are random, they would be in no order that means anything.
        keys.sort_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id)));
        for key in keys {
            if out.json {
                out.document(&key_json(&key))?;
                continue;
            }
            let (state, colour) = state(key.state);
            let (made, expires) = (written(key.made), written_or(key.expires, "no end"));
            let (used, may) = (written_or(key.last_used, "never"), key.permissions.join(" "));
            let state = state.to_owned();
            let cells = [key.id, key.name, state, made, expires, used, key.scheme, may];
            table.coloured(cells, (2, colour));
        }
        if !out.json {
            out.table(&table)?;
        }
        Ok(code::OK)
    })
    .await
}

fn key_json(key: &KeyInfo) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "state": state(key.state).0,
        "made": written(key.made),
        "expires": key.expires.map(written),
        "last_used": key.last_used.map(written),
        "permissions": key.permissions,
        "scheme": key.scheme,
    })
}

/// A key's state as a word, in its colour.
pub(super) fn state(state: KeyState) -> (&'static str, Colour) {
    match state {
        KeyState::Active => ("active", Colour::Green),
        KeyState::Revoked => ("revoked", Colour::Red),
        KeyState::Expired => ("expired", Colour::Yellow),
        KeyState::Incomplete => ("incomplete", Colour::Yellow),
        _ => ("unknown", Colour::Plain),
    }
}

/// A key's name and end.
pub(super) fn options(name: String, expires: Option<When>) -> Result<KeyOptions, Failure> {
    let options = KeyOptions::new(name);
    Ok(match expires {
        Some(end) => options.expires(instant(end)?),
        None => options,
    })
}

fn permitted(options: KeyOptions, permissions: &[String]) -> KeyOptions {
    permissions.iter().fold(options, KeyOptions::permission)
}

fn instant(end: When) -> Result<SystemTime, Failure> {
    let too_late = || Failure::usage("the calendar does not reach so far: write an earlier end");
    end.from(now()).ok_or_else(too_late)
}

/// A hash of 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<[u8; DIGITS / 2], Failure> {
    let wrong = || {
        Failure::usage(
            "a SHA-256 has 64 hexadecimal digits: printf %s \"$KEY\" | sha256sum | cut -c1-64",
        )
    };
    if text.len() != DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut hash = [0; DIGITS / 2];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}
