//! `[[identify]]`: the methods of identifying a caller.

use std::ops::Range;

use super::tables::network;
use super::*;
use crate::catalog::{NOT_A_PERMISSION, is_permission};
use crate::toml_file::{Text, TomlNode, TomlTable, items, looks_secret};

/// Most characters of the prefix of keys.
const MAX_PREFIX: usize = 32;

/// The methods, in order. `trusted`: whether `[proxy] trust` names a proxy, without which no header
/// is trusted, or has an error of its own.
pub(super) fn identify_list(
    report: &mut Findings<'_>,
    top: TomlTable<'_>,
    trusted: bool,
) -> Vec<IdentifyTable> {
    let Some(node) = top.node("identify") else {
        let headers = DEFAULT_API_KEY_HEADERS.map(str::to_owned).into();
        let peppers = vec![default_pepper()];
        let (prefix, permissions, is_default) = (None, Vec::new(), true);
        return vec![IdentifyTable::ApiKey { headers, peppers, prefix, permissions, is_default }];
    };
    let tables = items(node).iter().filter_map(TomlTable::of);
    tables.filter_map(|table| identify(report, table, trusted)).collect()
}

fn identify(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    trusted: bool,
) -> Option<IdentifyTable> {
    let belongs = [
        ("pepper", "api-key"),
        ("prefix", "api-key"),
        ("permissions", "api-key"),
        ("user-header", "header"),
        ("user-claim", "claim"),
        ("plan-claim", "claim"),
        ("permissions-claim", "claim"),
        ("tenant", "network"),
    ];
    for (key, of) in belongs {
        if let Some(span) = table.key_span(key)
            && table.node(of).is_none()
        {
            report.error(span, format!("`{key}` belongs to `{of}`"), "leave it out here");
        }
    }
    if table.node("api-key").is_some() {
        return Some(api_key(report, table));
    }
    if let Some(jwt) = table.table("jwt") {
        return jwt_config(report, jwt).map(IdentifyTable::Jwt);
    }
    if let Some(tenant) = table.filled("header") {
        return gateway(report, table, &tenant, trusted);
    }
    if let Some(span) = table.key_span("network") {
        return by_network(report, table, span);
    }
    let claim = |key| table.filled(key).map(|claim| claim.text.to_owned());
    let (user, plan) = (claim("user-claim"), claim("plan-claim"));
    let permissions = claim("permissions-claim");
    claim("claim").map(|tenant| IdentifyTable::Claim { tenant, user, plan, permissions })
}

fn by_network(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    span: Range<usize>,
) -> Option<IdentifyTable> {
    let Some(tenant) = table.filled("tenant") else {
        if table.node("tenant").is_none() {
            let help = "tenant = \"internal\"";
            report.error(span, "`network` needs the tenant that its callers are", help);
        }
        return None;
    };
    let id = tenant.text;
    if id.starts_with('~') || id.chars().any(char::is_control) || id.chars().count() > 256 {
        let message = "this is not a tenant's id: at most 256 characters, not beginning with ~";
        report.error(tenant.span.clone(), message, "as in \"internal\"");
    }
    let all = "this is every caller of the internet";
    let networks = table.texts("network");
    let networks =
        networks.iter().filter_map(|text| network(report, text, (all, "write your own ranges")));
    let networks = networks.collect();
    Some(IdentifyTable::Network { networks, tenant: tenant.text.to_owned() })
}

fn api_key(report: &mut Findings<'_>, table: TomlTable<'_>) -> IdentifyTable {
    let headers = table.texts("api-key");
    let peppers = match table.node("pepper") {
        Some(node) => peppers(report, node),
        None => vec![default_pepper()],
    };
    let headers = headers.iter().filter_map(|name| header(report, name)).collect();
    let prefix = table.filled("prefix").and_then(|prefix| key_prefix(report, &prefix));
    let permissions = permissions(report, table.texts("permissions"));
    IdentifyTable::ApiKey { headers, peppers, prefix, permissions, is_default: false }
}

/// What keys may do that were made without permissions.
fn permissions(report: &mut Findings<'_>, texts: Vec<Text<'_>>) -> Vec<String> {
    for text in &texts {
        if !is_permission(text.text) {
            report.error(text.span.clone(), NOT_A_PERMISSION, "as in \"invoices:write\"");
        }
    }
    texts.into_iter().map(|text| text.text.to_owned()).collect()
}

/// The beginning of keys: it reads as a word of its own, in a log as in a search for leaked keys.
fn key_prefix(report: &mut Findings<'_>, prefix: &Text<'_>) -> Option<String> {
    let word = prefix.text.strip_suffix('_').unwrap_or_default();
    if prefix.text.len() > MAX_PREFIX || !is_name(word, MAX_PREFIX, "_") {
        let message =
            "the prefix of keys is 2 to 32 characters of a-z, 0-9 and `_`, and ends in `_`";
        report.error(prefix.span.clone(), message, "as in \"acme_live_\"");
        return None;
    }
    Some(prefix.text.to_owned())
}

fn gateway(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    tenant: &Text<'_>,
    trusted: bool,
) -> Option<IdentifyTable> {
    let user = table.filled("user-header").and_then(|name| header(report, &name));
    let name = header(report, tenant)?;
    if !trusted {
        let message = "`[proxy] trust` is empty: this header is only believed from a trusted proxy";
        let help =
            "name the networks of the gateway that sets it: [proxy] trust = [\"10.0.0.0/8\"]";
        report.error(tenant.span.clone(), message, help);
    }
    Some(IdentifyTable::Header { tenant: name, user })
}

/// A header's name in lower case, if valid: a token of RFC 9110, section 5.6.2.
fn header(report: &mut Findings<'_>, name: &Text<'_>) -> Option<String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.text.is_empty() || !name.text.chars().all(is_token) {
        let message = "this is not a header name";
        report.error(name.span.clone(), message, "as in \"x-api-key\"");
        return None;
    }
    Some(name.text.to_ascii_lowercase())
}

fn default_pepper() -> PepperConfig {
    let source = SecretSource::Env(DEFAULT_PEPPER_ENV.into());
    let secret = SecretRef { field: "identify.pepper".into(), source };
    PepperConfig { id: DEFAULT_PEPPER_ID.into(), secret, is_default: true }
}

fn peppers(report: &mut Findings<'_>, node: &TomlNode<'_>) -> Vec<PepperConfig> {
    let mut peppers: Vec<PepperConfig> = Vec::new();
    for table in items(node).iter().filter_map(TomlTable::of) {
        let secret = source(report, table, "identify.pepper");
        let (Some(id), Some(secret)) = (table.filled("id"), secret) else {
            continue;
        };
        if !is_name(id.text, 16, "") {
            let message = "the id of a pepper is 1 to 16 characters of a-z and 0-9";
            let help = "pepper = [{ id = \"1\", env = \"TALLYGATE_PEPPER\" }]";
            report.error(id.span, message, help);
        } else if peppers.iter().any(|earlier| earlier.id == id.text) {
            report.error(id.span, "two peppers have this id", "give a new pepper a new id");
        } else {
            peppers.push(PepperConfig { id: id.text.into(), secret, is_default: false });
        }
    }
    peppers
}

fn jwt_config(report: &mut Findings<'_>, table: TomlTable<'_>) -> Option<JwtConfig> {
    let text = |key| table.filled(key).map(|text| text.text.to_owned());
    let texts = table.texts("audience").into_iter();
    let audience: Vec<_> =
        texts.map(|name| name.text.to_owned()).filter(|name| !name.is_empty()).collect();
    if let Some(span) = table.key_span("audience")
        && audience.is_empty()
    {
        report.error(span, "`audience` is empty", "write `audience = \"..\"`");
    }
    let keys = match table.filled("jwks") {
        Some(jwks) => {
            if is_plain_http_elsewhere(jwks.text) {
                let message = "keys fetched unencrypted could be forged";
                report.error(jwks.span, message, "write an https:// URL, or the path of a file");
            }
            JwtKeys::Jwks(jwks.text.to_owned())
        }
        None => JwtKeys::Secret(secret(report, table, "secret", "identify.jwt.secret")?),
    };
    let (issuer, tenant) = (text("issuer")?, text("tenant")?);
    let (user, plan, permissions) = (text("user"), text("plan"), text("permissions"));
    Some(JwtConfig { keys, issuer, audience, tenant, user, plan, permissions })
}

/// The reference under a key.
pub(super) fn secret(
    report: &mut Findings<'_>,
    table: TomlTable<'_>,
    key: &str,
    field: &str,
) -> Option<SecretRef> {
    table.table(key).and_then(|table| source(report, table, field))
}

/// The reference in a table that may hold other keys, too.
fn source(report: &mut Findings<'_>, table: TomlTable<'_>, field: &str) -> Option<SecretRef> {
    let text = |key| table.filled(key);
    if let Some(name) = text("env").filter(|name| looks_secret(name.text)) {
        let message = format!("`{field}` names an environment variable, but this is a secret");
        let help = "put it into a variable and write the variable's name; replace the secret, too";
        report.error(name.span, message, help);
    }
    let source = text("env")
        .map(|name| SecretSource::Env(name.text.into()))
        .or_else(|| text("file").map(|path| SecretSource::File(path.text.into())))
        .or_else(|| text("secret").map(|name| SecretSource::SecretsManager(name.text.into())))
        .or_else(|| text("ssm").map(|name| SecretSource::ParameterStore(name.text.into())));
    Some(SecretRef { field: field.into(), source: source? })
}

/// Whether a URL uses plain HTTP to another machine.
pub(super) fn is_plain_http_elsewhere(url: &str) -> bool {
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

/// Whether a URL names a port that no server can have.
pub(crate) fn has_no_such_port(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = match host.strip_prefix('[') {
        Some(v6) => v6.split_once("]:").map(|(_, port)| port),
        None => host.split_once(':').map(|(_, port)| port),
    };
    port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..)))
}
