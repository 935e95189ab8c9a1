//! The tables of the service file, one function each: which keys there are, what they must be, and
//! what holds without them.

use std::path::PathBuf;

use super::reader::{Reader, Table};
use super::tree::{Data, Node};
use super::*;

/// Reads all tables, whatever is wrong in one of them. `None` only if something is noted.
pub(super) fn config(reader: &Reader, root: &Node) -> Option<Config> {
    let root = reader.table(root, "")?;
    let store = root
        .table("store")
        .map_or_else(|| Some(default_store()), store);
    let plans = PlansConfig {
        file: root
            .table("plans")
            .and_then(plans_file)
            .unwrap_or_else(|| DEFAULT_PLANS.into()),
    };
    let identify = identify_list(&root);
    let unknown = root
        .table("identity")
        .and_then(unknown)
        .unwrap_or(Unknown::Reject);
    let proxy = root.table("proxy").map(proxy).unwrap_or_default();
    let http = root.table("http").map(http).unwrap_or_default();
    let stripe = match root.table("stripe") {
        Some(table) => stripe(table).map(Some),
        None => Some(None),
    };
    let flush = root.table("flush");
    let flush = flush_config(flush, store.as_ref().map(|store| &store.kind));
    root.finish();
    let (store, stripe) = (store?, stripe?);
    let identity = IdentityConfig { unknown };
    Some(Config {
        store,
        plans,
        identify,
        identity,
        proxy,
        http,
        stripe,
        flush,
    })
}

fn default_store() -> StoreConfig {
    StoreConfig {
        kind: StoreKind::Redb {
            path: DEFAULT_STORE_PATH.into(),
        },
        space: DEFAULT_SPACE.into(),
    }
}

fn store(table: Table<'_>) -> Option<StoreConfig> {
    let kinds = [("memory", 0), ("redb", 1), ("dynamodb", 2)];
    let said = table.get("kind").is_some();
    let kind = table.choice("kind", &kinds).or((!said).then_some(1));
    let (path, name) = (table.text_node("path"), table.text_node("table"));
    for (of, key, found) in [(1, "path", path), (2, "table", name)] {
        if let (Some(kind), Some((node, _))) = (kind, found)
            && kind != of
        {
            let (of, is) = (kinds[of].0, kinds[kind].0);
            let message = format!("`store.{key}` belongs to kind = \"{of}\", and this is \"{is}\"");
            table
                .reader
                .wrong(node, message, "leave it out, or change the kind");
        }
    }
    let space = table.text_node("space");
    if let Some((node, space)) = space
        && !is_name(space, MAX_SPACE_CHARS, "-")
    {
        let message = "a space is 1 to 64 characters of a-z, 0-9 and -";
        table
            .reader
            .wrong(node, message, "as in \"staging\" or \"eu-1\"");
    }
    table.finish();
    let kind = match kind? {
        0 => StoreKind::Memory,
        1 => StoreKind::Redb {
            path: path.map_or(DEFAULT_STORE_PATH, |(_, path)| path).into(),
        },
        _ => StoreKind::Dynamodb {
            table: name.map_or(DEFAULT_TABLE, |(_, name)| name).into(),
        },
    };
    Some(StoreConfig {
        kind,
        space: space.map_or(DEFAULT_SPACE, |(_, space)| space).into(),
    })
}

fn plans_file(table: Table<'_>) -> Option<PathBuf> {
    let file = table.text("file").map(PathBuf::from);
    table.finish();
    file
}

fn identify_list(root: &Table<'_>) -> Vec<Identify> {
    let Some(node) = root.get("identify") else {
        let headers = DEFAULT_API_KEY_HEADERS.map(str::to_owned).into();
        return vec![Identify::ApiKey {
            headers,
            peppers: vec![default_pepper()],
        }];
    };
    match &node.data {
        Data::Array(nodes) if !nodes.is_empty() => nodes
            .iter()
            .filter_map(|node| identify(root.reader.table(node, "identify")?))
            .collect(),
        _ => {
            let help = "begin each way of knowing a caller with [[identify]]";
            root.reader
                .wrong_secret(node, "`identify` is a list of tables", help);
            Vec::new()
        }
    }
}

fn identify(table: Table<'_>) -> Option<Identify> {
    let headers = table.texts("api-key");
    let pepper = table.get("pepper");
    let jwt = table.table("jwt");
    let identify = match (headers, jwt) {
        (Some(headers), None) => {
            let headers = headers
                .into_iter()
                .filter_map(|(node, name)| header(&table, node, name));
            let headers = headers.collect();
            let peppers = match pepper {
                Some(node) => peppers(&table, node),
                None => vec![default_pepper()],
            };
            Some(Identify::ApiKey { headers, peppers })
        }
        (None, Some(jwt)) => {
            if let Some(node) = pepper {
                let message = "`pepper` belongs to `api-key`";
                table
                    .reader
                    .wrong_secret(node, message, "leave it out here");
            }
            jwt_config(jwt).map(Identify::Jwt)
        }
        (Some(headers), Some(_)) => {
            if let Some((node, _)) = headers.first() {
                let help = "write a second [[identify]]";
                table.reader.wrong(
                    node,
                    "one [[identify]] has `api-key` or `jwt`, not both",
                    help,
                );
            }
            None
        }
        (None, None) => {
            table.missing("api-key");
            None
        }
    };
    table.finish();
    identify
}

/// A header's name in lower case, if it is one: a token of RFC 9110, section 5.6.2.
fn header(table: &Table<'_>, node: &Node, name: &str) -> Option<String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        table
            .reader
            .wrong(node, "this is no header's name", "as in \"x-api-key\"");
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn default_pepper() -> Pepper {
    let source = SecretSource::Env(DEFAULT_PEPPER_ENV.into());
    let secret = SecretRef {
        field: "identify.pepper".into(),
        source,
    };
    Pepper {
        id: DEFAULT_PEPPER_ID.into(),
        secret,
    }
}

fn peppers(table: &Table<'_>, node: &Node) -> Vec<Pepper> {
    let help = "pepper = [{ id = \"1\", env = \"TOLLGATE_PEPPER\" }]";
    let Data::Array(nodes) = &node.data else {
        table
            .reader
            .wrong_secret(node, "`identify.pepper` is a list of references", help);
        return Vec::new();
    };
    if nodes.is_empty() {
        table
            .reader
            .wrong_secret(node, "`identify.pepper` is empty", help);
    }
    let mut peppers: Vec<Pepper> = Vec::new();
    for node in nodes {
        let Some(entry) = table.reader.table(node, "identify.pepper") else {
            continue;
        };
        let id = entry.required("id");
        let secret = secret_ref(&entry, node, "identify.pepper");
        entry.finish();
        let (Some(id), Some(secret)) = (id, secret) else {
            continue;
        };
        if !is_name(id, 16, "") {
            let message = "the id of a pepper is 1 to 16 characters of a-z and 0-9";
            table.reader.wrong_secret(node, message, help);
        } else if peppers.iter().any(|earlier| earlier.id == id) {
            let message = format!("two peppers have the id \"{id}\"");
            table
                .reader
                .wrong_secret(node, &message, "give a new pepper a new id");
        } else {
            peppers.push(Pepper {
                id: id.into(),
                secret,
            });
        }
    }
    peppers
}

/// One of `env`, `file`, `secret`, `ssm` in a table that may hold other keys too.
fn secret_ref(table: &Table<'_>, node: &Node, field: &str) -> Option<SecretRef> {
    let sources = [
        table.text("env").map(|name| SecretSource::Env(name.into())),
        table
            .text("file")
            .map(|path| SecretSource::File(path.into())),
        table
            .text("secret")
            .map(|name| SecretSource::SecretsManager(name.into())),
        table
            .text("ssm")
            .map(|name| SecretSource::ParameterStore(name.into())),
    ];
    if let Some((name_node, name)) = table.text_node("env")
        && ["sk_", "rk_", "whsec_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    {
        let message = format!("`{field}` names an environment variable: this is a secret itself");
        let help = "put it into a variable, and write that one's name; make a new secret, too";
        table.reader.wrong_secret(name_node, &message, help);
        return None;
    }
    let mut sources = sources.into_iter().flatten();
    match (sources.next(), sources.next()) {
        (Some(source), None) => Some(SecretRef {
            field: field.into(),
            source,
        }),
        _ => {
            let message = format!("`{field}` names exactly one place of its secret");
            let help =
                "{ env = \"..\" }, { file = \"..\" }, { secret = \"..\" } or { ssm = \"..\" }";
            table.reader.wrong_secret(node, &message, help);
            None
        }
    }
}

/// The reference under a key, which holds nothing else. A secret written in place is refused.
fn secret(table: &Table<'_>, key: &'static str) -> Option<SecretRef> {
    let (node, field) = (table.get(key)?, table.path_of(key));
    if let Data::Text(_) = node.data {
        let message = format!("`{field}` is a reference: a secret does not stand in this file");
        let help = format!("write {key} = {{ env = \"..\" }} and put the secret there");
        table.reader.wrong_secret(node, &message, &help);
        return None;
    }
    let entry = table.reader.table(node, &field)?;
    let secret = secret_ref(&entry, node, &field);
    entry.finish();
    secret
}

fn jwt_config(table: Table<'_>) -> Option<JwtConfig> {
    let jwks = table.required("jwks");
    if let (Some(jwks), Some(node)) = (jwks, table.get("jwks"))
        && is_plain_http_elsewhere(jwks)
    {
        let message = "keys that come unencrypted can be anybody's";
        table.reader.wrong(
            node,
            message,
            "write an https:// URL, or the path of a file",
        );
    }
    let (issuer, tenant) = (table.required("issuer"), table.required("tenant"));
    let user = table.text("user").map(str::to_owned);
    let audience = table.texts("audience").unwrap_or_default();
    let audience: Vec<String> = audience
        .into_iter()
        .map(|(_, name)| name.to_owned())
        .filter(|n| !n.is_empty())
        .collect();
    if audience.is_empty() {
        table.missing("audience");
    }
    table.finish();
    let (jwks, issuer, tenant) = (jwks?.into(), issuer?.into(), tenant?.into());
    Some(JwtConfig {
        jwks,
        issuer,
        audience,
        tenant,
        user,
    })
}

/// Whether a URL has no TLS and does not stay on this machine.
fn is_plain_http_elsewhere(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    !matches!(host, Some("localhost" | "127.0.0.1" | "::1"))
}

fn unknown(table: Table<'_>) -> Option<Unknown> {
    let words = [
        ("reject", Unknown::Reject),
        ("create", Unknown::Create),
        ("anonymous", Unknown::Anonymous),
    ];
    let unknown = table.choice("unknown", &words);
    table.finish();
    unknown
}

fn proxy(table: Table<'_>) -> ProxyConfig {
    let trust = table.texts("trust").unwrap_or_default();
    let trust = trust
        .into_iter()
        .filter_map(|(node, text)| network(&table, node, text))
        .collect();
    table.finish();
    ProxyConfig { trust }
}

fn network(table: &Table<'_>, node: &Node, text: &str) -> Option<Network> {
    let one = || text.parse::<IpAddr>().ok().map(ipnet::IpNet::from);
    let Some(net) = text.parse::<ipnet::IpNet>().ok().or_else(one) else {
        let help = "as in \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.7\"";
        table
            .reader
            .wrong(node, "this is no range of addresses", help);
        return None;
    };
    if net.prefix_len() == 0 {
        let message = "this trusts everybody: each caller could claim any address";
        table
            .reader
            .wrong(node, message, "write the ranges of your own proxies");
        return None;
    }
    if net.trunc() != net {
        let message = "the address has bits beyond its prefix";
        table
            .reader
            .wrong(node, message, format!("did you mean \"{}\"?", net.trunc()));
        return None;
    }
    Some(Network(net))
}

fn http(table: Table<'_>) -> HttpConfig {
    let url = table.text_node("billing-url");
    if let Some((node, url)) = url
        && (!(url.starts_with("https://") || url.starts_with("http://"))
            || url.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        let message = "`http.billing-url` is a URL that a browser opens";
        table
            .reader
            .wrong(node, message, "as in \"https://example.com/billing\"");
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

fn stripe(table: Table<'_>) -> Option<StripeConfig> {
    let key = secret(&table, "key");
    if table.get("key").is_none() {
        table.missing("key");
    }
    let webhook_secret = secret(&table, "webhook-secret");
    let modes = [("test", StripeMode::Test), ("live", StripeMode::Live)];
    let mode = table.choice("mode", &modes).unwrap_or(StripeMode::Test);
    table.finish();
    Some(StripeConfig {
        key: key?,
        webhook_secret,
        mode,
    })
}

fn flush_config(table: Option<Table<'_>>, store: Option<&StoreKind>) -> FlushConfig {
    let beside = match store {
        Some(StoreKind::Redb { path }) if path.extension().is_none_or(|ext| ext != "journal") => {
            path.with_extension("journal")
        }
        Some(StoreKind::Redb { path }) => path.with_extension("journal.journal"),
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
        && PathBuf::from(path) == *store
    {
        let message = "the journal and the store are two files";
        table
            .reader
            .wrong(node, message, "name another file, or leave the key out");
    }
    flush.journal_path = path.map_or(flush.journal_path, |(_, path)| path.into());
    flush.max_write_units = table
        .count("max-write-units")
        .unwrap_or(flush.max_write_units);
    table.finish();
    flush
}

fn is_name(name: &str, most: usize, also: &str) -> bool {
    let may = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c);
    (1..=most).contains(&name.len()) && name.chars().all(may)
}
