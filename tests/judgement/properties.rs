//! Properties of the judgement over whole generated histories.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{
    REGISTRY, World, at, by_digest, by_tag, delete, delete_repository, denied, digest, index,
    lifecycle, manifest, pull, push, role, storage_class,
};

const TAGS: [&str; 3] = ["v1", "v2", "latest"];

/// Three images, and an index over the first two.
fn texts() -> [String; 4] {
    let (a, b, c) = (manifest("a"), manifest("b"), manifest("c"));
    let both = index(&[("amd64", &a), ("arm64", &b)]);
    [a, b, c, both]
}

/// One step of a repository's life; its minute is given by its place.
#[derive(Clone, Debug)]
enum Step {
    Push {
        image: usize,
        tag: Option<usize>,
        denied: bool,
    },
    Expire {
        image: usize,
        archive: bool,
    },
    DeleteDigest(usize),
    DeleteTag(usize),
    DeleteRepository,
    Storage {
        image: usize,
        archive: bool,
    },
    PullDigest {
        image: usize,
        who: usize,
    },
    PullTag {
        tag: usize,
        who: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (image, tag, who) = (0..4_usize, 0..3_usize, 0..3_usize);
    prop_oneof![
        6 => (image.clone(), prop::option::of(tag.clone()), prop::bool::weighted(0.1))
            .prop_map(|(image, tag, denied)| Step::Push { image, tag, denied }),
        2 => (image.clone(), any::<bool>()).prop_map(|(image, archive)| Step::Expire { image, archive }),
        1 => image.clone().prop_map(Step::DeleteDigest),
        2 => tag.clone().prop_map(Step::DeleteTag),
        1 => Just(Step::DeleteRepository),
        1 => (image.clone(), any::<bool>()).prop_map(|(image, archive)| Step::Storage { image, archive }),
        4 => (image, who.clone()).prop_map(|(image, who)| Step::PullDigest { image, who }),
        4 => (tag, who).prop_map(|(tag, who)| Step::PullTag { tag, who }),
    ]
}

fn record(minute: i64, step: &Step) -> Value {
    let texts = texts();
    let session = |who: usize| ["i-0aaaaaaaaaaaaaaa1", "i-0bbbbbbbbbbbbbbb2", "s"][who];
    let caller = |who: usize| role(["eks-node", "eks-node", "scanner"][who], session(who));
    match step {
        Step::Push {
            image,
            tag,
            denied: refused,
        } => {
            let record = push(minute, tag.map(|tag| TAGS[tag]), &texts[*image]);
            if *refused { denied(record) } else { record }
        }
        Step::Expire { image, archive } => {
            let (priority, action) = if *archive {
                (2, "transition")
            } else {
                (1, "expire")
            };
            lifecycle(minute, priority, action, &[(&digest(&texts[*image]), &[])])
        }
        Step::DeleteDigest(image) => {
            let id = by_digest(&digest(&texts[*image]));
            delete(minute, json!([id]), json!([id]), json!([]))
        }
        Step::DeleteTag(tag) => delete(minute, json!([by_tag(TAGS[*tag])]), json!([]), json!([])),
        Step::DeleteRepository => delete_repository(minute),
        Step::Storage { image, archive } => {
            let class = if *archive { "ARCHIVE" } else { "STANDARD" };
            storage_class(minute, by_digest(&digest(&texts[*image])), class)
        }
        Step::PullDigest { image, who } => pull(
            minute,
            json!([by_digest(&digest(&texts[*image]))]),
            caller(*who),
        ),
        Step::PullTag { tag, who } => pull(minute, json!([by_tag(TAGS[*tag])]), caller(*who)),
    }
}

fn world(records: Vec<Value>, pods: &[(usize, usize, i64)]) -> World {
    let mut world = World::new()
        .node("i-0aaaaaaaaaaaaaaa1")
        .policy(json!({"expectedPullers": {}, "expectedPushers": {}}));
    world.records = records;
    for (i, (image, tag, created)) in pods.iter().enumerate() {
        let reference = format!("{REGISTRY}/shop/web:{}", TAGS[*tag]);
        let pod = format!("web{}-{i}", i % 2);
        world = if *image == 4 {
            world.waiting(&pod, *created, &reference)
        } else {
            world.pod(&pod, *created, &reference, &digest(&texts()[*image]))
        };
    }
    world.now(200)
}

fn history() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec((0..100_i64, step()), 0..40).prop_map(|steps| {
        let mut records: Vec<Value> = steps.iter().map(|(m, step)| record(*m, step)).collect();
        for (i, record) in records.iter_mut().enumerate() {
            record["eventID"] = json!(format!("{i:08}"));
        }
        records
    })
}

/// Image (4: none yet), tag and minute of creation of each pod.
type Pods = Vec<(usize, usize, i64)>;

fn pods() -> impl Strategy<Value = Pods> {
    prop::collection::vec((0..5_usize, 0..3_usize, 0..100_i64), 1..6)
}

fn shuffled() -> impl Strategy<Value = (Vec<Value>, Vec<Value>, Pods)> {
    (history(), pods()).prop_flat_map(|(records, pods)| {
        (
            Just(records.clone()),
            Just(records).prop_shuffle(),
            Just(pods),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_order_of_arrival_gives_one_judgement((sorted, shuffled, pods) in shuffled()) {
        let one = world(sorted, &pods).assess();
        let other = world(shuffled, &pods).assess();
        prop_assert_eq!(&one.images, &other.images);
        prop_assert_eq!(
            serde_json::to_string(&one.findings).unwrap(),
            serde_json::to_string(&other.findings).unwrap()
        );
        prop_assert_eq!(one.unresolved_pulls, other.unresolved_pulls);
    }

    #[test]
    fn what_happens_later_does_not_change_how_it_was_judged(
        records in history(), pods in pods(), now in 0..100_i64,
    ) {
        let until: Vec<Value> = records
            .iter()
            .filter(|record| {
                let time: jiff::Timestamp = record["eventTime"].as_str().unwrap().parse().unwrap();
                time <= at(now)
            })
            .cloned()
            .collect();
        let then = world(until, &pods).now(now).assess();
        let later = world(records, &pods).now(now).assess();
        prop_assert_eq!(&then.images, &later.images);
        prop_assert_eq!(&then.findings, &later.findings);
    }

    #[test]
    fn an_image_is_present_only_after_a_push_or_a_restore(records in history(), pods in pods()) {
        let world = world(records, &pods);
        for image in world.assess().images {
            let Some(running) = &image.digest else { continue };
            let brought = world.records.iter().any(|record| {
                let name = record["eventName"].as_str().unwrap();
                (name == "PutImage" && record["errorCode"].is_null()
                    || name == "UpdateImageStorageClass")
                    && record.to_string().contains(running.as_str())
            });
            let state = format!("{:?}", image.state);
            prop_assert!(state != "Present" || brought, "{state} without a cause");
        }
    }

    #[test]
    fn every_removal_names_an_event_of_the_history(records in history(), pods in pods()) {
        let world = world(records, &pods);
        for finding in world.findings() {
            prop_assert!(!finding.event_ids.is_empty() && !finding.containers.is_empty());
            for id in &finding.event_ids {
                prop_assert!(world.records.iter().any(|record| record["eventID"] == json!(id)));
            }
        }
    }
}
