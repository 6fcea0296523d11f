//! Nothing that was told vanishes because the process, or its ledger, is gone.

use serde_json::json;

use crate::support::eventually;
use crate::support::operator::{condition, policy};
use crate::world::{CART, POLICY, PULL, SOON, WEB, World, story};

pub(crate) async fn what_was_told_survives_a_kill_and_the_loss_of_the_ledger() {
    let world = World::new().await;
    let operator = world.operator("operator-0").await;
    world.admin().apply(&story("policy.yaml")).await;
    world.expect_judged().await;
    world.tell("2-pull").await;
    world.expect_findings(&[CART, PULL]).await;

    // Killed, and something happens meanwhile: the next one goes on where this one was.
    operator.kill();
    world.tell("3-expiry").await;
    world.replay.clear_stats().await;
    let operator = world.operator("operator-0").await;
    eventually("the expiry", SOON, async || {
        let seen = world.findings().await;
        assert!(seen.iter().any(|finding| finding == CART), "{seen:?}");
        assert!(seen.iter().any(|finding| finding == PULL), "{seen:?}");
        if seen == [CART, WEB, PULL] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    world.expect_judged().await;
    let read = world.replay.lookups(None, "events").await;
    assert!(
        read < 28,
        "{read} events were read anew: the history has 28"
    );

    // Killed, its ledger lost, CloudTrail out of reach.
    let told = world.finding_names().await;
    operator.kill();
    std::fs::remove_dir_all(world.folder.path().join("ledger")).unwrap();
    let denied = json!([{"kind": "accessDenied"}]);
    world.replay.set_faults(denied).await;
    let _operator = world.operator("operator-0").await;
    world.expect("Ready", ("False", "AccessDenied")).await;
    assert_eq!(world.finding_names().await, told);
    let after = policy(&world.admin(), POLICY).await;
    assert_eq!(condition(&after, "ImagesRetained").0, "False");
    assert_eq!(condition(&after, "PullersExpected").0, "False");
    assert_eq!(after["status"]["images"]["gone"], 2);

    // The fault is over, and the condition says so; the same is told as before.
    world.replay.set_faults(json!([])).await;
    world.expect_judged().await;
    assert_eq!(world.finding_names().await, told);
    world.expect_no_refusal();
}
