//! Windows across a change of the time zone: the running one continues to a boundary of the new
//! zone, so that nothing counted in it is granted a second time.
//!
//! It ends at the new zone's boundary nearest to its old end. If that one has already passed, it
//! ends as planned, and the new zone's next window begins there.

use super::{Every, Window, Zone};
use crate::catalog::Anchors;

impl Every {
    /// The window containing `at_ms` (Unix milliseconds). Calendar windows turn over in `zone`;
    /// `cycle` and `term` on their anchors, at the anchor's local time of day; a subscription's
    /// cycle at its time of day in UTC.
    pub(crate) fn window(self, at_ms: i64, zone: &Zone, anchors: &Anchors) -> Window {
        let is_cycle = self == Every::Cycle || self == Every::Term && anchors.term.is_none();
        if is_cycle && anchors.in_utc {
            return self.within(at_ms, &Zone::utc(), anchors);
        }
        let of_zone = |at_ms| self.within(at_ms, zone, anchors);
        let Some((before, left_ms)) = zone.before().filter(|_| self != Every::Once) else {
            return of_zone(at_ms);
        };
        let running = self.window(left_ms, before, anchors);
        let turn_ms = turn(running, of_zone(running.end_ms), left_ms);
        if at_ms >= turn_ms {
            let window = of_zone(at_ms);
            return Window { start_ms: window.start_ms.max(turn_ms), ..window };
        }
        if at_ms >= running.start_ms {
            return Window { end_ms: turn_ms, ..running };
        }
        self.window(at_ms, before, anchors)
    }
}

/// The end of the window that ran when the zone was left. `next` is the new zone's window at its
/// old end.
fn turn(running: Window, next: Window, left_ms: i64) -> i64 {
    let since = running.end_ms.saturating_sub(next.start_ms);
    let until = next.end_ms.saturating_sub(running.end_ms);
    match () {
        () if until < since => next.end_ms,
        () if next.start_ms > left_ms => next.start_ms,
        () => running.end_ms,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const EVERY: [Every; 5] = [Every::Day, Every::Week, Every::Month, Every::Year, Every::Cycle];
    const ZONES: [&str; 6] = [
        "UTC",
        "America/New_York",
        "Asia/Tokyo",
        "Australia/Lord_Howe",
        "Pacific/Kiritimati",
        "Pacific/Niue",
    ];

    fn zone(name: &str) -> Zone {
        Zone::new(name).unwrap()
    }

    fn ms(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    fn pair(window: Window) -> (String, String) {
        let text = |at| jiff::Timestamp::from_millisecond(at).unwrap().to_string();
        (text(window.start_ms), text(window.end_ms))
    }

    #[test]
    fn a_month_that_runs_goes_on_to_the_nearest_boundary() {
        let anchors = Anchors { cycle_ms: 0, in_utc: false, term: None };
        let cases = [
            // To the west it ends five hours later, to the east nine hours earlier.
            ("America/New_York", "2026-11-20T12:00:00Z", "2026-12-01T05:00:00Z"),
            ("Asia/Tokyo", "2026-11-20T12:00:00Z", "2026-11-30T15:00:00Z"),
            // There it was December already: November ends as planned.
            ("Asia/Tokyo", "2026-11-30T20:00:00Z", "2026-12-01T00:00:00Z"),
        ];
        for (to, at, end) in cases {
            let changed = zone(to).after(zone("UTC"), ms(at));
            let running = Every::Month.window(ms(at), &changed, &anchors);
            assert_eq!(pair(running), ("2026-11-01T00:00:00Z".into(), end.into()), "{to} {at}");
            let next = Every::Month.window(running.end_ms, &changed, &anchors);
            assert_eq!(next.start_ms, running.end_ms);
            let after = Every::Month.window(next.end_ms, &changed, &anchors);
            assert_eq!(after, Every::Month.window(next.end_ms, &zone(to), &anchors));
        }
    }

    #[test]
    fn a_subscriptions_cycle_turns_in_utc_whatever_the_zone() {
        let anchors = Anchors { cycle_ms: ms("2026-01-31T02:00:00Z"), in_utc: true, term: None };
        let west = zone("America/New_York").after(zone("Asia/Tokyo"), ms("2026-04-20T00:00:00Z"));
        let ends = ("2026-03-31T02:00:00Z".to_owned(), "2026-04-30T02:00:00Z".to_owned());
        for every in [Every::Cycle, Every::Term] {
            let window = every.window(ms("2026-04-30T01:59:59Z"), &west, &anchors);
            assert_eq!(pair(window), ends);
        }
    }

    proptest! {
        /// However often the zone changes, windows tile time, the running one keeps its start, and
        /// none is much shorter or longer than it should be.
        #[test]
        fn windows_tile_over_changes(
            every in 0..EVERY.len(), first in 0..ZONES.len(), from_h in 400_000i64..500_000,
            changes in prop::collection::vec((48i64..2_000, 0..ZONES.len()), 1..4),
            cycle_h in 390_000i64..400_000,
        ) {
            let anchors = Anchors { cycle_ms: cycle_h * HOUR_MS, in_utc: false, term: None };
            let every = EVERY[every];
            let (mut changed, mut at_ms) = (zone(ZONES[first]), from_h * HOUR_MS);
            for (gap_h, to) in &changes {
                at_ms += gap_h * HOUR_MS;
                let before = every.window(at_ms, &changed, &anchors);
                changed = zone(ZONES[*to]).after(changed, at_ms);
                prop_assert_eq!(every.window(at_ms, &changed, &anchors).start_ms, before.start_ms);
            }
            let mut at_ms = from_h * HOUR_MS;
            let usual_ms = every.window(at_ms, &zone("UTC"), &anchors).end_ms
                - every.window(at_ms, &zone("UTC"), &anchors).start_ms;
            for _ in 0..200 {
                let window = every.window(at_ms, &changed, &anchors);
                prop_assert!(window.start_ms <= at_ms && at_ms < window.end_ms);
                prop_assert_eq!(every.window(window.start_ms, &changed, &anchors), window);
                prop_assert_eq!(every.window(window.end_ms - 1, &changed, &anchors), window);
                let length = window.end_ms - window.start_ms;
                prop_assert!(length * 5 > usual_ms * 2, "{length} of {usual_ms}");
                prop_assert!(length * 5 < usual_ms * 8, "{length} of {usual_ms}");
                at_ms = window.end_ms;
            }
        }
    }
}
