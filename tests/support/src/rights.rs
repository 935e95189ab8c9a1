//! The rights that the tests' client of DynamoDB uses: an operation that no policy of `tallygate
//! infra iam` allows fails the test that comes to it.

use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;

/// The policies of those that talk to the table.
const POLICIES: [&str; 3] = [
    include_str!("../../../integrations/cli/src/commands/infra/policies/service.json"),
    include_str!("../../../integrations/cli/src/commands/infra/policies/setup.json"),
    include_str!("../../../integrations/cli/src/commands/infra/policies/status.json"),
];

/// What only the hand of a test does, as an operator's would: foreign items and looks at all of
/// them, and the end of a table.
const BY_HAND: [&str; 3] = ["DeleteTable", "PutItem", "Scan"];

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct InPolicies;

impl Intercept for InPolicies {
    fn name(&self) -> &'static str {
        "InPolicies"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let right = format!("\"dynamodb:{operation}\"");
        let is_allowed = POLICIES.iter().any(|policy| policy.contains(&right));
        assert!(
            is_allowed || BY_HAND.contains(&operation),
            "no policy of integrations/cli/src/commands/infra/policies allows {right}"
        );
        Ok(())
    }
}
