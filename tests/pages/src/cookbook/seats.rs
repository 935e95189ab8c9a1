//! Seats: a number of the plan, held against the app's own table.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use tallygate_axum::tallygate::Feature;
use tallygate_axum::{Plan, Refused};

/// The members of a tenant; a table in your database.
#[derive(Clone, Default)]
pub struct Members(Arc<AtomicI64>);

impl Members {
    /// Adds one if there are fewer than this, in one step.
    fn add_below(&self, most: i64) -> bool {
        let add = |n: i64| (n < most).then(|| n + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }
}

pub async fn invite(plan: Plan, State(members): State<Members>) -> Result<StatusCode, Refused> {
    plan.require("seats")?; // 403 on a plan without any
    let most = match plan.features.get("seats") {
        Some(Feature::Number(seats)) => *seats,
        _ => i64::MAX, // "unlimited"
    };
    Ok(if members.add_below(most) { StatusCode::CREATED } else { StatusCode::CONFLICT })
}
