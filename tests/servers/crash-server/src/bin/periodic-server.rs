//! A baseline for comparison with tallygate: plain periodic synchronisation, as in many limiters.
//!
//! Each process counts what it admits in memory, adds that to one shared counter every second, and
//! refuses once the total it last saw, plus its own count since, has reached the limit. What others
//! admit between two synchronisations is unknown: that is the overshoot. A killed process loses
//! what it has not added yet, so the others go on too long. (An addition whose answer is lost would
//! be made twice: a second flaw of the method, which nothing here provokes.)
//!
//! `PERIODIC_LIMIT` and `PERIODIC_TABLE` set the limit and the table. It answers as `crash-server`
//! does.

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

/// Interval between synchronisations.
const EVERY: Duration = Duration::from_secs(1);

const TOTAL: &str = "total";

struct Counter {
    store: DynamoDb,
    limit: u64,
    /// The total at the last synchronisation, and the requests admitted here since.
    seen: AtomicU64,
    own: AtomicU64,
    /// Held while synchronising: adding the same requests twice would count them twice.
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

    /// Adds the requests admitted here, and reads the total of all.
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

/// The shared counter, in the format of tallygate's report.
async fn usage(State(counter): State<Arc<Counter>>) -> Result<String, StatusCode> {
    counter.synchronise().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let used = counter.seen.load(Ordering::Relaxed);
    Ok(format!(
        r#"{{"meters": [{{"name": "requests", "used": {used}}}, {{"name": "tokens", "used": 0}}]}}"#
    ))
}
