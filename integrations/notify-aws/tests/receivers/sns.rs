//! Topics.

use std::time::Duration;

use tallygate::notify::{NotDelivered, Notifier};
use tallygate_notify_aws::SnsNotifier;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::server::{HUSH, Server, TOPIC, alert, config};

const SPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";

/// What SNS answers to a message that it has taken.
pub(crate) fn taken() -> (u16, String) {
    let id = "<MessageId>567910cd-659e-55d4-8ccb-5aaf14679dc0</MessageId>";
    let result = format!("<PublishResult>{id}</PublishResult>");
    (200, format!("<PublishResponse xmlns=\"{SPACE}\">{result}</PublishResponse>"))
}

pub(crate) fn error(status: u16, code: &str) -> (u16, String) {
    let about = format!("<Code>{code}</Code><Message>x-amz-security-token:{HUSH}</Message>");
    let error = format!("<Error><Type>Sender</Type>{about}</Error>");
    (status, format!("<ErrorResponse xmlns=\"{SPACE}\">{error}</ErrorResponse>"))
}

#[tokio::test]
async fn a_message_is_the_document_with_kind_and_id_beside_it() {
    let mut server = Server::start([taken()]).await;
    let alert = alert().await;
    assert_eq!(server.topic(TOPIC).deliver(alert.clone()).await, Ok(()));
    let form = server.got().await.form();
    let got: Vec<_> = form.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected = [
        ("Action", "Publish"),
        ("Message", &alert.payload),
        ("Subject", "a test of tallygate's alerts"),
        ("TopicArn", TOPIC),
        ("Version", "2010-03-31"),
        ("id: String", &alert.id),
        ("type: String", "tallygate.test"),
    ];
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_fifo_topic_gets_the_alerts_id_to_tell_repetitions_by() {
    let mut server = Server::start([taken()]).await;
    let alert = alert().await;
    let topic = server.topic("arn:aws:sns:eu-west-1:123456789012:alerts.fifo");
    for _ in 0..2 {
        assert_eq!(topic.deliver(alert.clone()).await, Ok(()));
        let form = server.got().await.form();
        assert_eq!(form["MessageDeduplicationId"], alert.id);
        assert_eq!(form["MessageGroupId"], "topic");
    }
}

#[tokio::test]
async fn a_subject_is_the_sentence_as_far_as_sns_takes_it() {
    let mut server = Server::start([taken()]).await;
    let mut alert = alert().await;
    let long = "acme ".repeat(40);
    for (text, subject) in [
        ("caf\u{e9} has used up jobs/day", Some("caf? has used up jobs/day")),
        (" \nacme\r\nBcc: all\t", Some("acme??Bcc: all")),
        (&long, Some(&long[..99])),
        (" \n", None),
    ] {
        alert.text = text.to_owned();
        assert_eq!(server.topic(TOPIC).deliver(alert.clone()).await, Ok(()));
        assert_eq!(server.got().await.form().get("Subject").map(|it| &**it), subject);
    }
}

#[tokio::test]
async fn an_answer_is_about_the_alert_or_about_the_topic() {
    let alert = alert().await;
    for (status, code, is_refused) in [
        (400, "InvalidParameter", true),
        (400, "ParameterValueInvalid", true),
        (400, "ValidationException", true),
        (413, "RequestEntityTooLarge", true),
        (400, "EndpointDisabled", false),
        (400, "KMSAccessDenied", false),
        (400, "KMSThrottling", false),
        (400, "Throttling", false),
        (429, "Throttled", false),
        (403, "AuthorizationError", false),
        (403, "ExpiredToken", false),
        (403, "InvalidClientTokenId", false),
        (403, "SignatureDoesNotMatch", false),
        (403, "InvalidSecurity", false),
        (404, "NotFound", false),
        (500, "InternalError", false),
        (503, "ServiceUnavailable", false),
    ] {
        let server = Server::start([error(status, code)]).await;
        let verdict = server.topic(TOPIC).deliver(alert.clone()).await.unwrap_err();
        let why = format!("SNS answered {status} {code}");
        let expected =
            if is_refused { NotDelivered::Refused(why) } else { NotDelivered::Later(why) };
        assert_eq!(verdict, expected);
    }
}

#[tokio::test]
async fn what_is_no_answer_of_sns_is_no_delivery() {
    let alert = alert().await;
    let nothing = "<PublishResponse><PublishResult></PublishResult></PublishResponse>";
    for (status, body) in [(200, "<html>a proxy</html>"), (200, ""), (200, nothing), (502, "hush")]
    {
        let server = Server::start([(status, body.to_owned())]).await;
        let verdict = server.topic(TOPIC).deliver(alert.clone()).await.unwrap_err();
        assert!(matches!(verdict, NotDelivered::Later(_)), "{status} {body}: {verdict:?}");
        let text = verdict.to_string();
        assert!(text.starts_with("SNS answered ") && !text.contains(HUSH), "{text}");
    }
}

#[tokio::test]
async fn a_topic_that_is_silent_is_tried_later() {
    let mut server = Server::start([(0, String::new())]).await;
    let begun = Instant::now();
    let verdict = server.topic(TOPIC).deliver(alert().await).await;
    let expected = NotDelivered::Later("SNS has not answered within 9s".to_owned());
    assert_eq!(verdict, Err(expected));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.got().await;
}

#[tokio::test]
async fn a_topic_that_is_not_reached_or_cannot_be_asked_is_tried_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = config(listener.local_addr().unwrap().port());
    drop(listener);
    let mut without = nowhere.to_builder();
    without.set_credentials_provider(None);
    for (config, why) in [
        (nowhere, "SNS cannot be reached, or has hung up"),
        (
            without.build(),
            "SNS was not asked: its client lacks credentials, a region or a connector",
        ),
    ] {
        let topic = SnsNotifier::new("topic", aws_sdk_sns::Client::new(&config), TOPIC);
        let verdict = topic.deliver(alert().await).await;
        assert_eq!(verdict, Err(NotDelivered::Later(why.to_owned())));
    }
}

#[tokio::test]
async fn a_notifier_shows_its_name_alone() {
    let server = Server::start([taken()]).await;
    assert_eq!(format!("{:?}", server.topic(TOPIC)), "SnsNotifier { name: \"topic\", .. }");
    assert_eq!(format!("{:?}", server.bus()), "EventBridgeNotifier { name: \"bus\", .. }");
}
