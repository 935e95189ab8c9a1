//! What a service file names, over what is handed in for it.

use serde_json::Value;
use tallygate::GateBuilder;
use tallygate_notify_aws::hand_in;

use crate::server::{Got, Server, TOPIC};
use crate::{eventbridge, sns};

const PLANS: &str = "default-plan = \"free\"\n[plan.free]";

fn with(notify: &str) -> GateBuilder {
    let service = format!("identify = []\n[store]\nkind = \"memory\"\n[[notify]]\n{notify}");
    GateBuilder::from_text(&service).plans(PLANS)
}

/// What this destination of a service file is sent by a gate's test, and where it is signed for.
async fn sent(mut server: Server, name: &str, notify: &str) -> (Got, String) {
    let builder = hand_in(with(notify), server.sdk()).unwrap();
    let gate = builder.open().await.unwrap();
    assert_eq!(gate.test_alerts().await, [(name.to_owned(), Ok(()))]);
    gate.close().await.unwrap();
    let got = server.got().await;
    assert!(!server.has_more());
    // Credential=id/20261127/eu-west-1/sns/aws4_request
    let region = got.header("authorization").split('/').nth(2).unwrap().to_owned();
    (got, region)
}

#[tokio::test]
async fn a_topic_is_sent_to_in_the_region_of_its_arn() {
    let elsewhere = TOPIC.replace("eu-west-1", "us-east-2");
    for (topic, region) in [(TOPIC, "eu-west-1"), (&elsewhere, "us-east-2")] {
        let server = Server::start([sns::taken()]).await;
        let (got, signed) =
            sent(server, "ops", &format!("name = \"ops\"\nsns = \"{topic}\"")).await;
        assert_eq!((&*got.form()["TopicArn"], &*signed), (topic, region));
        assert_eq!(got.form()["type: String"], "tallygate.test");
    }
}

#[tokio::test]
async fn a_bus_is_sent_to_in_the_region_of_its_arn_or_in_the_programs() {
    let arn = "arn:aws:events:us-east-2:123456789012:event-bus/ops";
    for (bus, region) in [("default", "eu-west-1"), (arn, "us-east-2")] {
        let server = Server::start([eventbridge::taken()]).await;
        let (got, signed) = sent(server, "eventbridge", &format!("eventbridge = \"{bus}\"")).await;
        let body: Value = serde_json::from_str(&got.body).unwrap();
        assert_eq!((&body["Entries"][0]["EventBusName"], &*signed), (&bus.into(), region));
    }
}

#[tokio::test]
async fn a_service_file_without_them_is_left_as_it_is() {
    let server = Server::start([sns::taken()]).await;
    let builder = GateBuilder::from_text("identify = []\n[store]\nkind = \"memory\"").plans(PLANS);
    let gate = hand_in(builder, server.sdk()).unwrap().open().await.unwrap();
    assert_eq!(gate.test_alerts().await, []);
    gate.close().await.unwrap();
    assert!(hand_in(with("sns = \"alerts\""), server.sdk()).is_err(), "no ARN");
}
