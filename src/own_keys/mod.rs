//! The routes by which a tenant manages its own API keys, over JSON: nothing is served until an
//! adapter mounts them, which is the host's permission.
//!
//! | route | what |
//! |---|---|
//! | `GET /usage/keys` | its keys, without their text, and which the request came with |
//! | `POST /usage/keys` | make one, shown this once: `name`, `expires`, `permissions` |
//! | `DELETE /usage/keys/{key}` | revoke one; `?itself=yes` for that of the request |
//!
//! # Laws
//!
//! 1. **No caller gives more than it has.** A key that is made here may do what its caller may, or
//!    less: without `permissions`, just what its caller may. It ends when the key that makes it
//!    does, or earlier; and no key is revoked by one that may do less. A key that was revoked
//!    since the request began does nothing here, and one of a suspended tenant makes none.
//! 2. **A page of another site does nothing.** A request that a browser sends from one is refused,
//!    and a body must be JSON, which no form of another site can send.
//! 3. **Bounded**: a tenant makes no key here beyond `MOST_WORKING` that work, or `MOST_LISTED`
//!    in its list. Its changes take turns within a process, and its looks have places among the
//!    look-ups of all tenants: half of them at most. Of several processes each may make one more
//!    key at the same moment, for a count and a new key are two calls of the store.
//! 4. **Of the tenant that was identified**, and of none that took its id since.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::json;

use crate::admin::{object, written};
use crate::directory::{DirectoryError, KeyInfo, KeyOptions, KeyState, Tenant};
use crate::error::Error;
use crate::gate::{Gate, Identified};
use crate::identity::{Permissions, is_own_id};
use crate::ids::Surrogate;
use crate::patience;
use crate::report::instant_of;
use crate::wire::{Reply, plain_problem};

#[cfg(test)]
mod tests;

/// Longest body of a request, in bytes: a name, an end and 32 permissions.
#[doc(hidden)]
pub const MAX_BODY: usize = 4 * 1024;

/// Most working keys of a tenant that makes them here: a tenth of what it may have at all, so that
/// the operator can still give it some.
const MOST_WORKING: usize = 100;

/// Most keys in the list of a tenant that makes them here, with the ended ones, which stay listed:
/// a caller that makes and revokes keys without end fills no table.
const MOST_LISTED: usize = 1_000;

/// Longest wait for the store to answer one request.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What the routes need of a request besides its caller.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct KeysRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// What follows `/usage/keys/`, still percent-encoded; `None` at `/usage/keys` itself.
    pub key: Option<&'a str>,
    /// The query, still percent-encoded, without its `?`.
    pub query: &'a str,
    /// The header `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// The header `Sec-Fetch-Site`.
    pub site: Option<&'a [u8]>,
    /// The header `Idempotency-Key`.
    pub once: Option<&'a [u8]>,
    /// The body; `None` for one longer than [`MAX_BODY`].
    pub body: Option<&'a [u8]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    expires: Option<String>,
    permissions: Option<Vec<String>>,
}

impl Gate {
    /// The answer to a tenant's request about its own keys. For adapters.
    #[doc(hidden)]
    pub async fn keys_reply(&self, who: &Identified, request: KeysRequest<'_>) -> Reply {
        match patience::within(PATIENCE, self.own_keys(who, request)).await {
            Some(Ok(reply) | Err(reply)) => reply,
            None => unavailable(),
        }
    }

    async fn own_keys(&self, who: &Identified, request: KeysRequest<'_>) -> Result<Reply, Reply> {
        refuse_other_sites(&request)?;
        if who.is_kept() {
            return Err(unavailable()); // which key it came with is not known for certain
        }
        let surrogate = who.tenant().0.core.surrogate;
        let place = self.inner.tenants.reads.place(surrogate.as_u128()).await;
        let place = place.ok_or_else(unavailable)?;
        let tenant = self.tenant_of_keys(who, surrogate).await?;
        let own = working_key(&tenant, who).await?;
        if let ("GET" | "HEAD", None) = (request.method, request.key) {
            return list(&tenant, who).await;
        }
        // A change waits for other processes' news of it, which may need a place themselves.
        drop(place);
        match (request.method, request.key) {
            ("POST", None) => make(&tenant, who, own.as_ref(), &request).await,
            ("DELETE", Some(key)) => revoke(&tenant, who, key, request.query).await,
            (_, key) => {
                let methods = if key.is_none() { "GET, POST" } else { "DELETE" };
                let detail = format!("Here it may be {methods}.");
                let mut reply = plain_problem(405, "Method not allowed", &detail);
                reply.headers.push(("allow", methods.into()));
                Err(reply)
            }
        }
    }

    /// The tenant whose keys these are, with the caller as the actor in its history. Another
    /// one may have its id by now: a request's body may take long to arrive.
    async fn tenant_of_keys(
        &self,
        who: &Identified,
        surrogate: Surrogate,
    ) -> Result<Tenant, Reply> {
        if is_own_id(who.tenant().id()) {
            let detail = "A caller without a tenant of its own has no keys.";
            return Err(plain_problem(403, "No keys here", detail));
        }
        let actor = match who.key() {
            Some(key) => format!("key {key}"),
            None => "a caller".to_owned(),
        };
        let found = self.directory().by(actor).find(who.tenant().id()).await;
        let found = found.map_err(refused)?.filter(|it| it.record().surrogate == surrogate);
        found.ok_or_else(|| unauthorized("The tenant of this request was erased."))
    }
}

/// A page of another site may not act for its visitor.
fn refuse_other_sites(request: &KeysRequest<'_>) -> Result<(), Reply> {
    if request.site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        let detail = "A page of another site has sent this request.";
        return Err(plain_problem(403, "Cross-site request", detail));
    }
    let is_json = |content: &[u8]| {
        let kind = content.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    if request.method == "POST" && !request.content_type.is_some_and(is_json) {
        let detail = "Send the body as `Content-Type: application/json`.";
        return Err(plain_problem(415, "Not JSON", detail));
    }
    Ok(())
}

/// The key of the request, if it came with one of the directory's. It is read again, because its
/// body may have taken long to arrive.
async fn working_key(tenant: &Tenant, who: &Identified) -> Result<Option<KeyInfo>, Reply> {
    let Some(id) = who.key() else { return Ok(None) };
    // A key that the directory does not have is named by the host, which vouches for it.
    let Some(own) = tenant.key(id).await.map_err(refused)? else { return Ok(None) };
    if own.state != KeyState::Active {
        return Err(unauthorized("The key of this request has ended."));
    }
    Ok(Some(own))
}

fn unauthorized(detail: &str) -> Reply {
    plain_problem(401, "Unauthorized", detail)
}

async fn list(tenant: &Tenant, who: &Identified) -> Result<Reply, Reply> {
    let mut keys = tenant.own_keys().await.map_err(refused)?;
    keys.sort_by(|a, b| (b.made, &b.id).cmp(&(a.made, &a.id)));
    let keys: Vec<_> = keys.iter().map(written::key).collect();
    let permissions: Vec<_> = who.permissions().iter().map(str::to_owned).collect();
    let body = json!({ "keys": keys, "own": who.key(), "permissions": permissions });
    Ok(written::json(200, &body))
}

async fn make(
    tenant: &Tenant,
    who: &Identified,
    own: Option<&KeyInfo>,
    request: &KeysRequest<'_>,
) -> Result<Reply, Reply> {
    if tenant.record().suspended {
        let detail = "The account is suspended: it makes no keys.";
        return Err(plain_problem(403, "Account suspended", detail));
    }
    let once = once(request)?;
    let mut options = options(who, own.and_then(|key| key.expires), request)?;
    // Until the key is made: requests at once would all count those before them.
    let _turn = tenant.turn_at_keys().await;
    if let Some(once) = once {
        // Before the bounds: the request that is repeated may have made the last one.
        if let Some(made) = tenant.made_once(once).await.map_err(refused)? {
            return Err(written::made_already(&made));
        }
        options = options.once_of_tenant(once);
    }
    let count = tenant.count_keys().await.map_err(refused)?;
    for (count, most) in [(count.working, MOST_WORKING), (count.listed, MOST_LISTED)] {
        if count >= most {
            return Err(refused(DirectoryError::TooMany { what: "keys", most }));
        }
    }
    match tenant.new_key(options).await {
        Ok(made) => {
            let body = json!({ "id": made.id, "name": made.name, "key": made.expose() });
            Ok(written::json(201, &body))
        }
        Err(error) => Err(refused(error)),
    }
}

/// The idempotency key of a request, if it has one.
fn once<'a>(request: &KeysRequest<'a>) -> Result<Option<&'a str>, Reply> {
    let text = request.once.map(std::str::from_utf8).transpose();
    text.map_err(|_| bad("Idempotency-Key is text of visible ASCII."))
}

fn bad(detail: &str) -> Reply {
    plain_problem(400, "Bad request", detail)
}

/// The key that a request asks for, within what its caller may do and, where that is a key with an
/// end, until then.
fn options(
    who: &Identified,
    until: Option<SystemTime>,
    request: &KeysRequest<'_>,
) -> Result<KeyOptions, Reply> {
    let body = request.body.ok_or_else(|| {
        plain_problem(413, "Body too long", &format!("It has at most {MAX_BODY} bytes."))
    })?;
    let new: NewKey = object::read(body).map_err(|error| bad(&format!("The body: {error}.")))?;
    let mut options = KeyOptions::new(new.name);
    let asked = new
        .expires
        .as_deref()
        .map(|end| instant_of(end).map_err(|why| bad(&format!("expires is no instant. {why}"))));
    let asked = asked.transpose()?;
    if let (Some(asked), Some(until)) = (asked, until)
        && asked > until
    {
        let detail = "The key of this request ends before that, and can make none that works \
                      longer: leave `expires` out, or use a key without an end.";
        return Err(plain_problem(403, "Beyond the key's end", detail));
    }
    if let Some(end) = asked.or(until) {
        options = options.expires(end);
    }
    let held = who.permissions();
    let Some(names) = new.permissions else { return Ok(options.only(held.clone())) };
    if let Some(beyond) = names.iter().find(|name| !held.has(name)) {
        let detail = format!("The caller lacks the permission {beyond}, and cannot give it.");
        return Err(plain_problem(403, "Permission missing", &detail));
    }
    Ok(options.only(Permissions::of(&names.join(" "))))
}

async fn revoke(tenant: &Tenant, who: &Identified, key: &str, query: &str) -> Result<Reply, Reply> {
    if who.key() == Some(key) && query != "itself=yes" {
        let detail = "This request came with the key itself, which would be its last. Add \
                      `?itself=yes` to revoke it all the same.";
        return Err(plain_problem(409, "The key of this request", detail));
    }
    let _turn = tenant.turn_at_keys().await;
    let revoked = tenant.key(key).await.map_err(refused)?;
    let may = revoked.map(|it| it.permissions);
    if let Some(beyond) = may.iter().flatten().find(|name| !who.permissions().has(name)) {
        let detail = format!("The caller lacks the permission {beyond}, which that key has.");
        return Err(plain_problem(403, "Permission missing", &detail));
    }
    tenant.revoke_key(key).await.map_err(refused)?;
    Ok(written::json(200, &json!({ "id": key, "state": "revoked" })))
}

/// The answer where the directory has refused.
fn refused(error: DirectoryError) -> Reply {
    if let DirectoryError::MadeAlready(id) = &error {
        return written::made_already(id);
    }
    let error = Error::from(error);
    match written::problem_of(&error) {
        Some((status, title)) => plain_problem(status, title, &written::sentence(&error)),
        None => unavailable(),
    }
}

fn unavailable() -> Reply {
    let detail =
        "The store did not answer in time. A change may have been made: look, or repeat it.";
    let mut reply = plain_problem(503, "Store unavailable", detail);
    reply.headers.push(("retry-after", "1".into()));
    reply
}
