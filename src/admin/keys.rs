//! What an operator changes of a tenant's keys. They have an actor in the history, and no reason.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::change::{Body, How, instant, instant_after};
use super::path::Route;
use super::{Admin, written};
use crate::directory::{DirectoryError, KeyInfo, KeyOptions, KeyState, NewKey, Tenant};
use crate::wire::Reply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKeyAsked {
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
struct Ending {
    expires: String,
}

impl Admin {
    /// The answer to a change of a tenant's keys; `None`: nothing is changed there by this method.
    pub(super) async fn change_key(
        &self,
        tenant: &Tenant,
        (method, route): (&str, &Route),
        body: &Body<'_>,
        how: How<'_>,
    ) -> Result<Option<Reply>, Reply> {
        Ok(Some(match (method, route) {
            ("POST", Route::Keys(_)) => self.make_key(tenant, body.read()?, how).await?,
            ("POST", Route::Rotation(_, key)) => {
                let overlap = Duration::from_secs(body.read::<Rotation>()?.overlap_seconds);
                if how.dry {
                    let is_working = |it: &KeyInfo| it.state == KeyState::Active;
                    return self.kept(tenant, key, is_working).await.map(Some);
                }
                self.shown(tenant.rotate_key_once(key, overlap, how.once).await)?
            }
            ("PATCH", Route::Key(_, key)) => {
                let end = instant_after(self.now(), &body.read::<Ending>()?.expires)?;
                if how.dry {
                    return self.kept(tenant, key, |_| true).await.map(Some);
                }
                let ended = tenant.expire_key(key, end).await;
                ended.map_err(|error| self.refused(&error.into()))?;
                let info = self.key(tenant, key, |_| true).await?;
                written::json(200, &written::key_of_tenant(&info))
            }
            ("DELETE", Route::Key(_, key)) => {
                if how.dry {
                    return self.kept(tenant, key, |_| true).await.map(Some);
                }
                let revoked = tenant.revoke_key(key).await;
                revoked.map_err(|error| self.refused(&error.into()))?;
                written::json(200, &json!({ "id": key, "state": "revoked" }))
            }
            _ => return Ok(None),
        }))
    }

    async fn make_key(
        &self,
        tenant: &Tenant,
        asked: NewKeyAsked,
        how: How<'_>,
    ) -> Result<Reply, Reply> {
        let options = KeyOptions::new(asked.name);
        let end = asked.expires.as_deref().map(instant).transpose()?;
        let options = end.into_iter().fold(options, KeyOptions::expires);
        let options = match asked.permissions {
            Some(names) => names.iter().fold(options.without_any(), KeyOptions::permission),
            None => options,
        };
        let options = how.once.into_iter().fold(options, KeyOptions::once);
        if how.dry {
            let could = tenant.rehearse_key(&options).await;
            could.map_err(|error| self.refused(&error.into()))?;
            return Ok(written::json(200, &json!({ "dry-run": true, "key": null })));
        }
        self.shown(tenant.new_key(options).await)
    }

    /// The answer to a rehearsed change of a key that is there: the key as it is, and stays.
    async fn kept(
        &self,
        tenant: &Tenant,
        id: &str,
        is: impl Fn(&KeyInfo) -> bool,
    ) -> Result<Reply, Reply> {
        let info = self.key(tenant, id, is).await?;
        Ok(written::json(200, &json!({ "dry-run": true, "key": written::key_of_tenant(&info) })))
    }

    async fn key(
        &self,
        tenant: &Tenant,
        id: &str,
        is: impl Fn(&KeyInfo) -> bool,
    ) -> Result<KeyInfo, Reply> {
        let keys = tenant.keys().await.map_err(|error| self.refused(&error.into()))?;
        let found = keys.into_iter().find(|it| it.id == id && is(it));
        found.ok_or_else(|| self.refused(&DirectoryError::NoKey(id.to_owned()).into()))
    }

    /// A new key, in plain text.
    fn shown(&self, made: Result<NewKey, DirectoryError>) -> Result<Reply, Reply> {
        let made = match made {
            Err(DirectoryError::MadeAlready(id)) => return Err(written::made_already(&id)),
            made => made.map_err(|error| self.refused(&error.into()))?,
        };
        let body = json!({ "id": made.id, "name": made.name, "key": made.expose() });
        Ok(written::json(201, &body))
    }
}
