//! What all benches stand on: a gate on the real clock, tenants in memory with leases that last,
//! and the plan that all of them are on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use http::{Method, Request};
use tallygate::middleware::Peer;
use tallygate::store::DynamoDb;
use tallygate::testing::Drill;
use tallygate::wire::{HeaderStyle, WireOptions};
use tallygate::{Gate, GateBuilder};
use tokio::runtime::Runtime;

/// One rate and one quota for each request, both out of reach.
pub const PLANS: &str = r#"
default-plan = "team"
[route.search]
match = "GET /v1/search"
[plan.team]
rate.default   = "50M/s burst 50M"
quota.requests = "1000000000000/month"
"#;

/// One rate alone: all that a layer of `tower_governor` holds a caller to.
pub const ONE_RATE: &str = r#"
default-plan = "team"
[plan.team]
rate.default = "50M/s burst 50M"
"#;

/// A caller is named by one header, as it is to the peers.
pub const BY_HEADER: &str = "[[identify]]\nheader = \"x-tenant\"";

/// The same numbers for the peers.
pub const PER_SECOND: u32 = 50_000_000;
pub const BURST: u32 = 50_000_000;

/// HS256 secret and pepper; nothing in a bench is secret.
pub const SECRET: &str = "a-bench-has-no-secrets-0123456789abcdef";

pub const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 443);

/// The gate of most benches, on a store in memory, with every way to be known.
pub fn gate(rt: &Runtime, style: HeaderStyle) -> Gate {
    open(rt, "[store]\nkind = \"memory\"", style)
}

/// The same on this store.
pub fn open(rt: &Runtime, store: &str, style: HeaderStyle) -> Gate {
    let service = format!("{store}\n{}", every_way());
    opened(rt, builder(&service, PLANS), style)
}

/// A gate on a store in memory that knows callers in this one way.
pub fn gate_by(rt: &Runtime, way: &str, plans: &str, style: HeaderStyle) -> Gate {
    let service = format!("[store]\nkind = \"memory\"\n{way}");
    opened(rt, builder(&service, plans), style)
}

/// A gate on a table of Amazon's DynamoDB Local, or why it cannot be had here.
pub fn on_dynamodb(rt: &Runtime) -> Result<Gate, String> {
    let server = dynamodb_local::shared()?;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.endpoint())
        .credentials_provider(Credentials::new("x", "y", None, None, "bench"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let client = Client::from_conf(config.build());
    rt.block_on(async {
        let made = DynamoDb::create_table(&client, "bench", None).await;
        made.map_err(|error| error.to_string())?;
        let store = DynamoDb::new(client, "bench");
        let service = format!("[store]\nkind = \"memory\"\n{}", every_way());
        let gate = builder(&service, PLANS).store(store).open();
        gate.await.map_err(|error| error.to_string())
    })
}

fn every_way() -> String {
    let jwt = format!(
        "[[identify]]\njwt = {{ secret = {{ file = \"{}\" }}, issuer = \"bench\", \
         audience = \"api\", tenant = \"org\" }}",
        secret()
    );
    format!("{}\n{jwt}\n{BY_HEADER}", by_key())
}

/// A caller is known by its API key.
pub fn by_key() -> String {
    let pepper = format!("[{{ id = \"1\", file = \"{}\" }}]", secret());
    format!("[[identify]]\napi-key = \"x-api-key\"\npepper = {pepper}")
}

/// A file with the secret of this run.
fn secret() -> String {
    let dir = std::env::temp_dir().join("tallygate-bench");
    std::fs::create_dir_all(&dir).expect("a directory for a secret");
    let file = dir.join(format!("secret-{}", std::process::id()));
    std::fs::write(&file, SECRET).expect("a file for a secret");
    file.display().to_string()
}

fn builder(service: &str, plans: &str) -> GateBuilder {
    let service = format!(
        r#"
{service}
[identity]
unknown = "create"
[proxy]
trust = ["10.0.0.0/8"]
[flush]
mode = "fast"
"#
    );
    GateBuilder::from_text(&service).plans(plans)
}

fn opened(rt: &Runtime, builder: GateBuilder, style: HeaderStyle) -> Gate {
    let wire = WireOptions { style, ..WireOptions::default() };
    rt.block_on(builder.wire(wire).open()).expect("the gate of the benches opens")
}

/// Tenants in memory, each with a lease that a measurement does not use up.
pub fn drills(rt: &Runtime, gate: &Gate, count: usize, rounds: usize) -> Vec<Drill> {
    let drill = |i: usize| {
        let tenant = rt.block_on(gate.tenant(&name(i))).expect("a tenant is made on first sight");
        Drill::new(gate, &tenant, "search")
    };
    let mut drills: Vec<Drill> = (0..count).map(drill).collect();
    shuffle(&mut drills);
    for _ in 0..rounds {
        drills.iter().for_each(admit);
    }
    drills
}

/// One request, waiting for a lease if it must: the pool is never empty, so that this is rare.
#[inline]
pub fn admit(drill: &Drill) {
    while drill.admit_and_settle() != Some(true) {
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// A tenant's id, as long as they are in life.
pub fn name(i: usize) -> String {
    format!("tenant-{i:08}-customer-of-ours")
}

/// The same order in every run, and no order that a cache could guess.
pub fn shuffle<T>(items: &mut [T]) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..items.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        items.swap(i, (random >> 33) as usize % (i + 1));
    }
}

/// The body of a request that has none.
pub type Nothing = http_body_util::Empty<axum::body::Bytes>;

/// A request as a server hands it on.
pub fn request(header: &str, value: &str) -> Request<Nothing> {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri("/v1/search?q=rust")
        .header("host", "api.example.com")
        .header("user-agent", "bench/1.0")
        .header("accept", "*/*")
        .header(header, value)
        .body(Nothing::new())
        .expect("a legal request");
    request.extensions_mut().insert(Peer(PEER));
    request
}
