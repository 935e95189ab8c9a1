//! What docs/alerts.md shows of the two.

use aws_config::BehaviorVersion;
use tallygate::{Error, Gate};
use tallygate_notify_aws::{EventBridgeNotifier, SnsNotifier};

#[allow(dead_code, reason = "it would look for the credentials of this machine")]
async fn open(topic_arn: &str) -> Result<Gate, Error> {
    let aws = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    let topic = SnsNotifier::new("topic", aws_sdk_sns::Client::new(&aws), topic_arn);
    let events = aws_sdk_eventbridge::Client::new(&aws);
    let bus = EventBridgeNotifier::new("bus", events, "default");
    Gate::builder("tallygate.toml").notifier(topic).notifier(bus).open().await
}
