//! Billing, from a gate to a misbehaving Stripe (`stripe-sim`) and back: usage is sent once, and
//! Stripe's events move tenants between plans.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod alerts;
mod audit;
mod backups;
mod bench;
mod clocks;
mod customers;
mod ended;
mod eras;
mod erasure;
mod hostile;
mod ingested;
mod lives;
mod look;
mod moves;
mod offers;
mod periods;
mod seams;
mod topups;
mod usage;
mod webhooks;
