//! What AWS refuses shows where people look, and passes.

use serde_json::json;

use crate::support::operator::condition;
use crate::support::operator::policy;
use crate::world::{CART, POLICY, World, story};

pub(crate) async fn faults_show_in_conditions_and_pass() {
    let world = World::new().await;
    let operator = world.operator("operator-0").await;
    world.admin().apply(&story("policy.yaml")).await;
    world.expect_judged().await;
    for (fault, reason) in [("accessDenied", "AccessDenied"), ("throttle", "Throttled")] {
        world.replay.set_faults(json!([{"kind": fault}])).await;
        let message = world.expect("EvidenceComplete", ("False", reason)).await;
        assert!(message.contains("111122223333"), "{message}");
        // What is known stays known.
        let seen = policy(&world.admin(), POLICY).await;
        assert_eq!(condition(&seen, "ImagesRetained").0, "False");
        assert_eq!(world.findings().await, [CART]);
        let errors = operator.metrics("ecr_audit_source_errors_total{").await;
        assert!(
            errors.iter().any(|line| line.contains(reason)),
            "{errors:?}"
        );
        world.replay.set_faults(json!([])).await;
        world.expect_judged().await;
    }
    world.expect_no_refusal();
}
