//! Mistakes in meters and ids that the plain model does not have, each caught by a test of whole
//! gates.
//!
//!     tests/mutants/run
//!
//! In the copy that `run` makes, `tests/gate/payers.rs` has this as a module.

use std::panic::catch_unwind;

use tallygate::testing::{Plant, plant};

/// A mistake, and the test that catches it.
const MISTAKES: [(Plant, &str, fn()); 4] = [
    (
        Plant::SumsHoldForNoPart,
        "a_stream_is_cut_where_the_credits_end_that_its_bytes_cost",
        super::a_stream_is_cut_where_the_credits_end_that_its_bytes_cost,
    ),
    (
        Plant::StatedLengthsAreCharged,
        "bytes_of_a_request_are_charged_as_they_are_read_and_not_as_it_states",
        super::bytes_of_a_request_are_charged_as_they_are_read_and_not_as_it_states,
    ),
    (
        Plant::IdsAreKeys,
        "work_that_was_not_charged_is_new",
        crate::work_once::work_that_was_not_charged_is_new,
    ),
    (
        Plant::ChargedIdsExpire,
        "an_id_that_was_charged_is_never_forgotten",
        crate::work_once::an_id_that_was_charged_is_never_forgotten,
    ),
];

#[test]
fn known_mistakes_are_caught() {
    for (mistake, name, test) in MISTAKES {
        test(); // it passes without the mistake
        plant(Some(mistake), 1);
        let ended = catch_unwind(test);
        plant(None, 1);
        assert!(ended.is_err(), "{mistake:?} is not caught by {name}");
        println!("{mistake:?}: by {name}");
    }
}
