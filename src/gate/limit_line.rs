//! Writes the limit headers of an admitted request straight from the readings of its limits. Every
//! response pays for them, so what does not change (names, limits) is written once for each route.

use super::Inner;
use super::standing::LimitReader;
use crate::admission::permit::Hold;
use crate::clock::Now;
use crate::policy::taken::Limit;
use crate::policy::{RouteLine, RoutePolicy};
use crate::wire::{self, HeaderItem, HeaderText, PolicyText};

impl Inner {
    /// Writes the value of `RateLimit` (nothing, if there is nothing to tell), and hands on that of
    /// `RateLimit-Policy`.
    #[inline]
    pub(crate) fn write_limits(
        &self,
        hold: &Hold,
        now: Now,
        line: &mut HeaderText,
        policy: impl FnOnce(&PolicyText),
    ) {
        let view = LimitReader::of(self, hold, now);
        let rules = hold.of.rules();
        let route = rules.line.get_or_init(|| RouteLine::new(&view, rules));
        let mut absent = false;
        for (limit, item) in &route.items {
            match view.read(*limit) {
                Some(reading) => wire::write_item(line, item, reading),
                None => absent = true,
            }
        }
        if absent {
            route.policy_of(&view).as_ref().map(policy);
        } else {
            route.policy.as_ref().map(policy);
        }
    }

    /// The same of the limit nearest to its end alone.
    pub(crate) fn write_nearest(
        &self,
        hold: &Hold,
        now: Now,
        line: &mut HeaderText,
        policy: impl FnOnce(&PolicyText),
    ) {
        let view = LimitReader::of(self, hold, now);
        let rules = hold.of.rules();
        let route = rules.line.get_or_init(|| RouteLine::new(&view, rules));
        let readings = route.items.iter();
        let readings = readings.filter_map(|(limit, item)| Some((item, view.read(*limit)?)));
        if let Some((item, reading)) = wire::nearest(readings) {
            wire::write_item(line, item, reading);
            policy(item.policy_alone());
        }
    }
}

impl RouteLine {
    fn new(view: &LimitReader<'_>, rules: &RoutePolicy) -> Self {
        let unused = |limit| Some((limit, HeaderItem::new(&view.unused(limit)?)));
        let items: Vec<(Limit, HeaderItem)> = rules.limits().filter_map(unused).collect();
        let policy = join(items.iter().map(|(_, item)| item)).map(PolicyText::new);
        Self { policy, items }
    }

    /// The policy of the limits that hold for this caller.
    fn policy_of(&self, view: &LimitReader<'_>) -> Option<PolicyText> {
        let held = self.items.iter().filter(|(limit, _)| view.read(*limit).is_some());
        join(held.map(|(_, item)| item)).map(PolicyText::new)
    }
}

fn join<'a>(items: impl Iterator<Item = &'a HeaderItem>) -> Option<String> {
    let policy = items.map(HeaderItem::policy).collect::<Vec<_>>().join(", ");
    (!policy.is_empty()).then_some(policy)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Uri};

    use super::*;
    use crate::gate::{Answer, Gate, Step, Waited};
    use crate::middleware::HttpView;
    use crate::testing;
    use crate::wire::{Call, HeaderStyle};

    const PLANS: &str = r#"
        default-plan = "team"
        [meter.egress]
        count = "response-bytes"
        hold  = "64KB"
        [meter.jobs]
        [plan.team]
        rate.default   = ["50/s burst 200", "20/s per user"]
        quota.requests = ["100/day", "40/day per user"]
        quota.egress   = { limit = "1GB/month", over = "allow" }
        quota.jobs     = "10"
    "#;

    /// A request of this user, admitted.
    async fn admit(gate: &Gate, user: Option<&str>) -> crate::gate::Running {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("acme"));
        if let Some(user) = user {
            headers.insert("x-user", HeaderValue::from_str(user).unwrap());
        }
        let (method, uri) = (Method::GET, Uri::from_static("/v1/search"));
        let mut waited = Waited::default();
        loop {
            let view = HttpView::new(&method, &uri, &headers, None);
            match gate.admit_request(&view, waited) {
                Step::Wait(pending) => waited = pending.await,
                Step::Done(Answer::Admit(running)) => return running,
                other => panic!("not admitted: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn the_line_is_what_the_states_say_for_every_caller() {
        let (gate, clock) = testing::gate(PLANS);
        for user in [None, Some("ann"), Some("bob"), None] {
            for _ in 0..3 {
                let running = admit(&gate, user).await;
                let now = clock_now(&gate);
                let states = gate.inner.limit_states(&running.hold, now);
                let mut expected = String::new();
                wire::write_ratelimit(&mut expected, states.iter()).unwrap();
                let mut line = HeaderText::new();
                let mut policy = None;
                gate.inner.write_limits(&running.hold, now, &mut line, |text| {
                    policy = Some(text.as_str().to_owned());
                });
                assert_eq!(std::str::from_utf8(&line).unwrap(), expected);
                let policy = policy.unwrap();
                assert_eq!(policy, wire::policy_header(states.iter()).unwrap());
                let mut pairs = Vec::new();
                wire::limit_headers(&states, HeaderStyle::Nearest, Call::at(0), &mut pairs);
                let mut nearest = HeaderText::new();
                let mut of_nearest = None;
                gate.inner.write_nearest(&running.hold, now, &mut nearest, |text| {
                    of_nearest = Some(text.as_str().to_owned());
                });
                let nearest = String::from_utf8(nearest).unwrap();
                let own = [("ratelimit", nearest), ("ratelimit-policy", of_nearest.unwrap())];
                assert_eq!(pairs, own);
                // Those without a user are held to such limits together.
                assert!(policy.contains("/user"), "{policy}");
                clock.advance(std::time::Duration::from_millis(70));
            }
        }
    }

    fn clock_now(gate: &Gate) -> Now {
        gate.inner.clock.now()
    }
}
