//! Time-driven changes: trials end, periods turn, invoices are retried and given up, rejected
//! events are reported. Each happens in the order in which it was due, at the time when it was due.

use serde_json::{Value, json};

use super::invoices::subscription_of;
use super::subscriptions::period_of;
use super::{Acting, World, text};

/// Lead time of a trial's end notice. Stripe: three days.
const TRIAL_NOTICE_S: i64 = 3 * 86_400;

/// Limit on the steps of one turn: a clock moved by years with many subscriptions takes several
/// turns.
const MAX_STEPS: usize = 10_000;

/// A due change, with the id of its object.
enum Due {
    TrialNotice(String),
    Period(String),
    Retry(String),
    Finalize(String),
}

/// Makes an object's due change from its id.
type MakeDue = fn(String) -> Due;

impl World {
    /// Brings the account up to now.
    pub(crate) fn turn(&mut self) {
        let now = self.now();
        // Nothing that a call makes is due within the same second.
        if self.turned_at != Some(now) {
            let acting = std::mem::replace(&mut self.acting, Acting::All);
            for _ in 0..MAX_STEPS {
                let Some((at, id, due)) = self.next_due(now) else { break };
                let owner = self.owners.get(&id).cloned();
                self.acting_as(owner, |world| world.come_due(at, due(id)));
            }
            self.acting = acting;
            self.turned_at = Some(now);
        }
        self.report_rejected();
    }

    /// The earliest change due by now.
    fn next_due(&self, now: i64) -> Option<(i64, String, MakeDue)> {
        let subscriptions = self.table("subscription").flat_map(|s| self.due_of(s));
        let open = self.table("invoice").filter(|i| text(i, "status") == "open");
        let retries = open.filter_map(|i| {
            Some((i["next_payment_attempt"].as_i64()?, Due::Retry as fn(String) -> Due, i))
        });
        let drafts = self.table("invoice").filter(|i| text(i, "status") == "draft");
        let drafts = drafts.filter_map(|i| {
            let at = i["automatically_finalizes_at"].as_i64()?;
            Some((at, Due::Finalize as fn(String) -> Due, i))
        });
        let due = subscriptions.chain(retries).chain(drafts).filter(|(at, ..)| *at <= now);
        let (at, due, object) = due.min_by_key(|(at, ..)| *at)?;
        Some((at, text(object, "id").to_owned(), due))
    }

    fn due_of<'a>(
        &self,
        subscription: &'a Value,
    ) -> impl Iterator<Item = (i64, fn(String) -> Due, &'a Value)> {
        let status = text(subscription, "status");
        let trial = subscription["trial_end"].as_i64().filter(|_| status == "trialing");
        let noticed = self.noticed.contains(text(subscription, "id"));
        let notice = trial.filter(|_| !noticed).map(|end| end - TRIAL_NOTICE_S);
        let turns = ["active", "past_due", "unpaid"].contains(&status);
        let period = trial.or(turns.then(|| period_of(subscription).1));
        let notice = notice.map(|at| (at, Due::TrialNotice as fn(String) -> Due, subscription));
        let period = period.map(|at| (at, Due::Period as fn(String) -> Due, subscription));
        notice.into_iter().chain(period)
    }

    fn come_due(&mut self, at: i64, due: Due) {
        match due {
            Due::TrialNotice(id) => {
                if let Some(subscription) = self.find("subscription", &id).cloned() {
                    self.emit("customer.subscription.trial_will_end", &subscription, None);
                }
                self.noticed.insert(id);
            }
            Due::Period(id) => {
                if let Some(subscription) = self.find("subscription", &id).cloned() {
                    self.turn_period(subscription, at);
                }
            }
            Due::Retry(id) => {
                if let Some(invoice) = self.find("invoice", &id).cloned() {
                    self.retry(invoice, at);
                }
            }
            Due::Finalize(id) => {
                if let Some(mut invoice) = self.find("invoice", &id).cloned() {
                    self.finalize(&mut invoice, at);
                    self.retry(invoice, at);
                }
            }
        }
    }

    /// Ends a trial or turns a period, at `at`.
    fn turn_period(&mut self, before: Value, at: i64) {
        if before["cancel_at_period_end"] == json!(true) {
            self.end_subscription(before, at);
            return;
        }
        let metered_from = period_of(&before).0;
        let mut after = before.clone();
        self.begin_period(&mut after, at);
        if text(&after, "status") == "unpaid" || !after["pause_collection"].is_null() {
            // No invoice is collected; the period turns all the same.
            self.put_changed(&before, after);
            return;
        }
        let invoice = self.invoice(&mut after, "subscription_cycle", metered_from, at);
        let paid = text(&invoice, "status") == "paid";
        after["status"] = json!(if paid { "active" } else { "past_due" });
        self.put_changed(&before, after);
        self.announce(&invoice);
    }

    fn retry(&mut self, mut invoice: Value, at: i64) {
        let Some(before) = self.find("subscription", subscription_of(&invoice)).cloned() else {
            self.collect(&mut invoice, None, at);
            self.tell_collected(&invoice);
            if text(&invoice, "status") != "paid" && invoice["next_payment_attempt"].is_null() {
                self.mark_given_up(invoice, at);
            }
            return;
        };
        self.collect(&mut invoice, Some(&before), at);
        self.tell_collected(&invoice);
        if text(&invoice, "status") == "paid" {
            let mut after = before.clone();
            if text(&after, "status") != "canceled" {
                after["status"] = json!("active");
            }
            self.put_changed(&before, after);
        } else if invoice["next_payment_attempt"].is_null() {
            self.give_up(invoice, before, at);
        }
    }

    /// The last attempt failed.
    fn give_up(&mut self, invoice: Value, before: Value, at: i64) {
        self.mark_given_up(invoice, at);
        match self.settings.after_dunning.as_str() {
            "canceled" => {
                self.end_subscription(before, at);
            }
            status => {
                let mut after = before.clone();
                after["status"] = json!(status);
                self.put_changed(&before, after);
            }
        }
    }

    fn mark_given_up(&mut self, mut invoice: Value, at: i64) {
        invoice["status"] = json!("uncollectible");
        invoice["status_transitions"]["marked_uncollectible_at"] = json!(at);
        let invoice = self.put("invoice", invoice);
        self.emit("invoice.marked_uncollectible", &invoice, None);
    }
}
