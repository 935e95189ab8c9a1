//! `backup` and `restore`: copies of a redb file, and what a restored store needs before it is
//! used.

use std::path::{Path, PathBuf};

use serde_json::json;
use tallygate::store::{Redb, Replacement, Store as _, StoreCopy, StoreError};
use tallygate::{Gate, Restored, SinceCopy};

use super::Ran;
use crate::args::Restore;
use crate::ask;
use crate::failure::{Failure, code};
use crate::output::{Output, Table, say};
use crate::progress::Progress;
use crate::service::{hand_in, is_made, no_store};
use crate::settings::{Settings, StoreAt};

/// What is said instead of a backup of a table.
const OF_A_TABLE: &str = "\
    a table of DynamoDB is backed up by AWS\nhelp: point-in-time recovery, which `tallygate infra \
    template` switches on, or `aws dynamodb create-backup`; once AWS has restored it into a table, \
    name that in the service file and run `tallygate restore --yes`";

/// What is said while a store is made fit for use.
const RESTORING: &str = "ending the logs and leases of the copy";

/// `backup`.
pub(super) async fn backup(out: Output, settings: &Settings, to: &Path, dry_run: bool) -> Ran {
    let path = match settings.store() {
        StoreAt::Redb(path) if is_made(&settings.store()) => path,
        StoreAt::Dynamodb(_) => return Err(Failure::new(code::FAILURE, OF_A_TABLE)),
        other => return Err(no_store(&other)),
    };
    if to.exists() {
        let text = format!("{}: it is there, and is left as it is", to.display());
        return Err(Failure::conflict(text + "\nhelp: name a new file"));
    }
    let store = Redb::open(path).map_err(held)?;
    let copied = if dry_run {
        store.counted()
    } else {
        Progress::during(false, "copying the store", store.back_up(to.to_owned())).await
    };
    store.close().await?;
    let copied = copied?;
    if dry_run {
        say("dry run: nothing was written");
    }
    if out.json {
        let mut document = json_of(copied);
        document["file"] = json!(to.display().to_string());
        document["dry_run"] = json!(dry_run);
        out.document(&document)?;
    } else {
        let mut table = Table::of_pairs();
        table.pair("file", to.display().to_string());
        of_copy(&mut table, copied);
        out.table(&table)?;
    }
    if !dry_run {
        say("not in it: the pepper, the plan file, the service file, and a journal of usage");
    }
    Ok(code::OK)
}

/// `restore`.
pub(super) async fn restore(out: Output, settings: &Settings, what: &Restore) -> Ran {
    match (settings.store(), &what.file) {
        (StoreAt::Redb(path), Some(file)) => from_file(out, settings, what, (file, &path)).await,
        (StoreAt::Dynamodb(_), Some(_)) => Err(Failure::usage(OF_A_TABLE)),
        (StoreAt::Memory, _) => Err(no_store(&StoreAt::Memory)),
        (store, None) => in_place(out, settings, what, &store).await,
    }
}

/// A store that is in its place, and comes from a backup.
async fn in_place(out: Output, settings: &Settings, what: &Restore, store: &StoreAt) -> Ran {
    if !is_made(store) {
        return Err(no_store(store));
    }
    let text = "treat the store as one from a backup: all writers' logs and leases end";
    ask::decided(text, what.how)?;
    if what.how.dry_run {
        say("dry run: nothing was written");
        return Ok(code::OK);
    }
    let builder = hand_in(Gate::builder(&settings.path), store).await?;
    let done = Progress::during(false, RESTORING, builder.restore(since(what))).await?;
    told(out, settings, None, done, None)
}

/// A backup that takes the place of the store.
async fn from_file(
    out: Output,
    settings: &Settings,
    what: &Restore,
    (file, path): (&Path, &Path),
) -> Ran {
    if !file.exists() {
        return Err(Failure::not_found(format!("{}: there is no such file", file.display())));
    }
    let is_there = path.exists();
    if is_there {
        let text = format!("{} is set aside, with what came since the backup", path.display());
        ask::decided(&text, what.how)?;
    }
    let next = Redb::replacement(file, path)?;
    let builder = Gate::builder(&settings.path).store(next.store());
    let made_fit = Progress::during(false, RESTORING, builder.restore(since(what))).await;
    let (copied, done) = (next.copy(), made_fit?);
    if what.how.dry_run {
        say("dry run: nothing was written");
        return told(out, settings, Some((file, copied)), done, None);
    }
    let aside = put(next, is_there).await?;
    told(out, settings, Some((file, copied)), done, aside.as_deref())
}

async fn put(next: Replacement, set_aside: bool) -> Result<Option<PathBuf>, Failure> {
    next.put(set_aside).await.map_err(held)
}

fn since(what: &Restore) -> SinceCopy {
    if what.free { SinceCopy::Free } else { SinceCopy::Spent }
}

/// Prints what was done.
fn told(
    out: Output,
    settings: &Settings,
    from: Option<(&Path, StoreCopy)>,
    done: Restored,
    aside: Option<&Path>,
) -> Ran {
    let shown = |path: &Path| path.display().to_string();
    if out.json {
        out.document(&json!({
            "file": from.map(|(file, _)| shown(file)),
            "copy": from.map(|(_, copied)| json_of(copied)),
            "logs": done.logs,
            "pools": done.pools,
            "spent": done.spent,
            "aside": aside.map(shown),
        }))?;
    } else {
        let mut table = Table::of_pairs();
        if let Some((file, copied)) = from {
            table.pair("from", shown(file));
            of_copy(&mut table, copied);
        }
        table.pair("logs ended", done.logs.to_string());
        table.pair("pools", done.pools.to_string());
        table.pair("parts that count as used", done.spent.to_string());
        if let Some(aside) = aside {
            table.pair("the store before", shown(aside));
        }
        out.table(&table)?;
    }
    say(
        "keys and operators' tokens that were revoked since the copy work again, and tenants that \
         were erased or suspended since are back: do that anew",
    );
    if settings.table.contains_key("stripe") {
        say("nothing is sent to Stripe before `tallygate report --resume` (docs/billing.md)");
    }
    Ok(code::OK)
}

fn json_of(copied: StoreCopy) -> serde_json::Value {
    let StoreCopy { items, bytes, checksum, .. } = copied;
    json!({ "items": items, "bytes": bytes, "checksum": format!("{checksum:016x}") })
}

fn of_copy(table: &mut Table, copied: StoreCopy) {
    table.pair("items", copied.items.to_string());
    table.pair("bytes", copied.bytes.to_string());
    table.pair("checksum", format!("{:016x}", copied.checksum));
}

/// An error of a store that another process may have open.
fn held(error: StoreError) -> Failure {
    let failure = Failure::from(error);
    if failure.code != code::CONFLICT {
        return failure;
    }
    let what = failure.text.lines().next().unwrap_or_default();
    let help = "stop that process first; it writes a backup of its own by `gate.backup(file)`";
    Failure::conflict(format!("{what}\nhelp: {help}"))
}
