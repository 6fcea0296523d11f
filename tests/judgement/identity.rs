//! Who did it: principals, sessions, and whom a policy expects.

use serde_json::{Value, json};

use crate::world::{
    ACCOUNT, WEB, World, by_digest, digest, event, manifest, only, pull, push, role, role_key,
};

fn a() -> String {
    manifest("a")
}

fn pulled(who: Value) -> Value {
    pull(9_000, json!([by_digest(&digest(&a()))]), who)
}

/// Key and session of an identity.
fn who(identity: Value) -> (String, Option<String>) {
    let caller = event(&pulled(identity)).caller;
    (
        caller.principal.key.to_string(),
        caller.session.as_ref().map(ToString::to_string),
    )
}

fn web(policy: Value) -> World {
    World::new()
        .event(push(1, Some("v1"), &a()))
        .pod("web-1", 5, WEB, &digest(&a()))
        .policy(policy)
}

fn expected(policy: Value, identity: Value) -> bool {
    web(policy).event(pulled(identity)).verdicts().is_empty()
}

#[test]
fn an_assumed_role_is_its_issuer_with_the_path() {
    let mut identity = role("ci", "build-7");
    let path = format!("arn:aws:iam::{ACCOUNT}:role/team/ci");
    identity["sessionContext"]["sessionIssuer"]["arn"] = json!(path);
    assert_eq!(who(identity), (path, Some("build-7".to_owned())));
}

#[test]
fn without_an_issuer_an_assumed_role_is_its_arn_less_the_session() {
    let mut identity = role("ci", "build-7");
    identity["sessionContext"] = json!({"sessionIssuer": {}});
    let key = format!("arn:aws:sts::{ACCOUNT}:assumed-role/ci");
    assert_eq!(who(identity), (key, Some("build-7".to_owned())));
}

#[test]
fn without_any_arn_an_assumed_role_is_type_account_and_id() {
    let mut identity = role("ci", "build-7");
    identity["sessionContext"] = Value::Null;
    identity["arn"] = Value::Null;
    let key = format!("AssumedRole/{ACCOUNT}/AROACI");
    assert_eq!(who(identity), (key, Some("build-7".to_owned())));
}

#[test]
fn users_roots_and_federated_users_are_their_arn() {
    for (kind, arn) in [
        ("IAMUser", "arn:aws:iam::111122223333:user/Mary_Major"),
        ("Root", "arn:aws:iam::111122223333:root"),
        (
            "FederatedUser",
            "arn:aws:sts::111122223333:federated-user/mary",
        ),
        ("Role", "arn:aws:iam::111122223333:role/r"),
    ] {
        let identity =
            json!({"type": kind, "principalId": "AIDA:x", "arn": arn, "accountId": ACCOUNT});
        assert_eq!(who(identity), (arn.to_owned(), None), "{kind}");
    }
}

#[test]
fn another_account_is_its_id_and_its_principals() {
    let identity =
        json!({"type": "AWSAccount", "principalId": "AROAX:i-0abc", "accountId": "444455556666"});
    assert_eq!(
        who(identity),
        (
            "AWSAccount/444455556666/AROAX".to_owned(),
            Some("i-0abc".to_owned())
        )
    );
}

#[test]
fn services_are_who_invoked_them_with_and_without_a_type() {
    let typed = json!({"type": "AWSService", "invokedBy": "lambda.amazonaws.com"});
    assert_eq!(who(typed), ("lambda.amazonaws.com".to_owned(), None));
    let untyped = json!({"accountId": ACCOUNT, "invokedBy": "AWS Internal"});
    assert_eq!(who(untyped), ("AWS Internal".to_owned(), None));
}

#[test]
fn an_identity_center_user_is_on_behalf_of_whom() {
    let identity = json!({"type": "IdentityCenterUser", "accountId": ACCOUNT,
        "onBehalfOf": {"userId": "544894e8-80c1", "identityStoreArn": "arn:…"}});
    assert_eq!(
        who(identity).0,
        format!("IdentityCenterUser/{ACCOUNT}/544894e8-80c1")
    );
}

#[test]
fn a_type_that_is_new_keeps_its_arn_and_its_account() {
    let arn = format!("arn:aws:iam::{ACCOUNT}:directory/mary");
    for identity in [
        json!({"type": "Directory", "arn": arn}),
        json!({"arn": arn}),
    ] {
        assert_eq!(who(identity.clone()), (arn.clone(), None));
        let accounts = json!({"expectedPullers": {"accounts": [ACCOUNT]}});
        assert!(expected(accounts, identity));
    }
}

#[test]
fn strange_and_empty_identities_never_cost_the_event() {
    assert_eq!(who(json!({"type": "Martian"})).0, "Martian//");
    assert_eq!(who(json!({})).0, "//");
    assert_eq!(who(Value::Null).0, "//");
    assert_eq!(who(json!("nobody")).0, "//");
    let odd = json!({"type": "AssumedRole", "accountId": 111_122_223_333_u64, "arn": ["?"],
        "sessionContext": "none", "principalId": {"a": 1}});
    assert_eq!(who(odd).0, format!("AssumedRole/{ACCOUNT}/"));
    let user = json!({"type": "WebIdentityUser", "principalId": "accounts.example:app:joe", "accountId": ""});
    assert_eq!(who(user).0, "WebIdentityUser//accounts.example");
}

#[test]
fn principals_match_the_key_and_the_arn_with_wildcards() {
    let policy = |pattern: &str| json!({"expectedPullers": {"principals": [pattern]}});
    assert!(expected(policy(&role_key("ci")), role("ci", "7")));
    assert!(expected(
        policy("arn:aws:iam::111122223333:role/c?"),
        role("ci", "7")
    ));
    assert!(expected(policy("arn:aws:iam::*:role/*"), role("ci", "7")));
    assert!(expected(
        policy("arn:aws:sts::111122223333:assumed-role/ci/*"),
        role("ci", "7")
    ));
    assert!(!expected(
        policy("arn:aws:iam::111122223333:role/c"),
        role("ci", "7")
    ));
    assert!(!expected(
        policy("arn:aws:iam::111122223333:role/C*"),
        role("ci", "7")
    ));
}

#[test]
fn accounts_match_the_account_that_the_principal_belongs_to() {
    let policy = json!({"expectedPullers": {"accounts": ["444455556666"]}});
    let foreign =
        json!({"type": "AWSAccount", "principalId": "AROAX:s", "accountId": "444455556666"});
    assert!(expected(policy.clone(), foreign));
    assert!(!expected(policy, role("ci", "7")));
}

#[test]
fn services_match_services_and_their_linked_roles() {
    let policy = json!({"expectedPullers": {"services": ["inspector2.amazonaws.com"]}});
    let mut linked = role("AWSServiceRoleForAmazonInspector2", "Mando");
    let arn = format!(
        "arn:aws:iam::{ACCOUNT}:role/aws-service-role/inspector2.amazonaws.com/AWSServiceRoleForAmazonInspector2"
    );
    linked["sessionContext"]["sessionIssuer"]["arn"] = json!(arn);
    assert!(expected(policy.clone(), linked.clone()));
    assert_eq!(who(linked.clone()).0, arn, "the key stays the role's");
    assert!(expected(
        policy.clone(),
        json!({"type": "AWSService", "invokedBy": "inspector2.amazonaws.com"})
    ));
    let mut through = role("ci", "7");
    through["invokedBy"] = json!("inspector2.amazonaws.com");
    assert!(
        !expected(policy, through),
        "a role used through a service is still the role"
    );
}

#[test]
fn a_node_of_this_cluster_is_known_by_its_instance_id() {
    let nodes = json!({"expectedPullers": {}});
    let by = |session: &str| pulled(role("eks-node", session));
    let world = || web(nodes.clone()).node("i-0aaaaaaaaaaaaaaa1");
    assert_eq!(world().event(by("i-0aaaaaaaaaaaaaaa1")).verdicts(), [""; 0]);
    assert_eq!(
        world().event(by("i-0bbbbbbbbbbbbbbb2")).verdicts(),
        ["UnexpectedPull"]
    );
}

#[test]
fn a_replaced_node_is_known_by_the_role_that_a_living_one_uses() {
    let mut other = pull(
        9_001,
        json!([by_digest(&digest("elsewhere"))]),
        role("eks-node", "i-0aaaaaaaaaaaaaaa1"),
    );
    other["resources"][0]["ARN"] = json!("arn:aws:ecr:us-east-1:111122223333:repository/shop/api");
    other["requestParameters"]["repositoryName"] = json!("shop/api");
    let world = |session: &str| {
        web(json!({"expectedPullers": {}}))
            .node("i-0aaaaaaaaaaaaaaa1")
            .event(other.clone())
            .event(pulled(role("eks-node", session)))
    };
    assert_eq!(world("i-0bbbbbbbbbbbbbbb2").verdicts(), [""; 0]);
    assert_eq!(world("botocore-session-1").verdicts(), ["UnexpectedPull"]);
    let off =
        world("i-0bbbbbbbbbbbbbbb2").policy(json!({"expectedPullers": {"clusterNodes": false}}));
    assert_eq!(off.verdicts(), ["UnexpectedPull"]);
}

#[test]
fn an_owners_copy_of_a_nodes_pull_is_that_nodes() {
    let copy = json!({"type": "AWSAccount", "principalId": "AROAX:i-0aaaaaaaaaaaaaaa1", "accountId": "444455556666"});
    let world = web(json!({"expectedPullers": {}}))
        .node("i-0aaaaaaaaaaaaaaa1")
        .event(pulled(copy));
    assert_eq!(world.verdicts(), [""; 0]);
}

#[test]
fn what_a_node_did_after_the_evaluation_time_teaches_nothing() {
    let later = pull(
        20_000,
        json!([by_digest(&digest(&a()))]),
        role("eks-node", "i-0aaaaaaaaaaaaaaa1"),
    );
    let world = web(json!({"expectedPullers": {}}))
        .node("i-0aaaaaaaaaaaaaaa1")
        .event(later)
        .event(pulled(role("eks-node", "i-0bbbbbbbbbbbbbbb2")));
    assert_eq!(world.verdicts(), ["UnexpectedPull"]);
}

#[test]
fn an_exception_by_principal_covers_that_principal_alone() {
    let exception = json!({"owner": "team-shop", "reason": "scan", "until": "2027-01-31",
        "principals": [role_key("scanner")]});
    let policy = json!({"expectedPullers": {}, "exceptions": [exception]});
    assert!(
        only(
            web(policy.clone())
                .event(pulled(role("scanner", "s")))
                .findings()
        )
        .excepted
    );
    assert!(!only(web(policy).event(pulled(role("other", "s"))).findings()).excepted);
}

#[test]
fn an_exception_has_to_cover_every_session_of_a_finding() {
    let exception = json!({"owner": "team-shop", "reason": "scan", "until": "2027-01-31",
        "principals": ["arn:aws:sts::111122223333:assumed-role/scanner/nightly"]});
    let policy = json!({"expectedPullers": {}, "exceptions": [exception]});
    let nightly = web(policy).event(pulled(role("scanner", "nightly")));
    assert!(only(nightly.findings()).excepted);
    let mut by_hand = pulled(role("scanner", "by-hand"));
    by_hand["eventID"] = json!("another");
    assert!(!only(nightly.event(by_hand).findings()).excepted);
}
