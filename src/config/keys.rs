//! Every key of a service file, defined once: the parser checks files against these tables, and
//! `docs/service-file.schema.json` is printed from them, so that the two cannot drift.

use serde_json::json;

use super::notify::ALERT_KINDS;
use crate::toml_file::{Form, Names, Own, Shape, Units, integer, key};

pub(super) static TOP: Shape = Shape {
    name: "service file",
    required: &[],
    keys: &[
        key("store", Form::Table(&STORE), "Where tenants, quotas and usage are kept."),
        key("plans", Form::Table(&PLANS), "The plan file."),
        key(
            "identify",
            Form::TablesOrNone(&IDENTIFY),
            "How callers are identified: a table for each way, tried in order. `[]`: by the \
             program alone.",
        ),
        key("identity", Form::Table(&IDENTITY), "Treatment of unknown callers."),
        key("proxy", Form::Table(&PROXY), "The proxies trusted for a caller's address."),
        key("http", Form::Table(&HTTP), "The environment of the API."),
        key("ingest", Form::Table(&INGEST), "Usage that other services report."),
        key("capacity", Form::Table(&CAPACITY), "How much this process does at once."),
        key("metrics", Form::Table(&METRICS), "What is measured beyond what has no tenant in it."),
        key("stripe", Form::Table(&STRIPE), "Billing. Without this table nothing is billed."),
        key("flush", Form::Table(&FLUSH), "How usage reaches the store."),
        key(
            "decisions",
            Form::Table(&DECISIONS),
            "The log of decisions. Without this table there is none.",
        ),
        key("notify", Form::Tables(&NOTIFY), "Where alerts go: a table for each destination."),
    ],
};

static STORE: Shape = Shape {
    name: "service file's [store]",
    required: &[],
    keys: &[
        key("kind", Form::Word(&["memory", "redb", "dynamodb"]), "Default: redb."),
        key("path", Form::Filled, "The file of a redb store. Default: tallygate.redb."),
        key("table", Form::Filled, "The table of a dynamodb store. Default: tallygate."),
        key("space", Form::Filled, "This service's part of the table. Default: default."),
    ],
};

static PLANS: Shape = Shape {
    name: "service file's [plans]",
    required: &[],
    keys: &[key("file", Form::Filled, "The plan file. Default: plans.toml.")],
};

static IDENTIFY: Shape = Shape {
    name: "service file's [[identify]]",
    required: &[&["api-key", "jwt", "header", "claim", "network"]],
    keys: &[
        key("api-key", Form::Texts(1), "Headers that may hold an API key, read in order."),
        key("pepper", Form::Tables(&PEPPER), "Keys of the hash of API keys, newest first.")
            .like("[{ id = \"1\", env = \"TALLYGATE_PEPPER\" }]")
            .secret(),
        key("prefix", Form::Filled, "The beginning of the keys that are made. Default: tg_."),
        key("permissions", Form::Texts(0), "What a key may do that was made without permissions.")
            .like("[\"read\"]"),
        key("jwt", Form::Table(&JWT), "Signed tokens."),
        key("header", Form::Filled, "The header in which a trusted gateway names the tenant."),
        key("user-header", Form::Filled, "The header in which it names the user."),
        key("claim", Form::Filled, "The verified claim with the tenant."),
        key("user-claim", Form::Filled, "The verified claim with the user."),
        key("plan-claim", Form::Filled, "The verified claim with the tenant's plan."),
        key("permissions-claim", Form::Filled, "The verified claim with what the caller may do."),
        key(
            "network",
            Form::Texts(1),
            "Address ranges whose callers are one tenant, without a credential.",
        ),
        key("tenant", Form::Filled, "That tenant."),
    ],
};

const SOURCES: &[&str] = &["env", "file", "secret", "ssm"];

static PEPPER: Shape = Shape {
    name: "service file's pepper",
    required: &[&["id"], SOURCES],
    keys: &[
        key("id", Form::Filled, "Stored with each hash that was made with it.").secret(),
        key("env", Form::Filled, "The environment variable that holds the secret.").secret(),
        key("file", Form::Filled, "The file that holds it.").secret(),
        key("secret", Form::Filled, "Its name in AWS Secrets Manager.").secret(),
        key("ssm", Form::Filled, "Its name in the AWS Parameter Store.").secret(),
    ],
};

static SECRET: Shape = Shape {
    name: "service file's reference to a secret",
    required: &[SOURCES],
    keys: PEPPER.keys.split_at(1).1,
};

const REFERENCE: Form = Form::Table(&SECRET);

/// A correct reference, in errors.
const LIKE: &str = "{ env = \"..\" }";

static JWT: Shape = Shape {
    name: "service file's jwt",
    required: &[&["jwks", "secret"], &["issuer"], &["audience"], &["tenant"]],
    keys: &[
        key("jwks", Form::Filled, "The signing keys: an https URL, or a file."),
        key("secret", REFERENCE, "The key shared with the issuer.").like(LIKE).secret(),
        key("issuer", Form::Filled, "The required `iss`."),
        key("audience", Form::Texts(1), "One of these must be in `aud`."),
        key("tenant", Form::Filled, "The claim that holds the tenant."),
        key("user", Form::Filled, "The claim that holds the user, for limits `per user`."),
        key("plan", Form::Filled, "The claim that holds the plan that the tenant is on."),
        key(
            "permissions",
            Form::Filled,
            "The claim that holds what the caller may do. Default: scope, else scp.",
        ),
    ],
};

static IDENTITY: Shape = Shape {
    name: "service file's [identity]",
    required: &[],
    keys: &[
        key(
            "unknown",
            Form::Word(&["reject", "create", "anonymous"]),
            "What an unknown caller is: refused, a new tenant, or the anonymous one. Default: \
             reject.",
        ),
        key(
            "no-scope",
            Form::Word(&["tenant", "refuse", "skip"]),
            "How a limit treats callers without its scope. Default: tenant.",
        ),
    ],
};

static PROXY: Shape = Shape {
    name: "service file's [proxy]",
    required: &[],
    keys: &[key(
        "trust",
        Form::Texts(0),
        "Address ranges whose `X-Forwarded-For` and `header` are trusted.",
    )],
};

static HTTP: Shape = Shape {
    name: "service file's [http]",
    required: &[],
    keys: &[
        key("billing-url", Form::Filled, "The page for paying or upgrading, shown with 402."),
        key("strip-prefix", Form::Filled, "Removed from paths before routes are matched: /prod."),
        key(
            "limit-headers",
            Form::Word(&["all", "nearest", "epoch", "delta", "rfc3339", "off"]),
            "The limits that responses name: all of the request, the nearest to its end alone, \
             that one as X-RateLimit-* with its reset in this form, or none. Default: all.",
        ),
    ],
};

static INGEST: Shape = Shape {
    name: "service file's [ingest]",
    required: &[],
    keys: &[
        key("token", REFERENCE, "The bearer token for `POST /usage`.").like(LIKE).secret(),
        key(
            "products",
            Form::Each(&Names { pattern: None, fault: |_| None }, &Form::Text),
            "The meter for each product code in events.",
        ),
    ],
};

static STRIPE: Shape = Shape {
    name: "service file's [stripe]",
    required: &[&["key"]],
    keys: &[
        key("key", REFERENCE, "The API key.").like(LIKE).secret(),
        key("webhook-secret", REFERENCE, "The signing secret of webhooks.").like(LIKE).secret(),
        key("mode", Form::Word(&["test", "live"]), "The mode of accepted keys. Default: test."),
        key("account", Form::Filled, "The account's name in identifiers. Default: main."),
        key("api-base", Form::Filled, "Stripe's address. Default: https://api.stripe.com."),
        key("report-every", Form::Counted(&SPAN), "How often usage is sent. Default: 15min."),
        key(
            "too-old",
            Form::Word(&["carry", "name"]),
            "Usage that Stripe no longer accepts under its date: billed with the open period, or \
             only named. Default: carry.",
        ),
    ],
};

static CAPACITY: Shape = Shape {
    name: "service file's [capacity]",
    required: &[&["requests"]],
    keys: &[
        key("requests", Form::Count, "Most requests and other work in progress in a process."),
        key("kept", Form::Count, "Of these, so many for plans that pay. Default: none."),
    ],
};

static METRICS: Shape = Shape {
    name: "service file's [metrics]",
    required: &[&["top-tenants"]],
    keys: &[key(
        "top-tenants",
        Form::Count,
        "So many tenants, those nearest to a limit, are labels of tallygate_limit_used_ratio: 1 to \
         100.",
    )],
};

static NOTIFY: Shape = Shape {
    name: "service file's [[notify]]",
    required: &[&["webhook", "slack", "sns", "eventbridge"]],
    keys: &[
        key("name", Form::Filled, "Its name, by which alerts wait for it. Default: its kind."),
        key(
            "webhook",
            Form::Or(&Form::Filled, &SECRET),
            "Alerts as signed webhooks: the URL, or a reference to it.",
        )
        .secret(),
        key("secret", REFERENCE, "The key of a webhook's signatures.").like(LIKE).secret(),
        key("slack", REFERENCE, "Alerts as Slack messages: the URL.").like(LIKE).secret(),
        key(
            "sns",
            Form::Or(&Form::Filled, &SECRET),
            "Alerts to a topic of Amazon SNS: its ARN, or a reference to it.",
        )
        .like("\"arn:aws:sns:eu-west-1:123456789012:alerts\""),
        key(
            "eventbridge",
            Form::Or(&Form::Filled, &SECRET),
            "Alerts to an event bus of Amazon EventBridge: its name or ARN, or a reference to it.",
        )
        .like("\"default\""),
        key("events", Form::Words(ALERT_KINDS), "The kinds of alerts. Default: all."),
    ],
};

static FLUSH: Shape = Shape {
    name: "service file's [flush]",
    required: &[],
    keys: &[
        key("every", Form::Counted(&SPAN), "How long a record waits for others. Default: 1s."),
        key(
            "mode",
            Form::Word(&["fast", "journal", "durable"]),
            "What a crash may lose: one interval, 50 ms, nothing. Default: journal.",
        ),
        key("journal-path", Form::Filled, "The local journal of mode `journal`."),
        key("max-write-units", Form::Count, "Write units a second for records. Default: 50."),
    ],
};

static DECISIONS: Shape = Shape {
    name: "service file's [decisions]",
    required: &[],
    keys: &[
        key("file", Form::Filled, "The file, of JSON lines. Default: decisions.ndjson.")
            .like("\"decisions.ndjson\""),
        key(
            "admissions",
            Form::Own(&FROM_ZERO),
            "One in so many admissions is logged, 0: none. Refusals all are. Default: 100.",
        ),
        key("max-bytes", Form::Counted(&BYTES), "Of all its files together. Default: 64MB."),
    ],
};

/// A whole number from 0 on.
static FROM_ZERO: Own = Own {
    fits: |node| integer(node).is_some_and(|n| u32::try_from(n).is_ok()),
    sample: "100",
    schema: || json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
    mistake: |_, _, _| None,
};

/// Sizes, in bytes.
pub(super) static BYTES: Units = Units {
    what: "a size",
    units: &[("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)],
    most: (1_000_000_000_000, "1000 GB"),
    examples: &["64MB", "1GB"],
};

/// Durations, in milliseconds.
pub(super) static SPAN: Units = Units {
    what: "a duration",
    units: &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
    most: (100 * 366 * 86_400_000, "100 years"),
    examples: &["500ms", "1s"],
};
