//! Who pulled and pushed what runs.

use serde_json::{Value, json};

use crate::world::{
    REGISTRY, WEB, World, by_digest, by_tag, call, delete, delete_repository, denied, digest,
    lifecycle, manifest, only, pull, push, role, role_key,
};

/// Minutes of `World::now`, in whose lookback the calls lie.
const NOW: i64 = 10_000 + 30 * 24 * 60;

fn a() -> String {
    manifest("a")
}
fn b() -> String {
    manifest("b")
}

/// `shop/web:v1` runs since minute 5; nobody but the nodes may pull, nobody may push.
fn web() -> World {
    World::new()
        .event(push(1, Some("v1"), &a()))
        .pod("web-1", 5, WEB, &digest(&a()))
        .policy(json!({"expectedPullers": {}, "expectedPushers": {}}))
        .now(NOW)
}

fn scan(minutes: i64) -> Value {
    pull(
        minutes,
        json!([by_digest(&digest(&a()))]),
        role("scanner", "s-1"),
    )
}

#[test]
fn a_pull_by_a_principal_not_expected_is_a_finding_with_count_and_times() {
    let world = web()
        .event(scan(NOW - 20))
        .event(scan(NOW - 5))
        .event(scan(NOW - 10));
    let finding = only(world.findings());
    assert_eq!(world.verdicts(), ["UnexpectedPull"]);
    assert_eq!(finding.count, 3);
    assert_eq!(
        (finding.impact, finding.cause, finding.inferred),
        (None, None, false)
    );
    assert!(finding.first_time < finding.last_time);
    assert_eq!(
        finding.event_ids[0],
        format!("BatchGetImage-{:06}", NOW - 5)
    );
    assert_eq!(
        serde_json::to_value(finding.principal).unwrap(),
        json!({"key": role_key("scanner"), "type": "AssumedRole",
               "accountId": "111122223333", "session": "s-1"})
    );
}

#[test]
fn without_expected_pullers_and_pushers_neither_is_judged() {
    let world = web()
        .event(scan(NOW - 1))
        .event(push(NOW - 1, Some("v1"), &b()))
        .policy(json!({}));
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn the_lookback_includes_its_bound() {
    let days = json!({"expectedPullers": {}, "lookbackDays": 1});
    let edge = NOW - 24 * 60;
    assert_eq!(
        web().event(scan(edge)).policy(days.clone()).verdicts(),
        ["UnexpectedPull"]
    );
    assert_eq!(web().event(scan(edge - 1)).policy(days).verdicts(), [""; 0]);
}

#[test]
fn a_pull_after_the_evaluation_time_judges_nothing() {
    assert_eq!(web().event(scan(NOW + 1)).verdicts(), [""; 0]);
    assert_eq!(web().event(scan(NOW)).verdicts(), ["UnexpectedPull"]);
}

#[test]
fn at_most_ten_event_ids_are_listed_and_all_are_counted() {
    let world = (0..25).fold(web(), |world, i| world.event(scan(NOW - 100 + i)));
    let finding = only(world.findings());
    assert_eq!((finding.count, finding.event_ids.len()), (25, 10));
    assert_eq!(
        finding.event_ids[0],
        format!("BatchGetImage-{:06}", NOW - 76)
    );
}

#[test]
fn sessions_of_one_role_are_one_finding_that_names_the_latest() {
    let by = |minutes, session| {
        pull(
            minutes,
            json!([by_digest(&digest(&a()))]),
            role("scanner", session),
        )
    };
    let world = web().event(by(NOW - 5, "late")).event(by(NOW - 9, "early"));
    assert_eq!(
        only(world.findings()).principal.unwrap().session.unwrap(),
        "late"
    );
}

#[test]
fn a_refused_pull_is_a_denied_pull_and_any_other_error_is_nothing() {
    assert_eq!(
        web().event(denied(scan(NOW - 1))).verdicts(),
        ["DeniedPull"]
    );
    for code in [
        "Client.UnauthorizedOperation",
        "AccessDeniedException",
        "Client.AccessDenied",
    ] {
        let mut record = denied(scan(NOW - 1));
        record["errorCode"] = json!(code);
        assert_eq!(web().event(record).verdicts(), ["DeniedPull"], "{code}");
    }
    let mut failed = scan(NOW - 1);
    failed["errorCode"] = json!("RepositoryNotFoundException");
    assert_eq!(web().event(failed).verdicts(), [""; 0]);
}

#[test]
fn a_refused_call_without_a_request_names_no_image() {
    let mut record = denied(scan(NOW - 1));
    record["requestParameters"] = Value::Null;
    assert_eq!(web().event(record).verdicts(), [""; 0]);
}

#[test]
fn a_pull_by_tag_counts_for_what_the_tag_named_then() {
    let by_v1 = |minutes| pull(minutes, json!([by_tag("v1")]), role("scanner", "s"));
    let moved = || {
        web()
            .event(push(NOW - 50, Some("v1"), &b()))
            .policy(json!({"expectedPullers": {}}))
    };
    assert_eq!(
        moved().event(by_v1(NOW - 60)).verdicts(),
        ["UnexpectedPull"]
    );
    assert_eq!(moved().event(by_v1(NOW - 40)).verdicts(), [""; 0]);
    assert_eq!(moved().event(by_v1(NOW - 40)).assess().unresolved_pulls, 0);
}

#[test]
fn a_pull_by_tag_before_the_tags_first_push_stays_unresolved() {
    let world = World::new()
        .event(pull(NOW - 9, json!([by_tag("v1")]), role("scanner", "s")))
        .event(push(NOW - 5, Some("v1"), &a()))
        .pod("web-1", NOW - 4, WEB, &digest(&a()))
        .policy(json!({"expectedPullers": {}}))
        .now(NOW);
    assert_eq!(world.verdicts(), [""; 0]);
    assert_eq!(world.assess().unresolved_pulls, 1);
}

#[test]
fn a_pull_by_a_tag_that_no_evidence_mentions_is_inferred_from_the_pods() {
    let world = World::new()
        .event(pull(NOW - 9, json!([by_tag("v1")]), role("scanner", "s")))
        .pod("web-1", 5, WEB, &digest(&a()))
        .pod(
            "pinned-1",
            5,
            &format!("{REGISTRY}/shop/web@{}", digest(&a())),
            &digest(&a()),
        )
        .policy(json!({"expectedPullers": {}}))
        .now(NOW);
    let findings = world.findings();
    assert_eq!(findings.len(), 2, "each container that runs the digest");
    assert!(findings.iter().all(|finding| finding.inferred));
    assert_eq!(world.assess().unresolved_pulls, 0);
}

#[test]
fn a_tag_that_an_archiving_run_listed_is_known_from_then_on() {
    let pulled = |minutes| {
        World::new()
            .event(lifecycle(
                NOW - 20,
                2,
                "transition",
                &[(&digest(&b()), &["v1"])],
            ))
            .event(pull(minutes, json!([by_tag("v1")]), role("scanner", "s")))
            .pod("web-1", 5, WEB, &digest(&a()))
            .policy(json!({"expectedPullers": {}}))
            .now(NOW)
            .verdicts()
    };
    assert_eq!(
        pulled(NOW - 30),
        ["UnexpectedPull"],
        "inferred from the pods"
    );
    assert_eq!(pulled(NOW - 9), [""; 0], "the other image's");
}

#[test]
fn pods_that_disagree_about_a_tag_leave_its_pulls_unresolved() {
    let world = World::new()
        .event(pull(NOW - 9, json!([by_tag("v1")]), role("scanner", "s")))
        .event(denied(pull(
            NOW - 8,
            json!([by_tag("v1")]),
            role("scanner", "s"),
        )))
        .pod("web-1", 5, WEB, &digest(&a()))
        .pod("web-2", 6, WEB, &digest(&b()))
        .policy(json!({"expectedPullers": {}}))
        .now(NOW);
    assert_eq!(world.verdicts(), [""; 0]);
    assert_eq!(
        world.assess().unresolved_pulls,
        1,
        "the successful one alone"
    );
}

#[test]
fn a_deleted_repository_ends_inference_and_a_deletion_by_digest_does_not() {
    let world = || {
        World::new()
            .event(pull(NOW - 9, json!([by_tag("v1")]), role("scanner", "s")))
            .pod("web-1", 5, WEB, &digest(&a()))
            .policy(json!({"expectedPullers": {}}))
            .now(NOW)
    };
    assert_eq!(
        world()
            .event(delete_repository(NOW - 20))
            .assess()
            .unresolved_pulls,
        1
    );
    let id = by_digest(&digest(&b()));
    let deletion = delete(NOW - 20, json!([id]), json!([id]), json!([]));
    assert_eq!(world().event(deletion).verdicts(), ["UnexpectedPull"]);
}

#[test]
fn a_push_of_the_running_image_by_a_principal_not_expected_is_a_finding() {
    let world = web().event(push(NOW - 9, Some("copy"), &a()));
    let finding = only(world.findings());
    assert_eq!(world.verdicts(), ["UnexpectedPush"]);
    assert_eq!(finding.principal.unwrap().key, role_key("release"));
}

#[test]
fn moving_the_tag_of_a_running_pod_concerns_it_only_when_it_is_older() {
    let moved = push(NOW - 9, Some("v1"), &b());
    assert_eq!(web().event(moved.clone()).verdicts(), ["UnexpectedPush"]);
    let younger = web().pod("web-2", NOW - 8, WEB, &digest(&a())).event(moved);
    assert_eq!(only(younger.findings()).containers.len(), 1);
}

#[test]
fn a_push_of_another_tag_and_image_concerns_nobody() {
    assert_eq!(
        web().event(push(NOW - 9, Some("v2"), &b())).verdicts(),
        [""; 0]
    );
}

#[test]
fn a_pinned_digest_is_not_concerned_by_its_tag_being_moved() {
    let reference = format!("{REGISTRY}/shop/web:v1@{}", digest(&a()));
    let world = World::new()
        .pod("web-1", 5, &reference, &digest(&a()))
        .event(push(NOW - 9, Some("v1"), &b()))
        .policy(json!({"expectedPushers": {}}))
        .now(NOW);
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn a_refused_push_is_a_denied_push_with_its_digest_computed_from_the_manifest() {
    let same = denied(push(NOW - 9, Some("copy"), &a()));
    assert_eq!(web().event(same).verdicts(), ["DeniedPush"]);
    let moving = denied(push(NOW - 9, Some("v1"), &b()));
    assert_eq!(web().event(moving).verdicts(), ["DeniedPush"]);
    assert_eq!(
        web()
            .event(denied(push(NOW - 9, Some("v2"), &b())))
            .verdicts(),
        [""; 0]
    );
}

#[test]
fn a_push_that_failed_for_another_reason_is_nothing() {
    let mut record = denied(push(NOW - 9, Some("v1"), &b()));
    record["errorCode"] = json!("ImageAlreadyExistsException");
    assert_eq!(web().event(record).verdicts(), [""; 0]);
}

#[test]
fn reading_something_else_is_not_a_pull() {
    let request = json!({"layerDigest": digest(&a()).as_str()});
    let world = web().event(call(
        NOW - 9,
        "GetDownloadUrlForLayer",
        request,
        Value::Null,
    ));
    assert_eq!(world.verdicts(), [""; 0]);
}
