//! What ECR itself says in EventBridge: images that came without a push in CloudTrail.

use std::{fs, path::PathBuf};

use ecr_audit::event::{Action, DecodeError, Event, notice};
use serde_json::{Value, json};

use crate::world::{
    ACCOUNT, WEB, World, at, by_digest, by_tag, delete, digest, lifecycle, manifest, push,
};

fn a() -> String {
    manifest("a")
}

fn tell(minutes: i64, kind: &str, mut detail: Value) -> Value {
    detail["repository-name"] = json!("shop/web");
    json!({
        "version": "0", "id": format!("{minutes:08}-0000-0000-0000-000000000000"),
        "detail-type": kind, "source": "aws.ecr", "account": ACCOUNT,
        "time": at(minutes).to_string(), "region": "us-east-1", "resources": [], "detail": detail,
    })
}

fn replicated(minutes: i64) -> Value {
    tell(
        minutes,
        "ECR Replication Action",
        json!({"result": "SUCCESS", "image-digest": digest(&a()).as_str(), "image-tag": "v1",
               "source-account": ACCOUNT, "source-region": "eu-central-1", "action-type": "REPLICATE"}),
    )
}

fn cached(minutes: i64) -> Value {
    tell(
        minutes,
        "ECR Pull Through Cache Action",
        json!({"sync-status": "SUCCESS", "image-digest": digest(&a()).as_str(), "image-tag": "v1"}),
    )
}

fn pushed(minutes: i64) -> Value {
    tell(
        minutes,
        "ECR Image Action",
        json!({"result": "SUCCESS", "action-type": "PUSH", "image-digest": digest(&a()).as_str(),
               "image-tag": "v1"}),
    )
}

/// The documented event of this name, with a digest that is one: AWS's page shortens them.
fn documented(name: &str) -> Result<Option<Event>, DecodeError> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/records")
        .join(format!("awsdocs-eventbridge-{name}.json"));
    let mut event: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    event["detail"]["image-digest"] = json!(digest(&a()).as_str());
    notice(event.to_string().as_bytes())
}

#[test]
fn of_the_documented_events_those_are_facts_that_leave_an_image() {
    for name in [
        "image-PUSH",
        "image-RESTORE",
        "pull-through-cache",
        "replication-SUCCESS",
    ] {
        // February 29th of 2023 is AWS's own; a fact without a time is none.
        let event = match documented(name) {
            Err(DecodeError::Field { field: "time", .. }) if name == "pull-through-cache" => {
                continue;
            }
            event => event.unwrap().unwrap(),
        };
        assert!(matches!(event.action, Action::Appeared(_)), "{event:?}");
        assert!(event.id.starts_with("notice/"), "{event:?}");
        assert_eq!(&*event.account, "123456789012");
    }
    for name in [
        "image-ARCHIVE",
        "image-DELETE",
        "referrer-RESTORE",
        "replication-FAILED",
    ] {
        assert_eq!(documented(name).unwrap(), None, "{name}");
    }
}

#[test]
fn only_ecrs_own_events_are_facts() {
    let mut event = replicated(1);
    event["source"] = json!("my.app");
    assert_eq!(notice(event.to_string().as_bytes()).unwrap(), None);
    event["source"] = json!("aws.ecr");
    event["detail"]["image-digest"] = json!("latest");
    assert!(notice(event.to_string().as_bytes()).is_err());
    assert!(notice(b"7").is_err());
}

#[test]
fn a_replicated_or_cached_image_is_present() {
    for event in [replicated(1), cached(1)] {
        let world = World::new()
            .event(event)
            .pod("web-1", 5, WEB, &digest(&a()));
        assert_eq!(world.states(), ["Present"]);
        assert_eq!(world.verdicts(), [""; 0]);
    }
}

#[test]
fn an_image_that_was_expired_and_comes_back_by_replication_is_no_finding() {
    let world = World::new()
        .event(push(1, Some("v1"), &a()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .pod("web-1", 5, WEB, &digest(&a()));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
    let world = world.event(replicated(30));
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), [""; 0]);
    let world = world.event(lifecycle(40, 1, "expire", &[(&digest(&a()), &["v1"])]));
    assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
}

#[test]
fn a_tag_that_a_cache_moved_is_known_to_name_another_image() {
    let other = manifest("b");
    let world = World::new()
        .event(push(1, Some("v1"), &other))
        .event(cached(10))
        .event(lifecycle(20, 1, "expire", &[(&digest(&other), &[])]))
        .pod("web-1", 5, WEB, &digest(&other));
    assert_eq!(world.verdicts(), ["ImageExpired WouldChange"]);
}

#[test]
fn the_notice_of_a_push_that_is_in_evidence_changes_nothing() {
    let untag = |minutes| {
        let id = json!({"imageTag": "v1", "imageDigest": digest(&a()).as_str()});
        delete(minutes, json!([by_tag("v1")]), json!([id]), json!([]))
    };
    for notice in [pushed(2), pushed(1)] {
        let world = World::new()
            .event(push(1, Some("v1"), &a()))
            .event(notice)
            .event(untag(20))
            .pod("web-1", 5, WEB, &digest(&a()));
        // The last tag of an image whose tags are all known took the image with it.
        assert_eq!(world.states(), ["Deleted"]);
    }
    // An image that came another way may have other tags.
    let world =
        World::new()
            .event(replicated(1))
            .event(untag(20))
            .pod("web-1", 5, WEB, &digest(&a()));
    assert_eq!(world.states(), ["Present"]);
    let gone = delete(30, json!([by_digest(&digest(&a()))]), json!([]), json!([]));
    assert_eq!(world.event(gone).states(), ["Deleted"]);
}

/// A lifecycle run that was kept from removing the image, for this reason.
fn failed_run(minutes: i64, code: &str) -> Value {
    let mut run = lifecycle(minutes, 1, "expire", &[]);
    run["serviceEventDetails"]["lifecycleEventFailureDetails"] = json!([
        {"lifecycleEventImage": {"digest": digest(&a()).as_str(), "tagStatus": "Untagged",
             "tagList": []},
         "rulePriority": 1, "failureCode": code, "failureReason": "…"},
        {"strange": true},
    ]);
    run
}

/// A deletion that failed for this reason.
fn failed_deletion(minutes: i64, code: &str) -> Value {
    let id = json!([by_digest(&digest(&a()))]);
    let mut call = delete(minutes, id.clone(), json!([]), id);
    call["responseElements"]["failures"][0]["failureCode"] = json!(code);
    call
}

#[test]
fn a_removal_that_an_index_kept_from_happening_shows_the_image_to_be_there() {
    let expired = || {
        World::new()
            .event(push(1, Some("v1"), &a()))
            .pod("web-1", 5, WEB, &digest(&a()))
            .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
    };
    for failed in [failed_run, failed_deletion] {
        let world = expired().event(failed(30, "ImageReferencedByManifestList"));
        assert_eq!(world.states(), ["Unknown"]);
        assert_eq!(world.verdicts(), [""; 0]);
        // What is not found is not there.
        let world = expired().event(failed(30, "ImageNotFound"));
        assert_eq!(world.verdicts(), ["ImageExpired Unpullable"]);
        // It takes nothing away, either.
        let world = World::new()
            .event(push(1, Some("v1"), &a()))
            .pod("web-1", 5, WEB, &digest(&a()))
            .event(failed(30, "ImageReferencedByManifestList"));
        assert_eq!(world.states(), ["Present"]);
        assert_eq!(world.verdicts(), [""; 0]);
    }
}

#[test]
fn of_what_came_back_by_other_ways_the_lost_tags_are_unknown() {
    let mut untagged = replicated(30);
    untagged["detail"]
        .as_object_mut()
        .unwrap()
        .remove("image-tag");
    let restored = crate::world::storage_class(30, by_digest(&digest(&a())), "STANDARD");
    for back in [untagged, restored] {
        let world = World::new()
            .event(push(1, Some("v1"), &a()))
            .pod("web-1", 5, WEB, &digest(&a()))
            .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
            .event(back);
        assert_eq!(world.states(), ["Present"]);
        assert_eq!(world.verdicts(), [""; 0]);
    }
}

#[test]
fn an_image_that_went_twice_and_came_back_leaves_its_tags_unknown() {
    let world = World::new()
        .event(push(1, Some("v1"), &a()))
        .pod("web-1", 5, WEB, &digest(&a()))
        .event(lifecycle(20, 1, "expire", &[(&digest(&a()), &["v1"])]))
        .event(lifecycle(25, 1, "expire", &[(&digest(&a()), &[])]))
        .event(crate::world::storage_class(
            30,
            by_digest(&digest(&a())),
            "STANDARD",
        ));
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn after_a_deleted_repository_what_came_back_may_have_any_tag() {
    let mut untagged = replicated(30);
    untagged["detail"]
        .as_object_mut()
        .unwrap()
        .remove("image-tag");
    let world = World::new()
        .pod("web-1", 5, WEB, &digest(&a()))
        .event(crate::world::delete_repository(20));
    assert_eq!(world.verdicts(), ["ImageDeleted Unpullable"]);
    let world = world.event(untagged);
    assert_eq!(world.states(), ["Present"]);
    assert_eq!(world.verdicts(), [""; 0]);
}
