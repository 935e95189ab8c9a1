//! `tenant erase`: what identifies people goes, what was counted stays.

use serde_json::json;
use tallygate::directory::Tenant;

use super::{actor, read, shown};
use crate::args::Destroy;
use crate::ask::allowed;
use crate::commands::Ran;
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::service::{For, with_gate};
use crate::settings::Settings;

pub(super) async fn run(out: Output, settings: &Settings, id: &str, how: &Destroy) -> Ran {
    let Some(reason) = how.write.reason.as_deref() else {
        let text = "an erasure needs a reason: write --reason \"..\"; it stays on record";
        return Err(Failure::usage(text));
    };
    allowed(&format!("erase {id:?} for good"), how)?;
    with_gate(settings, For::Tenants, async |gate| {
        let directory = gate.directory().by(actor(how.write.actor.as_ref()));
        read::found(directory.find(id).await?, id)?;
        if how.write.dry_run {
            return rehearse(out, id, &directory.to_erase(id, reason).await?).await;
        }
        let erased = directory.erase(id, reason).await?;
        if out.json {
            let mut document = shown::json_of(erased.record());
            document["dry_run"] = json!(false);
            out.document(&document)?;
        } else {
            out.table(&shown::table_of(erased.record(), None))?;
        }
        say("not erased: logs of decisions, alerts that were sent, backups, what Stripe has");
        Ok(code::OK)
    })
    .await
}

/// Says what would go.
async fn rehearse(out: Output, id: &str, tenant: &Tenant) -> Ran {
    let (keys, history) = (tenant.keys().await?.len(), tenant.history().await?.len());
    let (overrides, grants) = (tenant.record().overrides.len(), tenant.record().grants.len());
    say("dry run: nothing was written");
    if out.json {
        let of = json!({
            "dry_run": true, "id": id, "keys": keys, "history": history, "overrides": overrides,
            "grants": grants,
        });
        out.document(&of)?;
    } else {
        for (what, of) in [
            ("keys end, and lose their names", keys),
            ("overrides end", overrides),
            ("grants end", grants),
            ("entries of the history lose their texts", history),
        ] {
            out.line(&format!("{id}: {of} {what}"))?;
        }
    }
    Ok(code::OK)
}
