//! The story, as it happens, and in any other order.

use serde_json::{Value, json};

use crate::support::operator::Operator;
use crate::support::servers::Folder;
use crate::support::{Prometheus, eventually, iam, running_pod};
use crate::world::{CART, POLICY, PULL, SOON, WEB, World, expect_line, story};

/// Reads the same history through a role, for a part of the namespaces.
const FLEET: &str = "
apiVersion: ecraudit.io/v1alpha1
kind: EcrAuditPolicy
metadata: {name: fleet}
spec:
  sources:
    - name: fleet
      accounts: [\"111122223333\"]
      assumeRole: {roleName: ecr-audit, externalId: choose-one}
      lookupEvents: {}
  workloads: {namespaceSelector: {matchLabels: {team: platform}}}
";

pub(crate) async fn the_story_is_told_from_cloudtrail_to_kubectl() {
    let world = World::new().await;
    let admin = world.admin();
    let operator = world.operator("operator-0").await;
    admin.apply(&story("policy.yaml")).await;

    // The history is read, and what was removed before is told.
    world.expect_judged().await;
    for kind in ["PullersExpected", "PushersExpected"] {
        world.expect(kind, ("True", "AsExpected")).await;
    }
    let message = world
        .expect("ImagesRetained", ("False", "ImageExpired"))
        .await;
    assert!(message.contains("shop/cart"), "{message}");
    world.expect_findings(&[CART]).await;

    // A role that nobody expects pulls an image.
    world.tell("2-pull").await;
    let message = world
        .expect("PullersExpected", ("False", "UnexpectedPull"))
        .await;
    assert!(
        message.contains("role/data/notebook-execution"),
        "{message}"
    );

    // A lifecycle rule expires it.
    world.tell("3-expiry").await;
    world.expect_findings(&[CART, WEB, PULL]).await;
    eventually("the expired image", SOON, async || {
        let message = world
            .expect("ImagesRetained", ("False", "ImageExpired"))
            .await;
        let parts = ["shop/web:v1", "lifecycle rule 1", "keep the last 2 images"];
        if parts.iter().all(|part| message.contains(part)) {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
    let status = world.status().await;
    assert_eq!(status["findings"]["total"], 3, "{status:#}");
    assert_eq!(status["images"]["running"], 4, "{status:#}");
    assert_eq!(status["images"]["expired"], 2, "{status:#}");
    let table = admin.kubectl(["get", "eap"]).await;
    assert!(
        table.contains("production   True    4        2      1 "),
        "{table}"
    );
    let names = world.finding_names().await;
    assert!(names[1].starts_with("web-imageexpired-"), "{names:?}");
    let events = admin.kubectl(["get", "events", "-n", "shop"]).await;
    assert!(events.contains("ImageExpired"), "{events}");
    let metrics = operator.metrics("ecr_audit_").await;
    for line in [
        r#"ecr_audit_images{policy="production",state="Expired"} 2"#,
        r#"ecr_audit_findings{impact="",policy="production",type="UnexpectedPull"} 1"#,
        r#"ecr_audit_condition{policy="production",status="False",type="ImagesRetained"} 1"#,
    ] {
        expect_line(&metrics, line);
    }
    for series in [
        "ecr_audit_reconciles_total{result=\"ok\"}",
        "ecr_audit_process_resident_memory_bytes",
        "ecr_audit_process_cpu_seconds_total",
        "ecr_audit_process_open_fds",
        "ecr_audit_process_start_time_seconds",
        "ecr_audit_reconcile_duration_seconds_count",
        "ecr_audit_assessment_duration_seconds_sum",
        "ecr_audit_api_requests_total{code=\"200\",resource=\"pods\",verb=\"list\"}",
        "ecr_audit_api_requests_total{code=\"200\",resource=\"ecrauditpolicies/status\",verb=\"patch\"}",
        "ecr_audit_api_request_duration_seconds_sum{resource=\"leases\",verb=\"update\"}",
        "ecr_audit_ledger_operation_duration_seconds_count{operation=\"open\"}",
        "ecr_audit_ledger_operation_duration_seconds_count{operation=\"append\"}",
        "ecr_audit_ledger_operation_duration_seconds_count{operation=\"query\"}",
        "ecr_audit_ledger_size_bytes",
        "ecr_audit_gate_open{gate=\"ledger\"}",
    ] {
        let line = metrics.iter().find_map(|line| line.strip_prefix(series));
        let value: f64 = line.unwrap().trim().parse().unwrap();
        assert!(value > 0.0, "{series} {value}");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (status, page) = operator.get(world.release.probe(probe)).await;
        assert_eq!(status, 200, "{probe}: {page}");
    }

    the_status_page_tells_it(&world, &operator).await;
    the_dashboard_shows_it(&operator).await;
    the_cluster_changes(&world).await;
    many_findings_are_told_by_number(&world).await;
    a_fleet_is_read_through_roles(&world).await;

    // The role is expected now. Then the policy is deleted, and its findings with it.
    let patch =
        json!({"spec": {"expectedPullers": {"principals": ["arn:aws:iam::111122223333:role/*"]}}});
    let patch = patch.to_string();
    let edit = ["patch", "eap", POLICY, "--type=merge", "-p", &patch];
    admin.kubectl(edit).await;
    world
        .expect("PullersExpected", ("True", "AsExpected"))
        .await;
    world.expect_findings(&[WEB]).await;
    admin.kubectl(["delete", "eap", POLICY, "fleet"]).await;
    eventually(
        "the findings to go with their policy",
        SOON,
        async || match world.finding_names().await {
            names if names.is_empty() => Ok(()),
            names => Err(format!("{names:?}")),
        },
    )
    .await;
    // The series follow when the pass that took back the findings has ended.
    eventually("no series of that policy", SOON, async || {
        let metrics = operator.metrics("ecr_audit_").await;
        match metrics
            .into_iter()
            .find(|line| line.contains(r#"policy="production""#))
        {
            None => Ok(()),
            Some(line) => Err(line),
        }
    })
    .await;

    let log = operator.log_tail();
    assert!(operator.terminate().await.success(), "{log}");
    let holder = "jsonpath={.spec.holderIdentity}";
    let lease = ["get", "lease", "-n", "ecr-audit", "ecr-audit-operator"];
    let holder = admin.kubectl(lease.into_iter().chain(["-o", holder])).await;
    assert_eq!(holder, "", "the lease was not given back");

    // It asked for what the documentation gives it, and it needed all of that.
    let log = world.expect_no_refusal();
    world.expect_every_right_used(&log);
    let actions = world.replay.actions().await;
    iam::expect_just(&["ReadEventHistory", "AssumeRoles"], &actions);
}

/// The page of a leader that has found the whole story, and that of a standby.
async fn the_status_page_tells_it(world: &World, operator: &Operator) {
    let (status, headers, html) = operator.status_page("localhost", "/").await;
    assert_eq!(status, 200, "{html}");
    let policy = "content-security-policy: default-src 'none'; style-src 'self';";
    assert!(headers.contains(policy), "{headers}");
    for said in [
        "<h1 id=\"answer\">1 running image cannot be pulled by a new node</h1>",
        "1 running image would change on a new node; 1 unexpected principal pulled what runs.",
        "lifecycle rule 1 &#34;keep the last 2 images&#34;",
        "arn:aws:iam::111122223333:role/data/notebook-execution, session notebook-7f2c",
        "kubectl describe eaf -n shop web-imageexpired-",
        "<bdi>PullersExpected</bdi>",
        "aria-label=\"changes: read since",
        "production/history",
    ] {
        assert!(html.contains(said), "{said}: {html}");
    }
    let (status, headers, _) = operator.status_page("localhost", "/status.css").await;
    assert!(status == 200 && headers.contains("text/css"), "{headers}");
    // A browser that was led here by another name gets nothing.
    let (status, headers, html) = operator.status_page("evil.example", "/").await;
    assert_eq!(status, 421, "{html}");
    assert!(!html.contains("shop") && headers.contains(policy), "{html}");

    let (standby, _folder) = world.standby("operator-1").await;
    eventually("the standby's page", SOON, async || {
        if !standby.is_up().await {
            return Err(standby.log_tail());
        }
        let (status, _, html) = standby.status_page("127.0.0.1", "/").await;
        let leads = "<strong><bdi>operator-0</bdi></strong> leads";
        if status == 200 && html.contains(leads) && !html.contains("notebook") {
            Ok(())
        } else {
            Err(html)
        }
    })
    .await;
    standby.kill();
}

/// Every panel of the chart's dashboard, and every variable, has data in a Prometheus that scrapes
/// this operator.
async fn the_dashboard_shows_it(operator: &Operator) {
    let folder = Folder::new("ecr-audit-prometheus-");
    let prometheus = Prometheus::start(&folder, operator.address(), None);
    let said = prometheus.check_dashboard().await;
    assert!(said.contains("returned data"), "{said}");
    drop(prometheus);
}

/// What does not run any more is judged no more.
async fn the_cluster_changes(world: &World) {
    let delete = async |pods: &[&str]| {
        let command = ["delete", "pod", "-n", "shop", "--force"];
        world.admin().kubectl(command.iter().chain(pods)).await;
    };
    delete(&["web-6d4cf56db6-x2x5k"]).await;
    eventually("one pod less", SOON, async || {
        let names = world.finding_names().await;
        let name = names
            .iter()
            .find(|name| name.starts_with("web-imageexpired-"));
        let get = ["get", "eaf", "-n", "shop", "-o", "json"];
        let get = get.into_iter().chain(name.map(String::as_str));
        let finding: Value = serde_json::from_str(&world.admin().kubectl(get).await).unwrap();
        match finding["spec"]["containers"].as_array().map(Vec::len) {
            Some(2) => Ok(()),
            _ => Err(finding.to_string()),
        }
    })
    .await;
    delete(&["cart-5c66f7d9bb-4gq6r", "cart-5c66f7d9bb-zz8vt"]).await;
    world.expect_findings(&[WEB, PULL]).await;
}

/// More findings at once than anybody reads Events of: the rest is told by number, and a number
/// that is told again is counted in the first Event.
async fn many_findings_are_told_by_number(world: &World) {
    const PODS: usize = 22;
    let admin = world.admin();
    let namespace = admin.namespace("bulk").await;
    let image = "111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/api";
    let digest = "sha256:cfd71f27b2025c989b2f5c5ef0f25c593858bce6fe5acd631498a78050af7c61";
    let (tagged, image_id) = (format!("{image}:2.4.1"), format!("{image}@{digest}"));
    for number in 0..PODS {
        let containers = [("app", tagged.as_str(), image_id.as_str())];
        let name = format!("bulk-{number}");
        let pod = running_pod(&namespace, &name, "ip-10-0-1-17.ec2.internal", &containers);
        admin.create(pod).await;
    }
    for (count, puller) in [(1, "first"), (2, "second")] {
        let id = format!("0c2f0ffb-63f0-54a8-9834-00000000000{count}");
        let pull = story("events/2-pull.json")
            .replace("shop/web", "shop/api")
            .replace("\"v1\"", "\"2.4.1\"")
            .replace("notebook-execution", puller)
            .replace("0c2f0ffb-63f0-54a8-9834-20e5d1757ff7", &id);
        world.add(&serde_json::from_str(&pull).unwrap()).await;
        eventually("their findings", SOON, async || {
            let names = world.finding_names().await;
            let bulk = names.iter().filter(|name| name.starts_with("bulk-"));
            match bulk.count() {
                seen if seen == PODS * count => Ok(()),
                seen => Err(seen),
            }
        })
        .await;
    }
    let events = ["get", "events.events.k8s.io", "-A", "-o", "json"];
    eventually("the Event's second count", SOON, async || {
        let events: Value = serde_json::from_str(&admin.kubectl(events).await).unwrap();
        let mut events = events["items"].as_array().unwrap().iter();
        match events.find(|event| event["reason"] == "Findings") {
            Some(event) if event["series"]["count"] == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn a_fleet_is_read_through_roles(world: &World) {
    world
        .replay
        .set_external_ids(json!({"arn:aws:iam::111122223333:role/ecr-audit": "choose-one"}))
        .await;
    let label = ["label", "namespace", "platform", "team=platform"];
    world.admin().kubectl(label).await;
    world.admin().apply(FLEET).await;
    world
        .expect_of("fleet", "EvidenceComplete", ("True", "Complete"))
        .await;
    let retained = ("True", "Retained");
    world.expect_of("fleet", "ImagesRetained", retained).await;
}

pub(crate) async fn late_double_and_shuffled_events_give_the_same_answer() {
    let world = World::new().await;
    world.replay.clear().await;
    let mut all: Vec<Value> = ["3-expiry", "2-pull", "1-history"]
        .iter()
        .flat_map(|part| {
            let file = story(&format!("events/{part}.json"));
            let mut file: Value = serde_json::from_str(&file).unwrap();
            file["Records"].as_array_mut().unwrap().split_off(0)
        })
        .collect();
    all.extend(all.clone());
    all.reverse();
    let late = |(place, record): (usize, Value)| match place % 3 {
        0 => json!({"record": record, "visibleAfterSeconds": 5 + place % 20}),
        _ => record,
    };
    let all: Value = all.into_iter().enumerate().map(late).collect();
    world.add(&all).await;
    let _operator = world.operator("operator-0").await;
    world.admin().apply(&story("policy.yaml")).await;
    world.expect_findings(&[CART, WEB, PULL]).await;
    let status = world.status().await;
    assert_eq!(status["findings"]["total"], 3, "{status:#}");
    world.expect_no_refusal();
}
