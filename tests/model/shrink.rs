//! Shrinks a history: fewer events, plans with fewer terms, smaller numbers.

use crate::book::MeterPlan;
use crate::history::{Event, History};

/// The smallest history that still differs, found by trying all that are one step smaller.
pub(crate) fn smallest(mut history: History, differs: impl Fn(&History) -> bool) -> History {
    let mut at = 0;
    loop {
        let smaller = smaller(&history);
        let n = smaller.len();
        // Starts where the last one was found: attempts that failed before mostly fail again.
        let found = (0..n).map(|i| (i + at) % n.max(1)).find(|i| differs(&smaller[*i]));
        let Some(found) = found else {
            return history;
        };
        at = found;
        history = smaller.into_iter().nth(found).unwrap();
    }
}

/// All histories one step smaller.
fn smaller(history: &History) -> Vec<History> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut History)| {
        let mut smaller = history.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    for at in (0..history.events.len()).rev() {
        with(&|it| {
            it.events.remove(at);
        });
    }
    for (plan, of_plan) in history.setting.plans.iter().enumerate() {
        if of_plan.concurrency.is_some() {
            with(&|it| it.setting.plans[plan].concurrency = None);
        }
        for (meter, terms) in of_plan.meters.iter().enumerate() {
            if terms.prepaid {
                with(&|it| it.setting.plans[plan].meters[meter].prepaid = false);
            }
            if terms.once.is_some() {
                with(&|it| it.setting.plans[plan].meters[meter].once = None);
            }
            for quota in 0..terms.quotas.len() {
                with(&|it| {
                    it.setting.plans[plan].meters[meter].quotas.remove(quota);
                });
            }
            if !terms.quotas.is_empty() && terms.once.is_some() {
                with(&|it| it.setting.plans[plan].meters[meter] = MeterPlan::default());
            }
        }
    }
    for (at, event) in history.events.iter().enumerate() {
        if let Some(less) = less(event) {
            with(&|it| it.events[at] = less.clone());
        }
    }
    all
}

/// The same event with a smaller number.
fn less(event: &Event) -> Option<Event> {
    let mut event = event.clone();
    if let Event::Work { tokens, .. } = &mut event
        && *tokens > 0
    {
        *tokens = 0;
        return Some(event);
    }
    let number = match &mut event {
        Event::Work { jobs, .. } => jobs,
        Event::Take { tokens, .. }
        | Event::Report { tokens, .. }
        | Event::ReportLate { tokens, .. } => tokens,
        Event::Ingest { units, .. } | Event::Grant { units, .. } => units,
        Event::Edit { by, .. } | Event::Lower { by, .. } => by,
        _ => return None,
    };
    if *number < 2 {
        return None;
    }
    *number = if *number > 8 { *number / 2 } else { *number - 1 };
    Some(event)
}
