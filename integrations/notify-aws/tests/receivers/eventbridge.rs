//! Event buses.

use serde_json::{Value, json};
use tallygate::notify::{NotDelivered, Notifier};

use crate::server::{HUSH, Server, alert};

/// What EventBridge answers to an event that it has taken.
pub(crate) fn taken() -> (u16, String) {
    let entry = json!({"EventId": "11710aed-b79e-4468-a20b-bb3c0c3b4860"});
    (200, json!({"FailedEntryCount": 0, "Entries": [entry]}).to_string())
}

/// What it answers to a request in which the event was not taken.
pub(crate) fn failed(code: &str) -> (u16, String) {
    let entry = json!({"ErrorCode": code, "ErrorMessage": HUSH});
    (200, json!({"FailedEntryCount": 1, "Entries": [entry]}).to_string())
}

fn error(status: u16, code: &str) -> (u16, String) {
    (status, json!({"__type": format!("com.amazonaws.events#{code}"), "message": HUSH}).to_string())
}

#[tokio::test]
async fn an_event_is_the_document_with_its_id() {
    let mut server = Server::start([taken()]).await;
    let alert = alert().await;
    assert_eq!(server.bus().deliver(alert.clone()).await, Ok(()));
    let got = server.got().await;
    assert_eq!(got.header("x-amz-target"), "AWSEvents.PutEvents");
    let mut body: Value = serde_json::from_str(&got.body).unwrap();
    let entry = &mut body["Entries"][0];
    let detail: Value = serde_json::from_str(entry["Detail"].take().as_str().unwrap()).unwrap();
    let mut document: Value = serde_json::from_str(&alert.payload).unwrap();
    document["id"] = alert.id.clone().into();
    assert_eq!(detail, document);
    let time = entry["Time"].take().as_f64().unwrap();
    let at = alert.at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((time - at).abs() < 0.001, "{time} {at}");
    let expected = json!({
        "EventBusName": "ops", "Source": "tallygate", "DetailType": "tallygate.test",
        "Detail": null, "Time": null,
    });
    assert_eq!(body, json!({"Entries": [expected]}));
}

#[tokio::test]
async fn an_event_that_was_not_taken_is_a_failure_though_the_answer_is_200() {
    let alert = alert().await;
    for (code, is_refused) in [
        ("MalformedDetail", true),
        ("InvalidArgument", true),
        ("RedactionFailure", true),
        ("ThrottlingException", false),
        ("InternalFailure", false),
        ("InternalException", false),
        ("AccessDeniedException", false),
        ("InvalidAccountIdException", false),
        ("NotAuthorizedForSourceException", false),
        ("NotAuthorizedForDetailTypeException", false),
    ] {
        let server = Server::start([failed(code)]).await;
        let verdict = server.bus().deliver(alert.clone()).await.unwrap_err();
        let why = format!("EventBridge answered {code}");
        let expected =
            if is_refused { NotDelivered::Refused(why) } else { NotDelivered::Later(why) };
        assert_eq!(verdict, expected);
    }
}

#[tokio::test]
async fn an_answer_is_about_the_alert_or_about_the_bus() {
    let alert = alert().await;
    for (status, code, is_refused) in [
        (400, "ValidationException", true),
        (413, "RequestEntityTooLarge", true),
        (400, "ThrottlingException", false),
        (400, "AccessDeniedException", false),
        (400, "ExpiredTokenException", false),
        (400, "UnrecognizedClientException", false),
        (400, "InvalidSignatureException", false),
        (400, "ResourceNotFoundException", false),
        (500, "InternalException", false),
        (503, "ServiceUnavailable", false),
    ] {
        let server = Server::start([error(status, code)]).await;
        let verdict = server.bus().deliver(alert.clone()).await.unwrap_err();
        let why = format!("EventBridge answered {status} {code}");
        let expected =
            if is_refused { NotDelivered::Refused(why) } else { NotDelivered::Later(why) };
        assert_eq!(verdict, expected);
    }
}

#[tokio::test]
async fn what_names_no_event_is_no_delivery() {
    let alert = alert().await;
    for body in
        ["{}", "", "<html>", "{\"FailedEntryCount\":0,\"Entries\":[{}]}", "{\"Entries\":[]}"]
    {
        let server = Server::start([(200, body.to_owned())]).await;
        let verdict = server.bus().deliver(alert.clone()).await.unwrap_err();
        let text = verdict.to_string();
        assert!(matches!(verdict, NotDelivered::Later(_)), "{body}: {verdict:?}");
        assert!(text.starts_with("EventBridge answered "), "{text}");
    }
}
