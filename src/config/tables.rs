//! The tables of the service file, one function each: their keys, types and defaults.

use std::path::PathBuf;

use super::identify::{Trust, identify_list};
use super::reader::{Reader, ServiceTable};
use super::references::secret;
use super::tree::{Data, Node, ValueLocation};
use super::*;

/// Reads all tables, even after errors in one of them. `None` only if an error was recorded.
pub(super) fn config(reader: &Reader, root: &Node) -> Option<Config> {
    let root = reader.table(root, "")?;
    let store = root.table("store").map_or_else(|| Some(default_store()), store);
    let plans = PlansConfig {
        file: root.table("plans").and_then(plans_file).unwrap_or_else(|| DEFAULT_PLANS.into()),
    };
    let proxy = match root.get("proxy") {
        Some(_) => root.table("proxy").and_then(proxy),
        None => Some(ProxyConfig::default()),
    };
    let trust = match &proxy {
        Some(proxy) if proxy.trust.is_empty() => Trust::NoProxy,
        _ => Trust::Somebody,
    };
    let identify = identify_list(&root, trust);
    let identity = root.table("identity").map_or(IDENTITY, identity);
    let http = root.table("http").map(http).unwrap_or_default();
    let stripe = match root.table("stripe") {
        Some(table) => stripe(table).map(Some),
        None => Some(None),
    };
    let flush = root.table("flush");
    let flush = flush_config(flush, store.as_ref().map(|store| &store.kind));
    let ingest = root.table("ingest").map(ingest).unwrap_or_default();
    root.finish();
    let (store, proxy, stripe) = (store?, proxy?, stripe?);
    Some(Config { store, plans, identify, identity, proxy, http, stripe, flush, ingest })
}

fn default_store() -> StoreConfig {
    StoreConfig {
        kind: StoreKind::Redb { path: DEFAULT_STORE_PATH.into() },
        space: DEFAULT_SPACE.into(),
    }
}

fn store(table: ServiceTable<'_>) -> Option<StoreConfig> {
    let kinds = [("memory", 0), ("redb", 1), ("dynamodb", 2)];
    let said = table.get("kind").is_some();
    // One file serves a laptop and a fleet: keys made unused by the environment are no error.
    let overridden =
        table.get("kind").is_some_and(|node| matches!(node.place, ValueLocation::Env(_)));
    let kind = table.choice("kind", &kinds).or((!said).then_some(1));
    let (path, name) = (table.text_node("path"), table.text_node("table"));
    for (of, key, found) in [(1, "path", path), (2, "table", name)] {
        if let (Some(kind), Some((node, _))) = (kind, found)
            && kind != of
            && !(overridden && matches!(node.place, ValueLocation::File(..)))
        {
            let (of, is) = (kinds[of].0, kinds[kind].0);
            let message = format!("`store.{key}` belongs to kind = \"{of}\", and this is \"{is}\"");
            table.reader.wrong(node, message, "leave it out, or change the kind");
        }
    }
    let space = table.text_node("space");
    if let Some((node, space)) = space
        && !is_name(space, MAX_SPACE_CHARS, "-")
    {
        let message = "a space is 1 to 64 characters of a-z, 0-9 and -";
        table.reader.wrong(node, message, "as in \"staging\" or \"eu-1\"");
    }
    table.finish();
    let kind = match kind? {
        0 => StoreKind::Memory,
        1 => StoreKind::Redb { path: path.map_or(DEFAULT_STORE_PATH, |(_, path)| path).into() },
        _ => StoreKind::Dynamodb { table: name.map_or(DEFAULT_TABLE, |(_, name)| name).into() },
    };
    Some(StoreConfig { kind, space: space.map_or(DEFAULT_SPACE, |(_, space)| space).into() })
}

fn plans_file(table: ServiceTable<'_>) -> Option<PathBuf> {
    let file = table.text("file").map(PathBuf::from);
    table.finish();
    file
}

const IDENTITY: IdentityConfig =
    IdentityConfig { unknown: OnUnknown::Reject, no_scope: NoScope::Tenant };

fn identity(table: ServiceTable<'_>) -> IdentityConfig {
    let unknown = [
        ("reject", OnUnknown::Reject),
        ("create", OnUnknown::Create),
        ("anonymous", OnUnknown::Anonymous),
    ];
    let no_scope =
        [("tenant", NoScope::Tenant), ("refuse", NoScope::Refuse), ("skip", NoScope::Skip)];
    let identity = IdentityConfig {
        unknown: table.choice("unknown", &unknown).unwrap_or(IDENTITY.unknown),
        no_scope: table.choice("no-scope", &no_scope).unwrap_or(IDENTITY.no_scope),
    };
    table.finish();
    identity
}

/// `None` if one of the ranges is invalid.
fn proxy(table: ServiceTable<'_>) -> Option<ProxyConfig> {
    let written = match table.get("trust").map(|node| &node.data) {
        Some(Data::Array(nodes)) => nodes.len(),
        Some(_) => 1,
        None => 0,
    };
    let trust = table.texts("trust").unwrap_or_default();
    let trust: Vec<_> =
        trust.into_iter().filter_map(|(node, text)| network(&table, node, text)).collect();
    table.finish();
    (trust.len() == written).then_some(ProxyConfig { trust })
}

fn network(table: &ServiceTable<'_>, node: &Node, text: &str) -> Option<Network> {
    let one = || text.parse::<IpAddr>().ok().map(ipnet::IpNet::from);
    let Some(net) = text.parse::<ipnet::IpNet>().ok().or_else(one) else {
        let help = "as in \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.7\"";
        table.reader.wrong(node, "this is not a range of addresses", help);
        return None;
    };
    if net.prefix_len() == 0 {
        let message = "this trusts everybody: each caller could claim any address";
        table.reader.wrong(node, message, "write the ranges of your own proxies");
        return None;
    }
    if net.trunc() != net {
        let message = "the address has bits beyond its prefix";
        table.reader.wrong(node, message, format!("did you mean \"{}\"?", net.trunc()));
        return None;
    }
    Some(Network(net))
}

fn http(table: ServiceTable<'_>) -> HttpConfig {
    let url = table.text_node("billing-url");
    if let Some((node, url)) = url
        && (!(url.starts_with("https://") || url.starts_with("http://"))
            || url.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        let message = "`http.billing-url` is a URL that a browser opens";
        table.reader.wrong(node, message, "as in \"https://example.com/billing\"");
    }
    let prefix = table.text_node("strip-prefix");
    if let Some((node, prefix)) = prefix
        && (!prefix.starts_with('/')
            || prefix.ends_with('/')
            || prefix.contains(|c: char| "?#%".contains(c) || c.is_whitespace()))
    {
        let message = "`http.strip-prefix` is a path: it begins with / and does not end with it";
        table.reader.wrong(node, message, "as in \"/prod\"");
    }
    table.finish();
    HttpConfig {
        billing_url: url.map(|(_, url)| url.to_owned()),
        strip_prefix: prefix.map(|(_, prefix)| prefix.to_owned()),
    }
}

fn stripe(table: ServiceTable<'_>) -> Option<StripeConfig> {
    let key = secret(&table, "key");
    if table.get("key").is_none() {
        table.missing("key");
    }
    let webhook_secret = secret(&table, "webhook-secret");
    let modes = [("test", StripeMode::Test), ("live", StripeMode::Live)];
    let mode = table.choice("mode", &modes).unwrap_or(StripeMode::Test);
    let account = table.text_node("account");
    if let Some((node, _)) = account.filter(|(_, name)| !is_name(name, MAX_SPACE_CHARS, "-_")) {
        let message = "an account's name is 1 to 64 characters of a-z, 0-9, - and _";
        table.reader.wrong(
            node,
            message,
            "as in \"main\": it names the Stripe account permanently",
        );
    }
    let base = table.text("api-base").unwrap_or(DEFAULT_STRIPE_API_BASE);
    let bounds = (MIN_REPORT_EVERY, MAX_REPORT_EVERY);
    let report_every = table.duration("report-every", bounds).unwrap_or(DEFAULT_REPORT_EVERY);
    let fates = [("carry", TooOld::Carry), ("name", TooOld::Name)];
    let too_old = table.choice("too-old", &fates).unwrap_or(TooOld::Carry);
    table.finish();
    Some(StripeConfig {
        key: key?,
        webhook_secret,
        mode,
        account: account.map_or(DEFAULT_STRIPE_ACCOUNT, |(_, name)| name).into(),
        api_base: base.into(),
        report_every,
        too_old,
    })
}

fn flush_config(table: Option<ServiceTable<'_>>, store: Option<&StoreKind>) -> FlushConfig {
    let beside = match store {
        // After the whole name: `x.redb` and `x.db` have separate journals.
        Some(StoreKind::Redb { path }) => {
            let mut name = path.clone().into_os_string();
            name.push(".journal");
            name.into()
        }
        _ => DEFAULT_JOURNAL_PATH.into(),
    };
    let mut flush = FlushConfig {
        every: DEFAULT_FLUSH_EVERY,
        mode: FlushMode::Journal,
        journal_path: beside,
        max_write_units: DEFAULT_MAX_WRITE_UNITS,
    };
    let Some(table) = table else {
        return flush;
    };
    let bounds = (MIN_FLUSH_EVERY, MAX_FLUSH_EVERY);
    flush.every = table.duration("every", bounds).unwrap_or(flush.every);
    let modes = [
        ("fast", FlushMode::Fast),
        ("journal", FlushMode::Journal),
        ("durable", FlushMode::Durable),
    ];
    flush.mode = table.choice("mode", &modes).unwrap_or(flush.mode);
    let path = table.text_node("journal-path");
    if let (Some((node, path)), Some(StoreKind::Redb { path: store })) = (path, store)
        && std::path::Path::new(path) == store
    {
        let message = "the journal and the store need a file each";
        table.reader.wrong(node, message, "name another file, or leave the key out");
    }
    flush.journal_path = path.map_or(flush.journal_path, |(_, path)| path.into());
    flush.max_write_units = table.count("max-write-units").unwrap_or(flush.max_write_units);
    table.finish();
    flush
}

fn ingest(table: ServiceTable<'_>) -> IngestConfig {
    let token = secret(&table, "token");
    let products = table.table("products").map(|products| products.all_texts());
    table.finish();
    IngestConfig { token, products: products.unwrap_or_default() }
}

/// Whether it is 1 to `most` characters of `a-z0-9` and those in `also`.
pub(super) fn is_name(name: &str, most: usize, also: &str) -> bool {
    let may = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c);
    (1..=most).contains(&name.len()) && name.chars().all(may)
}
