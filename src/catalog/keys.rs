//! Every key of a plan file, defined once: the parser checks files against these tables, and
//! [`super::schema`] is printed from them, so that the two cannot drift.

use super::form::{Form, FormKey, Names, Shape};

const fn key(name: &'static str, form: Form, about: &'static str) -> FormKey {
    FormKey { name, form, about }
}

pub(super) static TOP: Shape = Shape {
    name: "plan file",
    required: &["default-plan"],
    keys: &[
        key("default-plan", Form::Text, "The plan of tenants without another. Must be written."),
        key("timezone", Form::Text, "IANA time zone in which days and months begin. Default: UTC."),
        key(
            "on-directory-error",
            Form::Word(&["deny", "default-plan"]),
            "A tenant that is not in cache while the store is away: 503, or the default plan.",
        ),
        key("meter", Form::Each(Names::Unreserved, &Form::Table(&METER)), "What is counted."),
        key("route", Form::Each(Names::Unreserved, &Form::Table(&ROUTE)), "Where."),
        key("plan", Form::Each(Names::Plain, &Form::Table(&PLAN)), "What is sold."),
        key("addon", Form::Each(Names::Plain, &Form::Table(&ADDON)), "Bought on top, many times."),
        key("topup", Form::Each(Names::Plain, &Form::Table(&TOPUP)), "Units bought once."),
        key("tenant", Form::Each(Names::Outer, &Form::Table(&TENANT)), "Exceptions."),
        key("billing", Form::Table(&BILLING), "What a payment state does."),
    ],
};

static METER: Shape = Shape {
    name: "meter",
    required: &[],
    keys: &[
        key(
            "count",
            Form::Word(&["cost", "reported", "response-bytes", "request-bytes"]),
            "Where its numbers come from. Default: cost.",
        ),
        key(
            "sum",
            Form::Each(Names::Plain, &Form::Fraction),
            "A weighted sum of other meters, instead of `count`.",
        ),
        key(
            "parts",
            Form::Count,
            "Parts of a unit that are counted; cannot be changed later. Default: a million of a \
             sum, else 1.",
        ),
        key("hold", Form::Amount, "Units set aside on entry, or per chunk of a body. Bytes: 64KB."),
        key("cut", Form::Flag, "Whether a stream ends when no units remain. Default: false."),
        key("stripe", Form::Table(&METER_STRIPE), "How it reaches Stripe."),
    ],
};

static METER_STRIPE: Shape = Shape {
    name: "meter's stripe",
    required: &["event"],
    keys: &[
        key("event", Form::Text, "`event_name` of the Stripe meter."),
        key("unit", Form::Text, "Unit of Stripe's number, on bytes: \"GB\". Default: 1."),
        key(
            "send",
            Form::Word(&["all", "overage"]),
            "All use, or what is beyond the included amount. Default: all.",
        ),
    ],
};

static ROUTE: Shape = Shape {
    name: "route",
    required: &["match"],
    keys: &[
        key("match", Form::Texts, "Methods and paths: \"GET /v1/accounts/{account}\"."),
        key("cost", Form::Each(Names::Plain, &Form::Fraction), "Units per request, by meter."),
        key(
            "meters",
            Form::Texts,
            "The reported meters that concern it. Default: those of no route.",
        ),
        key("needs", Form::Text, "The feature a plan must have, else 403."),
        key("free", Form::Flag, "Identified, but neither limited nor counted."),
        key(
            "auth",
            Form::Word(&["required", "optional", "none"]),
            "Whether callers are identified.",
        ),
        key("once-by", Form::Text, "The header that makes a request count once."),
        key("charge-on", Form::Words(OUTCOMES), "Outcomes that are charged."),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses no request.",
        ),
    ],
};

pub(super) const OUTCOMES: &[&str] = &["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];
const ENFORCE: &[&str] = &["on", "shadow"];

const RATES: Form = Form::Each(Names::Rates, &Form::Limits(&Form::RateWords, &RATE));
const QUOTAS: Form = Form::Each(Names::Plain, &Form::Limits(&Form::QuotaWords, &QUOTA));
const FEATURES: Form = Form::Each(Names::Plain, &Form::Feature);

static RATE: Shape = Shape {
    name: "rate",
    required: &["limit"],
    keys: &[
        key("limit", Form::RateWords, "The rate in words."),
        key(
            "strict",
            Form::Flag,
            "Never more in a slot, over all processes. Default: false; on Lambda: true.",
        ),
    ],
};

static QUOTA: Shape = Shape {
    name: "quota",
    required: &["limit"],
    keys: &[
        key("limit", Form::QuotaWords, "The quota in words."),
        key("over", Form::Word(&["deny", "allow", "bill"]), "What happens beyond. Default: deny."),
        key("stop", Form::Amount, "The hard ceiling above an `allow` or `bill` limit."),
        key("alert", Form::Percents, "Percentages that raise an event. Default: [80, 100]."),
    ],
};

static PLAN: Shape = Shape {
    name: "plan",
    required: &[],
    keys: &[
        key("extends", Form::Text, "The plan whose limits this one takes over, key by key."),
        key("stripe", Form::Table(&PRICES), "What means this plan at Stripe. Not inherited."),
        key("rate", RATES, "Limits on speed: `all`, `default`, or by route."),
        key("quota", QUOTAS, "Limits on units, by meter."),
        key("feature", FEATURES, "What the plan has."),
        key("concurrency", Form::Count, "Requests of one tenant in flight, per process."),
        key("expires", Form::Duration, "A trial's life, from the first request. Not inherited."),
        key("charge-on", Form::Words(OUTCOMES), "Outcomes that are charged."),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses no request.",
        ),
        key(
            "on-lease-error",
            Form::WordOr(&["deny"], &LEASE_ERROR),
            "No units and no store: deny, or admit a share of the limit.",
        ),
    ],
};

static LEASE_ERROR: Shape = Shape {
    name: "on-lease-error",
    required: &["allow"],
    keys: &[key("allow", Form::Text, "Share of the limit: \"2%\". The printed overshoot.")],
};

static PRICES: Shape = Shape {
    name: "stripe",
    required: &["price"],
    keys: &[key("price", Form::Texts, "Lookup keys of prices, so that test and live agree.")],
};

static ADDON: Shape = Shape {
    name: "addon",
    required: &["adds"],
    keys: &[
        key("stripe", Form::Table(&PRICES), "What means this addon at Stripe."),
        key("adds", Form::Table(&ADDS), "What one of it adds."),
    ],
};

static ADDS: Shape = Shape {
    name: "addon's adds",
    required: &[],
    keys: &[
        key("feature", Form::Each(Names::Plain, &Form::Count), "To features that are numbers."),
        key(
            "quota",
            Form::Each(Names::Plain, &Form::Limits(&Form::QuotaWords, &ADDED)),
            "To the quota with the same words.",
        ),
    ],
};

static ADDED: Shape = Shape {
    name: "addon's quota",
    required: &["limit"],
    keys: &[key("limit", Form::QuotaWords, "The quota in words.")],
};

static TOPUP: Shape = Shape {
    name: "topup",
    required: &["adds"],
    keys: &[
        key("stripe", Form::Table(&PRICES), "What means this top-up at Stripe."),
        key("adds", Form::Each(Names::Plain, &Form::Amount), "Units granted, by meter."),
        key("expires", Form::Duration, "How long the grant lives. Default: forever."),
    ],
};

pub(super) static TENANT: Shape = Shape {
    name: "tenant",
    required: &[],
    keys: &[
        key("plan", Form::Text, "Another plan as the base."),
        key("rate", RATES, "Rates that replace the plan's, by key."),
        key("quota", QUOTAS, "Quotas that replace the plan's, by meter."),
        key("feature", FEATURES, "Features that replace the plan's."),
        key("concurrency", Form::Count, "Requests in flight, per process."),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses no request.",
        ),
        key("term", Form::Table(&TERM), "The contract period."),
        key("until", Form::Date, "The last day on which the exception holds."),
        key("note", Form::Text, "Why it is there."),
    ],
};

static TERM: Shape = Shape {
    name: "term",
    required: &["from", "every"],
    keys: &[
        key("from", Form::Date, "Its first day."),
        key("every", Form::Term, "Its length: \"1y\", \"6mo\"."),
    ],
};

static BILLING: Shape = Shape {
    name: "billing",
    required: &[],
    keys: &[
        key("trialing", PAYMENT, "In a trial. Default: full."),
        key("past-due", PAYMENT, "A payment failed and is retried. Default: 7d of grace."),
        key("unpaid", PAYMENT, "Retries have ended. Default: payment-required."),
        key("canceled", PAYMENT, "The subscription has ended. Default: the default plan."),
        key(
            "on-payment-method",
            Form::Text,
            "The plan to subscribe to when a payment method arrives. Default: none.",
        ),
        key(
            "on-final-failure",
            Form::Word(&["keep", "cancel"]),
            "What becomes of a subscription whose payment has finally failed. Default: keep.",
        ),
    ],
};

/// Payment rules that are words; a plan cannot have such a name.
pub(super) const PAYMENT_WORDS: &[&str] = &["full", "payment-required"];

const PAYMENT: Form = Form::Payment(PAYMENT_WORDS, &GRACE);

static GRACE: Shape = Shape {
    name: "grace",
    required: &["grace", "then"],
    keys: &[
        key("grace", Form::Duration, "The whole plan for this long."),
        key("then", Form::Text, "A plan, or `payment-required`."),
    ],
};
