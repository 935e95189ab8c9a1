//! Nothing but `tests/refusals.rs`: a package of its own, so that only it pays for tonic.
