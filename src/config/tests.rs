//! Tests of the service file, from text to data and from mistakes to their messages.

use proptest::prelude::*;

use super::*;
use crate::toml_file::schema_tests::{self, takes};
use crate::toml_file::{FileError, Form};

fn parse(text: &str) -> Result<Config, FileErrors> {
    Config::parse("tallygate.toml", text, [])
}

fn with_env(text: &str, env: &[(&str, &str)]) -> Result<Config, FileErrors> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse("tallygate.toml", text, env)
}

/// The only mistake in a text.
fn error(text: &str) -> FileError {
    let errors = parse(text).expect_err(text);
    assert_eq!(errors.len(), 1, "{errors}");
    errors.iter().next().unwrap().clone()
}

const FULL: &str = r#"
[store]
kind  = "redb"
path  = "data/tallygate.redb"
space = "eu-1"

[plans]
file  = "plans.toml"

[[identify]]
api-key = ["Authorization", "x-api-key"]
prefix  = "acme_live_"
pepper  = [{ id = "2", file = "/run/pepper" }, { id = "1", env = "TALLYGATE_PEPPER" }]

[[identify]]
[identify.jwt]
jwks     = "https://id.example.com/.well-known/jwks.json"
issuer   = "https://id.example.com"
audience = "api"
tenant   = "org_id"
user     = "sub"

[[identify]]
jwt = { secret = { env = "JWT_SECRET" }, issuer = "us", audience = ["api", "adm"], tenant = "org" }

[[identify]]
header = "X-Tenant"
user-header = "X-User"

[identity]
unknown = "create"

[proxy]
trust = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]

[http]
billing-url  = "https://example.com/billing"
strip-prefix = "/prod"
limit-headers = "nearest"

[stripe]
key            = { env = "STRIPE_SECRET_KEY" }
webhook-secret = { secret = "stripe/webhook" }
mode           = "live"
too-old        = "name"

[flush]
every = "500ms"
mode  = "durable"
max-write-units = 20
"#;

#[test]
fn a_full_file_says_what_it_says() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.store.kind, StoreKind::Redb { path: "data/tallygate.redb".into() });
    assert_eq!(config.store.space, "eu-1");
    let [
        IdentifyTable::ApiKey { headers, peppers, prefix, is_default: false, .. },
        IdentifyTable::Jwt(jwt),
        IdentifyTable::Jwt(shared),
        IdentifyTable::Header { tenant, user },
    ] = &*config.identify
    else {
        panic!("{:?}", config.identify);
    };
    let jwks = "https://id.example.com/.well-known/jwks.json";
    assert_eq!(jwt.keys, JwtKeys::Jwks(jwks.into()));
    let secret = SecretRef {
        field: "identify.jwt.secret".into(),
        source: SecretSource::Env("JWT_SECRET".into()),
    };
    assert_eq!(shared.keys, JwtKeys::Secret(secret));
    assert_eq!(shared.audience, ["api", "adm"]);
    assert_eq!((&**tenant, user.as_deref()), ("x-tenant", Some("x-user")), "lower case");
    assert_eq!(headers, &["authorization", "x-api-key"]);
    assert_eq!(prefix.as_deref(), Some("acme_live_"));
    let ids: Vec<_> = peppers.iter().map(|pepper| &*pepper.id).collect();
    assert_eq!(ids, ["2", "1"]);
    assert_eq!(peppers[0].secret.source, SecretSource::File("/run/pepper".into()));
    assert_eq!(
        (&*jwt.tenant, jwt.user.as_deref(), &*jwt.audience),
        ("org_id", Some("sub"), &["api".to_owned()][..])
    );
    assert_eq!(config.identity.unknown, OnUnknown::Create);
    assert_eq!(config.http.strip_prefix.as_deref(), Some("/prod"));
    assert_eq!(config.http.limit_headers, LimitHeaders::Nearest);
    assert_eq!(config.http.billing_url.as_deref(), Some("https://example.com/billing"));
    let stripe = config.stripe.unwrap();
    assert_eq!((stripe.mode, stripe.too_old), (StripeMode::Live, TooOld::Name));
    assert_eq!(stripe.key.field, "stripe.key");
    assert_eq!(config.flush.every, Duration::from_millis(500));
    assert_eq!(config.flush.mode, FlushMode::Durable);
    assert_eq!(config.flush.max_write_units, 20);
    assert_eq!(config.flush.journal_path, PathBuf::from("data/tallygate.redb.journal"));
}

#[test]
fn stores_whose_names_differ_in_their_ending_have_a_journal_each() {
    let journal = |name: &str| {
        let config = parse(&format!("[store]\nkind = \"redb\"\npath = \"data/{name}\"")).unwrap();
        config.flush.journal_path
    };
    assert_eq!(journal("x.redb"), PathBuf::from("data/x.redb.journal"));
    assert_eq!(journal("x.db"), PathBuf::from("data/x.db.journal"));
    assert_eq!(journal("x"), PathBuf::from("data/x.journal"));
}

#[test]
fn an_empty_file_is_a_file_of_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.store.kind, StoreKind::Redb { path: DEFAULT_STORE_PATH.into() });
    assert_eq!(config.plans.file, PathBuf::from(DEFAULT_PLANS));
    assert_eq!(config.identity.unknown, OnUnknown::Reject);
    assert_eq!(config.stripe, None);
    assert_eq!(config.flush.every, DEFAULT_FLUSH_EVERY);
    let [IdentifyTable::ApiKey { headers, peppers, prefix: None, is_default: true, .. }] =
        &*config.identify
    else {
        panic!("{:?}", config.identify);
    };
    assert_eq!(headers, &DEFAULT_API_KEY_HEADERS);
    assert_eq!(peppers[0].secret.source, SecretSource::Env(DEFAULT_PEPPER_ENV.into()));
    assert_eq!(parse("\u{feff}[store]\r\nspace = \"x\"\r\n").unwrap().store.space, "x");
}

#[test]
fn the_file_in_the_documentation_loads() {
    let page = include_str!("../../docs/service-file.md");
    let (_, file) = page.split_once("```toml\n").unwrap();
    let config = parse(file.split_once("```").unwrap().0).unwrap();
    assert_eq!(config.identify.len(), 3);
    assert!(config.stripe.is_some());
}

#[test]
fn mistakes_are_shown_as_in_the_documentation() {
    let text = "[store]\nkind  = \"redb\"\npth   = \"a.redb\"\nspace = \"No\"\n";
    let shown = with_env(text, &[("TALLYGATE__FLUSH__EVERY", "5")]).unwrap_err().to_string();
    let page = include_str!("../../docs/service-file.md");
    for line in shown.lines().filter(|line| !line.is_empty()) {
        assert!(page.contains(&format!("\n    {line}\n")), "no {line:?} in it");
    }
}

#[test]
fn all_mistakes_come_at_once_in_the_order_of_the_file() {
    let text = "[stroe]\n[store]\nkind = \"redis\"\npth = \"x\"\nspace = \"No\"\n[flush]\n\
                every = 5\nmode = \"slow\"\nmax-write-units = 0\n[stripe]\n";
    let errors = parse(text).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(places, [(1, 2), (3, 8), (4, 1), (5, 9), (7, 9), (8, 8), (9, 19), (10, 1)]);
    let shown = errors.to_string();
    let first = "tallygate.toml:1:2: unknown key `stroe` in a service file\n 1 | [stroe]\n   |  \
                 ^^^^^\nhelp: did you mean `store`?\n";
    assert!(shown.starts_with(first), "{shown}");
    assert!(shown.contains("help: did you mean `path`?"));
    assert!(shown.contains("help: did you mean `redb`?"));
    assert!(shown.contains(" 5 | space = \"No\"\n   |         ^^^^\n"), "{shown}");
}

#[test]
fn what_the_environment_left_without_use_is_no_fault() {
    let file = "[store]\nkind = \"redb\"\npath = \"a.redb\"";
    let env = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let kind = env("TALLYGATE__STORE__KIND", "dynamodb");
    let table = env("TALLYGATE__STORE__TABLE", "t");
    let config = Config::parse("t", file, [kind.clone(), table]).unwrap();
    assert_eq!(config.store.kind, StoreKind::Dynamodb { table: "t".into() });
    // A mistake in the environment itself is one.
    let path = env("TALLYGATE__STORE__PATH", "b.redb");
    let wrong = Config::parse("t", file, [kind, path]).unwrap_err().to_string();
    assert!(wrong.contains("belongs to kind = \"redb\""), "{wrong}");
}

#[test]
fn each_mistake_is_refused_with_what_to_write_instead() {
    let jwt = r#"jwks = "https://x/j", issuer = "x", audience = "a", tenant = "t""#;
    let cases = [
        ("[store]\nkind = \"memory\"\npath = \"x\"", "belongs to kind = \"redb\""),
        ("[store]\ntable = \"x\"", "belongs to kind = \"dynamodb\""),
        ("[store]\nspace = \"a#b\"", "a space is 1 to 64"),
        ("[store]\nspace = \"\"", "is empty"),
        ("[store]\nspace = 5", "`space` cannot be an integer"),
        ("store = \"redb\"", "`store` cannot be a string"),
        ("[[identify]]", "[[identify]] needs one of `api-key`, `jwt`, `header`, `claim`"),
        ("[[identify]]\njwt = \"x\"", "`jwt` cannot be a string"),
        ("[[identify]]\napi-key = \"a\"\nheader = \"b\"", "`header` beside `api-key`"),
        ("[[identify]]\napi-key = \"a\"\nuser-header = \"b\"", "`user-header` belongs to `header`"),
        (
            "[proxy]\ntrust = \"10.0.0.0/8\"\n[[identify]]\nheader = \"a\"\n\
             pepper = [{ id = \"1\", env = \"P\" }]",
            "`pepper` belongs to `api-key`",
        ),
        ("[proxy]\ntrust = \"10.0.0.0/8\"\n[[identify]]\nheader = \"a b\"", "not a header name"),
        (
            "[proxy]\ntrust = \"10.0.0.0/8\"\n[[identify]]\nheader = \"a\"\nuser-header = \"\"",
            "`user-header` is empty",
        ),
        ("identify = 5", "`identify` is a list of tables"),
        ("[stripe]\nkey = \"k\"", "`key` is a reference: secrets do not belong in this file"),
        ("[[identify]]\napi-key = \"a b\"", "not a header name"),
        ("[[identify]]\napi-key = \"a\"\npepper = []", "`pepper` is empty"),
        ("[[identify]]\napi-key = \"a\"\nprefix = \"acme\"", "ends in `_`"),
        ("[[identify]]\napi-key = \"a\"\nprefix = \"Ac_\"", "ends in `_`"),
        ("[[identify]]\napi-key = \"a\"\nprefix = \"_\"", "ends in `_`"),
        ("[[identify]]\nclaim = \"a\"\nprefix = \"a_\"", "`prefix` belongs to `api-key`"),
        ("[[identify]]\napi-key = \"a\"\npepper = [{ env = \"P\" }]", "`id` is missing"),
        ("[[identify]]\napi-key = \"a\"\npepper = [{ id = \"1\" }]", "needs one of `env`"),
        (
            "[[identify]]\napi-key = \"a\"\npepper = [{ id = \"1\", env = \"P\", ssm = \"p\" }]",
            "`ssm` beside `env`",
        ),
        (
            "[[identify]]\napi-key = \"a\"\n\
             pepper = [{ id = \"1\", env = \"P\" }, { id = \"1\", env = \"Q\" }]",
            "two peppers",
        ),
        ("[identity]\nunknown = \"allow\"", "unknown word `allow`"),
        ("[proxy]\ntrust = [\"10.0.0.1/8\"]", "bits beyond its prefix"),
        ("[proxy]\ntrust = [\"0.0.0.0/0\"]", "trusts everybody"),
        ("[proxy]\ntrust = [\"proxy.local\"]", "not a range of addresses"),
        ("[http]\nbilling-url = \"example.com\"", "URL that a browser opens"),
        ("[http]\nstrip-prefix = \"prod/\"", "begins with /"),
        ("[flush]\nevery = \"1m\"", "`m` is not a unit"),
        ("[flush]\nevery = \"1ms\"", "is between 50ms and 5s"),
        ("[flush]\nevery = \"1h\"", "is between"),
        ("[flush]\njournal-path = \"tallygate.redb\"", "a file each"),
        ("[flush]\nmax-write-units = -1", "a number from 1 on"),
        ("[flush]\nmax-write-units = 99999999999", "a number from 1 on"),
        ("[capacity]\nkept = 1", "`requests` is missing"),
        ("[capacity]\nrequests = 0", "a number from 1 on"),
        ("[capacity]\nrequests = 5\nkept = 5", "nothing is left"),
        ("[metrics]\ntop-tenants = 101", "more than 100"),
        ("[metrics]", "`top-tenants` is missing"),
        ("[stripe]\nmode = \"test\"", "`key` is missing"),
    ];
    for (text, message) in cases {
        let error = error(text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(error.line > 0 && !error.help.is_empty(), "{text}: {error:?}");
    }
    let both = format!("[[identify]]\napi-key = \"a\"\njwt = {{ {jwt} }}");
    assert!(error(&both).message.contains("`jwt` beside `api-key`"));
    let both = format!("[[identify]]\njwt = {{ {jwt}, secret = {{ env = \"S\" }} }}");
    assert!(error(&both).message.contains("`secret` beside `jwks`"));
    for (part, message) in [
        (r#"jwks = "https://x/j""#, "jwt needs one of `jwks`, `secret`"),
        ("audience = \"a\"", "`audience` is missing"),
        ("issuer = \"x\"", "`issuer` is missing"),
        ("tenant = \"t\"", "`tenant` is missing"),
    ] {
        let without = jwt.replace(part, "user = \"u\"");
        assert!(error(&format!("[[identify]]\njwt = {{ {without} }}")).message.contains(message));
    }
}

#[test]
fn a_header_is_believed_only_where_a_proxy_is_trusted() {
    let identify = "[[identify]]\nheader = \"X-Tenant\"\n";
    for proxy in ["", "[proxy]\n", "[proxy]\ntrust = []\n"] {
        let error = error(&format!("{identify}{proxy}"));
        assert_eq!((error.line, error.column), (2, 10));
        assert!(error.message.contains("`[proxy] trust` is empty"));
        assert!(error.help.contains("[proxy] trust = ["));
    }
    // The list's error is reported once, and not also as an empty list.
    for trust in ["5", "[5]", "[\"proxy.local\"]"] {
        let error = error(&format!("{identify}[proxy]\ntrust = {trust}\n"));
        assert_eq!(error.line, 4, "{error}");
    }
    assert_eq!(error(&format!("proxy = 5\n{identify}")).line, 1);
    let config = parse(&format!("{identify}[proxy]\ntrust = \"10.0.0.0/8\"\n")).unwrap();
    let header = IdentifyTable::Header { tenant: "x-tenant".into(), user: None };
    assert_eq!(config.identify, [header]);
}

#[test]
fn a_network_is_of_a_tenant() {
    let text = "[[identify]]\nnetwork = [\"10.0.0.0/8\", \"fd00::1\"]\ntenant = \"internal\"";
    let [IdentifyTable::Network { networks, tenant }] = &parse(text).unwrap().identify[..] else {
        panic!("one way")
    };
    assert_eq!((networks.len(), &**tenant), (2, "internal"));
    for (rest, column, message) in [
        ("network = [\"10.0.0.0/8\"]", 1, "needs the tenant"),
        ("network = [\"0.0.0.0/0\"]\ntenant = \"x\"", 12, "every caller"),
        ("network = [\"10.0.0.1/8\"]\ntenant = \"x\"", 12, "beyond its prefix"),
    ] {
        let error = error(&format!("[[identify]]\n{rest}"));
        assert_eq!((error.line, error.column), (2, column), "{error}");
        assert!(error.message.contains(message), "{error}");
    }
    let error = error("[[identify]]\nclaim = \"org\"\ntenant = \"x\"");
    assert!(error.message.contains("`tenant` belongs to `network`"), "{error}");
}

#[test]
fn the_committed_schema_is_that_of_the_parser() {
    let schema = toml_file::schema(&keys::TOP, "tallygate.toml");
    schema_tests::is_committed(schema, "docs/service-file.schema.json");
}

#[test]
fn the_schema_takes_what_loads_and_refuses_what_does_not() {
    let schema = toml_file::schema(&keys::TOP, "tallygate.toml");
    let is_taken = |text: &str| takes(&schema, &toml::Value::Table(text.parse().unwrap()));
    assert!(is_taken(FULL) && is_taken("") && is_taken("[proxy]\ntrust = []"));
    assert!(is_taken("identify = []") && parse("identify = []").unwrap().identify.is_empty());
    for wrong in [
        "[stroe]",
        "[store]\nkind = \"redis\"",
        "[store]\nspace = \"\"",
        "[[identify]]",
        "[[identify]]\napi-key = \"a\"\nheader = \"b\"",
        "[[identify]]\napi-key = \"a\"\npepper = [{ id = \"1\" }]",
        "[stripe]",
        "[stripe]\nkey = \"s3cret\"",
        "[stripe]\nkey = { env = \"A\", file = \"b\" }",
        "[flush]\nevery = \"1m\"",
        "[flush]\nmax-write-units = 0",
    ] {
        assert!(parse(wrong).is_err() && !is_taken(wrong), "{wrong}");
    }
}

/// Each key of the tables in the page's table of keys, and none beside them.
#[test]
fn every_key_is_described_in_the_documentation() {
    let page = include_str!("../../docs/service-file.md");
    let rows: String = page.lines().filter(|line| line.starts_with("| `")).collect();
    let described = |key: &str| rows.contains(&format!("{key}`"));
    for table in keys::TOP.keys {
        let (Form::Table(shape) | Form::Tables(shape) | Form::TablesOrNone(shape)) = &table.form
        else {
            panic!("`{}` is no table", table.name);
        };
        for key in shape.keys {
            let name = format!("{}.{}", table.name, key.name);
            assert!(described(&name) || described(&format!("{name}.jwks")), "{name}");
        }
    }
}

#[test]
fn an_unknown_key_is_answered_with_each_key_once() {
    let text = "[[identify]]\napi-key = \"a\"\nzzzzzzzzzz = 1";
    let help = error(text).help;
    assert_eq!(
        help,
        "write one of `api-key`, `pepper`, `prefix`, `permissions`, `jwt`, `header`, \
         `user-header`, `claim`, `user-claim`, `plan-claim`, `permissions-claim`, `network`, ..."
    );
}

#[test]
fn signing_keys_come_over_tls_or_from_this_machine() {
    let with = |jwks: &str| {
        parse(&format!(
            "[[identify]]\njwt = {{ jwks = \"{jwks}\", issuer = \"x\", audience = [\"a\", \"b\"], \
             tenant = \"t\" }}"
        ))
    };
    for good in ["https://x/j", "keys.json", "http://localhost:8080/j", "http://[::1]:80/j"] {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in ["http://x/j", "http://localhost.evil/j", "http://127.0.0.1.evil/j", "http://[::2]/"]
    {
        assert!(with(bad).is_err(), "{bad}");
    }
}

#[test]
fn mistakes_of_toml_have_a_place_and_show_no_value() {
    let errors = parse("[stripe]\nkey = { env = sk_live_9 }\n").unwrap_err();
    assert_eq!(errors.iter().next().unwrap().line, 2);
    let shown = errors.to_string();
    assert!(shown.contains(" 2 | key = ***\n   |       ^"), "{shown}");
    assert!(!format!("{shown} {errors:?}").contains("sk_live_9"), "{shown}");
}

#[test]
fn a_torn_file_is_answered_shortly() {
    let torn = format!("[stripe]\nkey = {{ env = \"{}", "\0".repeat(16 * 1024));
    let shown = parse(&torn).unwrap_err().to_string();
    assert!(shown.len() < 600 && shown.contains("rename it") && !shown.contains('\0'), "{shown}");
    let wide = "sp\u{e9}ce = 's3cret'\n".repeat(2_000);
    for text in [wide.replace('\n', ", "), wide.clone(), format!("[store]\n{wide}")] {
        let shown = parse(&text).unwrap_err().to_string();
        assert!(shown.len() < 20 * 1024 && !shown.contains("s3cret"), "{shown}");
    }
}

/// Whatever is wrong with the rest of a line, a value that may be a secret is not on it.
#[test]
fn a_line_is_shown_without_its_secrets() {
    for (line, shown) in [
        ("key = { env = \"K\", s3cret = 1 }", "key = { env = ***, s3cret = *** }"),
        ("key = { value = \"s3cret\", env = 5 }", "key = { value = ***, env = *** }"),
        ("key = \"s3cret\" # s3cret", "key = *** ***"),
        ("key = \"\"\"\ns3cret\"\"\"", "key = ***"),
        ("kye = \"s3cret\"", "kye = ***"),
        ("key = [\"s3cret\"]", "key = [***]"),
        ("key = 's3cret'\nmode = \"s3cret", "mode = ***"),
    ] {
        let errors = parse(&format!("[stripe]\n{line}\n")).expect_err(line);
        let written = errors.to_string();
        assert!(written.contains(&format!(" | {shown}\n")), "{written}");
        let quiet = format!("{written} {errors:?}").replace("s3cret =", "").replace("`s3cret`", "");
        assert!(!quiet.replace("\"s3cret\"", "").contains("s3cret"), "{quiet}");
    }
    // The caret is below the words, whatever was hidden before them.
    let line = "jwt = { secret = \"s3cret s3cret\", issuer = 5, audience = \"a\", tenant = \"t\" }";
    let shown = parse(&format!("[[identify]]\n{line}\n")).unwrap_err().to_string();
    let line = line.replace("\"s3cret s3cret\"", "***");
    let lines = format!(" 2 | {line}\n   | {}^\n", " ".repeat(line.find('5').unwrap()));
    assert!(shown.contains(&lines), "{shown}");
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_shown() {
    for text in [
        "[stripe]\nkey = \"sk_live_9\"",
        "[stripe]\nkey = [\"sk_live_9\"]",
        "[stripe]\nkey = { env = \"sk_live_9\" }",
        "[stripe]\nkey = { value = \"sk_live_9\", env = \"K\" }",
        "[stripe]\nkey = { value = \"sk_live_9\" }",
        "[[identify]]\napi-key = \"a\"\npepper = \"sk_live_9\"",
        "[[identify]]\njwt = { secret = \"sk_live_9\" }",
        "[[identify]]\njwt = { secret = [\"sk_live_9\"] }",
        "[[identify]]\njwt = { jwks = \"j\", secret = \"sk_live_9\" }",
        "[[identify]]\napi-key = \"a\"\njwt = { secret = \"sk_live_9\" }",
        "[[identify]]\napi-key = \"a\"\npepper = [\"sk_live_9\"]",
    ] {
        let errors = parse(text).expect_err(text);
        assert!(!format!("{errors} {errors:?}").contains("sk_live_9"), "{errors}");
    }
    let errors = with_env("", &[("TALLYGATE__STRIPE__KEY", "sk_live_9")]).unwrap_err();
    assert!(!format!("{errors} {errors:?}").contains("sk_live_9"), "{errors}");
}

#[test]
fn the_environment_overrides_the_file_and_nothing_else_of_it_counts() {
    let config = with_env(
        "[store]\nkind = \"redb\"\npath = \"x.redb\"\n[stripe]\nkey = { env = \"A\" }\n",
        &[
            ("TALLYGATE__STORE__PATH", "y.redb"),
            ("TALLYGATE__STORE__SPACE", "7"),
            ("TALLYGATE__FLUSH__MAX_WRITE_UNITS", "9"),
            ("TALLYGATE__PROXY__TRUST", "[\"10.0.0.0/8\"]"),
            ("TALLYGATE__STRIPE__KEY__ENV", "B"),
            ("TALLYGATE_STORE__PATH", "ignored"),
            ("STORE__PATH", "ignored"),
        ],
    )
    .unwrap();
    assert_eq!(config.store.kind, StoreKind::Redb { path: "y.redb".into() });
    assert_eq!(config.store.space, "7");
    assert_eq!(config.flush.max_write_units, 9);
    assert!(config.proxy.trust[0].0.contains(&"10.1.2.3".parse::<IpAddr>().unwrap()));
    assert_eq!(config.stripe.unwrap().key.source, SecretSource::Env("B".into()));
}

#[test]
fn a_wrong_override_names_its_variable() {
    for (name, value, message) in [
        ("TALLYGATE__STORE__SPASE", "x", "did you mean `space`?"),
        ("TALLYGATE__STORE__SPACE__X", "x", "is not a key"),
        ("TALLYGATE__STORE____SPACE", "x", "is not a key"),
        ("TALLYGATE__", "x", "is not a key"),
        ("TALLYGATE__FLUSH__EVERY", "soon", "not a duration"),
    ] {
        let text = "[store]\nspace = \"s\"\n";
        let errors = with_env(text, &[(name, value)]).expect_err(name).to_string();
        assert!(errors.contains(name), "{errors}");
        assert!(errors.contains(message) || errors.contains("is not a key"), "{errors}");
    }
}

#[test]
fn a_stripe_key_must_be_of_the_mode() {
    let with = |mode: &str, key: &str| {
        let text = format!("[stripe]\nkey = {{ env = \"K\" }}\nmode = \"{mode}\"\n");
        let stripe = parse(&text).unwrap().stripe.unwrap();
        stripe.resolve_key(&|name| (name == "K").then(|| key.to_owned()))
    };
    for key in ["sk_live_1", "rk_live_1"] {
        assert!(with("test", key).unwrap_err().message.contains("live key"));
        assert_eq!(with("live", key).unwrap().expose(), key);
    }
    for key in ["sk_test_1", "rk_test_1"] {
        assert!(with("live", key).unwrap_err().message.contains("test key"));
        assert_eq!(with("test", key).unwrap().expose(), key);
    }
}

#[test]
fn a_network_is_shown_as_its_range() {
    let text = "[proxy]\ntrust = [\"10.0.0.0/8\", \"192.0.2.7\", \"fd00::/8\", \"::1\"]";
    let shown: Vec<_> = parse(text).unwrap().proxy.trust.iter().map(Network::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "::1/128"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(
        lines in prop::collection::vec(
            prop_oneof![
                prop::sample::select(FULL.lines().collect::<Vec<_>>()).prop_map(str::to_owned),
                "[a-z=\"\\[\\]{} é#\\.0-9-]{0,12}",
            ],
            0..12,
        ),
        name in "TALLYGATE__[A-Z_]{0,12}",
        value in "[a-z\"\\[\\]{}=]{0,8}",
    ) {
        let _ = with_env(&lines.join("\n"), &[(&name, &value)]);
    }

    #[test]
    fn a_cut_file_never_panics(cut in 0..FULL.len()) {
        let _ = parse(FULL.get(..cut).unwrap_or(""));
    }
}

#[test]
fn reads_claims_and_what_events_may_name() {
    let text = r#"
        [[identify]]
        claim      = "custom:tenant"
        user-claim = "sub"
        plan-claim = "plan"
        permissions-claim = "scope"
        [ingest]
        token    = { env = "TOKEN" }
        products = { "prod-1" = "calls" }
    "#;
    let config = Config::parse("tallygate.toml", text, []).unwrap();
    let (tenant, user) = ("custom:tenant".into(), Some("sub".into()));
    let (plan, permissions) = (Some("plan".into()), Some("scope".into()));
    let claims = IdentifyTable::Claim { tenant, user, plan, permissions };
    assert_eq!(config.identify, [claims]);
    assert_eq!(config.ingest.products["prod-1"], "calls");
    assert_eq!(config.ingest.token.unwrap().source, SecretSource::Env("TOKEN".into()));
    for wrong in [
        "[[identify]]\nclaim = \"a\"\nuser-header = \"b\"",
        "[[identify]]\nclaim = \"a\"\npermissions = [\"b\"]",
        "[[identify]]\napi-key = [\"a\"]\npermissions = [\"b c\"]",
        "[[identify]]\nheader = \"a\"\nplan-claim = \"b\"\n[proxy]\ntrust = [\"10.0.0.0/8\"]",
        "[ingest]\ntoken = \"s3cret\"",
        "[ingest.products]\np = 1",
        "[ingest]\nproduct = {}",
    ] {
        let errors = Config::parse("tallygate.toml", wrong, []).unwrap_err().to_string();
        assert!(!errors.contains("s3cret"), "{errors}");
    }
}

const WEBHOOK: &str = "[[notify]]\nwebhook = \"https://ops.example/x\"\nsecret = { env = \"K\" }\n";

#[test]
fn destinations_of_alerts_have_names_and_kinds() {
    let text = format!(
        "{WEBHOOK}events = [\"quota.exhausted\"]\n\
         [[notify]]\nname = \"team\"\nslack = {{ file = \"/run/slack\" }}\n\
         [[notify]]\nname = \"here\"\nwebhook = \"http://127.0.0.1:9/\"\nsecret = {{ env = \"K\" }}"
    );
    let config = parse(&text).unwrap();
    let names: Vec<_> = config.notify.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["webhook", "team", "here"]);
    let takes = |at: usize, kind: &str| config.notify[at].wants(kind);
    assert!(takes(0, "quota.exhausted") && !takes(0, "plan.changed") && takes(1, "plan.changed"));
    assert!(!format!("{config:?}").contains("ops.example"), "a URL may be a secret");
}

#[test]
fn topics_and_event_buses_are_destinations() {
    for (line, kind, service) in [
        ("sns = \"arn:aws:sns:eu-west-1:123456789012:alerts\"", "sns", AwsService::Sns),
        (
            "sns = \"arn:aws-us-gov:sns:us-gov-west-1:000000000000:a_B-1.fifo\"",
            "sns",
            AwsService::Sns,
        ),
        ("sns = { env = \"TOPIC\" }", "sns", AwsService::Sns),
        ("eventbridge = \"default\"", "eventbridge", AwsService::EventBridge),
        ("eventbridge = \"aws.partner/x.com/1\"", "eventbridge", AwsService::EventBridge),
        (
            "eventbridge = \"arn:aws:events:eu-west-1:123456789012:event-bus/ops\"",
            "eventbridge",
            AwsService::EventBridge,
        ),
        ("eventbridge = { file = \"/run/bus\" }", "eventbridge", AwsService::EventBridge),
    ] {
        let config = parse(&format!("[[notify]]\n{line}\nevents = [\"plan.changed\"]")).unwrap();
        let [of] = &config.notify[..] else { panic!("{line}") };
        assert_eq!(of.name, kind, "{line}");
        assert!(of.wants("plan.changed") && !of.wants("usage.late"), "{line}");
        let NotifyTarget::Aws { service: found, .. } = &of.to else { panic!("{line}") };
        assert_eq!(*found, service, "{line}");
    }
}

#[test]
fn an_address_that_no_topic_or_bus_has_is_an_error_that_shows_one() {
    for (key, wrong) in [
        ("sns", "alerts"),
        ("sns", "arn:aws:sns:eu-west-1:123456789012"),
        ("sns", "arn:aws:sns:eu-west-1:123456789012:"),
        ("sns", "arn:aws:sns:eu-west-1:12345678901:alerts"),
        ("sns", "arn:aws:sns:eu west:123456789012:alerts"),
        ("sns", "arn:aws:sns::123456789012:alerts"),
        ("sns", "arn:aws:sqs:eu-west-1:123456789012:alerts"),
        ("sns", "arn:aws:sns:eu-west-1:123456789012:alerts:6b0e71bd"),
        ("sns", "arn:aws:sns:eu-west-1:123456789012:al erts"),
        ("sns", "arn:aws:sns:eu-west-1:123456789012:.fifo"),
        ("sns", "https://sns.eu-west-1.amazonaws.com/alerts"),
        ("eventbridge", "my bus"),
        ("eventbridge", "arn:aws:events:eu-west-1:123456789012:rule/ops"),
        ("eventbridge", "arn:aws:events:eu-west-1:123456789012:event-bus/"),
        ("eventbridge", &"x".repeat(257)),
    ] {
        let found = error(&format!("[[notify]]\n{key} = \"{wrong}\""));
        let example =
            if key == "sns" { "\"arn:aws:sns:" } else { "\"default\" or \"arn:aws:events:" };
        assert!(found.to_string().contains(example), "{key} = {wrong}: {found}");
    }
}

#[test]
fn a_destination_that_could_not_work_is_an_error() {
    let two = "[[notify]]\nsns = { env = \"A\" }\neventbridge = \"default\"";
    let signed = "[[notify]]\nsns = { env = \"A\" }\nsecret = { env = \"K\" }";
    for (wrong, words) in [
        ("[[notify]]\nname = \"ops\"", "needs one of `webhook`, `slack`, `sns`, `eventbridge`"),
        (two, "eventbridge"),
        (signed, "belongs to a webhook"),
        ("[[notify]]\nwebhook = \"https://a.example\"", "without `secret`"),
        ("[[notify]]\nwebhook = \"http://a.example\"\nsecret = { env = \"K\" }", "https://"),
        ("[[notify]]\nwebhook = \"ops\"\nsecret = { env = \"K\" }", "https://"),
        (&WEBHOOK.replace("example/", "example:99999/"), "a port is a number from 1 to 65535"),
        (&WEBHOOK.replace("https://ops.example/", "http://[::1]:0/"), "from 1 to 65535"),
        ("[[notify]]\nslack = \"https://hooks.example/T0/B0/hush\"", "`slack` is a reference"),
        ("[[notify]]\nslack = { env = \"S\" }\nsecret = { env = \"K\" }", "belongs to a webhook"),
        (&format!("{WEBHOOK}{WEBHOOK}"), "two [[notify]] are named"),
        (&format!("{WEBHOOK}name = \"Ops\""), "a destination's name"),
        (&format!("{WEBHOOK}events = [\"quota.exausted\"]"), "unknown word `quota.exausted`"),
    ] {
        let found = error(wrong);
        let text = format!("{found:?}");
        assert!(text.contains(words), "{wrong}: {text}");
        assert!(!text.contains("hush"), "{text}");
    }
}
