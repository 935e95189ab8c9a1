//! What docs/alerts.md and the README show.

use aws_config::BehaviorVersion;
use tallygate::{Error, Gate};

#[allow(dead_code, reason = "it would look for the credentials of this machine")]
async fn open() -> Result<Gate, Error> {
    let aws = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    tallygate_notify_aws::hand_in(Gate::builder("tallygate.toml"), &aws)?.open().await
}
