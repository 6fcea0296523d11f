//! A cluster that is not as the operator needs it: it says what is missing, waits, and goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::operator::{Operator, condition, policy};
use crate::world::{CART, POLICY, RATE, SOON, World, story};

const DEFINITION: &str = "CustomResourceDefinition";

async fn not_ready(operator: &mut Operator, gate: &str, parts: &[&str]) {
    eventually(&format!("{gate} to name {parts:?}"), SOON, async || {
        assert!(operator.is_alive(), "it ended: {}", operator.log_tail());
        let (status, page) = operator.get("/readyz").await;
        let line = page.lines().find(|line| line.starts_with(gate));
        let line = line.unwrap_or_default();
        if status == 503 && parts.iter().all(|part| line.contains(part)) {
            Ok(())
        } else {
            Err(format!("{status} {page}"))
        }
    })
    .await;
}

async fn ready(operator: &mut Operator) {
    eventually("it to be ready", SOON, async || {
        assert!(operator.is_alive(), "it ended: {}", operator.log_tail());
        match operator.get("/readyz").await {
            (200, _) => Ok(()),
            (status, page) => Err(format!("{status} {page}")),
        }
    })
    .await;
}

pub(crate) async fn missing_and_older_definitions_are_named_and_waited_for() {
    let world = World::bare(RATE).await;
    world.install(|kind| kind != DEFINITION).await;
    world.run_pods().await;
    let mut operator = world.operator("operator-0").await;
    let missing = ["ecraudit.io/v1alpha1 is not installed"];
    not_ready(&mut operator, "definitions:", &missing).await;
    assert!(operator.log().contains(missing[0]), "{}", operator.log());
    assert_eq!(operator.get("/healthz").await.0, 200);

    // Those of an earlier version come, and with them a policy.
    for definition in &world.release.objects {
        if definition["kind"] != DEFINITION {
            continue;
        }
        let mut older = definition.clone();
        let gone = match older["spec"]["names"]["kind"].as_str() {
            Some("EcrAuditPolicy") => "exceptions",
            _ => "inferred",
        };
        let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let fields = &mut schema["properties"]["spec"];
        let removed = fields["properties"].as_object_mut().unwrap().remove(gone);
        assert!(removed.is_some(), "{gone}");
        if let Some(required) = fields["required"].as_array_mut() {
            required.retain(|name| name != gone);
        }
        world.admin().apply(&older.to_string()).await;
    }
    let lacks = [
        "older than this operator",
        "EcrAuditPolicy.spec.exceptions",
        "EcrAuditFinding.spec.inferred",
    ];
    not_ready(&mut operator, "definitions:", &lacks).await;
    assert!(operator.log().contains(lacks[1]), "{}", operator.log());
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    world.admin().kubectl(established).await;
    world.admin().apply(&story("policy.yaml")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = world.status().await;
    assert_eq!(status, Value::Null, "judged by an older definition");

    // The definitions are brought up to date.
    world.install(|kind| kind == DEFINITION).await;
    ready(&mut operator).await;
    world.expect_judged().await;
    world.expect_findings(&[CART]).await;
    world.expect_no_refusal();
}

/// The roles, less these verbs on these resources.
fn roles(world: &World, less: &BTreeSet<(&str, &str)>) -> String {
    let mut documents = vec![];
    for object in &world.release.objects {
        let mut narrowed = object.clone();
        if !matches!(narrowed["kind"].as_str(), Some("Role" | "ClusterRole")) {
            continue;
        }
        let mut kept = vec![];
        for rule in object["rules"].as_array().unwrap() {
            for resource in rule["resources"].as_array().unwrap() {
                let mut rule = rule.clone();
                rule["resources"] = json!([resource]);
                let verbs = rule["verbs"].as_array_mut().unwrap();
                verbs.retain(|verb| {
                    !less.contains(&(verb.as_str().unwrap(), resource.as_str().unwrap()))
                });
                if !verbs.is_empty() {
                    kept.push(rule);
                }
            }
        }
        narrowed["rules"] = kept.into();
        documents.push(narrowed.to_string());
    }
    documents.join("\n---\n")
}

pub(crate) async fn a_right_that_is_missing_is_named_and_its_return_is_noticed() {
    let world = World::new().await;
    let admin = world.admin();
    let mut less = BTreeSet::from([
        ("update", "leases"),
        ("list", "ecrauditpolicies"),
        ("list", "pods"),
        ("patch", "ecrauditpolicies/status"),
        ("create", "events"),
    ]);
    admin.apply(&roles(&world, &less)).await;
    // They are given back one by one.
    let mut give = |verb, resource| {
        assert!(less.remove(&(verb, resource)));
        roles(&world, &less)
    };
    admin.apply(&story("policy.yaml")).await;
    let mut operator = world.operator("operator-0").await;

    let named = ["cannot list", "ecrauditpolicies"];
    not_ready(&mut operator, "policies:", &named).await;
    not_ready(&mut operator, "inventory:", &["cannot list pods"]).await;
    not_ready(
        &mut operator,
        "lease:",
        &["cannot update resource \"leases\""],
    )
    .await;
    admin.apply(&give("list", "ecrauditpolicies")).await;
    admin.apply(&give("update", "leases")).await;

    let named = "cannot patch ecrauditpolicies.ecraudit.io/status";
    eventually(named, SOON, async || {
        operator.log().contains(named).then_some(()).ok_or("silent")
    })
    .await;
    admin.apply(&give("patch", "ecrauditpolicies/status")).await;

    let message = world.expect("Ready", ("False", "Forbidden")).await;
    assert!(message.contains("cannot list pods"), "{message}");
    admin.apply(&give("list", "pods")).await;
    ready(&mut operator).await;

    // The finding is made, but nobody hears of it.
    let forbidden = async |named: &str| {
        eventually(named, SOON, async || {
            let policy = policy(&admin, POLICY).await;
            let ready = condition(&policy, "Ready");
            match (ready.1.as_str(), ready.2.contains(named)) {
                ("Forbidden", true) => Ok(()),
                _ => Err(format!("{ready:?}")),
            }
        })
        .await;
    };
    world.expect_findings(&[CART]).await;
    forbidden("cannot create events.events.k8s.io").await;
    // It is not forgotten because nothing else happens.
    tokio::time::sleep(Duration::from_secs(3)).await;
    forbidden("cannot create events.events.k8s.io").await;
    admin.apply(&give("create", "events")).await;
    world.expect("Ready", ("True", "Judged")).await;
    let events = admin.kubectl(["get", "events", "-n", "shop"]).await;
    assert!(events.contains("ImageExpired"), "{events}");
    let log = operator.log();
    let told = log.matches("cannot create events.events.k8s.io").count();
    assert!(told <= 3, "told {told} times");

    // A right is taken away while it runs, and then a finding changes.
    let patch = ("patch", "ecrauditfindings");
    admin.apply(&roles(&world, &BTreeSet::from([patch]))).await;
    let delete = ["delete", "pod", "-n", "shop", "--force"];
    let delete = delete.into_iter().chain(["cart-5c66f7d9bb-4gq6r"]);
    admin.kubectl(delete).await;
    forbidden("cannot patch ecrauditfindings.ecraudit.io").await;
    admin.apply(&roles(&world, &BTreeSet::new())).await;
    world.expect("Ready", ("True", "Judged")).await;
}
