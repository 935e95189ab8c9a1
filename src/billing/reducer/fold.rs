//! Folding: facts that no longer decide anything are forgotten, so that a customer with thousands
//! of invoices has no more facts than one with a few.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::snapshot::InvoiceStage;
use super::{Facts, Invoice};

/// How many closed invoices, ended subscriptions and detached payment methods are kept, since
/// events about them may still be under way.
pub(crate) const KEPT: usize = 64;

/// How many of one kind trigger a fold, so that not every event does.
const FOLD_AT: usize = 3 * KEPT;

/// Latest creation second of those that may have been folded away, per kind; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folded {
    pub(super) invoices_s: i64,
    pub(super) subscriptions_s: i64,
    pub(super) methods_s: i64,
}

impl Facts {
    /// Whether there are enough facts to fold.
    pub(crate) fn is_large(&self) -> bool {
        let sizes = [self.invoices.len(), self.subscriptions.len(), self.methods.len()];
        sizes.into_iter().any(|size| size > FOLD_AT) || self.prices.len() > 4 * FOLD_AT
    }

    /// Forgets what no longer decides anything, except the newest [`KEPT`] of each kind. `pending`
    /// names the lines of top-ups that are still to be granted.
    pub(crate) fn fold(&mut self, pending: &BTreeSet<String>) {
        self.fold_invoices(pending);
        let ended = self.subscriptions.iter().filter_map(|(id, frontier)| {
            let (is, decided) = frontier.holds()?;
            (is.has_ended() && decided && !frontier.doubtful).then(|| (is.start_s, id.clone()))
        });
        for (start_s, id) in oldest(ended.collect()) {
            self.folded.subscriptions_s = self.folded.subscriptions_s.max(start_s);
            self.subscriptions.remove(&id);
        }
        let detached = self.methods.iter().filter(|(_, (_, attached))| !attached);
        for (at_s, id) in oldest(detached.map(|(id, (at_s, _))| (*at_s, id.clone())).collect()) {
            self.folded.methods_s = self.folded.methods_s.max(at_s);
            self.methods.remove(&id);
        }
        let items = self.subscriptions.values().flat_map(|frontier| &frontier.newest);
        let items = items.flat_map(|one| one.is.items.iter().map(|(price, _)| price.clone()));
        let lines = self.invoices.values().flat_map(|invoice| invoice.lines.values());
        let used: BTreeSet<String> = items.chain(lines.map(|(price, _)| price.clone())).collect();
        self.prices.retain(|price, _| used.contains(price));
    }

    fn fold_invoices(&mut self, pending: &BTreeSet<String>) {
        // Of each continuing subscription: the newest invoice, and the first failure of the open
        // ones. Both decide.
        let mut newest = BTreeMap::<&str, (i64, &str)>::new();
        let mut first = BTreeMap::<&str, (i64, &str)>::new();
        for (id, invoice) in &self.invoices {
            let Some(of) = &invoice.subscription else { continue };
            let known = newest.entry(of).or_insert((invoice.created_s, id));
            *known = (*known).max((invoice.created_s, id));
            if let Some(failed_s) = invoice.failed_s.filter(|_| invoice.stage == InvoiceStage::Open)
            {
                let known = first.entry(of).or_insert((failed_s, id));
                *known = (*known).min((failed_s, id));
            }
        }
        let decide: BTreeSet<&str> =
            newest.values().chain(first.values()).map(|(_, id)| *id).collect();
        let waits = |invoice: &Invoice| {
            let unread = invoice.stage == InvoiceStage::Paid && !invoice.has_all;
            let line = |(line, (price, _)): (&String, &(String, u64))| {
                pending.contains(line) || !self.prices.contains_key(price)
            };
            invoice.doubtful || unread || invoice.lines.iter().any(line)
        };
        let all = self.invoices.iter();
        let idle = all.filter(|(id, invoice)| !decide.contains(id.as_str()) && !waits(invoice));
        for (made_s, id) in oldest(idle.map(|(id, i)| (i.created_s, id.clone())).collect()) {
            self.folded.invoices_s = self.folded.invoices_s.max(made_s);
            self.invoices.remove(&id);
        }
    }
}

/// Whether an object created at this second may have been folded away.
pub(super) fn was_folded(made_s: i64, folded_s: i64) -> bool {
    folded_s > 0 && made_s <= folded_s
}

/// All but the newest [`KEPT`].
fn oldest(mut all: Vec<(i64, String)>) -> Vec<(i64, String)> {
    all.sort();
    all.truncate(all.len().saturating_sub(KEPT));
    all
}
