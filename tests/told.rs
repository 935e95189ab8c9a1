//! Which instant the limit headers tell of: now, for a handler that has waited; the admission, for
//! one that was ready at once, which costs one reading of the clock less. Time is in hand.

#![cfg(all(feature = "tower", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tollgate::middleware::TollgateLayer;
use tollgate::{Clock, ManualClock, Now, testing};
use tower::{Layer, Service, service_fn};

const PLANS: &str = r#"
    default-plan = "free"
    [plan.free]
    rate.default = "10/min burst 10"
"#;

/// A clock that counts how often it is read.
#[derive(Clone)]
struct Counted(ManualClock, Arc<AtomicUsize>);

impl Clock for Counted {
    fn now(&self) -> Now {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.now()
    }
}

impl Counted {
    fn readings(&self) -> usize {
        self.1.swap(0, Ordering::Relaxed)
    }
}

/// The `RateLimit` of a request whose handler takes 30 seconds, and how often the clock was read.
/// The tenant has made three requests before.
async fn told(waits: bool, extensions: bool) -> (String, usize) {
    let clock = Counted(ManualClock::at_unix_ms(testing::START_MS), Arc::default());
    let gate = testing::builder(PLANS).clock(clock.clone()).open().await.unwrap();
    let layer = TollgateLayer::new(&gate);
    let layer = if extensions { layer } else { layer.without_extensions() };
    let time = clock.0.clone();
    let mut service = layer.layer(service_fn(move |request: Request<Empty<Bytes>>| {
        let time = time.clone();
        async move {
            if waits {
                tokio::task::yield_now().await;
            }
            if request.uri() == "/slow" {
                time.advance(Duration::from_secs(30));
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    }));
    let request = |to: &str| Request::get(to).header("x-tenant", "acme").body(Empty::new());
    for _ in 0..3 {
        service.call(request("/").unwrap()).await.unwrap();
    }
    clock.readings();
    let response = service.call(request("/slow").unwrap()).await.unwrap();
    let readings = clock.readings();
    (response.headers()["ratelimit"].to_str().unwrap().to_owned(), readings)
}

#[tokio::test]
async fn after_a_wait_the_headers_tell_what_is_left_now() {
    for extensions in [false, true] {
        // Four of ten are gone, and five come in half a minute. How often the clock is read says
        // nothing here: others read it while this waits.
        assert_eq!(told(true, extensions).await.0, "\"default\";r=10;t=0");
    }
}

#[tokio::test]
async fn a_handler_that_was_ready_at_once_costs_no_second_look_at_the_clock() {
    for extensions in [false, true] {
        assert_eq!(told(false, extensions).await, ("\"default\";r=6;t=24".to_owned(), 1));
    }
}
