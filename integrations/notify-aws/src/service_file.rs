//! The topics and event buses that a service file names.

use aws_types::SdkConfig;
use aws_types::region::Region;
use tallygate::{Error, GateBuilder};

#[cfg(feature = "eventbridge")]
use crate::EventBridgeNotifier;
#[cfg(feature = "sns")]
use crate::SnsNotifier;

/// Hands in what sends to the topics and the event buses that `[[notify]]` of the service file
/// names, each over a client of this configuration, and in the region of its ARN. Blocks while the
/// file is read.
///
/// What the service file names of a service whose feature is off here is left out, and the gate
/// does not open without it.
///
/// # Errors
///
/// As [`GateBuilder::sns_topics`].
pub fn hand_in(mut builder: GateBuilder, aws: &SdkConfig) -> Result<GateBuilder, Error> {
    #[cfg(feature = "sns")]
    for (name, topic) in builder.sns_topics()? {
        let client = aws_sdk_sns::Client::new(&in_region_of(&topic, aws));
        builder = builder.notifier(SnsNotifier::new(name, client, topic));
    }
    #[cfg(feature = "eventbridge")]
    for (name, bus) in builder.event_buses()? {
        let client = aws_sdk_eventbridge::Client::new(&in_region_of(&bus, aws));
        builder = builder.notifier(EventBridgeNotifier::new(name, client, bus));
    }
    Ok(builder)
}

/// The configuration for what has this ARN; as it is for a name.
fn in_region_of(address: &str, aws: &SdkConfig) -> SdkConfig {
    match address.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)) {
        Some(region) => aws.to_builder().region(Region::new(region.to_owned())).build(),
        None => aws.clone(),
    }
}
