//! `tenant erase`: what identifies people goes, what was counted stays.

use serde_json::{Value, json};

use super::kept::with_tenants;
use super::shown;
use crate::args::Destroy;
use crate::ask::allowed;
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::place::Place;
use crate::service::For;

pub(super) async fn run(out: Output, place: &Place, id: &str, how: &Destroy) -> Ran {
    let Some(reason) = how.write.reason.as_deref() else {
        let text = "an erasure needs a reason: write --reason \"..\"; it stays on record";
        return Err(Failure::usage(text));
    };
    allowed(&format!("erase {id:?} for good"), how)?;
    let by = how.write.actor.as_ref();
    with_tenants(place, For::Tenants, async |tenants| {
        tenants.find(id).await?.ok_or_else(|| Failure::no_tenant(id))?;
        if how.write.dry_run {
            return would_go(out, id, &tenants.to_erase(id, by, reason).await?);
        }
        let mut erased = tenants.erase(id, by, reason).await?;
        if out.json {
            erased["dry_run"] = json!(false);
            out.document(&erased)?;
        } else {
            out.table(&shown::table_of(&erased, None))?;
        }
        say(
            "not erased: logs of decisions, refusals in the memory of other processes, alerts that \
             were sent, backups, what Stripe has",
        );
        Ok(code::OK)
    })
    .await
}

/// Says what would go.
fn would_go(out: Output, id: &str, of: &Value) -> Ran {
    say("dry run: nothing was written");
    if out.json {
        let document = json!({
            "dry_run": true, "id": id, "keys": of["keys"], "history": of["history"],
            "overrides": of["overrides"], "grants": of["grants"],
        });
        out.document(&document)?;
        return Ok(code::OK);
    }
    for (what, name) in [
        ("keys end, and lose their names", "keys"),
        ("overrides end", "overrides"),
        ("grants end", "grants"),
        ("entries of the history lose their texts", "history"),
    ] {
        out.line(&format!("{id}: {} {what}", of[name]))?;
    }
    Ok(code::OK)
}
