//! Sessions that begin with what only a service makes: letters it has kept, and a customer of an
//! hour. Over a file of redb, and over a table of DynamoDB Local.

use tallygate::{Gate, GateBuilder};

use crate::home::Home;
use crate::session::plays;
use crate::sessions::file;

/// A home, and the gates of the service in it.
struct Place {
    home: Home,
    #[cfg(feature = "dynamodb")]
    table: Option<tallygate::store::DynamoDb>,
}

impl Place {
    fn file() -> Self {
        Self {
            home: Home::empty(),
            #[cfg(feature = "dynamodb")]
            table: None,
        }
    }

    /// `None` where DynamoDB Local cannot be had.
    #[cfg(feature = "dynamodb")]
    async fn table(name: &str) -> Option<Self> {
        let server = test_support::skips::needed(name, dynamodb_local::shared())?;
        let home = crate::table_sessions::home(server, name).await;
        let client = crate::table::client(server.endpoint()).await;
        let table = Some(tallygate::store::DynamoDb::new(client, name));
        Some(Self { home, table })
    }

    /// The service, as far as a command does not do what it does.
    fn builder(&self, plans: &str) -> GateBuilder {
        let path = self.home.path("tallygate.redb");
        let text = format!("identify = []\n[store]\npath = {:?}\n", path.to_str().unwrap());
        #[cfg(feature = "dynamodb")]
        if let Some(table) = &self.table {
            let text = "identify = []\n[store]\nkind = \"memory\"\n";
            return GateBuilder::from_text(text).plans(plans).store(table.clone());
        }
        GateBuilder::from_text(&text).plans(plans)
    }

    fn plays(&self, session: &std::path::Path) {
        #[cfg(feature = "dynamodb")]
        if self.table.is_some() {
            return crate::session::plays_over_another(&self.home, session);
        }
        plays(&self.home, session);
    }

    async fn open(&self, plans: &str) -> Gate {
        self.builder(plans).open().await.unwrap()
    }
}

const LETTERS: &str = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"9/day\"\n";

async fn letters(place: &Place) {
    place.home.write("plans.toml", LETTERS);
    place.home.run(&["tenant", "create", "acme"]).ok();
    let gate = place.open(LETTERS).await;
    let scan = r#"{"id":"e1","TenantID":"acme","ProductCode":"scan-9","Quantity":3}"#;
    assert!(gate.ingest().messages(&[scan, "no JSON"]).await.iter().all(Result::is_err));
    gate.close().await.unwrap();
    place.plays(&file("dlq.txt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_a_service_has_kept() {
    letters(&Place::file()).await;
    #[cfg(feature = "dynamodb")]
    if let Some(place) = Place::table("session-dlq").await {
        letters(&place).await;
    }
}

#[cfg(feature = "stripe")]
mod billing {
    use stripe_sim::{Settings, Sim};
    use tallygate::ManualClock;

    use super::*;

    const PLANS: &str = "default-plan = \"free\"\n\
                         [meter.calls]\nstripe = { event = \"calls\", send = \"all\" }\n\
                         [meter.scans]\nstripe = { event = \"scans\", send = \"all\" }\n\
                         [plan.free]\n\
                         quota.calls = { limit = \"0/cycle\", over = \"bill\" }\n\
                         quota.scans = { limit = \"0/cycle\", over = \"bill\" }\n";

    /// Globex has been a customer for an hour: there are minutes for several entries.
    async fn billed(mut place: Place) {
        let sim = Sim::start(Settings::default()).await.unwrap();
        let service = "[stripe]\nkey = { env = \"STRIPE_SECRET_KEY\" }\napi-base = \"BASE\"\n";
        place.home.write("plans.toml", PLANS);
        place.home.write("tallygate.toml", &service.replace("BASE", &sim.url()));
        place.home.set("STRIPE_SECRET_KEY", "sk_test_x");
        let customer = sim.call("POST", "/v1/customers", "name=globex");
        let clock = ManualClock::at_unix_ms((sim.now() - 3_600) * 1_000);
        let gate = place.builder(PLANS).clock(clock).open().await.unwrap();
        let account = customer["id"].as_str().unwrap().to_owned();
        let globex = gate.directory().tenant("globex").account(Some(account.clone()));
        globex.save().await.unwrap();
        gate.close().await.unwrap();
        let checkout = serde_json::json!({
            "object": "checkout.session", "id": "cs_1", "customer": account, "mode": "payment",
            "metadata": { "tallygate_tenant": "globex" },
        });
        let event = sim.emit("checkout.session.completed", &checkout);
        place.home.write("event.json", &event.to_string());
        place.plays(&file("billing.txt"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_billed() {
        billed(Place::file()).await;
        #[cfg(feature = "dynamodb")]
        if let Some(place) = Place::table("session-billing").await {
            billed(place).await;
        }
    }
}
