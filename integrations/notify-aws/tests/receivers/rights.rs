//! What docs/alerts.md gives as a policy is what is called.

use std::collections::BTreeSet;

use serde_json::Value;
use tallygate::notify::Notifier;

use crate::server::{Server, TOPIC, alert};
use crate::{eventbridge, sns};

const PAGE: &str = include_str!("../../../../docs/alerts.md");

#[tokio::test]
async fn the_policy_of_the_page_has_each_action_that_is_called_and_no_other() {
    let mut blocks = PAGE.split("```json\n").skip(1).filter_map(|it| it.split("```").next());
    let policy = blocks.find(|it| it.contains("Statement")).unwrap();
    let policy: Value = serde_json::from_str(policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let allowed: BTreeSet<_> = statements.map(|it| it["Action"].as_str().unwrap()).collect();

    let alert = alert().await;
    let mut server = Server::start([sns::taken(), eventbridge::taken()]).await;
    server.topic(TOPIC).deliver(alert.clone()).await.unwrap();
    let publish = format!("sns:{}", server.got().await.form()["Action"]);
    server.bus().deliver(alert).await.unwrap();
    let got = server.got().await;
    let put = format!("events:{}", got.header("x-amz-target").trim_start_matches("AWSEvents."));
    assert_eq!(allowed, BTreeSet::from([&*publish, &*put]));
}
