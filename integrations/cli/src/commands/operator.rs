//! `operator`: the tokens of the admin routes. A new one is printed alone on standard output, once.

use http::Method;
use serde_json::{Value, json};
use tallygate::directory::{Directory, Operator as Known, Role};

use super::key::{self, options};
use super::tenant::{self, second, text};
use super::{Ran, actor};
use crate::args::{Destroy, Global, KeyWrite, May, Operator, Write};
use crate::ask::allowed;
use crate::client::encoded;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::place::{Place, of_store, without_actor};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::{When, written};

/// What the text of each token begins with.
const PREFIX: &str = "tgop_";

/// What to do where a service has the store.
const BY_PROGRAM: &str = "no route makes a token: a program does with \
                          `gate.directory().new_operator`; or stop the service first";

pub(super) async fn run(out: Output, global: &Global, what: Operator) -> Ran {
    match what {
        Operator::Create { name, role, expires, write } => {
            let settings = of_store(global, "operator create", BY_PROGRAM)?;
            let new = New { name, role: role.role(), expires };
            create(out, &settings, new, &write).await
        }
        Operator::List => list(out, &Place::of(global)?).await,
        Operator::Revoke { token, yes, write } => {
            let place = Place::of(global)?;
            let KeyWrite { dry_run, actor } = write.clone();
            let how = Destroy { yes, write: Write { dry_run, actor, reason: None } };
            allowed(&format!("revoke the operator's token {token:?}"), &how)?;
            revoke(out, &place, &token, &write).await
        }
        Operator::History => {
            let settings = match Place::of(global)? {
                Place::Store(settings) => settings,
                Place::Service(client) => {
                    let answer = client.get("/operators/history").await?;
                    let entries = tenant::list(&answer["history"]).iter();
                    let entries: Vec<_> = entries.map(tenant::Entry::of_route).collect();
                    return tenant::print_history(out, &entries);
                }
            };
            with_gate(&settings, For::Tenants, async |gate| {
                let history = gate.directory().operators_history().await?;
                let entries: Vec<_> = history.iter().map(tenant::Entry::of).collect();
                tenant::print_history(out, &entries)
            })
            .await
        }
    }
}

impl May {
    fn role(self) -> Role {
        match self {
            Self::Read => Role::Read,
            Self::Write => Role::Write,
        }
    }
}

/// A token that is to be made.
struct New {
    name: String,
    role: Role,
    expires: Option<When>,
}

async fn create(out: Output, settings: &Settings, new: New, how: &KeyWrite) -> Ran {
    let (name, role) = (new.name.clone(), new.role.as_str());
    let options = options(new.name, new.expires)?;
    with_gate(settings, For::Tenants, async |gate| {
        if how.dry_run {
            return would(out, &format!("a new token of {name}, who may {role}"));
        }
        let by = gate.directory().by(actor(how.actor.as_ref()));
        let token = by.new_operator(options, new.role).await?;
        if out.json {
            out.document(&json!({
                "id": token.id, "name": token.name, "role": role, "token": token.expose(),
            }))?;
        } else {
            say(&format!("token {} of {name}, who may {role}: shown this once", token.id));
            out.line(token.expose())?;
        }
        Ok(code::OK)
    })
    .await
}

async fn list(out: Output, place: &Place) -> Ran {
    match place {
        Place::Store(settings) => {
            with_gate(settings, For::Tenants, async |gate| {
                let all = gate.directory().operators().await?;
                print(out, &all.iter().map(shown).collect::<Vec<_>>())
            })
            .await
        }
        Place::Service(client) => {
            let answer = client.get("/operators").await?;
            print(out, &tenant::list(&answer["operators"]).iter().map(far).collect::<Vec<_>>())
        }
    }
}

/// An operator, as `--json` prints it.
fn shown(Known { token, role, .. }: &Known) -> Value {
    json!({
        "id": token.id, "name": token.name, "role": role.as_str(),
        "state": key::state(token.state).0, "made": written(token.made),
        "expires": token.expires.map(written),
    })
}

/// The same, as a service has it.
fn far(token: &Value) -> Value {
    json!({
        "id": token["id"], "name": token["name"], "role": token["role"], "state": token["state"],
        "made": second(&token["made"]), "expires": second(&token["expires"]),
    })
}

fn print(out: Output, operators: &[Value]) -> Ran {
    let mut table = Table::new(["ID", "NAME", "ROLE", "STATE", "MADE", "EXPIRES"]);
    for token in operators {
        if out.json {
            out.document(token)?;
            continue;
        }
        let cell = |name: &str| match &token[name] {
            Value::Null => "no end".to_owned(),
            value => text(value),
        };
        let colour = key::colour(&cell("state"));
        table.coloured(["id", "name", "role", "state", "made", "expires"].map(cell), (3, colour));
    }
    if !out.json {
        out.table(&table)?;
    }
    Ok(code::OK)
}

async fn revoke(out: Output, place: &Place, token: &str, how: &KeyWrite) -> Ran {
    let settings = match place {
        Place::Store(settings) => settings,
        Place::Service(client) => {
            without_actor(how.actor.as_ref())?;
            let answer = client.get("/operators").await?;
            let known = tenant::list(&answer["operators"]);
            let known = known.iter().find(|known| known["id"].as_str() == Some(token));
            let name = text(&known.ok_or_else(|| none_such(token))?["name"]);
            if how.dry_run {
                return would(out, &would_revoke(token, &name));
            }
            let route = (Method::DELETE, &*format!("/operators/{}", encoded(token)));
            client.change(route, &json!({}), false).await?;
            return revoked(out, token);
        }
    };
    with_gate(settings, For::Tenants, async |gate| {
        let by = gate.directory().by(actor(how.actor.as_ref()));
        let name = name_of(&by, token).await?;
        if how.dry_run {
            return would(out, &would_revoke(token, &name));
        }
        by.revoke_operator(token).await?;
        revoked(out, token)
    })
    .await
}

fn would_revoke(token: &str, name: &str) -> String {
    format!("token {token} of {name} revoked")
}

fn revoked(out: Output, token: &str) -> Ran {
    match out.json {
        true => out.document(&json!({ "id": token }))?,
        false => out.line(token)?,
    }
    Ok(code::OK)
}

/// The name of the operator who has this token.
async fn name_of(directory: &Directory, token: &str) -> Result<String, Failure> {
    let operators = directory.operators().await?;
    let known = operators.into_iter().find(|it| it.token.id == token);
    Ok(known.ok_or_else(|| none_such(token))?.token.name)
}

/// No token has this id. The text of one, which may be in it, is not repeated.
fn none_such(id: &str) -> Failure {
    let help = "help: `tallygate operator list` shows them";
    Failure::not_found(match id.starts_with(PREFIX) {
        true => format!("that is the text of a token: it is revoked by its id\n{help}"),
        false => format!("there is no operator's token {id:?}\n{help}"),
    })
}

/// Says what would be made or ended.
fn would(out: Output, what: &str) -> Ran {
    say("dry run: nothing was written");
    match out.json {
        true => out.document(&json!({ "dry_run": true, "would": what }))?,
        false => out.line(what)?,
    }
    Ok(code::OK)
}
