//! Indexes, their children, and config digests.

use ecr_audit::event::{Digest, Platform};
use serde_json::json;

use crate::world::{
    REGISTRY, WEB, World, at, by_digest, by_tag, delete, digest, index, lifecycle, manifest, only,
    pull, push, role,
};

fn amd() -> String {
    manifest("amd64")
}
fn arm() -> String {
    manifest("arm64")
}
fn both() -> String {
    index(&[("amd64", &amd()), ("arm64", &arm())])
}

/// A multi-arch image `v1`, pushed as builders do: children first.
fn pushed() -> World {
    World::new()
        .event(push(1, None, &amd()))
        .event(push(2, None, &arm()))
        .event(push(3, Some("v1"), &both()))
}

#[test]
fn a_pod_that_runs_the_index_is_hit_when_the_index_expires() {
    let world = pushed()
        .pod("web-1", 5, WEB, &digest(&both()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&both()), &["v1"])]));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn a_pod_that_runs_a_child_is_hit_when_its_index_expires() {
    let world = pushed()
        .pod("web-1", 5, WEB, &digest(&amd()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&both()), &["v1"])]));
    let finding = only(world.findings());
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
    assert_eq!(finding.image.digest.unwrap(), digest(&amd()).as_str());
    assert_eq!(
        finding.cause.unwrap().digest.unwrap(),
        digest(&both()).as_str()
    );
}

#[test]
fn the_index_is_the_one_that_the_tag_named_when_the_pod_started() {
    let newer = index(&[("amd64", &amd())]);
    let world = pushed()
        .pod("web-1", 5, WEB, &digest(&amd()))
        .event(push(10, Some("v1"), &newer))
        .event(lifecycle(20, 1, "expire", &[(&digest(&both()), &[])]));
    assert_eq!(world.verdicts(), ["ImageExpired WouldChange"]);
    let world = pushed()
        .event(push(4, Some("v1"), &newer))
        .pod("web-1", 5, WEB, &digest(&amd()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&both()), &[])]));
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn nothing_is_missing_when_the_tag_now_names_the_running_child_itself() {
    let world = pushed()
        .pod("web-1", 5, WEB, &digest(&amd()))
        .event(push(10, Some("v1"), &amd()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&both()), &[])]));
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn the_index_that_a_reference_pins_counts_too() {
    let reference = format!("{REGISTRY}/shop/web@{}", digest(&both()));
    let id = by_digest(&digest(&both()));
    let world = pushed()
        .pod("web-1", 5, &reference, &digest(&amd()))
        .event(delete(20, json!([id]), json!([id]), json!([])));
    assert_eq!(world.verdicts(), ["ImageDeleted Unpullable"]);
}

#[test]
fn an_index_without_the_child_that_the_node_needs_is_unpullable() {
    let id = by_digest(&digest(&amd()));
    let gone = || {
        pushed()
            .pod("web-1", 5, WEB, &digest(&both()))
            .event(delete(20, json!([id]), json!([id]), json!([])))
    };
    let finding = only(gone().findings());
    assert_eq!(gone().states(), ["Present"]);
    assert_eq!(gone().verdicts(), ["ImageDeleted Unpullable"]);
    assert_eq!(finding.image.digest.unwrap(), digest(&both()).as_str());
    assert_eq!(
        finding.cause.unwrap().digest.unwrap(),
        digest(&amd()).as_str()
    );

    let mut on_arm = gone();
    on_arm.running[0].platform = Some(Platform {
        os: "linux".into(),
        architecture: "arm64".into(),
    });
    assert_eq!(on_arm.verdicts(), [""; 0]);
    let mut unknown = gone();
    unknown.running[0].platform = None;
    assert_eq!(unknown.verdicts(), [""; 0]);
}

#[test]
fn a_tag_that_now_names_an_index_without_the_needed_child_is_unpullable() {
    let other = manifest("other");
    let newer = index(&[("amd64", &other)]);
    let id = by_digest(&digest(&other));
    let old = manifest("old");
    let world = World::new()
        .event(push(1, Some("v1"), &old))
        .pod("web-1", 5, WEB, &digest(&old))
        .event(push(10, None, &other))
        .event(push(11, Some("v1"), &newer))
        .event(delete(12, json!([id]), json!([id]), json!([])))
        .event(lifecycle(20, 1, "expire", &[(&digest(&old), &[])]));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn a_tag_whose_index_lost_the_child_that_runs_is_unpullable_whatever_the_node_is() {
    let mut world = pushed()
        .pod("web-1", 5, WEB, &digest(&amd()))
        .event(lifecycle(20, 2, "transition", &[(&digest(&amd()), &[])]));
    assert_eq!(world.verdicts(), ["ImageArchived Unpullable"]);
    world.running[0].platform = None;
    assert_eq!(world.verdicts(), ["ImageArchived Unpullable"]);
}

#[test]
fn children_deleted_by_two_people_are_two_findings() {
    let removed = |minutes, child: &str, who| {
        let id = by_digest(&digest(child));
        let mut record = delete(minutes, json!([id]), json!([id]), json!([]));
        record["userIdentity"] = role(who, "s");
        record
    };
    let two = |second| {
        let mut world = pushed()
            .pod("web-1", 5, WEB, &digest(&both()))
            .pod("web-2", 5, WEB, &digest(&both()))
            .event(removed(20, &amd(), "mary"))
            .event(removed(21, &arm(), second));
        world.running[1].platform = Some(Platform {
            os: "linux".into(),
            architecture: "arm64".into(),
        });
        world.findings()
    };
    let counts = |findings: Vec<ecr_audit::api::Finding>| -> Vec<(usize, i64)> {
        let counts = findings.iter().map(|one| (one.containers.len(), one.count));
        counts.collect()
    };
    assert_eq!(counts(two("mary")), [(2, 2)]);
    assert_eq!(counts(two("bob")), [(1, 1), (1, 1)]);
}

#[test]
fn a_config_digest_is_mapped_to_its_manifest() {
    let config = Digest::of_manifest("amd64");
    let world = World::new()
        .event(push(1, Some("v1"), &amd()))
        .pod("web-1", 5, WEB, &config)
        .event(lifecycle(20, 1, "expire", &[(&digest(&amd()), &["v1"])]));
    let finding = only(world.findings());
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
    assert_eq!(finding.image.digest.unwrap(), digest(&amd()).as_str());
}

#[test]
fn of_several_manifests_with_one_config_the_one_that_the_tag_named_counts() {
    let config = Digest::of_manifest("amd64");
    let twin = amd().replace("\"layers\":[]", "\"layers\": []");
    assert_ne!(digest(&amd()), digest(&twin));
    let world = World::new()
        .event(push(1, Some("v1"), &amd()))
        .event(push(2, Some("v2"), &twin))
        .pod("web-1", 5, WEB, &config);
    let image = world.assess().images.remove(0);
    assert_eq!(image.digest.unwrap(), digest(&amd()));
}

#[test]
fn of_several_manifests_with_one_config_the_one_that_the_reference_pins_counts() {
    let config = Digest::of_manifest("amd64");
    let twin = amd().replace("\"layers\":[]", "\"layers\": []");
    let runs = |pinned: &str| {
        let reference = format!("{WEB}@{}", digest(pinned));
        let world = pushed()
            .event(push(4, Some("v2"), &twin))
            .pod("web-1", 5, &reference, &config);
        world.assess().images.remove(0).digest.unwrap()
    };
    assert_eq!(runs(&amd()), digest(&amd()));
    assert_eq!(runs(&twin), digest(&twin));
    assert_eq!(runs(&both()), digest(&amd()), "the child of a pinned index");
}

#[test]
fn a_config_digest_that_no_manifest_names_is_reported_as_it_is() {
    let config = Digest::of_manifest("amd64");
    let world = World::new().pod("web-1", 5, WEB, &config);
    assert_eq!(world.assess().images.remove(0).digest.unwrap(), config);
    assert_eq!(world.states(), ["Unknown"]);
}

#[test]
fn a_waiting_container_was_pulled_by_no_index_but_one_that_its_reference_names() {
    let newer = manifest("newer");
    let world = pushed()
        .event(push(10, Some("v1"), &newer))
        .waiting("web-1", 5, WEB)
        .event(lifecycle(20, 1, "expire", &[(&digest(&both()), &[])]));
    assert_eq!(world.verdicts(), [""; 0]);
    let world = pushed().waiting("web-1", 5, WEB).event(lifecycle(
        20,
        1,
        "expire",
        &[(&digest(&both()), &["v1"])],
    ));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn a_pull_of_the_index_or_of_a_child_concerns_what_runs() {
    let spec = json!({"expectedPullers": {}});
    let seen = |running: &str, named: &str| {
        let world = pushed()
            .pod("web-1", 5, WEB, &digest(running))
            .policy(spec.clone())
            .event(pull(
                9_000,
                json!([by_digest(&digest(named))]),
                role("scanner", "s"),
            ));
        world.verdicts().len()
    };
    assert_eq!(seen(&amd(), &both()), 1, "an index that lists what runs");
    assert_eq!(seen(&both(), &amd()), 1, "a child of the index that runs");
    assert_eq!(seen(&amd(), &arm()), 0, "another platform's image");
}

#[test]
fn one_call_that_names_index_and_child_is_one_event() {
    let ids = json!([
        by_tag("v1"),
        by_digest(&digest(&amd())),
        by_digest(&digest(&both()))
    ]);
    let world = pushed()
        .pod("web-1", 5, WEB, &digest(&both()))
        .policy(json!({"expectedPullers": {}}))
        .event(pull(9_000, ids, role("scanner", "s")));
    assert_eq!(only(world.findings()).count, 1);
}

#[test]
fn the_oldest_pod_counts_through_the_config_that_it_reports() {
    let config = Digest::of_manifest("amd64");
    let world = World::new()
        .pod("web-1", 0, WEB, &config)
        .event(push(1, Some("v1"), &amd()))
        .event(delete(20, json!([by_tag("v1")]), json!([]), json!([])));
    assert_eq!(world.now, at(10_000));
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
}

#[test]
fn of_children_that_one_run_took_the_same_is_named_whatever_the_order_of_pods() {
    let run: &[(&Digest, &[&str])] = &[(&digest(&amd()), &[]), (&digest(&arm()), &[])];
    let mut world = pushed()
        .pod("web-1", 5, WEB, &digest(&both()))
        .pod("web-2", 5, WEB, &digest(&both()))
        .event(lifecycle(20, 1, "expire", run));
    world.running[1].platform.as_mut().unwrap().architecture = "arm64".into();
    let first = only(world.findings());
    assert_eq!(first.containers.len(), 2);
    world.running.reverse();
    assert_eq!(only(world.findings()), first);
}

#[test]
fn an_image_that_an_index_lists_before_its_first_push_is_older_than_the_evidence() {
    let untagged = |world: World| {
        let named = json!({"imageDigest": digest(&amd()).as_str(), "imageTag": "v1"});
        world
            .event(push(3, Some("v1"), &amd()))
            .pod("web-1", 5, WEB, &digest(&amd()))
            .event(delete(20, json!([by_tag("v1")]), json!([named]), json!([])))
    };
    assert_eq!(
        untagged(World::new()).verdicts(),
        ["ImageDeleted Unpullable"]
    );
    let world = untagged(World::new().event(push(1, None, &both())));
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
    assert_eq!(world.states(), ["Present"]);
}

#[test]
fn an_index_that_is_pushed_shows_what_it_lists_to_be_there_again() {
    let world = pushed()
        .pod("web-1", 5, WEB, &digest(&amd()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&amd()), &[])]))
        .event(push(30, Some("v1"), &both()));
    assert_eq!(world.verdicts(), [""; 0]);
    assert_eq!(world.states(), ["Unknown"]);
}

#[test]
fn within_a_second_an_index_and_what_it_lists_are_pushed_in_any_order() {
    let named = |tag: &str| json!({"imageDigest": digest(&amd()).as_str(), "imageTag": tag});
    let judged = |first: &str, second: &str| {
        let mut child = push(3, Some("v1"), &amd());
        let mut both = push(3, Some("all"), &index(&[("amd64", &amd())]));
        child["eventID"] = json!(first);
        both["eventID"] = json!(second);
        let world = World::new()
            .event(child)
            .event(both)
            .pod("web-1", 5, WEB, &digest(&amd()))
            .event(delete(
                20,
                json!([by_tag("v1")]),
                json!([named("v1")]),
                json!([]),
            ));
        (world.verdicts(), world.states())
    };
    assert_eq!(judged("a", "b"), judged("b", "a"));
    assert_eq!(judged("b", "a").0, ["ImageDeleted Unpullable"]);
}
