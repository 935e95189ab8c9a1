//! The baseline beside tallygate: plain periodic synchronisation, as many limiters do it.
//!
//! Each process counts what it admits in memory, adds that to one shared counter every second, and
//! refuses once the total it last saw, with its own count since, has reached the limit. What others
//! admit between two looks nobody knows of: that is the overshoot. A process that is killed loses
//! what it has not added yet, so that the others go on too long. (An addition whose answer is lost
//! would be made twice: a second flaw of the method, which nothing here provokes.)
//!
//! `PERIODIC_LIMIT` and `PERIODIC_TABLE` say how much and where. It answers as `crash-server` does.

#![allow(clippy::disallowed_methods, reason = "a baseline that waits by the clock")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tallygate::store::{Change, DynamoDb, Key, Store, StoreError, Write, Written};
use tokio::sync::Mutex;

/// Between two looks at the shared counter.
const EVERY: Duration = Duration::from_secs(1);

const TOTAL: &str = "total";

struct Counter {
    store: DynamoDb,
    limit: u64,
    /// The total when it was last looked at, and what was admitted here since.
    seen: AtomicU64,
    own: AtomicU64,
    /// Held while it is looked at: what is added twice is counted twice.
    looking: Mutex<()>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let counter = Arc::new(Counter {
        store: crash_server::table(&std::env::var("PERIODIC_TABLE")?)?,
        limit: std::env::var("PERIODIC_LIMIT")?.parse()?,
        seen: AtomicU64::new(0),
        own: AtomicU64::new(0),
        looking: Mutex::new(()),
    });
    counter.synchronise().await?;
    let synchronised = counter.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = synchronised.synchronise().await {
                eprintln!("periodic-server: {error}");
            }
        }
    });
    let app = Router::new().route("/work", post(work)).route("/usage", get(usage));
    crash_server::serve(app.with_state(counter.clone())).await?;
    counter.synchronise().await?;
    Ok(())
}

impl Counter {
    fn admit(&self) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        let more = |own: u64| (seen.saturating_add(own) < self.limit).then_some(own + 1);
        self.own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Adds what was admitted here, and sees what all have.
    async fn synchronise(&self) -> Result<(), StoreError> {
        let _looking = self.looking.lock().await;
        let own = self.own.load(Ordering::Relaxed);
        let add = i64::try_from(own).unwrap_or(i64::MAX);
        let key = Key { pk: "periodic".into(), sk: "counter".into() };
        let change = vec![Change::Add(TOTAL.into(), add)];
        let written = self.store.write(Write { key, when: vec![], change }).await?;
        let (Written::Applied(item) | Written::Refused(item)) = written;
        let total = item.and_then(|item| item.int(TOTAL)).unwrap_or(0);
        self.seen.store(u64::try_from(total).unwrap_or(0), Ordering::Relaxed);
        self.own.fetch_sub(own, Ordering::Relaxed);
        Ok(())
    }
}

async fn work(State(counter): State<Arc<Counter>>) -> StatusCode {
    match counter.admit() {
        true => StatusCode::OK,
        false => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// The shared counter, in the words of tallygate's report.
async fn usage(State(counter): State<Arc<Counter>>) -> Result<String, StatusCode> {
    counter.synchronise().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let used = counter.seen.load(Ordering::Relaxed);
    Ok(format!(
        r#"{{"meters": [{{"name": "requests", "used": {used}}}, {{"name": "tokens", "used": 0}}]}}"#
    ))
}
