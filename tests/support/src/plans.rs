//! Plan files that several packages' tests use.

/// Everything that an adapter takes part in.
pub const ADAPTER: &str = r#"
    default-plan = "free"
    [meter.egress]
    count = "response-bytes"
    hold = "1KB"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [route.search]
    match = "GET /api/search"
    cost = { requests = 5 }
    [route.export]
    match = "POST /export"
    needs = "exports"
    [route.chat]
    match = "POST /chat"
    cost = { tokens = 0 }
    [route.open]
    match = "GET /healthz"
    auth = "none"
    [plan.free]
    concurrency = 100
    quota.requests = "100/day"
    quota.egress = "1MB/day"
    quota.tokens = "100/day"
    feature.seats = 3
    [plan.pro]
    extends = "free"
    feature.exports = true
"#;

/// Three connections at once that may become another protocol's.
pub const UPGRADES: &str = r#"
    default-plan = "free"
    [meter.tokens]
    count = "reported"
    hold = "10"
    [meter.egress]
    count = "response-bytes"
    hold = "1KB"
    [route.echo]
    match = ["GET /echo", "GET /silent"]
    cost = { requests = 1, tokens = 0 }
    [plan.free]
    concurrency = 3
    quota.requests = "100/day"
    quota.tokens = "100/day"
    quota.egress = "1MB/day"
"#;

/// A meter of what other services report.
pub const MINUTES: &str = r#"
    default-plan = "free"
    [meter.minutes]
    [plan.free]
    quota.minutes = "100/month"
"#;
