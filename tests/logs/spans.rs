//! The spans and events of a request's admission.

use std::sync::{Arc, Mutex};

use tallygate::telemetry::{EVENT_REFUSED, SPAN_CHECK};
use tallygate::testing;
use test_support::requests::{self, Call};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata};

/// Records this crate's spans and events from its level up.
#[derive(Clone)]
struct Log {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    fn say(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("tallygate")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.say(span.metadata().name().to_owned());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.say(event.metadata().target().to_owned());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.say(format!("{}={value:?}", field.name()));
    }
}

/// The lines for a request that is admitted and one that is refused.
fn heard(level: Level) -> Vec<String> {
    let log = Log { level, lines: Arc::default() };
    tracing::subscriber::with_default(log.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"1/day\"";
            let (gate, _clock) = testing::gate(plans);
            let request = Call::new("GET", "/", [("x-tenant", "acme")]);
            let request = request.from(std::net::Ipv4Addr::LOCALHOST.into());
            for status in [200, 429] {
                let step = requests::asked(&gate, &request).await;
                let is_refused = matches!(step, tallygate::adapter::Answer::Refuse(_));
                assert_eq!(is_refused, status == 429);
            }
        });
    });
    log.lines.lock().unwrap().clone()
}

#[test]
fn an_admission_is_told_at_debug_and_costs_no_line_above_it() {
    let _turn = crate::turn();
    let lines = heard(Level::DEBUG);
    for line in [
        SPAN_CHECK,
        "tallygate.tenant=\"acme\"",
        "tallygate.plan=\"free\"",
        "tallygate.outcome=\"waits\"",
        "tallygate.outcome=\"allowed\"",
        "tallygate.outcome=\"refused\"",
        EVENT_REFUSED,
    ] {
        assert!(lines.iter().any(|said| said == line), "{line} is not in {lines:#?}");
    }
    let lines = heard(Level::INFO);
    assert!(!lines.iter().any(|said| said == SPAN_CHECK || said == EVENT_REFUSED), "{lines:#?}");
}
