//! What a host's own tests are made with. Behind the feature `testing`; not meant for production.

mod faulty;

pub use faulty::{Fault, Faulty, Odds};
