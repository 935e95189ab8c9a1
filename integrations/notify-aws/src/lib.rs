//! tallygate's alerts to Amazon SNS and EventBridge.
//!
//! ```no_run
//! use aws_config::BehaviorVersion;
//! use tallygate::{Error, Gate};
//! use tallygate_notify_aws::{EventBridgeNotifier, SnsNotifier};
//!
//! async fn open(topic_arn: &str) -> Result<Gate, Error> {
//!     let aws = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
//!     let topic = SnsNotifier::new("topic", aws_sdk_sns::Client::new(&aws), topic_arn);
//!     let events = aws_sdk_eventbridge::Client::new(&aws);
//!     let bus = EventBridgeNotifier::new("bus", events, "default");
//!     Gate::builder("tallygate.toml").notifier(topic).notifier(bus).open().await
//! }
//! ```
//!
//! What is promised of alerts ([`Notifier`](tallygate::notify::Notifier)) holds for both: each is
//! kept in the store until it was taken, in order. How AWS is reached is the host's: its clients
//! bring TLS, region, credentials and retries.
//!
//! An error is a verdict with the status and the code that the service has answered: nothing else
//! of an answer, for the text of some repeats the signed request.

#[cfg(any(feature = "eventbridge", feature = "sns"))]
mod answer;
#[cfg(feature = "eventbridge")]
mod eventbridge;
#[cfg(feature = "sns")]
mod sns;

#[cfg(feature = "eventbridge")]
pub use eventbridge::EventBridgeNotifier;
#[cfg(feature = "sns")]
pub use sns::SnsNotifier;
