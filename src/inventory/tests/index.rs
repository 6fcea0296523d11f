//! The index: fed in any way, it knows what runs.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use proptest::prelude::*;

use super::*;
use crate::{
    api::{Images, Workloads},
    inventory::{Kind, Namespace},
};

fn namespace(name: &str, labels: &Value) -> Namespace {
    serde_json::from_value(namespace_json(name, labels)).unwrap()
}

fn changed(index: &mut Index) -> Vec<String> {
    let mut names: Vec<String> = index
        .take_changes()
        .repositories
        .iter()
        .map(|repository| repository.name.as_ref().to_owned())
        .collect();
    names.sort();
    names
}

fn names(containers: &[crate::audit::Container<'_>]) -> Vec<String> {
    let mut names: Vec<String> = containers
        .iter()
        .map(|c| format!("{}/{}/{}", c.namespace, c.pod, c.container))
        .collect();
    names.sort();
    names
}

#[test]
fn a_container_is_found_by_its_repository_with_all_that_is_known_of_it() {
    let mut index = Index::new();
    // The repository in the imageID is another one that shares the digest.
    let image_id = format!("{}@{}", image("elsewhere"), digest('a'));
    index.apply_pod(&pod(&pod_json(
        "shop",
        "web-1",
        &image("shop/web:v1"),
        &image_id,
    )));
    index.apply_node(&node(&node_json("node-1", "aws:///a/i-0abc", "arm64")));
    let scope = Scope::default();
    assert_eq!(
        index.repositories(&scope).collect::<Vec<_>>(),
        [&repository("shop/web")]
    );
    let containers = index.containers(&repository("shop/web"), &scope);
    let [container] = containers.as_slice() else {
        panic!("{containers:?}");
    };
    assert_eq!(container.namespace, "shop");
    assert_eq!(container.pod, "web-1");
    assert_eq!(container.container, "app");
    assert_eq!(container.workload_kind, "Pod");
    assert_eq!(container.workload_name, "web-1");
    assert_eq!(&*container.reference.text, image("shop/web:v1"));
    assert_eq!(container.running.unwrap().as_str(), digest('a'));
    assert_eq!(container.created.to_string(), "2026-11-22T12:00:00Z");
    assert_eq!(container.started.to_string(), "2026-11-22T12:00:05Z");
    assert_eq!(&*container.platform.unwrap().architecture, "arm64");
    assert_eq!(index.image_id("shop", "web-1", "app"), Some(&*image_id));
    assert_eq!(index.image_id("shop", "web-1", "other"), None);
    assert_eq!(index.image_id("shop", "web-2", "app"), None);
}

#[test]
fn an_image_changed_in_place_changes_both_repositories() {
    let mut index = Index::new();
    index.apply_pod(&pod(&pod_json("shop", "web", &image("a:v1"), "")));
    assert_eq!(changed(&mut index), ["a"]);
    index.apply_pod(&pod(&pod_json("shop", "web", &image("b:v1"), "")));
    assert_eq!(changed(&mut index), ["a", "b"]);
    let scope = Scope::default();
    assert_eq!(index.containers(&repository("a"), &scope).len(), 0);
    assert_eq!(index.containers(&repository("b"), &scope).len(), 1);
    assert_eq!(index.repositories(&scope).count(), 1);
}

#[test]
fn a_status_update_that_changes_nothing_of_ours_is_no_change() {
    let mut index = Index::new();
    let mut value = pod_json("shop", "web", &image("a"), "");
    index.apply_pod(&pod(&value));
    assert!(index.has_changes());
    assert_eq!(changed(&mut index), ["a"]);
    value["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    value["metadata"]["resourceVersion"] = "8".into();
    index.apply_pod(&pod(&value));
    assert!(!index.has_changes());
    assert!(index.take_changes().is_empty());
}

#[test]
fn the_image_that_a_waiting_container_got_is_a_change() {
    let mut index = Index::new();
    index.apply_pod(&pod(&pod_json("shop", "web", &image("a"), "")));
    assert_eq!(changed(&mut index), ["a"]);
    let image_id = format!("x@{}", digest('a'));
    index.apply_pod(&pod(&pod_json("shop", "web", &image("a"), &image_id)));
    assert_eq!(changed(&mut index), ["a"]);
}

#[test]
fn a_pod_that_finished_or_was_deleted_runs_no_more() {
    let mut index = Index::new();
    let mut value = pod_json("shop", "web", &image("a"), "");
    index.apply_pod(&pod(&value));
    changed(&mut index);
    value["status"]["phase"] = "Succeeded".into();
    index.apply_pod(&pod(&value));
    assert_eq!(changed(&mut index), ["a"]);
    assert_eq!((dump(&index).len(), index.pod_count()), (0, 0));
    value["status"]["phase"] = "Running".into();
    index.apply_pod(&pod(&value));
    changed(&mut index);
    index.delete_pod("shop", "web");
    assert_eq!(changed(&mut index), ["a"]);
    assert_eq!((dump(&index).len(), index.pod_count()), (0, 0));
    index.delete_pod("shop", "web");
    index.delete_pod("elsewhere", "web");
    assert!(!index.has_changes());
}

#[test]
fn what_a_new_list_does_not_name_is_gone_when_the_list_ends_and_not_before() {
    let mut index = Index::new();
    for name in ["one", "two"] {
        index.apply_pod(&pod(&pod_json("shop", name, &image(name), "")));
        index.apply_node(&node(&node_json(name, "aws:///a/i-0abc", "arm64")));
        index.apply_namespace(&namespace(name, &json!({})));
    }
    changed(&mut index);
    for kind in Kind::ALL {
        index.begin(kind);
    }
    index.apply_pod(&pod(&pod_json("shop", "one", &image("one"), "")));
    index.apply_node(&node(&node_json("one", "aws:///a/i-0abc", "arm64")));
    assert_eq!((index.pod_count(), index.has_changes()), (2, false));
    // A list that breaks off and is started again is no list that ended.
    index.begin(Kind::Pod);
    index.apply_pod(&pod(&pod_json("shop", "one", &image("one"), "")));
    for kind in Kind::ALL {
        index.finish(kind);
    }
    assert_eq!(index.pod_count(), 1);
    // The namespace and the node that the pod names, and the node object.
    assert_eq!(index.sizes()[..3], [1, 1, 2]);
    assert_eq!(changed(&mut index), ["two"]);
}

#[test]
fn a_node_that_comes_changes_or_goes_changes_its_pods_platform() {
    let mut index = Index::new();
    index.apply_pod(&pod(&pod_json("shop", "web", &image("a"), "")));
    changed(&mut index);
    let platform = |index: &Index| {
        index.containers(&repository("a"), &Scope::default())[0]
            .platform
            .map(|platform| platform.architecture.as_ref().to_owned())
    };
    for architecture in ["arm64", "amd64"] {
        index.apply_node(&node(&node_json("node-1", "", architecture)));
        assert_eq!(changed(&mut index), ["a"]);
        assert_eq!(platform(&index).as_deref(), Some(architecture));
    }
    index.apply_node(&node(&node_json("node-2", "", "arm64")));
    assert_eq!(changed(&mut index), [""; 0]);
    index.delete_node("node-1");
    assert_eq!(changed(&mut index), ["a"]);
    assert_eq!(platform(&index), None);
}

#[test]
fn nodes_give_their_instance_ids_and_are_counted_when_they_have_none() {
    let mut index = Index::new();
    index.apply_node(&node(&node_json("a", "aws:///z/i-0abc", "arm64")));
    index.apply_node(&node(&node_json("b", "eks-hybrid:///r/c/mi-0", "arm64")));
    assert!(index.take_changes().instances);
    assert_eq!(index.instances(), HashSet::from(["i-0abc".into()]));
    assert_eq!(index.nodes_without_session(), 1);
    index.apply_node(&node(&node_json("a", "aws:///z/i-0abc", "arm64")));
    assert!(!index.has_changes());
    index.delete_node("a");
    assert!(index.take_changes().instances);
    assert_eq!(index.instances(), HashSet::new());
}

fn selector(workloads: LabelSelector) -> Scope {
    let workloads = Workloads {
        namespace_selector: Some(workloads),
    };
    Scope::new(Some(&workloads), None).unwrap()
}

fn labels(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    }
}

fn two_namespaces() -> Index {
    let mut index = Index::new();
    for namespace in ["prod", "test"] {
        index.apply_pod(&pod(&pod_json(namespace, "web", &image("a"), "")));
    }
    index
}

#[test]
fn a_selector_takes_the_namespaces_that_have_the_labels() {
    let mut index = two_namespaces();
    let scope = selector(labels("stage", "live"));
    assert!(scope.needs_labels());
    assert_eq!(index.namespaces_without_labels(), ["prod", "test"]);
    assert_eq!(index.containers(&repository("a"), &scope).len(), 0);
    index.apply_namespace(&namespace("prod", &json!({"stage": "live"})));
    index.apply_namespace(&namespace("test", &json!({})));
    index.apply_namespace(&namespace("unused", &json!({})));
    assert_eq!(index.namespaces_without_labels(), [""; 0]);
    assert_eq!(
        names(&index.containers(&repository("a"), &scope)),
        ["prod/web/app"]
    );
    changed(&mut index);
    index.apply_namespace(&namespace("test", &json!({"stage": "live"})));
    assert_eq!(changed(&mut index), ["a"]);
    assert_eq!(index.containers(&repository("a"), &scope).len(), 2);
    index.delete_namespace("test");
    assert_eq!(changed(&mut index), ["a"]);
    assert_eq!(index.namespaces_without_labels(), ["test"]);
}

#[test]
fn an_expression_that_excludes_takes_the_rest() {
    let mut index = two_namespaces();
    index.apply_namespace(&namespace("prod", &json!({})));
    index.apply_namespace(&namespace("test", &json!({"stage": "test"})));
    let scope = selector(LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "stage".into(),
            operator: "NotIn".into(),
            values: Some(vec!["test".into()]),
        }]),
        ..LabelSelector::default()
    });
    assert_eq!(
        names(&index.containers(&repository("a"), &scope)),
        ["prod/web/app"]
    );
}

#[test]
fn a_selector_on_the_name_alone_needs_no_namespace_objects() {
    let index = two_namespaces();
    let scope = selector(labels("kubernetes.io/metadata.name", "test"));
    assert!(!scope.needs_labels());
    assert_eq!(
        names(&index.containers(&repository("a"), &scope)),
        ["test/web/app"]
    );
}

#[test]
fn an_empty_selector_takes_every_namespace() {
    let index = two_namespaces();
    let scope = selector(LabelSelector::default());
    assert!(!scope.needs_labels());
    assert_eq!(index.containers(&repository("a"), &scope).len(), 2);
}

#[test]
fn a_selector_with_an_unknown_operator_is_refused() {
    let workloads = Workloads {
        namespace_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "stage".into(),
                operator: "Like".into(),
                values: None,
            }]),
            ..LabelSelector::default()
        }),
    };
    assert!(Scope::new(Some(&workloads), None).is_err());
}

#[test]
fn registries_that_a_policy_does_not_name_are_out_of_scope() {
    let index = two_namespaces();
    let scope = |id: &str| {
        let images = Images {
            registry_ids: Some(vec![id.to_owned()]),
        };
        Scope::new(None, Some(&images)).unwrap()
    };
    let (named, other) = (scope("111122223333"), scope("444455556666"));
    assert_eq!(index.repositories(&named).count(), 1);
    assert_eq!(index.containers(&repository("a"), &named).len(), 2);
    assert_eq!(index.repositories(&other).count(), 0);
    assert_eq!(index.containers(&repository("a"), &other).len(), 0);
}

/// What can happen to an index, over few names, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Pod(u8, Option<(u8, u8, bool)>),
    Node(u8, Option<bool>),
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8, proptest::option::weighted(0.7, (0..4_u8, 0..4_u8, any::<bool>())))
            .prop_map(|(pod, facts)| Step::Pod(pod, facts)),
        2 => (0..3_u8, proptest::option::weighted(0.7, any::<bool>()))
            .prop_map(|(node, facts)| Step::Node(node, facts)),
        1 => Just(Step::Relist),
    ]
}

fn generated(number: u8, (first, second, waits): (u8, u8, bool)) -> Pod {
    let image_id = format!("x@{}", digest('a'));
    let mut value = pod_json(
        ["shop", "blog"][usize::from(number % 2)],
        &format!("pod-{number}"),
        &image(&format!("r{first}:v1")),
        if waits { "" } else { &image_id },
    );
    value["spec"]["nodeName"] = format!("node-{}", second % 3).into();
    value["spec"]["initContainers"] =
        json!([{"name": "init", "image": image(&format!("r{second}:v2"))}]);
    if first == second {
        value["status"]["phase"] = "Failed".into();
    }
    pod(&value)
}

fn generated_node(number: u8, arm: bool) -> Node {
    let architecture = if arm { "arm64" } else { "amd64" };
    let provider_id = format!("aws:///a/i-0{number}");
    node(&node_json(
        &format!("node-{number}"),
        &provider_id,
        architecture,
    ))
}

proptest! {
    /// Whatever happened on the way, the index is what one made of the last state would be, nothing
    /// is left of what is gone, and each difference was announced.
    #[test]
    fn any_order_of_changes_and_lists_equals_a_rebuild(steps in prop::collection::vec(step(), 0..60)) {
        let mut index = Index::new();
        let mut pods = std::collections::BTreeMap::new();
        let mut nodes = std::collections::BTreeMap::new();
        for step in steps {
            let before = by_repository(&index);
            match step {
                Step::Pod(number, Some(facts)) => {
                    let pod = generated(number, facts);
                    index.apply_pod(&pod);
                    pods.insert(number, pod);
                }
                Step::Pod(number, None) => {
                    if let Some(pod) = pods.remove(&number) {
                        index.delete_pod(&pod.namespace, &pod.name);
                    }
                }
                Step::Node(number, Some(arm)) => {
                    let node = generated_node(number, arm);
                    index.apply_node(&node);
                    nodes.insert(number, node);
                }
                Step::Node(number, None) => {
                    if nodes.remove(&number).is_some() {
                        index.delete_node(&format!("node-{number}"));
                    }
                }
                Step::Relist => {
                    // Every second object went while nobody watched.
                    pods.retain(|number, _| number % 2 == 0);
                    nodes.retain(|number, _| number % 2 == 0);
                    index.begin(Kind::Pod);
                    index.begin(Kind::Node);
                    for pod in pods.values() { index.apply_pod(pod); }
                    for node in nodes.values() { index.apply_node(node); }
                    index.finish(Kind::Pod);
                    index.finish(Kind::Node);
                }
            }
            let after = by_repository(&index);
            let announced: HashSet<String> = changed(&mut index).into_iter().collect();
            for repository in before.keys().chain(after.keys()) {
                prop_assert!(
                    before.get(repository) == after.get(repository)
                        || announced.contains(repository),
                    "{} was not announced", repository
                );
            }
        }
        let mut rebuilt = Index::new();
        for node in nodes.values() { rebuilt.apply_node(node); }
        for pod in pods.values() { rebuilt.apply_pod(pod); }
        prop_assert_eq!(dump(&index), dump(&rebuilt));
        prop_assert_eq!(index.instances(), rebuilt.instances());
        prop_assert_eq!(index.sizes(), rebuilt.sizes());
        for pod in pods.values() { index.delete_pod(&pod.namespace, &pod.name); }
        for node in nodes.values() { index.delete_node(&node.name); }
        prop_assert_eq!(index.sizes(), [0; 7]);
    }
}

fn by_repository(index: &Index) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut lines = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in dump(index) {
        let image = line.split(' ').nth(3).unwrap();
        let name = image.rsplit_once('/').unwrap().1;
        let name = name.split(':').next().unwrap().to_owned();
        lines.entry(name).or_default().push(line);
    }
    lines
}
