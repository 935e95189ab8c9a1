//! tallygate's alerts to Amazon SNS and EventBridge.
//!
//! The service file names where they go:
//!
//! ```toml
//! [[notify]]
//! sns = "arn:aws:sns:eu-west-1:123456789012:alerts"
//!
//! [[notify]]
//! eventbridge = "default"
//! ```
//!
//! and the program hands in what sends there ([`hand_in`]):
//!
//! ```no_run
//! use aws_config::BehaviorVersion;
//! use tallygate::{Error, Gate};
//!
//! async fn open() -> Result<Gate, Error> {
//!     let aws = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
//!     tallygate_notify_aws::hand_in(Gate::builder("tallygate.toml"), &aws)?.open().await
//! }
//! ```
//!
//! [`SnsNotifier`] and [`EventBridgeNotifier`] are for a program that names them itself, or makes
//! the clients.
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
#[cfg(any(feature = "eventbridge", feature = "sns"))]
mod service_file;
#[cfg(feature = "sns")]
mod sns;

#[cfg(feature = "eventbridge")]
pub use eventbridge::EventBridgeNotifier;
#[cfg(any(feature = "eventbridge", feature = "sns"))]
pub use service_file::hand_in;
#[cfg(feature = "sns")]
pub use sns::SnsNotifier;
