//! Mistakes in what a tenant may use and owes, caught by the plain model.
//!
//!     tests/mutants/run
//!
//! In the copy that `run` makes, `tests/model/main.rs` has this as a module.

use std::sync::Mutex;

use tallygate::testing::{self, Plant};

use crate::system::{self, Differs};
use crate::{
    HISTORIES, HISTORIES_OF_NODES, SEVERAL_NODES, numbered, on_all_processors, regressions,
};

/// Mistakes of lease protocols that several nodes show without a fault of the store.
const OF_SEVERAL_NODES: [Plant; 3] =
    [Plant::LimitChangePerNode, Plant::ExpiryByTime, Plant::NothingIsOwed];

#[test]
fn known_mistakes_are_caught() {
    are_caught(Plant::OF_THE_BOOK.into(), first_that_differs);
}

#[test]
fn known_mistakes_of_several_nodes_are_caught() {
    are_caught(OF_SEVERAL_NODES.into(), || {
        let way = &SEVERAL_NODES;
        (0..HISTORIES_OF_NODES).find_map(|n| Some((n, (way.run)(&(way.history)(n), n).err()?)))
    });
}

fn are_caught(mistakes: Vec<Plant>, first_that_differs: fn() -> Option<(u32, Differs)>) {
    let missed = Mutex::new(Vec::new());
    let named = std::env::var("TALLYGATE_MISTAKES").ok();
    let is_meant = |it: &Plant| named.as_ref().is_none_or(|named| *named == format!("{it:?}"));
    let mistakes = Mutex::new(mistakes.into_iter().filter(is_meant));
    let work = || {
        while let Some(mistake) = { mistakes.lock().unwrap().next() } {
            testing::plant(Some(mistake), 1);
            match first_that_differs() {
                Some((u32::MAX, why)) => println!("{mistake:?}: by a regression: {why}"),
                Some((n, why)) => println!("{mistake:?}: by history {n}: {why}"),
                None => missed.lock().unwrap().push(mistake),
            }
        }
        testing::plant(None, 1);
    };
    on_all_processors(work);
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// Without Stripe: those histories take longest and find no mistake that others miss.
fn first_that_differs() -> Option<(u32, Differs)> {
    // Cases that random histories reach late.
    let rare = [regressions::used_before_a_restart(), regressions::pack_beside_a_stream()];
    let rare = rare.into_iter().map(|history| (u32::MAX, history));
    let histories = rare.chain((0..HISTORIES).map(|n| (n, numbered(n))));
    let mut alone = histories.filter(|(_, history)| history.setting.sends_all.is_none());
    alone.find_map(|(n, history)| Some((n, system::run(&history).err()?)))
}
