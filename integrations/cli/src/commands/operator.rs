//! `operator`: the tokens of the admin routes. A new one is printed alone on standard output, once.

use serde_json::{Value, json};
use tallygate::directory::{Directory, Operator as Known, Role};

use super::key::{self, options};
use super::{Ran, actor, tenant};
use crate::args::{Destroy, KeyWrite, May, Operator, Write};
use crate::ask::allowed;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;
use crate::when::{When, written, written_or};

pub(super) async fn run(out: Output, settings: &Settings, what: Operator) -> Ran {
    match what {
        Operator::Create { name, role, expires, write } => {
            let new = New { name, role: role.role(), expires };
            create(out, settings, new, &write).await
        }
        Operator::List => list(out, settings).await,
        Operator::Revoke { token, yes, write } => {
            let KeyWrite { dry_run, actor } = write.clone();
            let how = Destroy { yes, write: Write { dry_run, actor, reason: None } };
            allowed(&format!("revoke the operator's token {token:?}"), &how)?;
            revoke(out, settings, &token, &write).await
        }
        Operator::History => {
            with_gate(settings, For::Tenants, async |gate| {
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

async fn list(out: Output, settings: &Settings) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        let mut operators = gate.directory().operators().await?;
        operators.sort_by(|a, b| (a.token.made, &a.token.id).cmp(&(b.token.made, &b.token.id)));
        let mut table = Table::new(["ID", "NAME", "ROLE", "STATE", "MADE", "EXPIRES"]);
        for Known { token, role, .. } in operators {
            let (state, colour) = key::state(token.state);
            let expires = token.expires.map(written);
            if out.json {
                let document: Value = json!({
                    "id": token.id, "name": token.name, "role": role.as_str(), "state": state,
                    "made": written(token.made), "expires": expires,
                });
                out.document(&document)?;
                continue;
            }
            let (made, expires) = (written(token.made), written_or(token.expires, "no end"));
            let role = role.as_str().to_owned();
            table.coloured(
                [token.id, token.name, role, state.to_owned(), made, expires],
                (3, colour),
            );
        }
        if !out.json {
            out.table(&table)?;
        }
        Ok(code::OK)
    })
    .await
}

async fn revoke(out: Output, settings: &Settings, token: &str, how: &KeyWrite) -> Ran {
    with_gate(settings, For::Tenants, async |gate| {
        let by = gate.directory().by(actor(how.actor.as_ref()));
        if how.dry_run {
            return would(out, &format!("{} revoked", known(&by, token).await?));
        }
        known(&by, token).await?;
        by.revoke_operator(token).await?;
        match out.json {
            true => out.document(&json!({ "id": token }))?,
            false => out.line(token)?,
        }
        Ok(code::OK)
    })
    .await
}

/// A token, by its id.
async fn known(directory: &Directory, token: &str) -> Result<String, Failure> {
    let operators = directory.operators().await?;
    let known = operators.iter().find(|it| it.token.id == token);
    let known = known.ok_or_else(|| {
        let help = "help: `tallygate operator list` shows them";
        Failure::not_found(format!("there is no operator's token {token:?}\n{help}"))
    })?;
    Ok(format!("token {token} of {}", known.token.name))
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
