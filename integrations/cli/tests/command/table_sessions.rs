//! The sessions that are recorded over a file of redb, over a table of DynamoDB Local.

use test_support::skips::needed;

use crate::home::Home;
use crate::session::{plays, plays_over_another};
use crate::sessions::file;

/// A folder whose service has its store in a table of this name, which is made.
pub(crate) async fn home(server: &dynamodb_local::Server, table: &str) -> Home {
    let client = crate::table::client(server.endpoint()).await;
    tallygate::store::DynamoDb::create_table(&client, table, None).await.unwrap();
    let mut home = Home::empty();
    home.set("AWS_ENDPOINT_URL_DYNAMODB", server.endpoint());
    home.set("AWS_REGION", "us-east-1");
    home.set("AWS_ACCESS_KEY_ID", "service");
    home.set("AWS_SECRET_ACCESS_KEY", "x");
    home.set("TALLYGATE_PEPPER", &"ab".repeat(32));
    // Stronger than the service file that a session writes.
    home.set("TALLYGATE__STORE__KIND", "dynamodb");
    home.set("TALLYGATE__STORE__TABLE", table);
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_print_the_same_over_a_table() {
    let test = "table_sessions::sessions_print_the_same_over_a_table";
    let Some(server) = needed(test, dynamodb_local::shared()) else { return };
    for name in ["tenants", "keys", "operators", "usage", "explain", "json"] {
        let home = home(server, &format!("session-{name}")).await;
        plays_over_another(&home, &file(&format!("{name}.txt")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_a_table_alone() {
    let test = "table_sessions::what_is_of_a_table_alone";
    let Some(server) = needed(test, dynamodb_local::shared()) else { return };
    let mut home = home(server, "session-table").await;
    home.set("AWS_ACCESS_KEY_ID", "status");
    plays(&home, &file("table.txt"));
}
