//! Every key a plan file may hold, once: the parser checks files against these tables, and
//! [`super::schema`] is printed from them, so that the two cannot drift.

use super::words;

/// What may stand behind a key.
#[derive(Debug)]
pub(super) enum Form {
    /// Any string.
    Text,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A list of these strings.
    Words(&'static [&'static str]),
    /// A string, or a list of strings.
    Texts,
    /// `true` or `false`.
    Flag,
    /// A whole number from 1 on.
    Count,
    /// A list of percentages.
    Percents,
    /// A local date.
    Date,
    /// A duration: `"7d"`.
    Duration,
    /// A contract period: `"1y"`.
    Term,
    /// An amount: `25`, `"64KB"`, `"1M"`.
    Amount,
    /// An amount or a fraction: `25`, `"1/1000"`.
    Fraction,
    /// A rate in words.
    RateWords,
    /// A quota in words.
    QuotaWords,
    /// A limit: its words, a table, or a list of both.
    Limits(&'static Form, &'static Shape),
    /// `true`, a number, `"unlimited"`, or a word.
    Feature,
    /// A table with these keys.
    Table(&'static Shape),
    /// A table whose keys are names.
    Each(Names, &'static Form),
    /// One of these words, a name of a plan, or a table: what a payment state does.
    Payment(&'static [&'static str], &'static Shape),
    /// A word or a table.
    WordOr(&'static [&'static str], &'static Shape),
}

/// What names a table of names takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Letters, digits, `-` and `_`.
    Plain,
    /// The same, but no word of the small languages.
    Unreserved,
    /// `all`, `default`, or a route.
    Rates,
    /// Outer ids of tenants: anything that can be read.
    Outer,
}

/// The keys of a kind of table.
#[derive(Debug)]
pub(super) struct Shape {
    /// What errors call the table: `plan`.
    pub(super) name: &'static str,
    /// Keys that must be there.
    pub(super) required: &'static [&'static str],
    pub(super) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// For the schema: what it does.
    pub(super) about: &'static str,
}

const fn key(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, about }
}

pub(super) static TOP: Shape = Shape {
    name: "plan file",
    required: &["default-plan"],
    keys: &[
        key(
            "default-plan",
            Form::Text,
            "The plan of tenants without another. Must be written.",
        ),
        key(
            "timezone",
            Form::Text,
            "IANA name of where days and months turn over. Default: UTC.",
        ),
        key(
            "on-directory-error",
            Form::Word(&["deny", "default-plan"]),
            "A tenant that is not in cache while the store is away: 503, or the default plan.",
        ),
        key(
            "meter",
            Form::Each(Names::Unreserved, &Form::Table(&METER)),
            "What is counted.",
        ),
        key(
            "route",
            Form::Each(Names::Unreserved, &Form::Table(&ROUTE)),
            "Where.",
        ),
        key(
            "plan",
            Form::Each(Names::Plain, &Form::Table(&PLAN)),
            "What is sold.",
        ),
        key(
            "addon",
            Form::Each(Names::Plain, &Form::Table(&ADDON)),
            "Bought on top, many times.",
        ),
        key(
            "topup",
            Form::Each(Names::Plain, &Form::Table(&TOPUP)),
            "Units bought once.",
        ),
        key(
            "tenant",
            Form::Each(Names::Outer, &Form::Table(&TENANT)),
            "Exceptions.",
        ),
        key(
            "billing",
            Form::Table(&BILLING),
            "What a payment state does.",
        ),
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
            "hold",
            Form::Amount,
            "Units set aside on entry, or per chunk of a body. Bytes: 64KB.",
        ),
        key(
            "cut",
            Form::Flag,
            "Whether a stream ends when no units remain. Default: false.",
        ),
        key(
            "stripe",
            Form::Table(&METER_STRIPE),
            "How it reaches Stripe.",
        ),
    ],
};

static METER_STRIPE: Shape = Shape {
    name: "meter's stripe",
    required: &["event"],
    keys: &[
        key("event", Form::Text, "`event_name` of the Stripe meter."),
        key(
            "unit",
            Form::Text,
            "Unit of Stripe's number, on bytes: \"GB\". Default: 1.",
        ),
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
        key(
            "match",
            Form::Texts,
            "Methods and paths: \"GET /v1/accounts/{account}\".",
        ),
        key(
            "cost",
            Form::Each(Names::Plain, &Form::Fraction),
            "Units per request, by meter.",
        ),
        key(
            "needs",
            Form::Text,
            "The feature a plan must have, else 403.",
        ),
        key(
            "free",
            Form::Flag,
            "Identified, but neither limited nor counted.",
        ),
        key(
            "auth",
            Form::Word(&["required", "optional", "none"]),
            "Whether callers are identified.",
        ),
        key(
            "once-by",
            Form::Text,
            "The header that makes a request count once.",
        ),
        key(
            "charge-on",
            Form::Words(OUTCOMES),
            "Outcomes that are charged.",
        ),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses nobody.",
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
    keys: &[key("limit", Form::RateWords, "The rate in words.")],
};

static QUOTA: Shape = Shape {
    name: "quota",
    required: &["limit"],
    keys: &[
        key("limit", Form::QuotaWords, "The quota in words."),
        key(
            "over",
            Form::Word(&["deny", "allow", "bill"]),
            "What happens beyond. Default: deny.",
        ),
        key(
            "stop",
            Form::Amount,
            "The hard ceiling above an `allow` or `bill` limit.",
        ),
        key(
            "alert",
            Form::Percents,
            "Percentages that raise an event. Default: [80, 100].",
        ),
    ],
};

static PLAN: Shape = Shape {
    name: "plan",
    required: &[],
    keys: &[
        key(
            "extends",
            Form::Text,
            "The plan whose limits this one takes over, key by key.",
        ),
        key(
            "stripe",
            Form::Table(&PRICES),
            "What means this plan at Stripe. Not inherited.",
        ),
        key(
            "rate",
            RATES,
            "Limits on speed: `all`, `default`, or by route.",
        ),
        key("quota", QUOTAS, "Limits on units, by meter."),
        key("feature", FEATURES, "What the plan has."),
        key(
            "concurrency",
            Form::Count,
            "Requests of one tenant in flight, per process.",
        ),
        key(
            "expires",
            Form::Duration,
            "A trial's life, from the first request. Not inherited.",
        ),
        key(
            "charge-on",
            Form::Words(OUTCOMES),
            "Outcomes that are charged.",
        ),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses nobody.",
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
    keys: &[key(
        "allow",
        Form::Text,
        "Share of the limit: \"2%\". The printed overshoot.",
    )],
};

static PRICES: Shape = Shape {
    name: "stripe",
    required: &["price"],
    keys: &[key(
        "price",
        Form::Texts,
        "Lookup keys of prices, so that test and live agree.",
    )],
};

static ADDON: Shape = Shape {
    name: "addon",
    required: &["adds"],
    keys: &[
        key(
            "stripe",
            Form::Table(&PRICES),
            "What means this addon at Stripe.",
        ),
        key("adds", Form::Table(&ADDS), "What one of it adds."),
    ],
};

static ADDS: Shape = Shape {
    name: "addon's adds",
    required: &[],
    keys: &[
        key(
            "feature",
            Form::Each(Names::Plain, &Form::Count),
            "To features that are numbers.",
        ),
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
        key(
            "stripe",
            Form::Table(&PRICES),
            "What means this top-up at Stripe.",
        ),
        key(
            "adds",
            Form::Each(Names::Plain, &Form::Amount),
            "Units granted, by meter.",
        ),
        key(
            "expires",
            Form::Duration,
            "How long the grant lives. Default: for ever.",
        ),
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
        key(
            "concurrency",
            Form::Count,
            "Requests in flight, per process.",
        ),
        key(
            "enforce",
            Form::Word(ENFORCE),
            "`shadow` decides and records, and refuses nobody.",
        ),
        key("term", Form::Table(&TERM), "The contract period."),
        key(
            "until",
            Form::Date,
            "The last day on which the exception holds.",
        ),
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
        key(
            "past-due",
            PAYMENT,
            "A payment failed and is retried. Default: 7d of grace.",
        ),
        key(
            "unpaid",
            PAYMENT,
            "Retries have ended. Default: payment-required.",
        ),
        key(
            "canceled",
            PAYMENT,
            "The subscription has ended. Default: the default plan.",
        ),
    ],
};

/// Payment rules that are words; a plan cannot be called so.
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

impl Shape {
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Names {
    /// What is wrong with a name.
    pub(super) fn fault(self, name: &str) -> Option<(String, &'static str)> {
        const LONGEST_OUTER: usize = 256;
        match self {
            Names::Outer => {
                let good = (1..=LONGEST_OUTER).contains(&name.len())
                    && !name.chars().any(char::is_control);
                let message = "not an id of a tenant".to_owned();
                (!good).then_some((message, "write its id, of 1 to 256 characters, in quotes"))
            }
            _ if !words::is_name(name) => Some((
                format!("`{name}` cannot be a name"),
                "write letters, digits, `-` and `_`, at most 64, beginning with a letter or digit",
            )),
            Names::Unreserved if words::is_reserved(name) => Some((
                format!("`{name}` is a word of the plan language"),
                "choose another name: limits would not read plainly with this one",
            )),
            _ => None,
        }
    }
}
