//! The operator's routes: see tenants and their usage, and change what they may use, over JSON.
//! Begin with [`Gate::admin`]; adapters mount them, and nothing is served until one does.
//!
//! | route | what |
//! |---|---|
//! | `GET /` | the console: a page for a browser, which asks for a token |
//! | `GET /health` | what is wrong with this process at the moment |
//! | `GET /operator` | the caller's own name and role |
//! | `GET /operators` | the operators' tokens, without their text |
//! | `GET /operators/history` | which tokens were made and revoked, when and by whom |
//! | `DELETE /operators/{token}` | revoke one |
//! | `GET /plans` | the names of plans and meters in the plan file |
//! | `GET /billing?tenant=&after=&limit=` | entries for Stripe by state, and what waits |
//! | `GET /top?limit=` | tenants that use most of a limit, over all processes |
//! | `GET /tenants?prefix=&plan=&status=&payment=&after=&limit=` | a page of tenants by id |
//! | `POST /tenants` | make a tenant: `id`, `plan`, `reason` |
//! | `GET /tenants/{id}` | its plan, status, grants, overrides, payment |
//! | `PATCH /tenants/{id}` | change it: `plan`, `suspended`, `reason` |
//! | `DELETE /tenants/{id}` | erase it: `reason`; usage stays, under another id |
//! | `GET /tenants/{id}/usage` | as `GET /usage` answers its callers |
//! | `GET /tenants/{id}/usage/history?meter=` | as `GET /usage/history` |
//! | `GET /tenants/{id}/peek?meter=&units=` | what so many units would get now; none is drawn |
//! | `GET /tenants/{id}/refusals?limit=` | its last refusals, by reason |
//! | `GET /refusals?limit=` | the same of all tenants |
//! | `GET /tenants/{id}/history` | every change, with actor, time and reason |
//! | `POST /tenants/{id}/grants` | give units: `id`, `meter`, `units`, `expires`, `reason` |
//! | `DELETE /tenants/{id}/grants/{grant}` | end a grant: `reason` |
//! | `POST /tenants/{id}/overrides` | an exception: `changes` (TOML), `until`, `reason` |
//! | `DELETE /tenants/{id}/overrides` | end all exceptions: `reason` |
//! | `DELETE /tenants/{id}/overrides/{override}` | end an exception: `reason` |
//! | `POST /tenants/{id}/resets` | begin a quota anew: `limit`, `reason` |
//! | `GET /tenants/{id}/keys` | its API keys |
//! | `POST /tenants/{id}/keys` | make one, shown this once: `name`, `expires`, `permissions` |
//! | `POST /tenants/{id}/keys/{key}/rotation` | replace one: `overlap-seconds` |
//! | `PATCH /tenants/{id}/keys/{key}` | have one end: `expires` |
//! | `DELETE /tenants/{id}/keys/{key}` | revoke one |
//!
//! `?dry-run=true` on a change makes its checks and writes nothing; the answer is what would be.
//!
//! # Laws
//!
//! 1. **An operator's token or nothing.** A request without one gets 401 before anything of it is
//!    read, and 403 where a change needs another role. The token comes in `Authorization` alone: a
//!    browser sends none by itself, and a request that one sends from another site is refused. The
//!    console's page alone is served without one: it is the same for all, and holds no data. On a
//!    unix socket that its owner alone may open, an adapter names the operator instead.
//! 2. **Every change has its actor**, in the tenant's history, and all but those of keys a reason.
//! 3. **Made twice is made once**: a tenant and a grant by their id, an override by what it says, a
//!    reset by what it gives back, and whatever was used meanwhile by the header
//!    `Idempotency-Key`; a key by that header. Without it a key is another each time.
//! 4. Errors are problems (RFC 9457) that say what to write instead.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::directory::Role;
use crate::gate::Gate;
use crate::repeated::repeated;
use crate::wire::{Reply, plain_problem};

#[cfg(feature = "stripe")]
mod billing;
mod change;
mod console;
mod keys;
mod look;
mod look_ups;
pub(crate) mod object;
mod operators;
mod path;
mod refusals;
#[cfg(test)]
mod tests;
pub(crate) mod written;

use look_ups::LookUps;
use path::Route;

/// Longest body of a request, in bytes: an override with its reason, and room to spare.
#[doc(hidden)]
pub const MAX_BODY: usize = 16 * 1024;

/// The header by which a client knows that these routes have answered, and not another 200 of the
/// host, or of a proxy.
const ROUTES: &str = "tallygate-routes";

/// The operator's routes. [`Gate::admin`] returns them.
#[derive(Clone, Debug)]
pub struct Admin {
    gate: Gate,
    look_ups: Arc<LookUps>,
}

/// An operator whose token was presented. [`Admin::known`] returns it.
#[derive(Clone)]
#[doc(hidden)]
pub struct KnownOperator {
    name: String,
    role: Role,
    /// `None` for one that the adapter knows without a token.
    token: Option<Box<[u8]>>,
}

/// What the routes need of a request besides its operator.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct AdminRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The path behind the place where the routes are mounted, still percent-encoded.
    pub path: &'a str,
    /// The query, still percent-encoded, without its `?`.
    pub query: &'a str,
    /// The body; `None` for one longer than [`MAX_BODY`].
    pub body: Option<&'a [u8]>,
    /// The header `Idempotency-Key`, by which a key is made, or a quota begun anew, once.
    pub once: Option<&'a [u8]>,
}

impl Gate {
    /// The operator's routes, for adapters; a host mounts `admin_router` of tallygate-axum or
    /// `admin_routes` of tallygate-actix-web.
    pub fn admin(&self) -> Admin {
        Admin { gate: self.clone(), look_ups: Arc::new(LookUps::new()) }
    }
}

impl Admin {
    /// The operator with this `Authorization`, or the answer to a request without one. An adapter
    /// calls it before it reads the body. `site` is the header `Sec-Fetch-Site`. For adapters.
    ///
    /// # Errors
    ///
    /// The response to send.
    #[doc(hidden)]
    pub async fn known(
        &self,
        authorization: Option<&[u8]>,
        site: Option<&[u8]>,
    ) -> Result<KnownOperator, Reply> {
        check_site(site)?;
        self.operator(authorization.and_then(bearer).unwrap_or_default()).await
    }

    /// The operator with this token, by the directory.
    async fn operator(&self, token: &[u8]) -> Result<KnownOperator, Reply> {
        let turn = self.look_ups.turn(token).await;
        let Some(turn) = turn else { return Err(self.unavailable(&"too many at once")) };
        let found = self.gate.directory().operator(token).await;
        if let Ok(found) = &found {
            turn.is_good(found.is_some());
        }
        match found {
            Ok(Some((name, role))) => Ok(KnownOperator { name, role, token: Some(token.into()) }),
            Ok(None) => {
                let detail = "Send an operator's token as `Authorization: Bearer`.";
                let mut reply = plain_problem(401, "Operators only", detail);
                reply.headers.push(("www-authenticate", "Bearer".into()));
                Err(reply)
            }
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// The operator of a connection that only the process's own user can make: on a unix socket.
    /// The name is for histories. `site` is the header `Sec-Fetch-Site`: a proxy may lead a browser
    /// here. For adapters.
    ///
    /// # Errors
    ///
    /// The response to send.
    #[doc(hidden)]
    pub fn local(&self, name: String, site: Option<&[u8]>) -> Result<KnownOperator, Reply> {
        check_site(site)?;
        Ok(KnownOperator { name, role: Role::Write, token: None })
    }

    /// Whether the gate is closed, or about to be: then a listener ends. For adapters.
    #[doc(hidden)]
    pub fn is_closing(&self) -> bool {
        self.gate.inner.teardown.closing.load(Ordering::Acquire)
    }

    /// The answer to an operator's request. For adapters.
    #[doc(hidden)]
    pub async fn reply(&self, operator: &KnownOperator, request: AdminRequest<'_>) -> Reply {
        let mut reply = self.answer(operator, request).await;
        reply.headers.push((ROUTES, "operator".into()));
        reply
    }

    async fn answer(&self, operator: &KnownOperator, request: AdminRequest<'_>) -> Reply {
        let Some(route) = Route::of(request.path) else {
            let detail = "There is nothing here: see the table of routes in docs/admin.md.";
            return plain_problem(404, "No such route", detail);
        };
        let answered = match request.method {
            "GET" | "HEAD" => self.look(&route, operator, request.query).await,
            "POST" | "PATCH" | "DELETE" if operator.role < Role::Write => {
                let detail = "This token may look, and not change.";
                Err(plain_problem(403, "Read-only token", detail))
            }
            "POST" | "PATCH" | "DELETE" => match self.still(operator).await {
                Ok(operator) => self.change(&route, &operator, request).await,
                Err(reply) => Err(reply),
            },
            _ => Ok(None),
        };
        match answered {
            Ok(Some(reply)) | Err(reply) => reply,
            Ok(None) => {
                let detail = format!("Here it may be {}.", route.methods());
                let mut reply = plain_problem(405, "Method not allowed", &detail);
                reply.headers.push(("allow", route.methods().into()));
                reply
            }
        }
    }

    /// The operator, whose token is looked up again: the body may have taken long to arrive.
    async fn still(&self, operator: &KnownOperator) -> Result<KnownOperator, Reply> {
        match &operator.token {
            Some(token) => self.operator(token).await,
            None => Ok(operator.clone()),
        }
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> Reply {
        let now_ms = self.gate.inner.clock.now().wall_ms;
        repeated!(warn, now_ms, "an operator's request was not answered"; %error);
        let detail =
            "The store did not answer in time. A change may have been made: look, or repeat it.";
        let mut reply = plain_problem(503, "Store unavailable", detail);
        reply.headers.push(("retry-after", "1".into()));
        reply
    }
}

/// Refuses what a page of another site has sent.
fn check_site(site: Option<&[u8]>) -> Result<(), Reply> {
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        let detail = "A page of another site has sent this request.";
        return Err(plain_problem(403, "Cross-site request", detail));
    }
    Ok(())
}

impl std::fmt::Debug for KnownOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownOperator").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The token of `Authorization: Bearer`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
