//! Histories that once differed, in shrunk form.

use crate::book::{MeterPlan, Over, Payment, Plan, Quota};
use crate::calendar::{DAY, Every};
use crate::history::{Event, History, Setting};
use crate::system;

/// A history of two plans, each with its terms for jobs and for tokens.
fn history(hold: Option<u64>, plans: [[MeterPlan; 2]; 2], events: Vec<Event>) -> History {
    let plans =
        plans.into_iter().map(|meters| Plan { meters: meters.into(), concurrency: None }).collect();
    History { setting: Setting { cost: 3, hold, sends_all: None, plans }, events }
}

fn unlimited() -> MeterPlan {
    MeterPlan::default()
}

fn limited(quotas: &[(u64, Every, Over)]) -> MeterPlan {
    let quota = |&(limit, every, over)| Quota { limit, every, over, per_user: false };
    MeterPlan { quotas: quotas.iter().map(quota).collect(), ..MeterPlan::default() }
}

fn equal(history: History) {
    if let Err(why) = system::run(&history) {
        panic!("{why}\n{}", history.file());
    }
}

#[test]
fn a_cost_that_two_limits_refuse_is_refused_and_not_unavailable() {
    let jobs =
        limited(&[(21, Every::Day, Over::Allow(Some(2))), (5, Every::Year, Over::Allow(Some(2)))]);
    let plans = [[jobs, unlimited()], [unlimited(), unlimited()]];
    equal(history(None, plans, vec![Event::Work { tenant: 1, jobs: 22, tokens: 0, done: true }]));
}

#[test]
fn going_to_another_plan_and_back_costs_nothing() {
    let plans =
        [[limited(&[(13, Every::Month, Over::Deny)]), unlimited()], [unlimited(), unlimited()]];
    let to = |plan| Event::Move { tenant: 0, plan };
    let events = vec![Event::Work { tenant: 0, jobs: 4, tokens: 0, done: true }, to(1), to(0)];
    equal(history(None, plans, events));
}

#[test]
fn what_was_used_before_a_restart_stays_used() {
    equal(used_before_a_restart());
}

pub(crate) fn used_before_a_restart() -> History {
    let jobs = limited(&[(3, Every::Cycle, Over::Bill(None))]);
    let plans = [[jobs, limited(&[(2, Every::Year, Over::Deny)])], [unlimited(), unlimited()]];
    let begin = Event::Begin { slot: 1, tenant: 1, user: 2, chats: false };
    let events = vec![begin, Event::Restart, Event::Ingest { tenant: 1, meter: 1, units: 3 }];
    history(None, plans, events)
}

#[test]
fn a_limit_per_user_that_is_raised_leaves_what_was_used() {
    let mut jobs = limited(&[(2, Every::Week, Over::Deny), (14, Every::Year, Over::Deny)]);
    jobs.quotas[1].per_user = true;
    let plans = [[jobs, unlimited()], [unlimited(), unlimited()]];
    let begin = Event::Begin { slot: 1, tenant: 1, user: 2, chats: false };
    let edit = Event::Edit { plan: 0, meter: 0, quota: 1, by: 1 };
    let mut history = history(None, plans, vec![begin, edit]);
    history.setting.cost = 1;
    equal(history);
}

#[test]
fn a_debt_that_a_raised_limit_pays_in_part_is_not_counted_twice() {
    let plans =
        [[limited(&[(10, Every::Week, Over::Deny)]), unlimited()], [unlimited(), unlimited()]];
    let ingest = Event::Ingest { tenant: 1, meter: 0, units: 12 };
    let edit = Event::Edit { plan: 0, meter: 0, quota: 0, by: 1 };
    equal(history(None, plans, vec![ingest, edit]));
}

#[test]
fn a_pack_pays_a_debt_also_while_a_stream_is_open() {
    equal(pack_beside_a_stream());
}

pub(crate) fn pack_beside_a_stream() -> History {
    let plans =
        [[unlimited(), limited(&[(5, Every::Cycle, Over::Deny)])], [unlimited(), unlimited()]];
    let begin = |slot| Event::Begin { slot, tenant: 1, user: 1, chats: true };
    let ingest = Event::Ingest { tenant: 1, meter: 1, units: 5 };
    let pack = Event::Grant { tenant: 1, meter: 1, units: 10, lasts: DAY };
    history(None, plans, vec![begin(0), ingest, pack, begin(1)])
}

#[test]
fn what_a_user_used_beyond_its_limit_is_told() {
    let mut tokens = limited(&[(9, Every::Week, Over::Deny), (2, Every::Year, Over::Deny)]);
    tokens.quotas[1].per_user = true;
    let plans = [[unlimited(), tokens], [unlimited(), unlimited()]];
    let begin = Event::Begin { slot: 0, tenant: 0, user: 1, chats: true };
    equal(history(None, plans, vec![begin, Event::Report { slot: 0, tokens: 3 }]));
}

#[test]
fn a_grant_that_a_request_gives_back_pays_what_is_owed() {
    let jobs = limited(&[(6, Every::Cycle, Over::Deny)]);
    let plans = [[jobs, unlimited()], [unlimited(), unlimited()]];
    let work = |jobs| Event::Work { tenant: 0, jobs, tokens: 0, done: true };
    let events = vec![
        work(1),
        Event::Grant { tenant: 0, meter: 0, units: 2, lasts: DAY },
        work(4),
        Event::Begin { slot: 1, tenant: 0, user: 1, chats: false },
        Event::Ingest { tenant: 0, meter: 0, units: 2 },
        Event::End { slot: 1, status: 500 },
    ];
    equal(history(None, plans, events));
}

#[test]
fn what_is_owed_beyond_a_limit_of_0_is_owed_after_a_restart() {
    let mut tokens = limited(&[(0, Every::Cycle, Over::Bill(Some(3)))]);
    tokens.once = Some(7);
    let plans = [[unlimited(), tokens], [unlimited(), unlimited()]];
    let ingest = |units| Event::Ingest { tenant: 0, meter: 1, units };
    let events = vec![
        Event::Begin { slot: 2, tenant: 0, user: 2, chats: true },
        ingest(13),
        ingest(1),
        Event::End { slot: 2, status: 500 },
        Event::Restart,
    ];
    equal(history(None, plans, events));
}

#[test]
fn a_debt_that_a_raised_limit_pays_while_a_request_is_open_is_owed_no_more() {
    let plans =
        [[limited(&[(6, Every::Cycle, Over::Deny)]), unlimited()], [unlimited(), unlimited()]];
    let begin = Event::Begin { slot: 2, tenant: 0, user: 1, chats: false };
    let ingest = Event::Ingest { tenant: 0, meter: 0, units: 4 };
    let edit = Event::Edit { plan: 0, meter: 0, quota: 0, by: 2 };
    for last in
        [Event::Look { tenant: 0 }, Event::Work { tenant: 0, jobs: 1, tokens: 0, done: false }]
    {
        let events = vec![begin.clone(), ingest.clone(), edit.clone(), last];
        equal(history(None, plans.clone(), events));
    }
}

/// Two limits owe the same tokens when the process restarts.
fn owed_by_two(then: Vec<Event>) -> History {
    let hour = (6, Every::Hour, Over::Bill(Some(11)));
    let tokens = limited(&[hour, (3, Every::Day, Over::Bill(Some(5)))]);
    let plans = [[unlimited(), tokens], [unlimited(), unlimited()]];
    let mut events = vec![
        Event::Begin { slot: 2, tenant: 0, user: 1, chats: true },
        Event::Report { slot: 2, tokens: 14 },
        Event::Restart,
    ];
    events.extend(then);
    history(Some(4), plans, events)
}

#[test]
fn what_two_limits_owe_is_billed_once_after_a_restart() {
    equal(owed_by_two(vec![Event::Look { tenant: 0 }]));
}

#[test]
fn a_pack_pays_once_what_two_limits_owe_after_a_restart() {
    let pack = Event::Grant { tenant: 0, meter: 1, units: 12, lasts: DAY };
    equal(owed_by_two(vec![pack, Event::Look { tenant: 0 }]));
}

#[test]
fn what_a_request_gave_back_is_served_though_more_was_refused_before() {
    let plans =
        [[unlimited(), limited(&[(9, Every::Hour, Over::Deny)])], [unlimited(), unlimited()]];
    let work = |jobs, tokens| Event::Work { tenant: 0, jobs, tokens, done: true };
    let events = vec![
        Event::Begin { slot: 1, tenant: 0, user: 2, chats: true },
        work(7, 3),
        Event::Take { slot: 1, tokens: 3 },
        Event::Take { slot: 1, tokens: 4 },
        Event::End { slot: 1, status: 200 },
        work(2, 5),
    ];
    let mut history = history(None, plans, events);
    history.setting.cost = 1;
    equal(history);
}

#[test]
fn what_a_user_used_past_a_stop_is_owed_and_what_is_beyond_two_limits_billed_once() {
    let mut tokens =
        limited(&[(21, Every::Month, Over::Bill(None)), (14, Every::Cycle, Over::Bill(Some(1)))]);
    tokens.quotas[1].per_user = true;
    let plans = [[unlimited(), tokens], [unlimited(), unlimited()]];
    let events = vec![
        Event::Begin { slot: 2, tenant: 1, user: 1, chats: true },
        Event::Report { slot: 2, tokens: 35 },
        Event::Look { tenant: 1 },
    ];
    equal(history(None, plans, events));
}

#[test]
fn a_limit_that_falls_serves_no_more_than_it_has() {
    let once = |units| MeterPlan { once: Some(units), ..MeterPlan::default() };
    let of = |limit| limited(&[(limit, Every::Day, Over::Deny)]);
    let work = |jobs| Event::Work { tenant: 0, jobs, tokens: 0, done: true };
    for [before, after] in [[once(19), once(15)], [of(19), of(15)]] {
        let plans = [[before, unlimited()], [after, unlimited()]];
        let mut history = history(None, plans, vec![work(16), Event::Move { tenant: 0, plan: 1 }]);
        history.events.extend([work(1), work(1)]);
        equal(history);
    }
}

/// 4731: a payment state set while a subscription lived was forgotten at its end.
#[test]
fn an_operators_word_of_payment_is_in_force_after_a_subscription() {
    let plans = [[unlimited(), unlimited()], [unlimited(), unlimited()]];
    let pay = Event::Pay { tenant: 1, state: Payment::Unpaid };
    let (buy, cancel) = (Event::Subscribe { tenant: 1, plan: 0 }, Event::Cancel { tenant: 1 });
    let begin = Event::Begin { slot: 0, tenant: 1, user: 1, chats: false };
    for [first, second] in [[pay.clone(), buy.clone()], [buy, pay]] {
        let mut history =
            history(None, plans.clone(), vec![first, second, cancel.clone(), begin.clone()]);
        history.setting.sends_all = Some(false);
        equal(history);
    }
}

/// 9434, 1961: the book did not pay debts from what the plan following a grace gives, as the gate
/// does when the tenant is next seen.
#[test]
fn what_is_owed_is_paid_by_the_plan_that_follows_a_grace_once_the_tenant_is_seen() {
    let of = limited(&[(18, Every::Cycle, Over::Deny)]);
    let once = MeterPlan { once: Some(2), ..of.clone() };
    let plans = [[unlimited(), of], [unlimited(), once]];
    let pay = |state| Event::Pay { tenant: 0, state };
    let ingest = Event::Ingest { tenant: 0, meter: 1, units: 27 };
    let mut events = vec![pay(Payment::PastDue(0)), ingest, Event::Pass(6 * DAY)];
    equal(history(None, plans.clone(), events.clone()));
    events.push(pay(Payment::Good));
    equal(history(None, plans, events));
}

/// 21952: units of a plan's grant given back by a request paid a debt at once in the book; they pay
/// when the tenant is next seen, after what expires before them.
#[test]
fn what_a_request_gives_back_pays_what_is_owed_after_a_grant_that_expires_before_it() {
    let once = MeterPlan { once: Some(2), ..limited(&[(1, Every::Week, Over::Bill(Some(2)))]) };
    let plans = [[unlimited(), once], [unlimited(), unlimited()]];
    let begin = |slot| Event::Begin { slot, tenant: 1, user: 2, chats: true };
    let events = vec![
        begin(0),
        begin(1),
        Event::Ingest { tenant: 1, meter: 1, units: 5 },
        Event::Upgrade { slot: 1 },
        Event::Grant { tenant: 1, meter: 1, units: 2, lasts: 7_200_000 },
    ];
    equal(history(Some(1), plans, events));
}

/// 6718: a debt under a plan is not billed under it once the tenant has left it.
#[test]
fn what_is_owed_under_a_plan_is_not_billed_once_the_tenant_has_left_it() {
    let bills = [(14, Every::Hour, Over::Deny), (14, Every::Cycle, Over::Bill(None))];
    let plans = [[unlimited(), limited(&bills)], [unlimited(), unlimited()]];
    let begin = |slot, user| Event::Begin { slot, tenant: 1, user, chats: true };
    let events = vec![
        begin(0, 2),
        begin(1, 1),
        Event::Pass(DAY),
        Event::End { slot: 0, status: 500 },
        Event::ReportLate { slot: 0, tokens: 30 },
        Event::Move { tenant: 1, plan: 1 },
        Event::End { slot: 1, status: 500 },
        Event::Look { tenant: 1 },
    ];
    equal(history(None, plans, events));
}

#[test]
fn a_raised_limit_has_paid_of_a_debt_though_another_meter_refuses_who_owes() {
    let once = MeterPlan { once: Some(14), ..MeterPlan::default() };
    let plans = [
        [once, limited(&[(13, Every::Day, Over::Deny)])],
        [unlimited(), limited(&[(5, Every::Day, Over::Deny)])],
    ];
    let events = vec![
        Event::Ingest { tenant: 1, meter: 1, units: 19 },
        Event::Ingest { tenant: 1, meter: 0, units: 14 },
        Event::Edit { plan: 0, meter: 1, quota: 0, by: 1 },
        Event::Move { tenant: 1, plan: 1 },
    ];
    equal(history(None, plans, events));
}

#[test]
fn a_raised_limit_has_paid_of_a_debt_though_another_limit_refuses_who_owes() {
    let first = [(24, Every::Week, Over::Deny), (22, Every::Cycle, Over::Bill(Some(4)))];
    let second = [(12, Every::Cycle, Over::Bill(Some(4)))];
    let plans = [[limited(&first), unlimited()], [limited(&second), unlimited()]];
    let events = vec![
        Event::Ingest { tenant: 0, meter: 0, units: 34 },
        Event::Edit { plan: 0, meter: 0, quota: 1, by: 1 },
        Event::Move { tenant: 0, plan: 1 },
    ];
    equal(history(None, plans, events));
}

/// 5123, without Stripe: requests of a refused tenant find no debt, and a look at its usage does.
#[test]
fn a_grant_pays_what_a_suspended_tenant_owes_from_before_a_restart() {
    let plans = [
        [unlimited(), limited(&[(5, Every::Cycle, Over::Deny)])],
        [unlimited(), limited(&[(7, Every::Year, Over::Deny)])],
    ];
    let events = vec![
        Event::Ingest { tenant: 0, meter: 1, units: 6 },
        Event::Move { tenant: 0, plan: 1 },
        Event::Suspend { tenant: 0, suspended: true },
        Event::Restart,
        Event::Grant { tenant: 0, meter: 1, units: 1, lasts: 5 * DAY },
        Event::Move { tenant: 0, plan: 0 },
        Event::Look { tenant: 0 },
    ];
    equal(history(None, plans, events));
}
