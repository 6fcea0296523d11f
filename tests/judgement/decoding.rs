//! From a record's text to an event: real records, and what goes wrong.

use std::{fs, path::PathBuf};

use ecr_audit::event::{Action, DecodeError, Digest, EventName, Outcome, Reference, decode};
use serde_json::{Value, json};

use crate::world::{
    ACCOUNT, by_tag, call, denied, digest, event, index, lifecycle, manifest, pull, push, role,
};

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/records")
        .join(name);
    fs::read(path).unwrap()
}

#[test]
fn the_examples_of_awss_page_are_events() {
    let run = decode(&file("awsdocs-ecr-PolicyExecutionEvent.json")).unwrap();
    let Action::LifecycleRun(actions) = &run.action else {
        panic!("{run:?}")
    };
    assert_eq!(actions.len(), 2);
    assert_eq!(
        actions[0].rule.description.as_deref(),
        Some("remove all images > 2")
    );
    assert_eq!(
        run.repository.unwrap().to_string(),
        "123456789012/us-west-2/testrepo"
    );

    let pull = decode(&file("awsdocs-ecr-BatchGetImage.json")).unwrap();
    let Action::Pull(ids) = &pull.action else {
        panic!("{pull:?}")
    };
    assert_eq!(ids[0].tag.as_deref(), Some("latest"));

    let push = decode(&file("awsdocs-ecr-PutImage-whitespace-collapsed.json")).unwrap();
    let Action::Push { digest_matches, .. } = &push.action else {
        panic!("{push:?}")
    };
    assert_eq!(
        *digest_matches,
        Some(false),
        "a document that lost its whitespace"
    );

    let create = decode(&file("awsdocs-ecr-CreateRepository.json")).unwrap();
    assert_eq!(
        (create.name, create.action),
        (EventName::CreateRepository, Action::None)
    );
    let grant = decode(&file("awsdocs-ecr-CreateGrant.json"));
    assert!(matches!(grant, Err(DecodeError::OtherService)));
}

#[test]
fn the_digest_is_the_hash_of_the_manifests_text() {
    let push = decode(&file(
        "panther-labs-panther-analysis-aws_ecr_crud-2-PutImage.json",
    ))
    .unwrap();
    let Action::Push {
        image,
        digest_matches,
        manifest,
    } = push.action
    else {
        panic!()
    };
    assert_eq!(digest_matches, Some(true));
    assert_eq!(image.tag.as_deref(), Some("latest"));
    assert!(
        manifest
            .unwrap()
            .config
            .unwrap()
            .as_str()
            .starts_with("sha256:000b9b805af1")
    );
}

#[test]
fn ecr_public_is_another_service() {
    let public = decode(&file("awsdocs-ecr-public-PutImage.json"));
    assert!(matches!(public, Err(DecodeError::OtherService)));
}

#[test]
fn real_records_of_other_shapes_decode() {
    let empty = decode(&file(
        "ccbrown-cloud-snitch-PolicyExecutionEvent-empty.json",
    ))
    .unwrap();
    assert_eq!(empty.action, Action::LifecycleRun(vec![]));
    let siem = "panther-labs-panther-analysis-aws_resource_made_public-1-SetRepositoryPolicy.json";
    let siem = decode(&file(siem)).unwrap();
    assert_eq!(siem.time.to_string(), "2020-11-20T06:19:05Z");
    assert_eq!(siem.repository.unwrap().name.as_ref(), "community");
    assert_eq!(
        decode(&file("airbnb-streamalert-SetRepositoryPolicy-1.json"))
            .unwrap()
            .name,
        EventName::SetRepositoryPolicy
    );
}

#[test]
fn a_push_without_an_answer_still_has_its_digest() {
    let mut record = push(1, Some("v1"), &manifest("a"));
    record["responseElements"] =
        json!({"omitted": true, "originalSize": 104_000, "reason": "too large"});
    let event = event(&record);
    assert!(event.omitted);
    let Action::Push { image, .. } = event.action else {
        panic!()
    };
    assert_eq!(
        (image.digest.unwrap(), image.tag.as_deref()),
        (digest(&manifest("a")), Some("v1"))
    );
}

#[test]
fn escapes_hide_neither_what_was_left_out_nor_what_a_rule_does() {
    let mut left_out = lifecycle(1, 1, "expire", &[]);
    left_out["serviceEventDetails"] = json!({"omitted": true, "originalSize": 104_000});
    let text = left_out.to_string().replace("omitted", "omitte\\u0064");
    assert!(decode(text.as_bytes()).unwrap().omitted);
    let digest = digest(&manifest("a"));
    let run = lifecycle(1, 2, "transition", &[(&digest, &[])]);
    let text = run.to_string().replace("transition", "transitio\\u006e");
    assert_ne!(text, run.to_string());
    assert_eq!(decode(text.as_bytes()).unwrap().action, event(&run).action);
}

#[test]
fn what_cloudtrail_left_out_is_omitted_and_not_undecodable() {
    for flag in [json!(true), json!("true")] {
        let stand_in = json!({"omitted": flag, "originalSize": "104000", "reason": "…"});
        let mut record = pull(1, json!([by_tag("v1")]), role("ci", "7"));
        record["requestParameters"] = stand_in.clone();
        let pulled = event(&record);
        assert!(pulled.omitted);
        assert_eq!(pulled.action, Action::None);
        let mut run = lifecycle(1, 1, "expire", &[]);
        run["serviceEventDetails"] = stand_in;
        assert!(event(&run).omitted);
    }
}

#[test]
fn a_record_that_lacks_what_it_is_judged_by_is_undecodable() {
    let cut = |field: &str| {
        let mut record = pull(1, json!([by_tag("v1")]), role("ci", "7"));
        record[field] = Value::Null;
        decode(record.to_string().as_bytes()).map_err(|error| error.to_string())
    };
    for field in ["eventID", "eventTime", "eventName", "requestParameters"] {
        let error = cut(field).unwrap_err();
        assert!(error.contains(field), "{field}: {error}");
    }
    assert!(cut("userIdentity").is_ok());
    assert!(cut("resources").is_ok(), "the request names the registry");
}

#[test]
fn a_refused_call_without_a_request_decodes() {
    let mut record = denied(pull(1, json!([by_tag("v1")]), role("ci", "7")));
    record["requestParameters"] = Value::Null;
    let event = event(&record);
    assert_eq!(
        (event.outcome, event.action),
        (Outcome::Denied, Action::None)
    );
}

#[test]
fn names_that_nobody_documented_are_counted_as_other() {
    let event = event(&call(1, "ReplicateImage", json!({"a": 1}), Value::Null));
    assert_eq!((event.name, event.action), (EventName::Other, Action::None));
}

#[test]
fn insights_and_network_activity_are_no_calls() {
    for category in ["Insight", "NetworkActivity"] {
        let mut record = pull(1, json!([by_tag("v1")]), role("ci", "7"));
        record["eventCategory"] = json!(category);
        assert_eq!(event(&record).action, Action::None);
    }
}

#[test]
fn a_correction_names_the_event_that_it_replaces() {
    let mut record = push(1, Some("v1"), &manifest("a"));
    record["addendum"] = json!({"reason": "DELIVERY_DELAY"});
    assert_eq!(event(&record).replaces, None);
    record["addendum"] = json!({"reason": "UPDATED_DATA", "originalEventID": "first"});
    assert_eq!(event(&record).replaces.as_deref(), Some("first"));
    record["addendum"] = json!({"reason": "UPDATED_DATA"});
    assert_eq!(event(&record).replaces.as_deref(), Some("PutImage-000001"));
}

#[test]
fn an_index_names_its_children_with_their_platforms() {
    let text = index(&[("amd64", &manifest("x")), ("arm64", &manifest("y"))]);
    let Action::Push {
        manifest: Some(parsed),
        ..
    } = event(&push(1, None, &text)).action
    else {
        panic!()
    };
    assert_eq!(parsed.children.len(), 2);
    assert_eq!(
        &*parsed.children[1].platform.as_ref().unwrap().architecture,
        "arm64"
    );
}

#[test]
fn ecr_hosts_of_every_partition_are_recognised_and_no_others() {
    for host in [
        "111122223333.dkr.ecr.us-east-1.amazonaws.com",
        "111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
        "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu",
        "111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov",
        "111122223333.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
        "111122223333.dkr-ecr.us-east-1.on.aws",
        "111122223333.dkr-ecr-fips.us-east-1.on.aws",
    ] {
        let reference = Reference::parse(&format!("{host}/shop/web:v1")).unwrap();
        assert_eq!(&*reference.repository.account, ACCOUNT, "{host}");
        assert_eq!(&*reference.repository.name, "shop/web");
    }
    for other in [
        "public.ecr.aws/shop/web:v1",
        "docker.io/library/nginx",
        "nginx",
        "111122223333.dkr.ecr.us-east-1.example.com/shop/web",
        "11112222333.dkr.ecr.us-east-1.amazonaws.com/shop/web",
        "111122223333.dkr.ecr.us-east-1.amazonaws.com",
        "111122223333.dkr.ecr.us-east-1.amazonaws.com/",
        "111122223333.dkr.ecr..amazonaws.com/shop/web",
    ] {
        assert_eq!(Reference::parse(other), None, "{other}");
    }
}

#[test]
fn references_give_tag_or_digest_and_the_digest_wins() {
    let host = "111122223333.dkr.ecr.us-east-1.amazonaws.com";
    let parse = |rest: &str| Reference::parse(&format!("{host}/shop/web{rest}")).unwrap();
    let pinned = Digest::of_manifest("x");
    assert_eq!(parse("").tag.as_deref(), Some("latest"));
    assert_eq!(parse(":v1").tag.as_deref(), Some("v1"));
    assert_eq!(parse(&format!("@{pinned}")).digest.as_ref(), Some(&pinned));
    let both = parse(&format!(":v1@{pinned}"));
    assert_eq!((both.tag, both.digest), (None, Some(pinned)));
}

#[test]
fn a_manifest_that_is_no_text_is_an_error() {
    let mut record = push(1, Some("v1"), &manifest("a"));
    for strange in [json!({"manifests": []}), json!(5), json!(["a"])] {
        record["requestParameters"]["imageManifest"] = strange;
        let error = decode(record.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("imageManifest"), "{error}");
    }
    record["requestParameters"]["imageManifest"] = json!(null);
    assert!(decode(record.to_string().as_bytes()).is_ok());
}
