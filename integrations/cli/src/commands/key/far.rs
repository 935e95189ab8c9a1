//! Keys by a service that runs.

use http::Method;
use serde_json::{Value, json};

use super::{A_NEW_KEY, Change, Done, ends_before, of_key};
use crate::client::{Client, encoded};
use crate::commands::tenant::{self, second, text};
use crate::failure::Failure;
use crate::when::{exact, moment};

/// Makes a change.
pub(super) async fn make(client: &Client, id: &str, change: &Change) -> Result<Done, Failure> {
    let answer = send(client, id, change, false).await?;
    Ok(match change {
        Change::Create(_) | Change::Rotate(..) => Done::Made {
            id: text(&answer["id"]),
            name: text(&answer["name"]),
            key: text(&answer["key"]),
        },
        Change::Expire(key, at) if ends_before(&answer, *at) => Done::Stays(key.clone()),
        Change::Expire(key, _) | Change::Revoke(key) => Done::Ended(key.clone()),
        Change::Import(..) => return Err(no_import()),
    })
}

/// Has a change checked, and says what would come of it.
pub(super) async fn rehearse(
    client: &Client,
    id: &str,
    change: &Change,
) -> Result<String, Failure> {
    let key = &send(client, id, change, true).await?["key"];
    Ok(match change {
        Change::Create(_) => A_NEW_KEY.to_owned(),
        change => of_key(change, key),
    })
}

/// The keys of a tenant, the oldest first, as the store's are printed.
pub(super) async fn list(client: &Client, id: &str) -> Result<Vec<Value>, Failure> {
    let answer = client.get_of(id, "/keys").await?;
    let mut keys = tenant::list(&answer["keys"]).to_vec();
    keys.sort_by_key(|key| (moment(&text(&key["made"])), text(&key["id"])));
    let shown = keys.iter().map(|key| {
        json!({
            "id": key["id"],
            "name": key["name"],
            "state": key["state"],
            "made": second(&key["made"]),
            "expires": second(&key["expires"]),
            "last_used": second(&key["last-used"]),
            "permissions": key["permissions"],
            "scheme": key["scheme"],
        })
    });
    Ok(shown.collect())
}

async fn send(client: &Client, id: &str, change: &Change, dry_run: bool) -> Result<Value, Failure> {
    let at = |key: &str| format!("/keys/{}", encoded(key));
    let (method, path, body) = match change {
        Change::Create(new) => {
            // Without any the service file says what it may do.
            let permissions = (!new.permissions.is_empty()).then_some(&new.permissions);
            let expires = new.expires.map(exact);
            let body = json!({ "name": new.name, "expires": expires, "permissions": permissions });
            (Method::POST, "/keys".to_owned(), body)
        }
        Change::Rotate(key, overlap) => {
            let body = json!({ "overlap-seconds": overlap.as_secs() });
            (Method::POST, at(key) + "/rotation", body)
        }
        Change::Expire(key, end) => (Method::PATCH, at(key), json!({ "expires": exact(*end) })),
        Change::Revoke(key) => (Method::DELETE, at(key), json!({})),
        Change::Import(..) => return Err(no_import()),
    };
    client.change_of(id, (method, &path), &body, dry_run).await
}

fn no_import() -> Failure {
    let text = "`key import-sha256` works on the store, and has no route of a service";
    let help = "in the service do it with `tenant.import_key_sha256`, or stop the service";
    Failure::usage(format!("{text}\nhelp: {help}"))
}
