//! What was asked of the servers, against the policies of `tallygate infra iam`, both ways.

use std::collections::BTreeSet;
use std::path::Path;

use crate::wire::Call;

/// The policies of those that talk to the table, by their role.
const POLICIES: [(&str, &str); 3] = [
    (
        "service",
        include_str!("../../../../integrations/cli/src/commands/infra/policies/service.json"),
    ),
    ("setup", include_str!("../../../../integrations/cli/src/commands/infra/policies/setup.json")),
    (
        "status",
        include_str!("../../../../integrations/cli/src/commands/infra/policies/status.json"),
    ),
];

/// What only the hand of a test does, as an operator's would: foreign items and looks at all of
/// them, and the end of a table.
const BY_HAND: [&str; 3] = ["DeleteTable", "PutItem", "Scan"];

/// The operations of a policy.
fn allowed(policy: &str) -> BTreeSet<String> {
    let named = policy.split("\"dynamodb:").skip(1).filter_map(|rest| rest.split('"').next());
    // A condition's key, no operation.
    named.filter(|it| *it != "LeadingKeys").map(str::to_owned).collect()
}

/// The calls that were noted in a folder.
///
/// # Errors
///
/// It cannot be read.
pub fn noted(folder: &Path) -> Result<BTreeSet<Call>, String> {
    let said = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(said)? {
        let text = std::fs::read_to_string(entry.map_err(said)?.path()).map_err(said)?;
        for line in text.lines() {
            let mut words = line.split(' ').map(str::to_owned);
            if let (Some(by), Some(operation), Some(place)) =
                (words.next(), words.next(), words.next())
            {
                all.insert(Call { by, operation, is_foreign: place == "foreign" });
            }
        }
    }
    Ok(all)
}

/// What differs: a call that no policy allows, or not to its role, and a right that was not used.
pub fn faults(calls: &BTreeSet<Call>) -> Vec<String> {
    let mut faults = Vec::new();
    let of = |role: &str| {
        let own = POLICIES.iter().filter(|(name, _)| *name == role || role == "any");
        own.flat_map(|(_, policy)| allowed(policy)).collect::<BTreeSet<_>>()
    };
    for Call { by, operation, is_foreign } in calls {
        let is_role = POLICIES.iter().any(|(name, _)| name == by);
        let role = if is_role { by.as_str() } else { "any" };
        let by_hand = !is_role && BY_HAND.contains(&operation.as_str());
        if !of(role).contains(operation) && !by_hand {
            faults.push(format!("dynamodb:{operation} is used by {by}, and no right of {role}"));
        }
        if is_role && *is_foreign {
            faults.push(format!("dynamodb:{operation} by {by} is outside of LeadingKeys"));
        }
    }
    for (role, policy) in POLICIES {
        // What the service may do is used under its own name; of the others there may be none.
        let is_known = role == "service" && calls.iter().any(|it| it.by == role);
        for operation in allowed(policy) {
            let uses = |it: &Call| it.operation == operation && (!is_known || it.by == role);
            if !calls.iter().any(uses) {
                faults.push(format!("dynamodb:{operation} is a right of {role}, and not used"));
            }
        }
    }
    faults
}
