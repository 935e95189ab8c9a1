//! docs/alerts.md: a destination of the program's own.

use tallygate::notify::{NotDelivered, Notification, Notifier, NotifierFuture};
use tallygate::{Error, Gate};

struct Pager;

impl Notifier for Pager {
    fn name(&self) -> &str {
        "pager"
    }

    fn wants(&self, kind: &str) -> bool {
        kind == "tallygate.quota.exhausted"
    }

    fn deliver(&self, alert: Notification) -> NotifierFuture {
        Box::pin(async move {
            println!("{}: {}", alert.id, alert.text); // or what calls someone
            Ok::<(), NotDelivered>(())
        })
    }
}

async fn open() -> Result<Gate, Error> {
    Gate::builder("tallygate.toml").notifier(Pager).open().await
}
