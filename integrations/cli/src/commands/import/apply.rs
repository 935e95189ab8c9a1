//! The changes of an import: looked at, shown, and made, one tenant after the other.

use std::path::Path;

use serde_json::json;
use tallygate::Gate;
use tallygate::directory::{Directory, KeyOptions};

use super::look::{Plan, look, unless_broken};
use super::rows::{Read, Wrong, say_wrong};
use crate::args::ImportHow;
use crate::commands::{Ran, actor};
use crate::failure::{Failure, code};
use crate::output::{Output, say};
use crate::progress::Progress;
use crate::rehearsal::Rehearsal;
use crate::service::{For, is_made, with_gate};
use crate::settings::Settings;

/// The reason in the history, where the operator gives none.
const REASON: &str = "imported";

/// Runs an import of what was read of a file.
pub(super) async fn run(
    out: Output,
    settings: &Settings,
    (file, read): (&Path, Read),
    how: &ImportHow,
) -> Ran {
    let import = Import { out, settings, file: file.display().to_string(), how };
    read.notes.iter().for_each(|note| say(&format!("note: {}: {note}", import.file)));
    if is_made(&settings.store()) {
        return with_gate(settings, For::Tenants, async |gate| {
            let (plans, left_out) = import.look(gate.directory(), read).await?;
            import.make(Some(gate), plans, left_out).await
        })
        .await;
    }
    // A first tenant makes the store, and nothing else does.
    let nowhere = Rehearsal::begin(settings).await?;
    let (plans, left_out) = import.look(nowhere.directory(), read).await?;
    if how.write.dry_run || plans.is_empty() {
        return import.make(None, plans, left_out).await;
    }
    with_gate(settings, For::FirstTenant, async |gate| {
        import.make(Some(gate), plans, left_out).await
    })
    .await
}

struct Import<'a> {
    out: Output,
    settings: &'a Settings,
    file: String,
    how: &'a ImportHow,
}

impl Import<'_> {
    /// What is to be changed, and how many rows are left out.
    async fn look(&self, directory: &Directory, read: Read) -> Result<(Vec<Plan>, usize), Failure> {
        let (tenants, mut wrong) = read.by_tenant();
        let plans = look(self.settings, directory, tenants, &mut wrong).await?;
        say_wrong(&self.file, &mut wrong);
        match wrong.len() {
            n if n > 0 && !self.how.skip_wrong => Err(Failure::usage(format!(
                "{n} of the rows {} wrong: nothing was imported\nhelp: correct {}, or leave {} \
                 out with --skip-wrong",
                if n == 1 { "is" } else { "are" },
                if n == 1 { "it" } else { "them" },
                if n == 1 { "it" } else { "them" },
            ))),
            left_out => Ok((plans, left_out)),
        }
    }

    /// Makes the changes, or shows them without a gate or in a dry run.
    async fn make(&self, gate: Option<&Gate>, plans: Vec<Plan>, left_out: usize) -> Ran {
        let (total, mut changed, mut late) = (plans.len(), 0_usize, Vec::new());
        let progress = Progress::begin(true);
        for (n, plan) in plans.iter().enumerate().filter(|(_, plan)| !plan.is_empty()) {
            if let Some(gate) = gate.filter(|_| !self.how.write.dry_run) {
                match self.write(gate, plan).await {
                    Ok(()) => {}
                    Err(failure) => {
                        let why =
                            unless_broken(failure).map_err(|it| cut_off(it, plan, changed))?;
                        late.push(Wrong { at: plan.rows.at, why });
                        continue;
                    }
                }
            }
            changed += 1;
            self.show(plan)?;
            progress.say(format!("{} of {total} tenants", n + 1));
        }
        drop(progress);
        say_wrong(&self.file, &mut late);
        self.conclude((total, changed), late.len(), left_out);
        Ok(match (late.len(), left_out) {
            (0, 0) => code::OK,
            (0, _) => code::DIFFERENCES,
            _ => code::CONFLICT,
        })
    }

    /// Makes the changes of a tenant.
    async fn write(&self, gate: &Gate, plan: &Plan) -> Result<(), Failure> {
        let by = gate.directory().by(actor(self.how.write.actor.as_ref()));
        let reason = self.how.write.reason.as_deref().unwrap_or(REASON);
        let edit = by.tenant(&plan.rows.id).note(reason);
        let edit = plan.plan.iter().fold(edit, |edit, name| edit.plan(name));
        let mut tenant = edit.save().await?;
        if let Some(account) = &plan.account {
            tenant = tenant.link_customer(account).await?;
        }
        for key in &plan.keys {
            tenant.import_key_sha256(KeyOptions::new(&key.name), key.sha256).await?;
        }
        Ok(())
    }

    fn show(&self, plan: &Plan) -> Result<(), Failure> {
        let changes = changes(plan);
        let (id, dry_run) = (&plan.rows.id, self.how.write.dry_run);
        match self.out.json {
            true => self.out.document(&json!({
                "tenant": id,
                "changes": changes,
                "dry_run": dry_run,
            })),
            false => self.out.line(&format!("{id}: {}", changes.join("; "))),
        }
    }

    fn conclude(&self, (total, changed): (usize, usize), late: usize, left_out: usize) {
        let is_dry = self.how.write.dry_run;
        if is_dry {
            say("dry run: nothing was written");
        }
        say(&conclusion((changed, total - late - changed), late, is_dry));
        if left_out > 0 {
            let rows = if left_out == 1 { "row was" } else { "rows were" };
            say(&format!("{left_out} {rows} left out"));
        }
    }
}

/// What came of the tenants: so many changed, so many were as in the file, and so many could not be
/// changed any more when their turn came.
fn conclusion((changed, same): (usize, usize), late: usize, is_dry: bool) -> String {
    let tenants = |n: usize| format!("{n} {}", if n == 1 { "tenant" } else { "tenants" });
    match (changed, same) {
        (0, 0) if late > 0 => format!(
            "nothing changed: {} could not be imported any more, for the store has changed since \
             the file was compared with it",
            tenants(late)
        ),
        (0, 0) => "the file names no tenant that can be imported".to_owned(),
        (0, same) => format!("nothing changed: {} as in the file already", tenants(same)),
        (_, same) => {
            let word = if is_dry { "would be changed" } else { "changed" };
            format!("{} {word}, {same} as in the file already", tenants(changed))
        }
    }
}

/// What changes of a tenant, in words.
fn changes(plan: &Plan) -> Vec<String> {
    let created = plan.is_new.then(|| "created".to_owned());
    let named = plan.plan.as_ref().map(|name| format!("plan {name}"));
    let account = plan.account.as_ref().map(|account| format!("account {account}"));
    let keys = plan.keys.iter().map(|key| format!("key {:?}", key.name));
    created.into_iter().chain(named).chain(account).chain(keys).collect()
}

/// The store failed in the middle.
fn cut_off(failure: Failure, plan: &Plan, changed: usize) -> Failure {
    let text = format!(
        "{}\nhelp: {changed} tenants before {:?} are imported; the same command again goes on",
        failure.text, plan.rows.id
    );
    Failure { text, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another import, say, was faster.
    #[test]
    fn tenants_that_could_not_be_changed_any_more_are_not_missing_in_the_file() {
        let said = conclusion((0, 0), 2, false);
        assert!(said.starts_with("nothing changed: 2 tenants could not be imported"), "{said}");
        assert!(conclusion((0, 0), 0, false).contains("names no tenant"));
        assert_eq!(conclusion((1, 3), 2, false), "1 tenant changed, 3 as in the file already");
    }
}
