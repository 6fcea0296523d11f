//! What is gone, and what a new node would get instead.

use serde_json::{Value, json};

use crate::world::{
    REGISTRY, WEB, World, at, by_digest, by_tag, call, delete, delete_repository, denied, digest,
    lifecycle, manifest, only, pull, push, role, role_key, storage_class,
};

fn a() -> String {
    manifest("a")
}
fn b() -> String {
    manifest("b")
}

/// `shop/web:v1` pushed at minute 1, running since minute 5.
fn web() -> World {
    World::new()
        .event(push(1, Some("v1"), &a()))
        .pod("web-1", 5, WEB, &digest(&a()))
}

#[test]
fn an_image_that_was_pushed_and_left_alone_is_present_and_no_finding() {
    let world = web();
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn an_image_that_no_event_mentions_is_unknown_and_no_finding() {
    let world = World::new().pod("web-1", 5, WEB, &digest(&a()));
    assert_eq!(world.states(), ["Unknown"]);
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn an_expired_image_is_reported_with_rule_time_event_and_impact() {
    let world = web().event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]));
    assert_eq!(world.states(), ["Expired"]);
    let finding = serde_json::to_value(only(world.findings())).unwrap();
    assert_eq!(
        finding,
        json!({
            "type": "ImageExpired", "impact": "Unpullable", "excepted": false, "inferred": false,
            "image": {"account": "111122223333", "region": "us-east-1", "repository": "shop/web",
                      "digest": digest(&a()).as_str()},
            "reference": WEB,
            "workload": {"namespace": "shop", "kind": "Deployment", "name": "web"},
            "containers": [{"pod": "web-1", "container": "app"}],
            "cause": {"eventName": "PolicyExecutionEvent", "digest": digest(&a()).as_str(),
                      "rule": {"priority": 1, "description": "keep the last 10"}},
            "principal": null, "count": 1,
            "firstTime": "2026-11-01T00:20:00Z", "lastTime": "2026-11-01T00:20:00Z",
            "eventIDs": ["PolicyExecutionEvent-000020"]
        })
    );
}

#[test]
fn a_run_that_is_split_over_several_events_expires_what_each_of_them_lists() {
    let reference = format!("{REGISTRY}/shop/web:v2");
    let world = web()
        .event(push(2, Some("v2"), &b()))
        .pod("api-1", 5, &reference, &digest(&b()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .event(lifecycle(21, 1, "expire", &[(&digest(&b()), &["v2"])]));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"; 2]);
}

#[test]
fn expiry_matches_by_digest_whatever_the_tag_list_says() {
    let world = web().event(lifecycle(20, 1, "expire", &[(&digest(&a()), &[])]));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn a_tag_list_tells_what_an_image_older_than_the_evidence_was_called() {
    let world = World::new().pod("web-1", 5, WEB, &digest(&a()));
    let tagged = world.event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]));
    assert_eq!(tagged.verdicts(), ["ImageExpired Unpullable"]);
    let world = World::new().pod("web-1", 5, WEB, &digest(&a()));
    let untold = world.event(lifecycle(20, 1, "expire", &[(&digest(&a()), &[])]));
    assert_eq!(untold.verdicts(), ["ImageExpired Unknown"]);
}

#[test]
fn a_failed_lifecycle_action_removes_nothing() {
    let mut run = lifecycle(20, 1, "expire", &[]);
    run["serviceEventDetails"]["lifecycleEventFailureDetails"] = json!([
        {"lifecycleEventImage": {"digest": digest(&a()).as_str(), "tagStatus": "Tagged",
            "tagList": ["v1"]}, "rulePriority": 1,
         "failureCode": "ImageReferencedByManifestList", "failureReason": "…"}]);
    let world = web().event(run);
    assert_eq!(
        (world.states(), world.verdicts()),
        (vec!["Present".to_owned()], vec![])
    );
}

#[test]
fn a_lifecycle_preview_removes_nothing() {
    let mut preview = lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]);
    preview["eventName"] = json!("DryRunEvent");
    assert_eq!(web().event(preview).states(), ["Present"]);
}

#[test]
fn the_rule_of_an_actions_priority_says_whether_it_expires_or_archives() {
    let run = lifecycle(20, 7, "transition", &[(&digest(&a()), &["v1"])]);
    let finding = only(web().event(run).findings());
    assert_eq!(format!("{:?}", finding.finding_type), "ImageArchived");
    assert_eq!(finding.cause.unwrap().rule.unwrap().priority, 7);
    let run = lifecycle(20, 7, "expire", &[(&digest(&a()), &["v1"])]);
    assert_eq!(web().event(run).states(), ["Expired"]);
}

#[test]
fn an_archived_image_is_unpullable_though_its_tag_still_names_it() {
    let world = web().event(storage_class(20, by_tag("v1"), "ARCHIVE"));
    assert_eq!(world.states(), ["Archived"]);
    assert_eq!(world.verdicts(), ["ImageArchived Unpullable"]);
    let finding = only(world.findings());
    assert_eq!(finding.principal.unwrap().key, role_key("release"));
}

#[test]
fn restoring_or_pushing_again_brings_an_archived_image_back() {
    let archived = || web().event(storage_class(20, by_digest(&digest(&a())), "ARCHIVE"));
    let restored = archived().event(storage_class(30, by_digest(&digest(&a())), "STANDARD"));
    assert_eq!(restored.states(), ["Present"]);
    assert_eq!(
        archived().event(push(30, Some("v1"), &a())).states(),
        ["Present"]
    );
}

#[test]
fn a_digest_deletion_removes_the_image_with_all_its_tags() {
    let id = by_digest(&digest(&a()));
    let world = web().event(delete(20, json!([id]), json!([id]), json!([])));
    let finding = only(world.findings());
    assert_eq!(world.verdicts(), ["ImageDeleted Unpullable"]);
    assert_eq!(finding.cause.unwrap().event_name, "BatchDeleteImage");
    assert_eq!(finding.principal.unwrap().session.unwrap(), "ci-42");
}

#[test]
fn what_the_answer_lists_as_failed_was_not_touched() {
    let (tag, id) = (by_tag("v1"), by_digest(&digest(&a())));
    let world = web().event(delete(20, json!([tag, id]), json!([]), json!([tag, id])));
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn of_two_ids_only_the_one_that_did_not_fail_is_gone() {
    let (gone, kept) = (by_tag("old"), by_tag("v1"));
    let world = web().event(push(2, Some("old"), &b())).event(delete(
        20,
        json!([gone, kept]),
        json!([{"imageDigest": digest(&b()).as_str(), "imageTag": "old"}]),
        json!([kept]),
    ));
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn removing_the_last_tag_deletes_the_image() {
    let answer = json!([{"imageDigest": digest(&a()).as_str(), "imageTag": "v1"}]);
    let world = web().event(delete(20, json!([by_tag("v1")]), answer, json!([])));
    assert_eq!(world.states(), ["Deleted"]);
    assert_eq!(world.verdicts(), ["ImageDeleted Unpullable"]);
}

#[test]
fn removing_one_of_several_tags_removes_the_tag_only() {
    let answer = json!([{"imageDigest": digest(&a()).as_str(), "imageTag": "v1"}]);
    let world = web().event(push(2, Some("stable"), &a())).event(delete(
        20,
        json!([by_tag("v1")]),
        answer,
        json!([]),
    ));
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
    let cause = only(world.findings()).cause.unwrap();
    assert_eq!(cause.digest.unwrap(), digest(&a()).as_str());
}

#[test]
fn both_tags_in_one_call_delete_the_image() {
    let world = web().event(push(2, Some("stable"), &a())).event(delete(
        20,
        json!([by_tag("v1"), by_tag("stable")]),
        json!([]),
        json!([]),
    ));
    assert_eq!(world.states(), ["Deleted"]);
}

#[test]
fn an_image_that_ran_before_its_first_push_in_evidence_may_have_other_tags() {
    let world = World::new()
        .pod("web-1", 0, WEB, &digest(&a()))
        .event(push(1, Some("v1"), &a()))
        .event(delete(20, json!([by_tag("v1")]), json!([]), json!([])));
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
}

#[test]
fn an_image_that_an_earlier_event_names_may_have_other_tags() {
    let answer = json!([{"imageDigest": digest(&a()).as_str(), "imageTag": "old"}]);
    let world = World::new()
        .event(delete(1, json!([by_tag("old")]), answer, json!([])))
        .event(push(2, Some("v1"), &a()))
        .pod("web-1", 5, WEB, &digest(&a()))
        .event(delete(20, json!([by_tag("v1")]), json!([]), json!([])));
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
}

#[test]
fn a_tag_that_the_evidence_never_saw_pushed_is_removed_and_its_image_stays_unknown() {
    let answer = json!([{"imageDigest": digest(&a()).as_str(), "imageTag": "v1"}]);
    let world = World::new()
        .pod("web-1", 5, WEB, &digest(&a()))
        .event(delete(20, json!([by_tag("v1")]), answer, json!([])));
    assert_eq!(world.states(), ["Unknown"]);
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
    assert_eq!(
        only(world.findings()).cause.unwrap().digest.unwrap(),
        digest(&a()).as_str()
    );
}

#[test]
fn an_answer_that_names_what_was_gone_shows_that_it_came_back() {
    let answer = json!([{"imageDigest": digest(&a()).as_str(), "imageTag": "v1"}]);
    let gone = web().event(lifecycle(10, 1, "expire", &[(&digest(&a()), &["v1"])]));
    let world = gone.event(delete(20, json!([by_tag("v1")]), answer, json!([])));
    assert_eq!(world.states(), ["Unknown"]);
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
}

#[test]
fn an_id_with_digest_and_tag_removes_the_tag_if_they_match() {
    let matching = json!({"imageDigest": digest(&a()).as_str(), "imageTag": "v1"});
    let world = web().event(push(2, Some("stable"), &a())).event(delete(
        20,
        json!([matching]),
        json!([matching]),
        json!([]),
    ));
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
    let other = json!({"imageDigest": digest(&b()).as_str(), "imageTag": "v1"});
    let world = web().event(delete(20, json!([other]), json!([]), json!([])));
    assert_eq!(world.verdicts(), [""; 0]);
    let reference = format!("{REGISTRY}/shop/web@{}", digest(&b()));
    let stale = json!({"imageDigest": digest(&b()).as_str(), "imageTag": "old"});
    let world = World::new()
        .event(push(1, Some("old"), &a()))
        .event(push(2, None, &b()))
        .event(delete(3, json!([by_tag("old")]), json!([]), json!([])))
        .pod("web-1", 5, &reference, &digest(&b()))
        .event(delete(20, json!([stale]), json!([]), json!([])));
    assert_eq!(
        world.states(),
        ["Present"],
        "a tag that names nothing matches no digest"
    );
}

#[test]
fn a_deleted_repository_takes_every_image_also_the_never_mentioned() {
    let world = World::new()
        .pod("web-1", 5, WEB, &digest(&a()))
        .event(delete_repository(20));
    assert_eq!(world.states(), ["Deleted"]);
    assert_eq!(world.verdicts(), ["ImageDeleted Unpullable"]);
    assert_eq!(
        only(world.findings()).cause.unwrap().event_name,
        "DeleteRepository"
    );
}

#[test]
fn a_deleted_repository_does_not_replace_an_earlier_cause() {
    let world = web()
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .event(delete_repository(30));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn a_repository_deleted_and_created_again_holds_what_was_pushed_since() {
    let create = call(31, "CreateRepository", json!({}), Value::Null);
    let world = web().event(delete_repository(30)).event(create);
    assert_eq!(world.states(), ["Deleted"]);
    let pushed = web()
        .event(delete_repository(30))
        .event(push(40, Some("v1"), &a()));
    assert_eq!(
        (pushed.states(), pushed.verdicts()),
        (vec!["Present".to_owned()], vec![])
    );
}

#[test]
fn a_push_after_expiry_makes_the_image_present_again() {
    let world = web()
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .event(push(30, Some("v1"), &a()));
    assert_eq!(
        (world.states(), world.verdicts()),
        (vec!["Present".to_owned()], vec![])
    );
}

#[test]
fn a_later_event_that_names_the_digest_becomes_the_cause() {
    let id = by_digest(&digest(&a()));
    let world = web()
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .event(delete(30, json!([id]), json!([id]), json!([])));
    assert_eq!(world.verdicts(), ["ImageDeleted Unpullable"]);
    assert_eq!(
        only(world.findings()).event_ids,
        ["BatchDeleteImage-000030"]
    );
}

#[test]
fn arrival_order_means_nothing() {
    let world = web().event(push(30, Some("v1"), &a())).event(lifecycle(
        20,
        1,
        "expire",
        &[(&digest(&a()), &["v1"])],
    ));
    assert_eq!(world.states(), ["Present"]);
}

#[test]
fn events_of_one_second_are_ordered_by_event_id() {
    let mut again = push(20, Some("v1"), &a());
    let run = lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]);
    assert_eq!(
        web().event(again.clone()).event(run.clone()).states(),
        ["Present"]
    );
    again["eventID"] = json!("A-before-the-run");
    assert_eq!(web().event(again).event(run).states(), ["Expired"]);
}

#[test]
fn events_after_the_evaluation_time_judge_nothing() {
    let world = web().event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]));
    assert_eq!(world.now(19).states(), ["Present"]);
    let world = web().event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]));
    assert_eq!(world.now(20).states(), ["Expired"]);
}

#[test]
fn a_removal_has_no_lookback() {
    let world = web().event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]));
    assert_eq!(
        world.now(200 * 24 * 60).verdicts(),
        ["ImageExpired Unpullable"]
    );
}

#[test]
fn a_tag_that_moved_on_would_change_what_a_new_node_runs() {
    let world = web().event(push(10, Some("v1"), &b())).event(lifecycle(
        20,
        1,
        "expire",
        &[(&digest(&a()), &[])],
    ));
    assert_eq!(world.verdicts(), ["ImageExpired WouldChange"]);
}

#[test]
fn a_reference_by_digest_is_unpullable_whatever_became_of_the_tags() {
    let reference = format!("{REGISTRY}/shop/web:v1@{}", digest(&a()));
    let world = World::new()
        .event(push(1, Some("v1"), &a()))
        .pod("web-1", 5, &reference, &digest(&a()))
        .event(push(10, Some("v1"), &b()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &[])]));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn a_pinned_digest_needs_no_tag() {
    let reference = format!("{REGISTRY}/shop/web:v1@{}", digest(&a()));
    let world = World::new()
        .event(push(1, Some("v1"), &a()))
        .event(push(2, Some("stable"), &a()))
        .pod("web-1", 5, &reference, &digest(&a()))
        .event(delete(20, json!([by_tag("v1")]), json!([]), json!([])));
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn a_tag_that_moved_and_then_lost_its_new_image_names_nothing() {
    let id = by_digest(&digest(&b()));
    let world = web().event(push(10, Some("v1"), &b())).event(delete(
        20,
        json!([id]),
        json!([id]),
        json!([]),
    ));
    let finding = only(world.findings());
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
    assert_eq!(
        finding.cause.unwrap().digest.unwrap(),
        digest(&b()).as_str()
    );
    assert_eq!(finding.image.digest.unwrap(), digest(&a()).as_str());
}

#[test]
fn a_tag_that_was_pushed_again_is_no_trouble() {
    let world = web()
        .event(push(2, Some("stable"), &a()))
        .event(delete(20, json!([by_tag("v1")]), json!([]), json!([])))
        .event(push(30, Some("v1"), &a()));
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn no_tag_means_latest() {
    let world = World::new()
        .event(push(1, Some("latest"), &a()))
        .event(push(2, Some("stable"), &a()))
        .pod("web-1", 5, &format!("{REGISTRY}/shop/web"), &digest(&a()))
        .event(delete(20, json!([by_tag("latest")]), json!([]), json!([])));
    assert_eq!(world.verdicts(), ["TagRemoved Unpullable"]);
}

#[test]
fn a_refused_or_failed_deletion_changes_nothing() {
    let id = by_digest(&digest(&a()));
    let refused = denied(delete(20, json!([id]), json!([]), json!([])));
    assert_eq!(web().event(refused).states(), ["Present"]);
    let mut failed = delete(20, json!([id]), json!([]), json!([]));
    failed["errorCode"] = json!("RepositoryNotFoundException");
    assert_eq!(web().event(failed).states(), ["Present"]);
}

#[test]
fn a_pull_proves_no_presence() {
    let world = web()
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .event(pull(
            30,
            json!([by_digest(&digest(&a()))]),
            role("node", "i-0a"),
        ));
    assert_eq!(world.states(), ["Expired"]);
}

#[test]
fn a_waiting_container_is_judged_by_the_digest_that_its_tag_named_last() {
    let world = World::new()
        .event(push(1, Some("v1"), &a()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .waiting("web-1", 30, WEB);
    let finding = only(world.findings());
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
    assert_eq!(finding.image.digest.unwrap(), digest(&a()).as_str());
}

#[test]
fn a_waiting_container_whose_tag_no_evidence_knows_is_unknown() {
    let world = World::new().event(push(1, Some("v1"), &a())).waiting(
        "web-1",
        30,
        &format!("{REGISTRY}/shop/web:v9"),
    );
    let image = world.assess().images.remove(0);
    assert_eq!((image.digest, image.containers), (None, 1));
    assert_eq!(world.states(), ["Unknown"]);
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn a_waiting_container_with_a_digest_is_judged_by_it() {
    let reference = format!("{REGISTRY}/shop/web@{}", digest(&a()));
    let world = World::new()
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .waiting("web-1", 30, &reference);
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn one_workload_reference_and_image_make_one_finding() {
    let world = web()
        .pod("web-2", 6, WEB, &digest(&a()))
        .pod("api-1", 6, WEB, &digest(&a()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]));
    let findings = world.findings();
    let names: Vec<(String, usize)> = findings
        .into_iter()
        .map(|finding| (finding.workload.name, finding.containers.len()))
        .collect();
    assert_eq!(names, [("api".to_owned(), 1), ("web".to_owned(), 2)]);
}

#[test]
fn the_same_digest_in_another_repository_is_another_image() {
    let mut elsewhere = lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]);
    for (old, new) in [
        ("shop/web", "shop/api"),
        ("us-east-1", "eu-west-1"),
        ("111122223333", "999988887777"),
    ] {
        let text = elsewhere.to_string().replace(old, new);
        assert_eq!(
            web().event(serde_json::from_str(&text).unwrap()).states(),
            ["Present"]
        );
    }
    elsewhere["resources"] = Value::Null;
    assert_eq!(web().event(elsewhere).states(), ["Expired"]);
}

#[test]
fn the_registry_is_the_resources_then_the_requests_then_the_recipients() {
    let id = by_digest(&digest(&a()));
    let mut record = delete(20, json!([id]), json!([id]), json!([]));
    record["recipientAccountId"] = json!("999988887777");
    assert_eq!(web().event(record.clone()).states(), ["Deleted"]);
    record["resources"] = json!([]);
    assert_eq!(web().event(record.clone()).states(), ["Deleted"]);
    record["requestParameters"]["registryId"] = Value::Null;
    assert_eq!(web().event(record).states(), ["Present"]);
}

#[test]
fn an_exception_is_shown_and_not_counted_until_its_day_is_over() {
    let day = |until: &str| {
        let exception = json!({"owner": "team-shop", "reason": "migration", "until": until,
            "types": ["ImageExpired"], "namespaces": ["sh*"], "repositories": ["shop/*"]});
        let world = web()
            .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
            .policy(json!({"exceptions": [exception]}));
        only(world.findings()).excepted
    };
    let today = at(10_000).to_string()[..10].to_owned();
    assert!(day(&today));
    assert!(!day("2026-11-06"));
    assert!(day("2027-01-31"));
}

#[test]
fn an_exception_by_principal_does_not_cover_what_a_rule_did() {
    let exception = json!({"owner": "team-shop", "reason": "migration", "until": "2027-01-31",
        "principals": ["*"]});
    let spec = json!({"exceptions": [exception]});
    let expired = web().event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]));
    assert!(!only(expired.policy(spec.clone()).findings()).excepted);
    let id = by_digest(&digest(&a()));
    let deleted = web().event(delete(20, json!([id]), json!([id]), json!([])));
    assert!(only(deleted.policy(spec).findings()).excepted);
}
