//! docs/identity.md.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tallygate::Gate;
use tallygate::directory::{Directory, Grant};
use tallygate_axum::{Caller, GateLayer, usage_router};
use tokio::net::TcpListener;

#[derive(Clone)]
struct User {
    org: String,
    id: String,
    plan: String,
}

async fn session(request: Request, next: Next) -> Response {
    next.run(request).await
}

fn own_users(routes: Router, gate: Gate) -> Router {
    let authenticate = from_fn(session);
    let layer = GateLayer::new(&gate).caller(|extensions| {
        let user = extensions.get::<User>()?;
        Some(Caller::new(&user.org).user(&user.id).plan(&user.plan))
    });
    let app = routes.layer(layer.clone()).merge(usage_router(&layer)).layer(authenticate);
    app
}

async fn addresses(listener: TcpListener, app: Router) -> std::io::Result<()> {
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

#[rustfmt::skip]
async fn tenants(directory: &Directory) -> Result<(), Box<dyn Error>> {
    let tenant = directory.tenant("acme").plan("pro").note("signed up").save().await?;
    let key = tenant.new_key("ci").await?;
    tenant.suspend("abuse, ticket 4711").await?;
    let until = SystemTime::now() + Duration::from_secs(30 * 24 * 3600);
    tenant.edit().override_("quota.requests = \"2M/month\"", Some(until), "launch").save().await?;
    tenant.edit().grant(Grant::new("launch", "credits", 500).expires(until)).note("launch")
        .save().await?;
    for key in tenant.keys().await? { println!("{} {} {:?}", key.id, key.name, key.state) }
    for entry in tenant.history().await? { println!("{:?} {:?}", entry.outcome, entry.edits) }
    for tenant in directory.list("ac", "", 100).await? { println!("{}", tenant.record().id) }
    Ok(())
}
