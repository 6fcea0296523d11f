//! Promise: each account is read through its role and is well or ill on its own, and a call that two
//! accounts see is one: the real program, a CloudTrail of several accounts and regions, and a proxy
//! that shows what STS was asked.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _};
use support::operator::{Operator, condition, expect_condition, policy};
use support::records::{ACCOUNT, REGION, ago, digest, pull, push};
use support::servers::Folder;
use support::{Access, Answer, AwsProxy, ControlPlane, Replay, eventually, objects};

const POLICY: &str = "production";
const WEB: &str = "shop/web";
const ABROAD: &str = "eu-central-1";
const CHINA: &str = "cn-north-1";
/// Where the one works who pulls, and an account whose role does not trust the operator.
const TEAM: &str = "444455556666";
const CLOSED: &str = "777788889999";
const LIMIT: Duration = Duration::from_mins(5);

struct World {
    control_plane: ControlPlane,
    replay: Replay,
    proxy: AwsProxy,
    folder: Folder,
}

impl World {
    async fn new(arguments: &[&str], sources: Value) -> Self {
        let (control_plane, replay) = tokio::join!(ControlPlane::start(), Replay::start(arguments));
        let proxy = AwsProxy::before(replay.url(), 0).await;
        let admin = control_plane.admin();
        admin.apply(include_str!("../crds/ecraudit.io.yaml")).await;
        let world = Self {
            control_plane,
            replay,
            proxy,
            folder: Folder::new("ecr-audit-accounts-"),
        };
        let policy = json!({
            "apiVersion": "ecraudit.io/v1alpha1", "kind": "EcrAuditPolicy",
            "metadata": {"name": POLICY},
            "spec": {"sources": sources, "expectedPullers": {"clusterNodes": false}},
        });
        admin.apply(&policy.to_string()).await;
        world
    }

    fn admin(&self) -> Access {
        self.control_plane.admin()
    }

    /// The operator, whose AWS is the proxy.
    fn operator(&self, more: &[(&'static str, String)]) -> Operator {
        let mut environment = self.replay.environment().to_vec();
        environment.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
        environment.push(("AWS_ENDPOINT_URL", self.proxy.url()));
        environment.extend(more.iter().cloned());
        let ledger = self.folder.path().join("ledger.db");
        let ledger = ledger.to_str().unwrap();
        Operator::start_with(
            &self.folder,
            "operator-0",
            &self.admin(),
            ledger,
            environment,
        )
    }

    async fn runs(&self, namespace: &str, image: &str, region: &str) {
        let registry = format!("{ACCOUNT}.dkr.ecr.{region}.amazonaws.com");
        let (reference, id) = (
            format!("{registry}/{image}:v1"),
            format!("{registry}/{image}@{}", digest("one")),
        );
        let containers = [("app", reference.as_str(), id.as_str())];
        let pod = objects::running_pod(namespace, "web-0", "node-1", &containers);
        self.admin().create(pod).await;
    }

    async fn says(&self, kind: &str, expected: (&str, &str)) -> String {
        expect_condition(&self.admin(), POLICY, kind, expected, LIMIT).await
    }

    async fn sources(&self) -> Value {
        policy(&self.admin(), POLICY).await["status"]["sources"].clone()
    }

    /// What the trust policies of the roles were shown.
    fn trust_policies_were_shown_everything(&self) {
        for account in [ACCOUNT, TEAM, CLOSED] {
            let asked = self
                .proxy
                .asked(&format!("{account}%3Arole%2Faudit%2Fecr-audit"));
            let asked = asked.last().unwrap();
            let field = |name: &str| asked.field(name).unwrap_or_default();
            assert_eq!(field("Action"), "AssumeRole");
            assert_eq!(field("RoleArn"), role_of(account));
            assert_eq!(field("ExternalId"), "ours");
            assert_eq!(field("RoleSessionName"), "nightly-audit");
            let tags: BTreeSet<(String, String)> = [1, 2]
                .map(|tag| {
                    let of = |part: &str| field(&format!("Tags.member.{tag}.{part}"));
                    (of("Key"), of("Value").replace('+', " "))
                })
                .into();
            let given = [("cost-center", "42"), ("team", "platform security")];
            let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(tags, given.into());
        }
    }

    async fn ledger_count(&self, table: &str) -> i64 {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite:{}", self.folder.path().join("ledger.db").display());
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        let sql = format!("SELECT count(*) FROM {table}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        row.get(0)
    }
}

/// A pull of the account's image by a role of another account, as both of them see it.
fn seen_twice() -> [Value; 2] {
    let image = json!({"imageDigest": digest("one")});
    let session = "AROATEAM:pipeline";
    let shared = format!("{:032x}", rand::random::<u128>());
    let arn = format!("arn:aws:iam::{TEAM}:role/scanner");
    let caller = json!({
        "type": "AssumedRole", "principalId": session, "accountId": TEAM,
        "arn": format!("arn:aws:sts::{TEAM}:assumed-role/scanner/pipeline"),
        "sessionContext": {"sessionIssuer": {
            "type": "Role", "arn": arn, "accountId": TEAM, "userName": "scanner"}},
    });
    let stranger = json!({"type": "AWSAccount", "principalId": session, "accountId": TEAM});
    [(caller, TEAM), (stranger, ACCOUNT)].map(|(who, recipient)| {
        let mut record = pull(ago(600), WEB, &image, who);
        record["recipientAccountId"] = recipient.into();
        record["sharedEventID"] = shared.clone().into();
        record
    })
}

fn role_of(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/audit/ecr-audit")
}

/// Account and region of every unhealthy source, with the word that its error begins with.
fn unhealthy(sources: &Value) -> Vec<String> {
    let all = sources["unhealthy"].as_array().into_iter().flatten();
    all.map(|source| {
        let text = |name: &str| source[name].as_str().unwrap_or_default().to_owned();
        let error = text("lastError");
        let word = error.split(':').next().unwrap_or_default().to_owned();
        format!("{} {} {word}", text("account"), text("region"))
    })
    .collect()
}

/// Whether a message says that something is wrong with an account.
fn blames(message: &str, account: &str) -> bool {
    message.contains(&format!("of account {account} in"))
}

fn accounts_in(lines: &[String]) -> BTreeSet<String> {
    let of = |line: &String| {
        Some(
            line.split_once("account=\"")?
                .1
                .split_once('"')?
                .0
                .to_owned(),
        )
    };
    lines.iter().filter_map(of).collect()
}

async fn only_the_closed_account_fails(operator: &Operator) {
    let errors = operator.metrics("ecr_audit_source_errors_total{").await;
    assert_eq!(
        accounts_in(&errors),
        [CLOSED.to_owned()].into(),
        "{errors:?}"
    );
    let read = operator
        .metrics("ecr_audit_source_last_success_timestamp_seconds{")
        .await;
    let both: BTreeSet<String> = [ACCOUNT, TEAM].map(str::to_owned).into();
    assert_eq!(accounts_in(&read), both, "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_account_is_well_or_ill_on_its_own_and_a_call_that_two_see_is_one() {
    let sources = json!([{
        "name": "fleet",
        "accounts": [ACCOUNT, TEAM, CLOSED],
        "assumeRole": {
            "roleName": "audit/ecr-audit",
            "externalId": "ours",
            "sessionName": "nightly-audit",
            "tags": {"team": "platform security", "cost-center": "42"},
        },
        "lookupEvents": {"regions": [REGION, ABROAD], "pollPeriodSeconds": 10},
    }]);
    // Sessions end all the time.
    let arguments = ["--quota", "0", "--session-seconds", "20"];
    let world = World::new(&arguments, sources).await;
    let trusts = |closed: &str| json!({role_of(ACCOUNT): "ours", role_of(TEAM): "ours", role_of(CLOSED): closed});
    world.replay.set_external_ids(trusts("theirs")).await;
    let mut records = vec![push(ago(3 * 3600), WEB, "one", "v1")];
    records.extend(seen_twice());
    world.replay.add(&records.into()).await;
    let namespace = world.admin().namespace("shop").await;
    world.runs(&namespace, WEB, REGION).await;
    let operator = world.operator(&[]);

    // One finding, of the caller by name, though one copy names nobody.
    let message = world
        .says("PullersExpected", ("False", "UnexpectedPull"))
        .await;
    assert!(message.contains("role/scanner"), "{message}");
    let message = world.says("Ready", ("False", "AssumeRoleFailed")).await;
    assert!(blames(&message, CLOSED), "{message}");
    assert!(
        !blames(&message, ACCOUNT) && !blames(&message, TEAM),
        "{message}"
    );
    let incomplete = ("False", "AssumeRoleFailed");
    let message = world.says("EvidenceComplete", incomplete).await;
    assert!(blames(&message, CLOSED), "{message}");
    eventually("both copies", LIMIT, async || {
        let sources = world.sources().await;
        let ill = [ABROAD, REGION].map(|region| format!("{CLOSED} {region} AssumeRoleFailed"));
        if (&sources["total"], &sources["healthy"]) == (&json!(6), &json!(4))
            && unhealthy(&sources) == ill
        {
            Ok(())
        } else {
            Err(format!("{sources:#}"))
        }
    })
    .await;
    // Whatever happens at home is judged while the other account is closed.
    world.says("ImagesRetained", ("True", "Retained")).await;
    assert_eq!(world.ledger_count("pull_history").await, 1);
    let found = world
        .admin()
        .kubectl(["get", "eaf", "-n", &namespace, "-o", "json"])
        .await;
    let found: Value = serde_json::from_str(&found).unwrap();
    let found = &found["items"];
    assert_eq!(found.as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!(found[0]["spec"]["count"], 1, "{found:#}");
    let key = format!("arn:aws:iam::{TEAM}:role/scanner");
    assert_eq!(found[0]["spec"]["principal"]["key"], key, "{found:#}");

    only_the_closed_account_fails(&operator).await;
    world.trust_policies_were_shown_everything();
    // One account loses its right while it is read, the other one is let in.
    world
        .replay
        .set_faults(json!([{"kind": "accessDenied", "account": TEAM}]))
        .await;
    world.replay.set_external_ids(trusts("ours")).await;
    let message = world.says("Ready", ("False", "AccessDenied")).await;
    assert!(
        blames(&message, TEAM) && !blames(&message, ACCOUNT),
        "{message}"
    );
    eventually("the team's account alone", LIMIT, async || {
        let sources = world.sources().await;
        let ill = [ABROAD, REGION].map(|region| format!("{TEAM} {region} AccessDenied"));
        if unhealthy(&sources) == ill {
            Ok(())
        } else {
            Err(format!("{sources:#}"))
        }
    })
    .await;
    world.replay.set_faults(json!([])).await;
    world.says("Ready", ("True", "Judged")).await;
    world.says("EvidenceComplete", ("True", "Complete")).await;
    assert_eq!(world.sources().await["healthy"], 6);

    // Sessions that ended were renewed, and that was no fault.
    let home = format!("{ACCOUNT}%3Arole%2Faudit%2Fecr-audit");
    eventually("sessions that were renewed", LIMIT, async || {
        let assumed = world.proxy.asked(&home).len();
        // One for each region at first.
        if assumed > 2 { Ok(()) } else { Err(assumed) }
    })
    .await;
    let errors = operator.metrics("ecr_audit_source_errors_total{").await;
    let expired = errors.iter().find(|line| line.contains("ExpiredToken"));
    assert_eq!(expired, None);
    let home = errors.iter().find(|line| line.contains(ACCOUNT));
    assert_eq!(home, None);
    assert!(operator.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_exchanged_and_other_partitions_are_found_by_themselves() {
    let sources = json!([
        {"name": "home", "lookupEvents": {"regions": [REGION], "pollPeriodSeconds": 10}},
        {"name": "china", "accounts": [TEAM], "assumeRole": {"roleName": "ecr-audit"},
         "lookupEvents": {"regions": [CHINA], "pollPeriodSeconds": 10}},
        {"name": "named", "assumeRole": {"roleArn": format!("arn:aws-us-gov:iam::{CLOSED}:role/ecr-audit")},
         "lookupEvents": {"regions": ["us-gov-west-1"], "pollPeriodSeconds": 10}},
    ]);
    let world = World::new(&["--quota", "0"], sources).await;
    let file = world.folder.path().join("credentials");
    let write = |key: &str| {
        let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = x\n");
        std::fs::write(&file, text).unwrap();
    };
    write("AKIAFIRSTKEY");
    // The account of a role's ARN is known though the role cannot be assumed.
    let refused = json!([{"kind": "accessDenied", "operation": "AssumeRole",
        "role": format!("arn:aws-us-gov:iam::{CLOSED}:role/ecr-audit")}]);
    world.replay.set_faults(refused).await;
    let operator = world.operator(&[
        ("AWS_ACCESS_KEY_ID", String::new()),
        ("AWS_SECRET_ACCESS_KEY", String::new()),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            file.to_str().unwrap().to_owned(),
        ),
    ]);
    let message = world.says("Ready", ("False", "AssumeRoleFailed")).await;
    assert!(blames(&message, CLOSED), "{message}");
    world.replay.set_faults(json!([])).await;
    world.says("Ready", ("True", "Judged")).await;
    let china = format!("arn:aws-cn:iam::{TEAM}:role/ecr-audit");
    let asked = world.proxy.asked("Action=AssumeRole");
    let roles: BTreeSet<String> = asked
        .iter()
        .filter_map(|one| one.field("RoleArn"))
        .collect();
    let gov = format!("arn:aws-us-gov:iam::{CLOSED}:role/ecr-audit");
    assert_eq!(roles, [china, gov].into());

    // The first key is withdrawn: until the file has another one, that is said.
    world.proxy.fail(
        "credential=akiafirstkey/",
        Answer::Json(
            400,
            "ExpiredTokenException",
            "com.amazon.coral.service#ExpiredTokenException",
            "The security token included in the request is expired",
        ),
    );
    let message = world.says("Ready", ("False", "ExpiredToken")).await;
    assert!(message.contains("home"), "{message}");
    write("AKIASECONDKEY");
    world.says("Ready", ("True", "Judged")).await;
    let seen = policy(&world.admin(), POLICY).await;
    assert_eq!(condition(&seen, "EvidenceComplete").0, "True");
    assert!(operator.terminate().await.success());
}
