//! Tests of the reducer: every permutation of lifecycles, with duplicates, ends in the state
//! written by hand; and random sets in random orders give equal facts.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalog::PlanId;

const T: i64 = 1_773_748_800;
const DAY: i64 = 86_400;

fn sold(price: &str) -> Option<Sold> {
    match price {
        "pro_monthly" => Some(Sold::Plan(PlanId(1))),
        "team_monthly" => Some(Sold::Plan(PlanId(2))),
        "seat_monthly" => Some(Sold::Addon(0)),
        "credits_50k" => Some(Sold::Topup(0)),
        _ => None,
    }
}

fn event(n: u32, kind: &str, created_s: i64, object: Value) -> WebhookEvent {
    WebhookEvent {
        id: format!("evt_{n}"),
        kind: kind.to_owned(),
        created_s,
        live: false,
        object,
        previous: None,
        account: None,
        version: None,
        thin: false,
    }
}

/// A subscription that began at `T`, with one item.
fn subscription(id: &str, status: &str, price: &str, quantity: u64, period_s: i64) -> Value {
    json!({
        "id": id, "object": "subscription", "status": status,
        "start_date": T, "created": T, "billing_cycle_anchor": T,
        "items": { "data": [{
            "price": { "id": format!("price_{price}"), "lookup_key": price },
            "quantity": quantity, "current_period_start": period_s,
        }] },
    })
}

fn created(n: u32, at_s: i64, object: Value) -> WebhookEvent {
    event(n, "customer.subscription.created", at_s, object)
}

fn updated(n: u32, at_s: i64, object: Value, previous: Value) -> WebhookEvent {
    let updated = event(n, "customer.subscription.updated", at_s, object);
    WebhookEvent { previous: Some(previous), ..updated }
}

fn invoice(n: u32, kind: &str, at_s: i64, id: &str, status: &str) -> WebhookEvent {
    let object = json!({
        "id": id, "object": "invoice", "status": status,
        "parent": { "subscription_details": { "subscription": "sub_1" } },
        "lines": { "data": [] },
    });
    event(n, kind, at_s, object)
}

fn base(price: &str, payment: PaymentState, since_s: i64) -> PlanState {
    let base = Base {
        subscription: "sub_1".to_owned(),
        price: price.to_owned(),
        keys: vec![price.to_owned()],
        payment,
        since_s,
        anchor_s: T,
        given_up: false,
    };
    PlanState { base: Some(base), ..PlanState::default() }
}

fn facts<'a>(events: impl IntoIterator<Item = &'a WebhookEvent>) -> Facts {
    let mut facts = Facts::default();
    for event in events {
        assert_eq!(facts.take(event), EventTaken::Yes, "{}", event.kind);
    }
    facts
}

/// Calls `with` every permutation of the indices below `n` (Heap's algorithm).
fn permutations(n: usize, mut with: impl FnMut(&[usize])) -> usize {
    let mut places: Vec<usize> = (0..n).collect();
    let mut counters = vec![0; n];
    let (mut at, mut count) = (0, 1);
    with(&places);
    while at < n {
        if counters[at] < at {
            places.swap(if at % 2 == 0 { 0 } else { counters[at] }, at);
            with(&places);
            count += 1;
            counters[at] += 1;
            at = 0;
        } else {
            counters[at] = 0;
            at += 1;
        }
    }
    count
}

/// Every order, and every order with each event twice in a row and one more at the end.
#[track_caller]
fn always(events: &[WebhookEvent], expected: &PlanState) {
    assert!(events.len() <= 7);
    let reference = facts(events);
    assert_eq!(reference.state(sold), *expected);
    let factorial: usize = (1..=events.len()).product();
    let count = permutations(events.len(), |order| {
        let mut one = Facts::default();
        for place in order {
            one.take(&events[*place]);
        }
        assert_eq!(one, reference, "order {order:?}");
        for place in order.iter().chain(order.first()) {
            one.take(&events[*place]);
        }
        assert_eq!(one, reference, "order {order:?}, with duplicates");
    });
    assert_eq!(count, factorial);
}

#[test]
fn a_trial_that_is_paid_fails_once_and_recovers() {
    let sub = |status: &str, period_s| subscription("sub_1", status, "pro_monthly", 1, period_s);
    let renewed = T + 44 * DAY;
    let events = [
        created(1, T, sub("trialing", T)),
        event(2, "customer.subscription.trial_will_end", T + 11 * DAY, sub("trialing", T)),
        updated(3, T + 14 * DAY, sub("active", T + 14 * DAY), json!({ "status": "trialing" })),
        updated(4, renewed, sub("past_due", renewed), json!({ "status": "active" })),
        invoice(5, "invoice.payment_failed", renewed, "in_2", "open"),
        invoice(6, "invoice.paid", renewed + DAY, "in_2", "paid"),
        updated(7, renewed + DAY, sub("active", renewed), json!({ "status": "past_due" })),
    ];
    always(&events, &base("pro_monthly", PaymentState::Good, T));
    always(&events[..2], &base("pro_monthly", PaymentState::Trialing, T));
    let failed = base("pro_monthly", PaymentState::PastDue, renewed);
    always(&events[..5], &failed);
    // The invoice's event is missing: grace is counted from the start of the period.
    always(&events[..4], &failed);
}

#[test]
fn grace_is_counted_from_the_first_failure_and_an_end_is_final() {
    let sub = |status: &str| subscription("sub_1", status, "pro_monthly", 1, T);
    let mut canceled = sub("canceled");
    canceled["ended_at"] = json!(T + 9 * DAY);
    let events = [
        created(1, T, sub("active")),
        invoice(2, "invoice.payment_failed", T + 100, "in_1", "open"),
        updated(3, T + 101, sub("past_due"), json!({ "status": "active" })),
        invoice(4, "invoice.payment_failed", T + 3 * DAY, "in_1", "open"),
        invoice(5, "invoice.marked_uncollectible", T + 9 * DAY, "in_1", "uncollectible"),
        event(6, "customer.subscription.deleted", T + 9 * DAY, canceled),
        // Late by its time, and still does not revive it.
        updated(7, T + 9 * DAY + 1, sub("past_due"), json!({ "status": "active" })),
    ];
    always(&events[..4], &base("pro_monthly", PaymentState::PastDue, T + 100));
    always(&events, &base("pro_monthly", PaymentState::Canceled, T + 9 * DAY));
}

#[test]
fn within_one_second_the_events_say_what_came_before_them() {
    let sub = |status: &str, price: &str| subscription("sub_1", status, price, 1, T);
    let pro_items = sub("active", "pro_monthly")["items"].clone();
    let method = json!({ "id": "pm_1", "object": "payment_method" });
    let intent = json!({ "id": "seti_1", "payment_method": "pm_1" });
    let events = [
        created(1, T, sub("incomplete", "pro_monthly")),
        invoice(2, "invoice.paid", T, "in_1", "paid"),
        updated(3, T, sub("active", "pro_monthly"), json!({ "status": "incomplete" })),
        updated(4, T, sub("active", "team_monthly"), json!({ "items": pro_items })),
        event(5, "payment_method.attached", T, method),
        event(6, "setup_intent.succeeded", T, intent),
    ];
    let method = Some(("pm_1".to_owned(), T));
    let expected = PlanState { method, ..base("team_monthly", PaymentState::Good, T) };
    always(&events, &expected);
}

#[test]
fn a_subscription_that_never_began_gives_no_plan() {
    let incomplete = subscription("sub_1", "incomplete", "pro_monthly", 1, T);
    always(&[created(1, T, incomplete)], &PlanState::default());
}

#[test]
fn a_first_payment_that_never_came_says_nothing_of_plan_payment_and_anchor() {
    let sub = |id: &str, status: &str| subscription(id, status, "pro_monthly", 1, T);
    let expired = |n: u32, kind: &str| {
        let mut over = sub("sub_9", "incomplete_expired");
        over["ended_at"] = json!(T + DAY);
        event(n, kind, T + DAY, over)
    };
    let events = [
        created(1, T, sub("sub_9", "incomplete")),
        expired(2, "customer.subscription.updated"),
        // Late by its time, and still does not begin it.
        updated(3, T + 2 * DAY, sub("sub_9", "incomplete"), json!({ "metadata": {} })),
    ];
    always(&events, &PlanState::default());
    let gone =
        event(4, "customer.deleted", T + DAY, json!({ "id": "cus_1", "object": "customer" }));
    let deleted = PlanState { deleted: true, ..PlanState::default() };
    always(&[events[0].clone(), gone], &deleted);
    always(&[expired(5, "customer.subscription.deleted")], &PlanState::default());
    // It does not outrank an ended one, though that ended earlier.
    let mut ended = sub("sub_1", "canceled");
    ended["ended_at"] = json!(T + 5);
    let ended = event(6, "customer.subscription.deleted", T + 5, ended);
    let all: Vec<WebhookEvent> = events.into_iter().chain([ended]).collect();
    always(&all, &base("pro_monthly", PaymentState::Canceled, T + 5));
    // But an earlier payment method does not subscribe again.
    let facts = facts(&all);
    assert!(facts.has_ended_since(T + DAY, sold));
    assert!(!facts.has_ended_since(T + DAY + 1, sold));
}

#[test]
fn of_several_subscriptions_that_have_ended_the_last_end_is_said() {
    let ended = |n: u32, id: &str, began: i64, over: i64| {
        let mut object = subscription(id, "canceled", "pro_monthly", 1, T);
        (object["start_date"], object["ended_at"]) = (json!(T + began), json!(T + over));
        event(n, "customer.subscription.deleted", T + over, object)
    };
    let events = [ended(1, "sub_1", 0, 10), ended(2, "sub_2", 3, 5)];
    always(&events, &base("pro_monthly", PaymentState::Canceled, T + 10));
}

#[test]
fn addons_count_by_quantity_and_top_ups_once_when_paid() {
    let seats = |status: &str, n| subscription("sub_2", status, "seat_monthly", n, T);
    let mut bought = invoice(5, "invoice.paid", T + 20, "in_9", "paid");
    bought.object["parent"] = Value::Null;
    bought.object["lines"]["data"] = json!([
        { "id": "il_1", "quantity": 2,
          "pricing": { "price_details": { "price": "price_credits" } } },
    ]);
    let mut open = bought.clone();
    open.kind = "invoice.finalized".to_owned();
    open.object["status"] = json!("open");
    let events = [
        created(1, T, subscription("sub_1", "active", "pro_monthly", 1, T)),
        created(2, T + 5, seats("active", 3)),
        updated(3, T + 9, seats("active", 5), json!({ "items": seats("active", 3)["items"] })),
        open,
        bought,
    ];
    let mut expected = base("pro_monthly", PaymentState::Good, T);
    let seat = |past_due_s| HeldAddon {
        price: "seat_monthly".to_owned(),
        keys: vec!["seat_monthly".to_owned()],
        past_due_s,
    };
    expected.addons.insert(seat(None), 5);
    always(&events[..4], &expected);
    // An invoice does not contain the price's key: it is fetched once.
    expected.wanted.insert(WantedObject::Price("price_credits".to_owned()));
    always(&events, &expected);
    let mut facts = facts(&events);
    facts.price("price_credits", "credits_50k", T);
    expected.wanted.clear();
    let topup = TopUp { price: "credits_50k".to_owned(), quantity: 2, paid_s: T + 20 };
    expected.topups.insert("il_1".to_owned(), topup);
    assert_eq!(facts.state(sold), expected);
    facts.take(&updated(6, T + 40, seats("past_due", 5), json!({ "status": "active" })));
    let mut failed = invoice(7, "invoice.payment_failed", T + 38, "in_10", "open");
    failed.object["parent"]["subscription_details"]["subscription"] = json!("sub_2");
    facts.take(&failed);
    assert_eq!(facts.state(sold).addons, BTreeMap::from([(seat(Some(T + 38)), 5)]));
    facts.take(&event(8, "customer.subscription.deleted", T + 50, seats("canceled", 5)));
    assert_eq!(facts.state(sold).addons, BTreeMap::new());
}

#[test]
fn a_line_that_gives_money_back_or_counts_nothing_sells_no_pack() {
    let mut bought = invoice(1, "invoice.paid", T, "in_9", "paid");
    bought.object["parent"] = Value::Null;
    let line = |id: &str, amount: i64, quantity: u64| {
        json!({
            "id": id, "amount": amount, "quantity": quantity,
            "pricing": { "price_details": { "price": "price_credits" } },
        })
    };
    bought.object["lines"]["data"] = json!([
        line("il_1", 500, 3),
        line("il_2", 0, 1),
        line("il_3", -500, 1),
        line("il_4", 500, 0),
    ]);
    let mut facts = facts(&[bought]);
    facts.price("price_credits", "credits_50k", T);
    let topups = facts.state(sold).topups;
    assert_eq!(topups.keys().collect::<Vec<_>>(), ["il_1"]);
}

#[test]
fn what_the_events_cannot_decide_is_fetched_and_decides() {
    let sub = |price: &str| subscription("sub_1", "active", price, 1, T);
    let events = [
        created(1, T, sub("pro_monthly")),
        updated(2, T + 5, sub("pro_monthly"), json!({ "metadata": {} })),
        updated(3, T + 5, sub("team_monthly"), json!({ "metadata": {} })),
    ];
    let mut expected = base("team_monthly", PaymentState::Good, T);
    expected.wanted.insert(WantedObject::Subscription("sub_1".to_owned()));
    always(&events, &expected);
    let mut one = facts(&events);
    one.fetched(&sub("pro_monthly"), T + 6);
    let decided = base("pro_monthly", PaymentState::Good, T);
    assert_eq!(one.state(sold), decided);
    // The fetch may also come before the events.
    let mut other = Facts::default();
    other.fetched(&sub("pro_monthly"), T + 6);
    events.iter().for_each(|event| {
        other.take(event);
    });
    assert_eq!(other, one);
}

#[test]
fn a_deleted_customer_has_no_subscription_left() {
    let events = [
        created(1, T, subscription("sub_1", "active", "pro_monthly", 1, T)),
        event(2, "customer.deleted", T + DAY, json!({ "id": "cus_1", "object": "customer" })),
        event(3, "payment_method.attached", T, json!({ "id": "pm_1" })),
        event(4, "payment_method.detached", T, json!({ "id": "pm_1" })),
    ];
    let expected =
        PlanState { deleted: true, ..base("pro_monthly", PaymentState::Canceled, T + DAY) };
    always(&events, &expected);
}

#[test]
fn a_paused_trial_is_unpaid_and_a_live_subscription_beats_a_dead_one() {
    let sub = |status: &str| subscription("sub_1", status, "pro_monthly", 1, T);
    let mut dead = subscription("sub_0", "canceled", "team_monthly", 1, T);
    dead["start_date"] = json!(T + DAY);
    let events = [
        created(1, T, sub("trialing")),
        event(2, "customer.subscription.paused", T + 14 * DAY, sub("paused")),
        event(3, "customer.subscription.deleted", T + 2 * DAY, dead),
    ];
    always(&events, &base("pro_monthly", PaymentState::Unpaid, T));
}

#[test]
fn unknown_and_odd_events_change_nothing() {
    let mut facts = Facts::default();
    let odd = [
        event(1, "charge.refunded", T, json!({ "id": "ch_1" })),
        event(4, "invoice.upcoming", T, json!({ "object": "invoice", "status": "draft" })),
        event(5, "payment_method.attached", T, json!({ "id": 7 })),
    ];
    for event in &odd {
        assert_eq!(facts.take(event), EventTaken::Unknown, "{}", event.id);
    }
    let line = json!({ "id": "il_1", "amount": 5 });
    let unreadable = [
        event(2, "customer.subscription.updated", T, json!({ "id": "sub_1", "status": "new" })),
        event(3, "customer.subscription.updated", T, json!(null)),
        event(7, "customer.subscription.updated", T, json!({ "id": "sub_1", "status": "active" })),
        event(8, "invoice.paid", T, json!({ "id": "in_1", "status": "paid", "lines": [] })),
        event(9, "invoice.paid", T, json!({ "id": "in_1", "status": "new", "parent": null })),
        event(
            10,
            "invoice.paid",
            T,
            json!({
                "id": "in_1", "status": "paid", "parent": null, "lines": { "data": [line] },
            }),
        ),
    ];
    for event in &unreadable {
        assert_eq!(facts.take(event), EventTaken::Unreadable, "{}", event.id);
    }
    assert_eq!(facts, Facts::default());
    let report = event(6, "v1.billing.meter.error_report_triggered", T, json!({ "id": "mtr_1" }));
    assert_eq!(facts.take(&WebhookEvent { thin: true, ..report }), EventTaken::MeterErrors);
}

#[test]
fn a_voided_invoice_begins_no_grace_and_one_given_up_long_ago_gives_nothing_up() {
    let sub = |status: &str| subscription("sub_1", status, "pro_monthly", 1, T);
    let at = |n: u32, kind: &str, days: i64, id: &str, status: &str, made: i64| {
        let mut event = invoice(n, kind, T + days * DAY, id, status);
        event.object["created"] = json!(T + made * DAY);
        event
    };
    let now = 100;
    let events = [
        created(1, T, sub("active")),
        at(2, "invoice.payment_failed", 0, "in_1", "open", 0),
        at(3, "invoice.voided", 1, "in_1", "void", 0),
        at(4, "invoice.payment_failed", 30, "in_2", "open", 30),
        at(5, "invoice.marked_uncollectible", 40, "in_2", "uncollectible", 30),
        at(6, "invoice.payment_failed", now, "in_3", "open", now),
        updated(7, T + now * DAY, sub("past_due"), json!({ "status": "active" })),
    ];
    always(&events, &base("pro_monthly", PaymentState::PastDue, T + now * DAY));
    // The invoice open now is marked uncollectible.
    let mut facts = facts(&events);
    facts.take(&at(8, "invoice.marked_uncollectible", 109, "in_3", "uncollectible", now));
    let is = facts.state(sold).base.unwrap();
    assert_eq!((is.given_up, is.since_s), (true, T + now * DAY));
    // Or it is paid after all.
    facts.take(&at(9, "invoice.paid", 110, "in_3", "paid", now));
    assert!(!facts.state(sold).base.unwrap().given_up);
}

#[test]
fn what_failed_of_another_subscription_or_is_a_draft_says_nothing_of_the_payment() {
    let sub = |status: &str| subscription("sub_1", status, "pro_monthly", 1, T);
    let of = |n: u32, kind: &str, at_s: i64, id: &str, status: &str, subscription: Value| {
        let mut event = invoice(n, kind, at_s, id, status);
        event.object["created"] = json!(at_s);
        event.object["parent"]["subscription_details"]["subscription"] = subscription;
        event
    };
    let own = || json!("sub_1");
    let events = [
        created(1, T, sub("active")),
        of(2, "invoice.payment_failed", T + 10, "in_1", "open", json!("sub_2")),
        of(3, "invoice.payment_failed", T + 20, "in_2", "open", Value::Null),
        of(4, "invoice.payment_failed", T + 30, "in_3", "open", own()),
        updated(5, T + 31, sub("past_due"), json!({ "status": "active" })),
    ];
    always(&events, &base("pro_monthly", PaymentState::PastDue, T + 30));
    let mut facts = facts(&events);
    for (n, at_s, status) in [(6, T + 30, "uncollectible"), (7, T + 50, "draft")] {
        let id = if status == "draft" { "in_4" } else { "in_3" };
        facts.take(&of(n, "invoice.updated", at_s, id, status, own()));
        let is = facts.state(sold).base.unwrap();
        assert_eq!((is.given_up, is.since_s), (true, T + 30), "{status}");
    }
}

#[test]
fn an_old_event_attaches_no_payment_method_that_was_folded_away() {
    let mut facts = Facts::default();
    let method = |n: i64, kind: &str, at_s: i64| {
        event(1, kind, T + at_s, json!({ "id": format!("pm_{n:04}"), "object": "payment_method" }))
    };
    for n in 1..=300 {
        facts.take(&method(n, "payment_method.attached", 10 * n));
        facts.take(&method(n, "payment_method.detached", 10 * n + 5));
    }
    facts.fold(&BTreeSet::new());
    facts.take(&method(7, "payment_method.attached", 70));
    assert_eq!(facts.state(sold).method, None);
    // For those that are kept, newer events still count.
    facts.take(&method(290, "payment_method.attached", 2_906));
    assert_eq!(facts.state(sold).method, Some(("pm_0290".to_owned(), T + 2_906)));
    facts.fold(&BTreeSet::new());
    facts.take(&method(290, "payment_method.detached", 2_907));
    assert_eq!(facts.state(sold).method, None);
}

#[test]
fn a_price_goes_on_meaning_what_its_newest_known_key_meant() {
    let with = |status: &str, key: Value| {
        let mut object = subscription("sub_1", status, "pro_monthly", 1, T);
        object["items"]["data"][0]["price"] = json!({ "id": "price_1", "lookup_key": key });
        object
    };
    let moved = |n, at_s, key: Value| updated(n, at_s, with("active", key), json!({}));
    let events = [
        created(1, T, with("active", json!("pro_monthly"))),
        moved(2, T + 5, Value::Null),
        moved(3, T + 9, json!("legacy_key_that_nothing_is_sold_by")),
        moved(4, T + 20, Value::Null),
    ];
    let keyed = |keys: &[&str], mut state: PlanState| {
        let base = state.base.as_mut().unwrap();
        base.keys = keys.iter().map(|key| (*key).to_owned()).collect();
        state
    };
    let legacy = "legacy_key_that_nothing_is_sold_by";
    let keys = [legacy, "pro_monthly"];
    always(&events, &keyed(&keys, base("pro_monthly", PaymentState::Good, T)));
    let renamed = [moved(5, T + 30, json!("team_monthly")), moved(6, T + 31, Value::Null)];
    let all: Vec<WebhookEvent> = events.into_iter().chain(renamed).collect();
    let keys = ["team_monthly", legacy, "pro_monthly"];
    always(&all, &keyed(&keys, base("team_monthly", PaymentState::Good, T)));
    let mut facts = facts(&all);
    let mut over = with("canceled", Value::Null);
    over["ended_at"] = json!(T + 40);
    facts.take(&event(7, "customer.subscription.deleted", T + 40, over));
    assert_eq!(facts.state(sold).base.unwrap().payment, PaymentState::Canceled);
}

/// The n-th invoice of a busy customer: paid, with a pack on every tenth.
fn busy(n: u32, kind: &str, status: &str) -> WebhookEvent {
    let mut event = invoice(n, kind, T + i64::from(n) * DAY, &format!("in_{n:05}"), status);
    event.object["created"] = json!(T + i64::from(n) * DAY);
    if n.is_multiple_of(10) {
        event.object["parent"] = Value::Null;
        event.object["lines"]["data"] = json!([{
            "id": format!("il_{n:05}"), "amount": 500, "quantity": 1,
            "pricing": { "price_details": { "price": "price_credits" } },
        }]);
    }
    event
}

#[test]
fn thousands_of_closed_invoices_leave_facts_of_a_few_and_the_same_state() {
    let mut facts = facts(&[created(1, T, subscription("sub_1", "active", "pro_monthly", 1, T))]);
    facts.price("price_credits", "credits_50k", T);
    // One that stays open from the first day.
    facts.take(&busy(1, "invoice.payment_failed", "open"));
    let mut granted = BTreeSet::new();
    let mut largest = 0;
    for n in 2..=3_400 {
        facts.take(&busy(n, "invoice.finalized", "open"));
        facts.take(&busy(n, "invoice.paid", "paid"));
        let topups = facts.state(sold).topups;
        granted.extend(topups.keys().cloned());
        if facts.is_large() {
            // All but the newest are granted.
            facts.fold(&topups.into_keys().next_back().into_iter().collect());
        }
        largest = largest.max(postcard::to_stdvec(&facts).unwrap().len());
    }
    assert_eq!(granted.len(), 340, "each pack showed");
    assert!(largest < 32 * 1_024, "{largest} bytes");
    let past_due = subscription("sub_1", "past_due", "pro_monthly", 1, T);
    facts.take(&updated(9_000, T + 4_000 * DAY, past_due, json!({ "status": "active" })));
    let is = facts.state(sold).base.unwrap();
    assert_eq!(is.since_s, T + DAY, "the open one is remembered");
    // An old event of a folded invoice reopens nothing: the invoice is fetched.
    let before = facts.state(sold);
    facts.take(&busy(5, "invoice.payment_failed", "open"));
    facts.take(&busy(20, "invoice.paid", "paid"));
    let after = facts.state(sold);
    let wanted = ["in_00005", "in_00020"].map(|id| WantedObject::Invoice(id.to_owned()));
    assert_eq!((&after.base, &after.topups), (&before.base, &before.topups));
    assert_eq!(after.wanted, BTreeSet::from(wanted));
    facts.fetched_invoice(&busy(5, "x", "paid").object, T + 5_000 * DAY);
    facts.no_invoice("in_00020");
    assert_eq!(facts.state(sold).base, before.base);
    assert_eq!(facts.state(sold).wanted, BTreeSet::new());
}

#[test]
fn a_paid_invoice_that_waits_for_its_lines_or_a_price_is_not_folded() {
    let mut unread = busy(10, "invoice.paid", "paid");
    unread.object["lines"]["has_more"] = json!(true);
    let mut unnamed = busy(20, "invoice.paid", "paid");
    unnamed.object["lines"]["data"][0]["pricing"]["price_details"]["price"] = json!("price_new");
    let mut facts = facts(&[unread, unnamed]);
    facts.price("price_credits", "credits_50k", T);
    for n in 30..=300 {
        facts.take(&busy(n, "invoice.paid", "paid"));
    }
    let wanted = facts.state(sold).wanted;
    assert_eq!(wanted.len(), 2, "{wanted:?}");
    facts.fold(&BTreeSet::new());
    assert_eq!(facts.state(sold).wanted, wanted);
}

#[test]
fn a_subscription_that_goes_on_is_not_folded_however_many_have_ended_since() {
    let lives = subscription("sub_1", "active", "pro_monthly", 1, T);
    let mut facts = facts(&[created(1, T, lives)]);
    for n in 1..=200 {
        let mut over = subscription(&format!("over_{n}"), "canceled", "team_monthly", 1, T);
        over["start_date"] = json!(T + n * DAY);
        over["ended_at"] = json!(T + n * DAY);
        facts.take(&event(2, "customer.subscription.deleted", T + n * DAY, over));
    }
    facts.fold(&BTreeSet::new());
    assert_eq!(facts.state(sold), base("pro_monthly", PaymentState::Good, T));
}

#[test]
fn ended_subscriptions_are_folded_and_an_old_event_revives_none() {
    let mut facts = Facts::default();
    let of = |n: i64, status: &str| {
        let mut object = subscription(&format!("sub_{n:04}"), status, "pro_monthly", 1, T);
        object["start_date"] = json!(T + n * DAY);
        object["ended_at"] =
            if status == "canceled" { json!(T + n * DAY + 5) } else { json!(null) };
        object
    };
    for n in 1..=1_000 {
        facts.take(&created(1, T + n * DAY, of(n, "active")));
        facts.take(&event(2, "customer.subscription.deleted", T + n * DAY + 5, of(n, "canceled")));
        if facts.is_large() {
            facts.fold(&BTreeSet::new());
        }
    }
    assert!(postcard::to_stdvec(&facts).unwrap().len() < 32 * 1_024);
    let before = facts.state(sold).base;
    facts.take(&updated(3, T + 9 * DAY + 1, of(9, "active"), json!({})));
    let state = facts.state(sold);
    let wanted = BTreeSet::from([WantedObject::Subscription("sub_0009".to_owned())]);
    assert_eq!((state.base, state.wanted), (before.clone(), wanted));
    facts.fetched(&of(9, "canceled"), T + 2_000 * DAY);
    let state = facts.state(sold);
    assert_eq!((state.base, state.wanted), (before, BTreeSet::new()));
}

fn any_event() -> impl Strategy<Value = WebhookEvent> {
    let status = prop::sample::select(vec![
        "incomplete",
        "incomplete_expired",
        "trialing",
        "active",
        "past_due",
        "unpaid",
        "canceled",
    ]);
    let price = prop::sample::select(vec!["pro_monthly", "team_monthly", "seat_monthly"]);
    let kind = prop::sample::select(vec![
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "invoice.payment_failed",
        "invoice.paid",
        "payment_method.attached",
        "payment_method.detached",
        "customer.deleted",
    ]);
    (kind, status, price, 0..4_i64, 0..2_u32, prop::option::of(0..2_i64)).prop_map(
        |(kind, status, price, at_s, n, before)| {
            let object = match kind.split('.').next() {
                Some("invoice") => {
                    return invoice(n, kind, T + at_s, &format!("in_{n}"), "open");
                }
                _ if kind.starts_with("customer.subscription") => {
                    subscription(&format!("sub_{n}"), status, price, 1, T)
                }
                _ => json!({ "id": format!("pm_{n}") }),
            };
            let word = |n| if n == 0 { "active" } else { "past_due" };
            let previous = before.map(|n| json!({ "status": word(n) }));
            WebhookEvent { previous, ..event(n, kind, T + at_s, object) }
        },
    )
}

proptest! {
    #[test]
    fn facts_depend_on_the_set_alone(
        events in prop::collection::vec(any_event(), 1..12),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        seed in any::<u64>(),
    ) {
        let reference = facts(&events);
        let mut other = events.clone();
        other.extend(again.iter().map(|at| events[at.index(events.len())].clone()));
        let mut random = seed | 1;
        for at in (1..other.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            other.swap(at, usize::try_from(random % (at as u64 + 1)).unwrap());
        }
        prop_assert_eq!(&facts(&other), &reference);
        prop_assert_eq!(facts(&other).state(sold), reference.state(sold));
    }
}
