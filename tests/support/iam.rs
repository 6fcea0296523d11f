//! The rights in AWS that the documentation asks for, against the calls that were really made.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::calls::Call;

/// AWS lets everybody do these.
const FREE: [&str; 1] = ["sts:GetCallerIdentity"];

/// The statements of the IAM policies in a page of the documentation.
fn statements(page: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{page}: {error}"));
    let blocks = text.split("```json\n").skip(1);
    let policies = blocks
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.contains("\"Statement\""));
    policies
        .flat_map(|policy| {
            let mut policy: Value = serde_json::from_str(policy).expect("a policy in JSON");
            match policy["Statement"].take() {
                Value::Array(statements) => statements,
                other => panic!("{page}: {other}"),
            }
        })
        .collect()
}

/// What a statement allows: each action with each resource.
fn allowed_by(statement: &Value) -> Vec<Call> {
    let mut allowed = Vec::new();
    for action in texts(&statement["Action"]) {
        for resource in texts(&statement["Resource"]) {
            allowed.push(Call {
                action: action.clone(),
                resource,
            });
        }
    }
    allowed
}

/// What the statements with these ids allow.
fn documented(page: &str, ids: &[&str]) -> BTreeSet<Call> {
    let all = statements(page);
    let mut allowed = BTreeSet::new();
    for id in ids {
        let statement = all.iter().find(|statement| statement["Sid"] == **id);
        let statement = statement.unwrap_or_else(|| panic!("{page} has no statement {id}"));
        allowed.extend(allowed_by(statement));
    }
    for free in FREE {
        assert!(
            allowed.iter().all(|one| one.action != free),
            "{free} needs no permission"
        );
    }
    allowed
}

/// A text, or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        one => vec![one.as_str().expect("a text").to_owned()],
    }
}

/// Whether a text matches a pattern with IAM's wildcard `*`.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| matches(rest, &text[at..]))
        }),
    }
}

/// Compares the statements with these ids in `docs/install.md` with the actions that were seen:
/// none is missing, and none is asked for in vain.
pub fn expect_just(ids: &[&str], seen: &BTreeSet<String>) {
    let calls = seen.iter().map(|action| Call {
        action: action.clone(),
        resource: "arn:aws:iam::111122223333:role/ecr-audit".to_owned(),
    });
    expect_just_calls("docs/install.md", ids, &calls.collect(), &[]);
    // The first page says the same in short.
    let short: BTreeSet<Call> = statements("README.md")
        .iter()
        .flat_map(allowed_by)
        .collect();
    assert_eq!(short, documented("docs/install.md", &["ReadEventHistory"]));
}

/// The same with the statements of a page, and with the resources of the calls. What is `unseen`
/// is asked for without being called, each for a reason that stands where this is called.
pub fn expect_just_calls(page: &str, ids: &[&str], seen: &BTreeSet<Call>, unseen: &[&str]) {
    let allowed = documented(page, ids);
    let covers = |one: &Call, call: &Call| {
        one.action == call.action && matches(&one.resource, &call.resource)
    };
    let missing: Vec<_> = seen
        .iter()
        .filter(|call| !FREE.contains(&call.action.as_str()))
        .filter(|call| !allowed.iter().any(|one| covers(one, call)))
        .collect();
    assert!(
        missing.is_empty(),
        "called, but not documented: {missing:?}"
    );
    let vain: BTreeSet<&str> = allowed
        .iter()
        .filter(|one| !seen.iter().any(|call| covers(one, call)))
        .map(|one| one.action.as_str())
        .collect();
    let unseen: BTreeSet<&str> = unseen.iter().copied().collect();
    assert_eq!(vain, unseen, "documented, but never called");
}
