//! A topic of SNS: a message for each alert.

use std::fmt;

use aws_sdk_sns::Client;
use aws_sdk_sns::operation::publish::builders::PublishFluentBuilder;
use aws_sdk_sns::types::MessageAttributeValue;
use tallygate::notify::{NotDelivered, Notification, Notifier, NotifierFuture};

use crate::answer;

const SERVICE: &str = "SNS";

/// Longest subject: SNS takes less than 100 characters.
const MAX_SUBJECT: usize = 99;

/// Alerts to a topic of Amazon SNS.
///
/// A message is the JSON document of a webhook. It has the attributes `type` and `id`, of which the
/// policy of a subscription filters by the first, and as its subject the alert's sentence, for
/// subscriptions by e-mail. On a FIFO topic its id is the deduplication id, and the destination's
/// name the message group.
pub struct SnsNotifier {
    name: String,
    client: Client,
    topic_arn: String,
}

impl SnsNotifier {
    /// A destination of this name, as [`Notifier::name`] has it, with the host's client. Services
    /// that share a FIFO topic need names of their own: none then waits in the group of another.
    pub fn new(name: impl Into<String>, client: Client, topic_arn: impl Into<String>) -> Self {
        Self { name: name.into(), client, topic_arn: topic_arn.into() }
    }

    fn message(&self, alert: Notification) -> Option<PublishFluentBuilder> {
        let call = self
            .client
            .publish()
            .topic_arn(&self.topic_arn)
            .set_subject(subject(&alert.text))
            .message_attributes("type", attribute(&alert.kind)?)
            .message_attributes("id", attribute(&alert.id)?)
            .message(alert.payload);
        if !self.topic_arn.ends_with(".fifo") {
            return Some(call);
        }
        Some(call.message_group_id(&self.name).message_deduplication_id(alert.id))
    }
}

impl Notifier for SnsNotifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver(&self, alert: Notification) -> NotifierFuture {
        let call = self.message(alert);
        Box::pin(async move {
            let call = call.ok_or_else(|| {
                NotDelivered::Refused("the alert makes no valid message".to_owned())
            })?;
            match answer::of(SERVICE, call.send()).await?.message_id() {
                Some(_) => Ok(()),
                None => Err(answer::later(SERVICE, "answered without the id of a message")),
            }
        })
    }
}

fn attribute(value: &str) -> Option<MessageAttributeValue> {
    MessageAttributeValue::builder().data_type("String").string_value(value).build().ok()
}

/// The alert's sentence in what SNS takes as a subject: ASCII without control characters, and no
/// space in front. What is cut off or replaced is whole in the document.
fn subject(text: &str) -> Option<String> {
    let plain = |c| if matches!(c, ' '..='~') { c } else { '?' };
    let subject: String = text.trim().chars().map(plain).take(MAX_SUBJECT).collect();
    (!subject.is_empty()).then_some(subject)
}

impl fmt::Debug for SnsNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnsNotifier").field("name", &self.name).finish_non_exhaustive()
    }
}
