//! From the checked tables of the service file to data, with defaults for missing keys.

use std::path::Path;

use super::identify::{has_no_such_port, identify_list, is_plain_http_elsewhere, secret};
use super::keys::{BYTES, SPAN};
use super::*;
use crate::toml_file::{Findings, TableLine, Text, TomlTable, counted, fault, integer, items};

/// Lowers a file whose shape has been checked. With errors in the report the result is partial.
pub(super) fn config(report: &mut Findings<'_>, top: TomlTable<'_>) -> Config {
    let store = store(report, top.table("store"));
    let plans = top.table("plans").and_then(|table| table.filled("file"));
    // An error in the list is one already.
    let is_empty = |table: TomlTable<'_>| table.node("trust").is_none_or(|t| items(t).is_empty());
    let trusted = top.node("proxy").is_some_and(|it| !TomlTable::of(it).is_some_and(is_empty));
    let trust = top.table("proxy").map(|table| table.texts("trust")).unwrap_or_default();
    Config {
        plans: PlansConfig { file: plans.map_or(DEFAULT_PLANS, |file| file.text).into() },
        identify: identify_list(report, top, trusted),
        identity: identity(top.table("identity")),
        proxy: ProxyConfig {
            trust: trust.iter().filter_map(|net| network(report, net, ALL)).collect(),
        },
        http: top.table("http").map(|table| http(report, table)).unwrap_or_default(),
        stripe: top.table("stripe").and_then(|table| stripe(report, table)),
        capacity: top.table("capacity").and_then(|table| capacity(report, table)),
        metrics: top.table("metrics").and_then(|table| metrics(report, table)),
        flush: flush(report, top.table("flush"), &store.kind),
        ingest: top.table("ingest").map(|table| ingest(report, table)).unwrap_or_default(),
        decisions: top.table("decisions").map(|table| decisions(report, table)),
        notify: notify(report, top),
        store,
    }
}

fn word<'t>(table: Option<TomlTable<'t>>, key: &str) -> &'t str {
    table.and_then(|table| table.text(key)).map_or("", |word| word.text)
}

fn store(report: &mut Findings<'_>, table: Option<TomlTable<'_>>) -> StoreConfig {
    let text = |key| table.and_then(|table| table.filled(key));
    let kind = text("kind");
    // One file serves a laptop and a fleet: keys made unused by the environment are no error.
    let overridden = kind.as_ref().is_some_and(|kind| report.is_variable(&kind.span));
    let is = kind.map_or("redb", |kind| kind.text);
    for (of, key) in [("redb", "path"), ("dynamodb", "table")] {
        if let Some(found) = text(key).filter(|_| is != of)
            && (!overridden || report.is_variable(&found.span))
            && ["memory", "redb", "dynamodb"].contains(&is)
        {
            let message = format!("`store.{key}` belongs to kind = \"{of}\", and this is \"{is}\"");
            report.error(found.span, message, "leave it out, or change the kind");
        }
    }
    let space = text("space");
    if let Some(space) = space.as_ref().filter(|it| !is_name(it.text, MAX_SPACE_CHARS, "-")) {
        let message = "a space is 1 to 64 characters of a-z, 0-9 and -";
        report.error(space.span.clone(), message, "as in \"staging\" or \"eu-1\"");
    }
    let or = |text: Option<Text<'_>>, default: &str| text.map_or(default, |it| it.text).to_owned();
    let kind = match is {
        "memory" => StoreKind::Memory,
        "dynamodb" => StoreKind::Dynamodb { table: or(text("table"), DEFAULT_TABLE) },
        _ => StoreKind::Redb { path: or(text("path"), DEFAULT_STORE_PATH).into() },
    };
    StoreConfig { kind, space: or(space, DEFAULT_SPACE) }
}

fn identity(table: Option<TomlTable<'_>>) -> IdentityConfig {
    let unknown = match word(table, "unknown") {
        "create" => OnUnknown::Create,
        "anonymous" => OnUnknown::Anonymous,
        _ => OnUnknown::Reject,
    };
    let no_scope = match word(table, "no-scope") {
        "refuse" => NoScope::Refuse,
        "skip" => NoScope::Skip,
        _ => NoScope::Tenant,
    };
    IdentityConfig { unknown, no_scope }
}

/// What is wrong with trusting every address, and what to write instead.
const ALL: (&str, &str) = (
    "this trusts everybody: each caller could claim any address",
    "write the ranges of your own proxies",
);

/// A range of addresses. `all`: what is wrong with one of all addresses, and what to write instead.
pub(super) fn network(
    report: &mut Findings<'_>,
    written: &Text<'_>,
    all: (&str, &'static str),
) -> Option<Network> {
    let span = || written.span.clone();
    let one = || written.text.parse::<IpAddr>().ok().map(ipnet::IpNet::from);
    let Some(net) = written.text.parse::<ipnet::IpNet>().ok().or_else(one) else {
        let help = "as in \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.7\"";
        report.error(span(), "this is not a range of addresses", help);
        return None;
    };
    if net.prefix_len() == 0 {
        report.error(span(), all.0, all.1);
    } else if net.trunc() != net {
        let message = "the address has bits beyond its prefix";
        report.error(span(), message, format!("did you mean \"{}\"?", net.trunc()));
    }
    Some(Network(net))
}

fn http(report: &mut Findings<'_>, table: TomlTable<'_>) -> HttpConfig {
    let url = table.filled("billing-url");
    if let Some(Text { text: url, span }) = &url
        && (!(url.starts_with("https://") || url.starts_with("http://"))
            || url.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        let message = "`http.billing-url` is a URL that a browser opens";
        report.error(span.clone(), message, "as in \"https://example.com/billing\"");
    }
    let prefix = table.filled("strip-prefix");
    if let Some(Text { text: prefix, span }) = &prefix
        && (!prefix.starts_with('/')
            || prefix.ends_with('/')
            || prefix.contains(|c: char| "?#%".contains(c) || c.is_whitespace()))
    {
        let message = "`http.strip-prefix` is a path: it begins with / and does not end with it";
        report.error(span.clone(), message, "as in \"/prod\"");
    }
    HttpConfig {
        billing_url: url.map(|url| url.text.to_owned()),
        strip_prefix: prefix.map(|prefix| prefix.text.to_owned()),
        limit_headers: match word(Some(table), "limit-headers") {
            "nearest" => LimitHeaders::Nearest,
            "epoch" => LimitHeaders::Epoch,
            "delta" => LimitHeaders::Delta,
            "rfc3339" => LimitHeaders::Rfc3339,
            "off" => LimitHeaders::Off,
            _ => LimitHeaders::All,
        },
    }
}

fn stripe(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<StripeConfig> {
    let key = secret(report, table, "key", "stripe.key");
    let webhook_secret = secret(report, table, "webhook-secret", "stripe.webhook-secret");
    let account = table.filled("account");
    if let Some(account) = account.as_ref().filter(|it| !is_name(it.text, MAX_SPACE_CHARS, "-_")) {
        let message = "an account's name is 1 to 64 characters of a-z, 0-9, - and _";
        let help = "as in \"main\": it names the Stripe account permanently";
        report.error(account.span.clone(), message, help);
    }
    let bounds = (MIN_REPORT_EVERY, MAX_REPORT_EVERY);
    let report_every = duration(report, table, "stripe", "report-every", bounds);
    Some(StripeConfig {
        key: key?,
        webhook_secret,
        mode: match word(Some(table), "mode") {
            "live" => StripeMode::Live,
            _ => StripeMode::Test,
        },
        account: account.map_or(DEFAULT_STRIPE_ACCOUNT, |name| name.text).into(),
        api_base: table.filled("api-base").map_or(DEFAULT_STRIPE_API_BASE, |it| it.text).into(),
        report_every: report_every.unwrap_or(DEFAULT_REPORT_EVERY),
        too_old: match word(Some(table), "too-old") {
            "name" => TooOld::Name,
            _ => TooOld::Carry,
        },
    })
}

fn flush(
    report: &mut Findings<'_>,
    table: Option<TomlTable<'_>>,
    store: &StoreKind,
) -> FlushConfig {
    let path = table.and_then(|table| table.filled("journal-path"));
    let journal_path = match (&path, store) {
        (Some(path), StoreKind::Redb { path: store }) if Path::new(path.text) == store => {
            let message = "the journal and the store need a file each";
            report.error(path.span.clone(), message, "name another file, or leave the key out");
            path.text.into()
        }
        (Some(path), _) => path.text.into(),
        // After the whole name: `x.redb` and `x.db` have separate journals.
        (None, StoreKind::Redb { path }) => {
            let mut name = path.clone().into_os_string();
            name.push(".journal");
            name.into()
        }
        (None, _) => DEFAULT_JOURNAL_PATH.into(),
    };
    let bounds = (MIN_FLUSH_EVERY, MAX_FLUSH_EVERY);
    let every = table.and_then(|table| duration(report, table, "flush", "every", bounds));
    let units = table.and_then(|table| table.count("max-write-units"));
    FlushConfig {
        every: every.unwrap_or(DEFAULT_FLUSH_EVERY),
        mode: match word(table, "mode") {
            "fast" => FlushMode::Fast,
            "durable" => FlushMode::Durable,
            // A journal of a store that ends with the process leads nowhere.
            "" if *store == StoreKind::Memory => FlushMode::Fast,
            _ => FlushMode::Journal,
        },
        journal_path,
        max_write_units: units.unwrap_or(DEFAULT_MAX_WRITE_UNITS),
    }
}

fn capacity(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<CapacityConfig> {
    let requests = table.count("requests")?;
    let kept = table.count("kept").unwrap_or(0);
    if kept >= requests
        && let Some(node) = table.node("kept")
    {
        let message = "nothing is left to plans that do not pay";
        report.error(node.span(), message, "keep fewer than `requests`");
    }
    Some(CapacityConfig { requests, kept })
}

fn metrics(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<MetricsConfig> {
    let top_tenants = table.count("top-tenants")?;
    if top_tenants > MAX_TOP_TENANTS
        && let Some(node) = table.node("top-tenants")
    {
        let message = format!("more than {MAX_TOP_TENANTS}: each is a series in every scrape");
        report.error(node.span(), message, "ask the operator's `GET /top` for more");
    }
    Some(MetricsConfig { top_tenants })
}

fn notify(report: &mut Findings<'_>, top: TomlTable<'_>) -> Vec<NotifyConfig> {
    let tables = top.node("notify").map(items).unwrap_or_default();
    let mut all: Vec<NotifyConfig> = Vec::new();
    for node in tables {
        let Some(found) = TomlTable::of(node).and_then(|it| destination(report, it)) else {
            continue;
        };
        if all.iter().any(|it| it.name == found.name) {
            let message = format!("two [[notify]] are named \"{}\"", found.name);
            report.error(node.span(), message, "give each a `name` of its own");
        }
        all.push(found);
    }
    if let Some(beyond) = tables.get(MAX_DESTINATIONS) {
        let message = format!("more than {MAX_DESTINATIONS} [[notify]]");
        report.error(beyond.span(), message, "send them on from one receiver");
    }
    all
}

fn destination(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<NotifyConfig> {
    let name = table.filled("name");
    if let Some(name) = name.as_ref().filter(|it| !is_destination(it.text)) {
        let message = "a destination's name is 1 to 64 characters of a-z, 0-9 and -";
        report.error(name.span.clone(), message, "as in \"ops\"");
    }
    let (kind, to) = target(report, table)?;
    let events = table.texts("events").iter().map(|it| it.text.to_owned()).collect();
    Some(NotifyConfig { name: name.map_or(kind, |it| it.text).to_owned(), to, events })
}

/// What it is, with the key that says so.
fn target(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<(&'static str, NotifyTarget)> {
    let key = secret(report, table, "secret", "notify.secret");
    let slack = |url| ("slack", NotifyTarget::Http(HttpTarget::Slack { url }));
    let other = match AwsService::ALL.iter().find_map(|it| aws(report, table, *it)) {
        Some(aws) => Some(aws),
        None => secret(report, table, "slack", "notify.slack").map(slack),
    };
    let Some(other) = other else {
        return webhook(report, table, key).map(|to| ("webhook", NotifyTarget::Http(to)));
    };
    if let Some(span) = table.key_span("secret") {
        report.error(span, "`secret` belongs to a webhook", "leave it out");
    }
    Some(other)
}

fn aws(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    service: AwsService,
) -> Option<(&'static str, NotifyTarget)> {
    let key = service.key();
    let written = table.filled(key);
    if let Some(wrong) = written.as_ref().filter(|it| !service.has(it.text)) {
        let (message, help) = service.mistake();
        report.error(wrong.span.clone(), message, help);
    }
    let kept = secret(report, table, key, &format!("notify.{key}")).map(NotifyAddress::Kept);
    let address = written.map(|it| NotifyAddress::Written(it.text.into())).or(kept)?;
    Some((key, NotifyTarget::Aws { service, address }))
}

fn webhook(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    key: Option<SecretRef>,
) -> Option<HttpTarget> {
    let written = table.filled("webhook");
    if let Some(url) = &written
        && (!(url.text.starts_with("https://") || url.text.starts_with("http://"))
            || is_plain_http_elsewhere(url.text))
    {
        let message = "a webhook's URL begins with https://, or with http:// on this machine";
        report.error(url.span.clone(), message, "as in \"https://example.com/alerts\"");
    } else if let Some(url) = written.as_ref().filter(|url| has_no_such_port(url.text)) {
        let message = "a port is a number from 1 to 65535";
        let help = "as in \"https://example.com:8443/alerts\", or leave it out for the usual one";
        report.error(url.span.clone(), message, help);
    }
    let kept = secret(report, table, "webhook", "notify.webhook").map(NotifyAddress::Kept);
    let url = written.map(|url| NotifyAddress::Written(url.text.into())).or(kept)?;
    let Some(secret) = key else {
        let span = table.key_span("webhook").unwrap_or_default();
        let help = "write `secret = { env = \"..\" }`, and share it with the receiver";
        report.error(span, "a webhook without `secret` could be sent by anyone", help);
        return None;
    };
    Some(HttpTarget::Webhook { url, secret })
}

fn ingest(report: &mut Findings<'_>, table: TomlTable<'_>) -> IngestConfig {
    let products = table.table("products").map(TomlTable::entries).unwrap_or_default();
    let product = |line: &TableLine<'_>| {
        Some((line.name.to_owned(), line.node.get_ref().as_str()?.to_owned()))
    };
    IngestConfig {
        token: secret(report, table, "token", "ingest.token"),
        products: products.iter().filter_map(product).collect(),
    }
}

fn decisions(report: &mut Findings<'_>, table: TomlTable<'_>) -> DecisionsConfig {
    let file = table.filled("file").map_or(DEFAULT_DECISIONS, |file| file.text);
    let admissions = table.node("admissions").and_then(integer);
    let size = table.text("max-bytes").and_then(|mut text| {
        text.text = report.named(text.text);
        let found = counted(text.text, &BYTES).map_err(|wrong| fault(report, &text, wrong)).ok()?;
        if found < MIN_DECISIONS_BYTES {
            let message = "`decisions.max-bytes` is at least 1MB";
            report.error(text.span, message, "as in \"64MB\": four files share it");
        }
        Some(found)
    });
    DecisionsConfig {
        file: file.into(),
        admissions: admissions.map_or(DEFAULT_ADMISSIONS, |n| u32::try_from(n).unwrap_or(0)),
        max_bytes: size.unwrap_or(DEFAULT_DECISIONS_BYTES),
    }
}

/// A duration within bounds.
fn duration(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    name: &str,
    key: &str,
    (least, most): (Duration, Duration),
) -> Option<Duration> {
    let mut text = table.text(key)?;
    text.text = report.named(text.text);
    let found = counted(text.text, &SPAN).map_err(|wrong| fault(report, &text, wrong)).ok()?;
    let duration = Duration::from_millis(found);
    if duration < least || duration > most {
        let message = format!("`{name}.{key}` is between {least:?} and {most:?}");
        report.error(text.span, message, "write a duration within these bounds");
    }
    Some(duration)
}
