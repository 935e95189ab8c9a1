//! `key`: a new key is printed alone on standard output, once.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tallygate::directory::{
    self, Directory, DirectoryError, KeyInfo, KeyOptions, KeyState, Tenant,
};

use super::tenant::{self, text};
use super::{Ran, actor};
use crate::args::{Destroy, Key, KeyWrite, Write};
use crate::ask::allowed;
use crate::failure::{Failure, code};
use crate::output::{Colour, Output, Table, say};
use crate::place::{Place, without_actor};
use crate::rehearsal::Rehearsal;
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::{When, moment, now, written};

mod far;

/// What a dry run says of a key that would be made.
const A_NEW_KEY: &str = "a new key";

/// Digits of a SHA-256.
const DIGITS: usize = 64;

/// A change of a tenant's keys.
enum Change {
    Create(NewKey),
    Rotate(String, Duration),
    Expire(String, SystemTime),
    Revoke(String),
    Import(NewKey, [u8; DIGITS / 2]),
}

/// A key that is to be.
struct NewKey {
    name: String,
    expires: Option<SystemTime>,
    permissions: Vec<String>,
}

impl NewKey {
    fn of(name: String, expires: Option<When>, permissions: Vec<String>) -> Result<Self, Failure> {
        Ok(Self { name, expires: expires.map(instant).transpose()?, permissions })
    }

    fn options(&self) -> KeyOptions {
        let options = KeyOptions::new(&self.name);
        let options = self.expires.into_iter().fold(options, KeyOptions::expires);
        self.permissions.iter().fold(options, KeyOptions::permission)
    }
}

/// What came of it.
enum Done {
    Made {
        id: String,
        name: String,
        key: String,
    },
    Imported(String),
    Ended(String),
    /// It ends before the instant that was asked for, or has ended.
    Stays(String),
}

pub(super) async fn run(out: Output, place: &Place, what: Key) -> Ran {
    let (id, how, change) = match what {
        Key::List { id } => return list(out, place, &id).await,
        Key::Create { id, name, expires, permission, write } => {
            (id, write, Change::Create(NewKey::of(name, expires, permission)?))
        }
        Key::Rotate { id, key, overlap, write } => (id, write, Change::Rotate(key, overlap)),
        Key::Expire { id, key, at, write } => (id, write, Change::Expire(key, yet_to_come(at)?)),
        Key::Revoke { id, key, yes, write } => {
            let KeyWrite { dry_run, actor } = write.clone();
            let how = Destroy { yes, write: Write { dry_run, actor, reason: None } };
            allowed(&format!("revoke the key {key:?} of {id:?}"), &how)?;
            (id, write, Change::Revoke(key))
        }
        Key::ImportSha256 { id, hash, name, expires, permission, write } => {
            let new = NewKey::of(name, expires, permission)?;
            (id, write, Change::Import(new, sha256(&hash)?))
        }
    };
    let opened = match change {
        Change::Create(_) | Change::Rotate(..) => For::Keys,
        _ => For::Tenants,
    };
    let settings = match place {
        Place::Store(settings) => settings,
        Place::Service(client) => {
            without_actor(how.actor.as_ref())?;
            return match how.dry_run {
                true => would_be(out, &id, &far::rehearse(client, &id, &change).await?),
                false => show(out, &id, far::make(client, &id, &change).await?),
            };
        }
    };
    with_gate(settings, opened, async |gate| {
        let tenant = find(&gate.directory().by(actor(how.actor.as_ref())), &id).await?;
        match how.dry_run {
            true => would_be(out, &id, &rehearse(settings, &tenant, &how, &change).await?),
            false => show(out, &id, make(&tenant, &change).await?),
        }
    })
    .await
}

async fn find(directory: &Directory, id: &str) -> Result<Tenant, Failure> {
    directory.find(id).await?.ok_or_else(|| Failure::no_tenant(id))
}

async fn make(tenant: &Tenant, change: &Change) -> Result<Done, Failure> {
    let made = |new: directory::NewKey| {
        let key = new.expose().to_owned();
        Done::Made { id: new.id, name: new.name, key }
    };
    Ok(match change {
        Change::Create(new) => made(tenant.new_key(new.options()).await?),
        Change::Rotate(key, overlap) => made(tenant.rotate_key(key, *overlap).await?),
        Change::Expire(key, at) => {
            if ends_before(&key_json(&found(tenant, key, |_| true).await?), *at) {
                return Ok(Done::Stays(key.clone()));
            }
            tenant.expire_key(key, *at).await?;
            Done::Ended(key.clone())
        }
        Change::Revoke(key) => {
            tenant.revoke_key(key).await?;
            Done::Ended(key.clone())
        }
        Change::Import(new, hash) => {
            Done::Imported(tenant.import_key_sha256(new.options(), *hash).await?)
        }
    })
}

fn show(out: Output, id: &str, done: Done) -> Ran {
    match done {
        Done::Made { id: key_id, name, key } if out.json => {
            let document = json!({ "id": key_id, "tenant": id, "name": name, "key": key });
            out.document(&document)?;
        }
        Done::Made { id: key_id, name, key } => {
            say(&format!("key {key_id} ({name}) of {id}: shown this once"));
            out.line(&key)?;
        }
        Done::Imported(key) if out.json => out.document(&json!({ "id": key, "tenant": id }))?,
        Done::Ended(key) if out.json => out.document(&json!({ "id": key, "tenant": id }))?,
        Done::Imported(key) | Done::Ended(key) => out.line(&key)?,
        Done::Stays(key) => {
            say(STAYS);
            return show(out, id, Done::Ended(key));
        }
    }
    Ok(code::OK)
}

/// Said of an end that is not moved.
const STAYS: &str =
    "nothing changed: the key has ended, or ends before that; make another for a longer life";

/// Whether a key was revoked, or ends before this instant, compared by the second: its end moves
/// only to an earlier one.
fn ends_before(key: &Value, at: SystemTime) -> bool {
    let ends = key["expires"].as_str().and_then(moment).map(SystemTime::from);
    key["state"] == "revoked" || ends.is_some_and(|end| end + Duration::from_secs(1) < at)
}

/// Checks a change, and says what would come of it. A key that is imported is made on a copy.
async fn rehearse(
    settings: &Settings,
    tenant: &Tenant,
    how: &KeyWrite,
    change: &Change,
) -> Result<String, Failure> {
    let key = match change {
        Change::Create(new) => {
            tenant.rehearse_key(&new.options()).await?;
            return Ok(A_NEW_KEY.to_owned());
        }
        Change::Import(..) => {
            let stage = Rehearsal::begin(settings).await?;
            stage.copy(tenant.record()).await?;
            let by = stage.directory().by(actor(how.actor.as_ref()));
            make(&find(&by, &tenant.record().id).await?, change).await?;
            return Ok(A_NEW_KEY.to_owned());
        }
        Change::Rotate(key, _) => found(tenant, key, |it| it.state == KeyState::Active).await?,
        Change::Expire(key, _) | Change::Revoke(key) => found(tenant, key, |_| true).await?,
    };
    Ok(of_key(change, &key_json(&key)))
}

/// What would become of a key that is there.
fn of_key(change: &Change, key: &Value) -> String {
    let is_kept = matches!(change, Change::Expire(_, at) if ends_before(key, *at));
    let key = format!("key {} ({})", text(&key["id"]), text(&key["name"]));
    match change {
        _ if is_kept => format!("{key} stays: it has ended, or ends before that"),
        Change::Rotate(..) => format!("{key} replaced by another"),
        Change::Expire(_, at) => format!("{key} ended at {}", written(*at)),
        _ => format!("{key} revoked"),
    }
}

fn would_be(out: Output, id: &str, would: &str) -> Ran {
    say("dry run: nothing was written");
    match out.json {
        true => out.document(&json!({ "dry_run": true, "tenant": id, "would": would }))?,
        false => out.line(&format!("{id}: {would}"))?,
    }
    Ok(code::OK)
}

async fn found(
    tenant: &Tenant,
    key: &str,
    is: impl Fn(&KeyInfo) -> bool,
) -> Result<KeyInfo, Failure> {
    let found = tenant.keys().await?.into_iter().find(|it| it.id == key && is(it));
    Ok(found.ok_or_else(|| DirectoryError::NoKey(key.to_owned()))?)
}

/// `key list`.
async fn list(out: Output, place: &Place, id: &str) -> Ran {
    match place {
        Place::Store(settings) => {
            with_gate(settings, For::Tenants, async |gate| {
                let tenant = find(gate.directory(), id).await?;
                let mut keys = tenant.keys().await?;
                // By their ids, which are random, they would be in no order that means anything.
                keys.sort_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id)));
                print(out, &keys.iter().map(key_json).collect::<Vec<_>>())
            })
            .await
        }
        Place::Service(client) => print(out, &far::list(client, id).await?),
    }
}

fn print(out: Output, keys: &[Value]) -> Ran {
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
    let or = |of: &Value, none: &str| if of.is_null() { none.to_owned() } else { text(of) };
    for key in keys {
        if out.json {
            out.document(key)?;
            continue;
        }
        let may: Vec<_> = tenant::list(&key["permissions"]).iter().map(text).collect();
        let cells = [
            text(&key["id"]),
            text(&key["name"]),
            text(&key["state"]),
            text(&key["made"]),
            or(&key["expires"], "no end"),
            or(&key["last_used"], "never"),
            text(&key["scheme"]),
            may.join(" "),
        ];
        table.coloured(cells, (2, colour(key["state"].as_str().unwrap_or_default())));
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(code::OK)
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
    let word = match state {
        KeyState::Active => "active",
        KeyState::Revoked => "revoked",
        KeyState::Expired => "expired",
        KeyState::Incomplete => "incomplete",
        _ => "unknown",
    };
    (word, colour(word))
}

pub(super) fn colour(state: &str) -> Colour {
    match state {
        "active" => Colour::Green,
        "revoked" => Colour::Red,
        "expired" | "incomplete" => Colour::Yellow,
        _ => Colour::Plain,
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

fn instant(end: When) -> Result<SystemTime, Failure> {
    let too_late = || Failure::usage("the calendar does not reach so far: write an earlier end");
    end.from(now()).ok_or_else(too_late)
}

/// The end of a key that works until then.
fn yet_to_come(end: When) -> Result<SystemTime, Failure> {
    let end = instant(end)?;
    match end > now() {
        true => Ok(end),
        false => {
            let text = "that is past, and would end the key at once: `key revoke` does";
            Err(Failure::usage(text))
        }
    }
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
