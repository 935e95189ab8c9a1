//! `[[identify]]`: the methods of identifying a caller.

use super::reader::ServiceTable;
use super::references::{secret, secret_ref};
use super::tables::is_name;
use super::tree::{Data, Node};
use super::*;

/// Whether `[proxy] trust` names any proxy, without which no header is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It names a proxy, or has another error, which is reported there.
    Somebody,
    NoProxy,
}

pub(super) fn identify_list(root: &ServiceTable<'_>, trust: Trust) -> Vec<IdentifyTable> {
    let Some(node) = root.get("identify") else {
        let headers = DEFAULT_API_KEY_HEADERS.map(str::to_owned).into();
        return vec![IdentifyTable::ApiKey { headers, peppers: vec![default_pepper()] }];
    };
    match &node.data {
        Data::Array(nodes) if !nodes.is_empty() => nodes
            .iter()
            .filter_map(|node| identify(root.reader.table(node, "identify")?, trust))
            .collect(),
        _ => {
            let help = "begin each way of knowing a caller with [[identify]]";
            root.reader.wrong_secret(node, "`identify` is a list of tables", help);
            Vec::new()
        }
    }
}

fn identify(table: ServiceTable<'_>, trust: Trust) -> Option<IdentifyTable> {
    let way = table.one_of(&["api-key", "jwt", "header", "claim"], "write a second [[identify]]");
    let belong = [("pepper", "api-key"), ("user-header", "header"), ("user-claim", "claim")];
    for (key, of) in belong {
        if let (Some(node), Some(way)) = (table.get(key), way)
            && way != of
        {
            let message = format!("`{key}` belongs to `{of}`");
            let help = "leave it out here";
            table.reader.wrong_secret(node, &message, help);
        }
    }
    let identify = match way {
        Some("api-key") => api_key(&table),
        Some("jwt") => table.table("jwt").and_then(jwt_config).map(IdentifyTable::Jwt),
        Some("header") => gateway(&table, trust),
        Some(_) => table.text("claim").map(|tenant| IdentifyTable::Claim {
            tenant: tenant.to_owned(),
            user: table.text("user-claim").map(str::to_owned),
        }),
        None => None,
    };
    table.finish();
    identify
}

fn api_key(table: &ServiceTable<'_>) -> Option<IdentifyTable> {
    let headers = table
        .texts("api-key")?
        .into_iter()
        .filter_map(|(node, name)| header(table, node, name))
        .collect();
    let peppers = match table.get("pepper") {
        Some(node) => peppers(table, node),
        None => vec![default_pepper()],
    };
    Some(IdentifyTable::ApiKey { headers, peppers })
}

fn gateway(table: &ServiceTable<'_>, trust: Trust) -> Option<IdentifyTable> {
    let user = table.text_node("user-header").and_then(|(node, name)| header(table, node, name));
    let (node, name) = table.text_node("header")?;
    let tenant = header(table, node, name)?;
    if trust == Trust::NoProxy {
        let message = "`[proxy] trust` is empty: this header is only believed from a trusted proxy";
        let help =
            "name the networks of the gateway that sets it: [proxy] trust = [\"10.0.0.0/8\"]";
        table.reader.wrong(node, message, help);
        return None;
    }
    Some(IdentifyTable::Header { tenant, user })
}

/// A header's name in lower case, if valid: a token of RFC 9110, section 5.6.2.
fn header(table: &ServiceTable<'_>, node: &Node, name: &str) -> Option<String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        table.reader.wrong(node, "this is not a header name", "as in \"x-api-key\"");
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn default_pepper() -> PepperConfig {
    let source = SecretSource::Env(DEFAULT_PEPPER_ENV.into());
    let secret = SecretRef { field: "identify.pepper".into(), source };
    PepperConfig { id: DEFAULT_PEPPER_ID.into(), secret }
}

fn peppers(table: &ServiceTable<'_>, node: &Node) -> Vec<PepperConfig> {
    let help = "pepper = [{ id = \"1\", env = \"TALLYGATE_PEPPER\" }]";
    let Data::Array(nodes) = &node.data else {
        table.reader.wrong_secret(node, "`identify.pepper` is a list of references", help);
        return Vec::new();
    };
    if nodes.is_empty() {
        table.reader.wrong_secret(node, "`identify.pepper` is empty", help);
    }
    let mut peppers: Vec<PepperConfig> = Vec::new();
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
            table.reader.wrong_secret(node, &message, "give a new pepper a new id");
        } else {
            peppers.push(PepperConfig { id: id.into(), secret });
        }
    }
    peppers
}

fn jwt_config(table: ServiceTable<'_>) -> Option<JwtConfig> {
    let keys = match table.one_of(&["jwks", "secret"], "leave one of them out") {
        Some("jwks") => jwks(&table).map(JwtKeys::Jwks),
        Some(_) => secret(&table, "secret").map(JwtKeys::Secret),
        None => None,
    };
    let (issuer, tenant) = (table.required("issuer"), table.required("tenant"));
    let user = table.text("user").map(str::to_owned);
    let audience = table.texts("audience").unwrap_or_default();
    let audience: Vec<String> =
        audience.into_iter().map(|(_, name)| name.to_owned()).filter(|n| !n.is_empty()).collect();
    if audience.is_empty() {
        table.missing("audience");
    }
    table.finish();
    let (keys, issuer, tenant) = (keys?, issuer?.into(), tenant?.into());
    Some(JwtConfig { keys, issuer, audience, tenant, user })
}

fn jwks(table: &ServiceTable<'_>) -> Option<String> {
    let (node, jwks) = table.text_node("jwks")?;
    if is_plain_http_elsewhere(jwks) {
        let message = "keys fetched unencrypted could be forged";
        let help = "write an https:// URL, or the path of a file";
        table.reader.wrong(node, message, help);
        return None;
    }
    Some(jwks.to_owned())
}

/// Whether a URL uses plain HTTP to another machine.
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
