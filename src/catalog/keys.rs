//! Every key of a plan file, defined once: the parser checks files against these tables, and
//! `docs/plans.schema.json` is printed from them, so that the two cannot drift.

use super::form::*;
use super::words::{DURATION, TERM};
use crate::toml_file::{Form, Shape, key};

/// The name of a plan, in samples.
const FREE: &str = "\"free\"";

pub(super) static TOP: Shape = Shape {
    name: "plan file",
    required: &[&["default-plan"]],
    keys: &[
        key("default-plan", Form::Text, "The plan of tenants without another. Must be written.")
            .like(FREE),
        key("timezone", Form::Text, "IANA time zone in which days and months begin. Default: UTC.")
            .like("\"UTC\""),
        key(
            "default-auth",
            Form::Word(&["required", "optional", "none"]),
            "Whether callers of requests on no route of this file are identified: with `none` such \
             requests cost nothing. Default: required.",
        ),
        key(
            "on-directory-error",
            Form::Word(&["deny", "default-plan"]),
            "A tenant that is not in cache while the store is away: 503, or the default plan.",
        ),
        key("meter", Form::Each(&UNRESERVED, &Form::Table(&METER)), "What is counted."),
        key("route", Form::Each(&UNRESERVED, &Form::Table(&ROUTE)), "Where."),
        key("plan", Form::Each(&PLAIN, &Form::Table(&PLAN)), "What is sold."),
        key("addon", Form::Each(&PLAIN, &Form::Table(&ADDON)), "Bought on top, many times."),
        key("topup", Form::Each(&PLAIN, &Form::Table(&TOPUP)), "Units bought once."),
        key("tenant", Form::Each(&OUTER, &Form::Table(&TENANT)), "Exceptions."),
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
            Form::Each(&PLAIN, &Form::Own(&FRACTION)),
            "A weighted sum of other meters, instead of `count`.",
        ),
        key(
            "parts",
            Form::Count,
            "Parts of a unit that are counted; cannot be changed later. Default: a million of a \
             sum, else 1.",
        ),
        key(
            "hold",
            Form::Own(&AMOUNT),
            "Units set aside on entry, or per chunk of a body. Bytes: 64KB.",
        ),
        key("cut", Form::Flag, "Whether a stream ends when no units remain. Default: false."),
        key("stripe", Form::Table(&METER_STRIPE), "How it reaches Stripe."),
    ],
};

static METER_STRIPE: Shape = Shape {
    name: "meter's stripe",
    required: &[&["event"]],
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
    required: &[&["match"]],
    keys: &[
        key(
            "match",
            Form::Texts(0),
            "Methods, or ANY, and paths: \"GET /v1/{account}\". []: the program names the route.",
        )
        .like("[\"GET /v1/search\"]"),
        key("cost", Form::Each(&PLAIN, &Form::Own(&FRACTION)), "Units per request, by meter."),
        key(
            "meters",
            Form::Texts(1),
            "The reported meters that concern it. Default: those of no route.",
        ),
        key("needs", Form::Text, "The feature a plan must have, else 403."),
        key("needs-permission", Form::Text, "The permission a caller must have, else 403."),
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

const RATE_FORM: Form = Form::Own(&RATE_WORDS);
const QUOTA_FORM: Form = Form::Own(&QUOTA_WORDS);
const RATES: Form = Form::Each(&PLAIN, &Form::Several(&RATE_FORM, &RATE, "limit"));
const QUOTAS: Form = Form::Each(&PLAIN, &Form::Several(&QUOTA_FORM, &QUOTA, "limit"));
const FEATURES: Form = Form::Each(&PLAIN, &Form::Own(&FEATURE));

static RATE: Shape = Shape {
    name: "rate",
    required: &[&["limit"]],
    keys: &[
        key("limit", RATE_FORM, "The rate in words."),
        key(
            "strict",
            Form::Flag,
            "Never more in a slot, over all processes. Default: false; on Lambda: true.",
        ),
    ],
};

static QUOTA: Shape = Shape {
    name: "quota",
    required: &[&["limit"]],
    keys: &[
        key("limit", QUOTA_FORM, "The quota in words."),
        key("over", Form::Word(&["deny", "allow", "bill"]), "What happens beyond. Default: deny."),
        key("stop", Form::Own(&AMOUNT), "The hard ceiling above an `allow` or `bill` limit."),
        key("alert", Form::Own(&PERCENTS), "Percentages that raise an event. Default: [80, 100]."),
    ],
};

static PLAN: Shape = Shape {
    name: "plan",
    required: &[],
    keys: &[
        key("extends", Form::Text, "The plan whose limits this one takes over, key by key.")
            .like(FREE),
        key("stripe", Form::Table(&PRICES), "What means this plan at Stripe. Not inherited."),
        key(
            "pays",
            Form::Flag,
            "Whether it may use the part of `[capacity]` that is kept for such plans. Not \
             inherited. Default: true with `stripe`.",
        ),
        key("rate", RATES, "Limits on speed: `all`, `default`, or by route."),
        key("quota", QUOTAS, "Limits on units, by meter."),
        key("feature", FEATURES, "What the plan has."),
        key("concurrency", Form::Count, "Requests of one tenant in flight, per process."),
        key(
            "expires",
            Form::Counted(&DURATION),
            "A trial's life, from the first request. Not inherited.",
        ),
        key("charge-on", Form::Words(OUTCOMES), "Outcomes that are charged."),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses no request.",
        ),
        key(
            "on-lease-error",
            Form::Or(&Form::Word(&["deny"]), &LEASE_ERROR),
            "No units and no store: deny, or admit a share of the limit.",
        ),
    ],
};

static LEASE_ERROR: Shape = Shape {
    name: "on-lease-error",
    required: &[&["allow"]],
    keys: &[key("allow", Form::Text, "Share of the limit: \"2%\". The printed overshoot.")
        .like("\"2%\"")],
};

static PRICES: Shape = Shape {
    name: "stripe",
    required: &[&["price"]],
    keys: &[key("price", Form::Texts(1), "Lookup keys of prices, so that test and live agree.")
        .like("\"pro_monthly\"")],
};

static ADDON: Shape = Shape {
    name: "addon",
    required: &[&["adds"]],
    keys: &[
        key("stripe", Form::Table(&PRICES), "What means this addon at Stripe."),
        key("adds", Form::Table(&ADDS), "What one of it adds."),
    ],
};

static ADDS: Shape = Shape {
    name: "addon's adds",
    required: &[],
    keys: &[
        key("feature", Form::Each(&PLAIN, &Form::Count), "To features that are numbers."),
        key(
            "quota",
            Form::Each(&PLAIN, &Form::Several(&QUOTA_FORM, &ADDED, "limit")),
            "To the quota with the same words.",
        ),
    ],
};

static ADDED: Shape = Shape {
    name: "addon's quota",
    required: &[&["limit"]],
    keys: &[key("limit", QUOTA_FORM, "The quota in words.")],
};

static TOPUP: Shape = Shape {
    name: "topup",
    required: &[&["adds"]],
    keys: &[
        key("stripe", Form::Table(&PRICES), "What means this top-up at Stripe."),
        key("adds", Form::Each(&PLAIN, &Form::Own(&AMOUNT)), "Units granted, by meter."),
        key("expires", Form::Counted(&DURATION), "How long the grant lives. Default: forever."),
    ],
};

pub(super) static TENANT: Shape = Shape {
    name: "tenant",
    required: &[],
    keys: &[
        key("plan", Form::Text, "Another plan as the base.").like(FREE),
        key("rate", RATES, "Rates that replace the plan's, by key."),
        key("quota", QUOTAS, "Quotas that replace the plan's, by meter."),
        key("feature", FEATURES, "Features that replace the plan's."),
        key("concurrency", Form::Count, "Requests in flight, per process."),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses no request.",
        ),
        key("term", Form::Table(&CONTRACT), "The contract period."),
        key("until", Form::Own(&DATE), "The last day on which the exception holds."),
        key("note", Form::Text, "Why it is there."),
    ],
};

static CONTRACT: Shape = Shape {
    name: "term",
    required: &[&["from"], &["every"]],
    keys: &[
        key("from", Form::Own(&DATE), "Its first day."),
        key("every", Form::Counted(&TERM), "Its length: \"1y\", \"6mo\"."),
    ],
};

static BILLING: Shape = Shape {
    name: "billing",
    required: &[],
    keys: &[
        key("trialing", STATE, "In a trial. Default: full."),
        key("past-due", STATE, "A payment failed and is retried. Default: 7d of grace."),
        key("unpaid", STATE, "Retries have ended. Default: payment-required."),
        key("canceled", STATE, "The subscription has ended. Default: the default plan."),
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

const STATE: Form = Form::Or(&Form::Own(&PAYMENT), &GRACE);

static GRACE: Shape = Shape {
    name: "grace",
    required: &[&["grace"], &["then"]],
    keys: &[
        key("grace", Form::Counted(&DURATION), "The whole plan for this long."),
        key("then", Form::Text, "A plan, or `payment-required`.").like(FREE),
    ],
};
