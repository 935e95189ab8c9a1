//! Tenants where they are kept: in the store, or with a service that runs. Both give the same
//! documents, from which everything is printed.

use http::Method;
use serde_json::{Value, json};
use tallygate::directory::{Directory, Tenant};
use tallygate::{Gate, TenantFilter};

use super::change::{Change, Edit, apply, instant};
use super::shown::{self, Entry};
use crate::client::{Client, encoded};
use crate::commands::{Ran, actor};
use crate::failure::{Failure, code};
use crate::place::{Place, reason, without_actor};
use crate::service::{For, with_gate};
use crate::when::exact;

/// Where tenants are.
pub(super) enum Tenants<'a> {
    Store(&'a Gate),
    Service(&'a Client),
}

/// What is in force for a tenant: its plan and its status.
pub(super) type InForce = Option<(String, String)>;

/// Runs a command on the tenants of a place.
pub(super) async fn with_tenants(
    place: &Place,
    opened: For,
    run: impl AsyncFnOnce(&Tenants<'_>) -> Ran,
) -> Ran {
    match place {
        Place::Store(settings) => {
            with_gate(settings, opened, async |gate| run(&Tenants::Store(gate)).await).await
        }
        Place::Service(client) => run(&Tenants::Service(client)).await,
    }
}

/// A page of a list.
pub(super) struct Listed {
    pub(super) tenants: Vec<Value>,
    /// Number of tenants that were read for it.
    pub(super) read: usize,
    /// The id after which the next page begins; `None`: this was the last.
    pub(super) next: Option<String>,
}

impl Tenants<'_> {
    /// Tenants that match, in the order of their ids.
    pub(super) async fn list(
        &self,
        filter: &TenantFilter,
        after: &str,
        most: usize,
    ) -> Result<Listed, Failure> {
        match self {
            Self::Store(gate) => {
                if let Some(mistake) = gate.filter_mistake(filter) {
                    return Err(Failure::usage(mistake));
                }
                let page = gate.filtered(filter, after, most).await?;
                let tenants = page.tenants.iter().map(|it| shown::json_of(it.record())).collect();
                Ok(Listed { tenants, read: page.read, next: page.next })
            }
            Self::Service(client) => {
                let page = client.get(&list_path(filter, after, most)).await?;
                let tenants = shown::list(&page["tenants"]).iter().map(shown::of_route).collect();
                let read = page["read"].as_u64().and_then(|read| usize::try_from(read).ok());
                let next = page["next"].as_str().map(str::to_owned);
                if next.as_deref().is_some_and(|next| next <= after) {
                    let text = "the service's pages of tenants come to no end";
                    return Err(Failure::new(code::FAILURE, text));
                }
                Ok(Listed { tenants, read: read.unwrap_or_default(), next })
            }
        }
    }

    /// A tenant; `None`: there is none.
    pub(super) async fn find(&self, id: &str) -> Result<Option<Value>, Failure> {
        match self {
            Self::Store(gate) => {
                let found = gate.directory().find(id).await?;
                Ok(found.map(|tenant| shown::json_of(tenant.record())))
            }
            Self::Service(client) => match client.get_of(id, "").await {
                Ok(tenant) => Ok(Some(shown::of_route(&tenant))),
                Err(error) if error.is_no_tenant(id) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// The tenant, with what is in force for it.
    pub(super) async fn show(&self, id: &str) -> Result<(Value, InForce), Failure> {
        match self {
            Self::Store(gate) => {
                let found = gate.directory().find(id).await?;
                let tenant = found.ok_or_else(|| Failure::no_tenant(id))?;
                let now = gate.entitlements(id).await?;
                let now = now.map(|it| (it.plan.to_string(), it.status.to_string()));
                Ok((shown::json_of(tenant.record()), now))
            }
            Self::Service(client) => {
                let tenant = client.get_of(id, "").await?;
                let now = (shown::text(&tenant["plan"]), shown::text(&tenant["status"]));
                Ok((shown::of_route(&tenant), Some(now)))
            }
        }
    }

    /// Every change of a tenant, the oldest first.
    pub(super) async fn history(&self, id: &str) -> Result<Vec<Entry>, Failure> {
        match self {
            Self::Store(gate) => {
                let found = gate.directory().find(id).await?;
                let tenant = found.ok_or_else(|| Failure::no_tenant(id))?;
                Ok(tenant.history().await?.iter().map(Entry::of).collect())
            }
            Self::Service(client) => {
                let history = client.get_of(id, "/history").await?;
                Ok(shown::list(&history["history"]).iter().map(Entry::of_route).collect())
            }
        }
    }

    /// Makes a change, and returns the tenant as it is then.
    pub(super) async fn save(&self, change: &Change) -> Result<Value, Failure> {
        match self {
            Self::Store(gate) => {
                let directory = gate.directory().by(actor(change.how.actor.as_ref()));
                let edit = match directory.find(&change.id).await? {
                    Some(tenant) => tenant.edit(),
                    None => directory.tenant(&change.id),
                };
                Ok(shown::json_of(apply(edit, change)?.save().await?.record()))
            }
            Self::Service(client) => Ok(shown::of_route(&send(client, change, false).await?)),
        }
    }

    /// Checks a change as making it would; `None`: nothing would change.
    pub(super) async fn rehearse(&self, change: &Change) -> Result<Option<Entry>, Failure> {
        match self {
            Self::Store(gate) => rehearse_in(gate.directory(), change).await,
            Self::Service(client) => {
                let would = send(client, change, true).await?;
                let is_change = !shown::list(&would["edits"]).is_empty();
                Ok(is_change.then(|| Entry::of_route(&would)))
            }
        }
    }

    /// Erases a tenant, and returns it as it is then.
    pub(super) async fn erase(
        &self,
        id: &str,
        said: Option<&String>,
        reason: &str,
    ) -> Result<Value, Failure> {
        match self {
            Self::Store(gate) => {
                let erased = gate.directory().by(actor(said)).erase(id, reason).await?;
                Ok(shown::json_of(erased.record()))
            }
            Self::Service(client) => {
                Ok(shown::of_route(&send_erase(client, (id, said, reason), false).await?))
            }
        }
    }

    /// How much an erasure would take: `keys`, `overrides`, `grants` and entries of `history`.
    pub(super) async fn to_erase(
        &self,
        id: &str,
        said: Option<&String>,
        reason: &str,
    ) -> Result<Value, Failure> {
        match self {
            Self::Store(gate) => {
                let tenant = gate.directory().by(actor(said)).to_erase(id, reason).await?;
                counts(&tenant).await
            }
            Self::Service(client) => send_erase(client, (id, said, reason), true).await,
        }
    }
}

/// Sends the erasure of a tenant to its route.
async fn send_erase(
    client: &Client,
    (id, said, reason): (&str, Option<&String>, &str),
    dry_run: bool,
) -> Result<Value, Failure> {
    without_actor(said)?;
    let body = json!({ "reason": reason });
    client.change_of(id, (Method::DELETE, ""), &body, dry_run).await
}

/// The path of a page of a list, with its query.
fn list_path(filter: &TenantFilter, after: &str, most: usize) -> String {
    let TenantFilter { prefix, plan, status, payment } = filter;
    let asked = [("plan", plan), ("status", status), ("payment", payment)];
    let mut path = format!("/tenants?prefix={}&after={}", encoded(prefix), encoded(after));
    for (name, value) in asked.into_iter().filter_map(|(name, it)| Some((name, it.as_ref()?))) {
        path.push_str(&format!("&{name}={}", encoded(value)));
    }
    format!("{path}&limit={most}")
}

/// Checks a change in a directory.
pub(super) async fn rehearse_in(
    directory: &Directory,
    change: &Change,
) -> Result<Option<Entry>, Failure> {
    let directory = directory.by(actor(change.how.actor.as_ref()));
    let entry = apply(directory.tenant(&change.id), change)?.rehearse().await?;
    Ok(entry.as_ref().map(Entry::of))
}

async fn counts(tenant: &Tenant) -> Result<Value, Failure> {
    let (keys, history) = (tenant.keys().await?.len(), tenant.history().await?.len());
    let (overrides, grants) = (tenant.record().overrides.len(), tenant.record().grants.len());
    Ok(json!({ "keys": keys, "history": history, "overrides": overrides, "grants": grants }))
}

/// Sends a change to the route that makes it.
async fn send(client: &Client, change: &Change, dry_run: bool) -> Result<Value, Failure> {
    without_actor(change.how.actor.as_ref())?;
    let why = reason(change.how.reason.as_ref())?;
    let of = |method: Method, path: String, mut body: Value| {
        body["reason"] = json!(why);
        (method, path, body)
    };
    let (method, path, body) = match &change.edit {
        Edit::Create { plan } => {
            let body = json!({ "id": change.id, "plan": plan, "reason": why });
            return client.change((Method::POST, "/tenants"), &body, dry_run).await;
        }
        Edit::Plan(plan) => of(Method::PATCH, String::new(), json!({ "plan": plan })),
        Edit::Suspend => of(Method::PATCH, String::new(), json!({ "suspended": true })),
        Edit::Resume => of(Method::PATCH, String::new(), json!({ "suspended": false })),
        Edit::Override { changes, until } => {
            let until = instant(*until)?.map(exact);
            let body = json!({ "changes": changes, "until": until });
            of(Method::POST, "/overrides".to_owned(), body)
        }
        Edit::EndOverride(None) => of(Method::DELETE, "/overrides".to_owned(), json!({})),
        Edit::EndOverride(Some(id)) => {
            of(Method::DELETE, format!("/overrides/{}", encoded(id)), json!({}))
        }
        Edit::Grant { grant, expires } => {
            let body = json!({
                "id": grant.id, "meter": grant.meter, "units": grant.units,
                "source": grant.source, "expires": instant(*expires)?.map(exact),
            });
            of(Method::POST, "/grants".to_owned(), body)
        }
        Edit::EndGrant(id) => of(Method::DELETE, format!("/grants/{}", encoded(id)), json!({})),
    };
    client.change_of(&change.id, (method, &path), &body, dry_run).await
}
