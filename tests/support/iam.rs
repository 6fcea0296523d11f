//! The rights in AWS that the documentation asks for, against the calls that were really made.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// AWS lets everybody do these.
const FREE: [&str; 1] = ["sts:GetCallerIdentity"];

/// The actions of the statements with these ids in the IAM policies of a page of the
/// documentation.
fn documented(page: &str, ids: &[&str]) -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text =
        fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let blocks = text.split("```json\n").skip(1);
    let policies = blocks
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.contains("\"Statement\""));
    let mut actions = BTreeSet::new();
    let mut found = BTreeSet::new();
    for policy in policies {
        let policy: Value = serde_json::from_str(policy).expect("a policy in JSON");
        for statement in policy["Statement"].as_array().expect("statements") {
            // Policies that say who is trusted have none.
            let Some(id) = statement["Sid"].as_str().filter(|id| ids.contains(id)) else {
                continue;
            };
            found.insert(id.to_owned());
            match &statement["Action"] {
                Value::Array(list) => {
                    actions.extend(list.iter().map(|one| one.as_str().unwrap().to_owned()));
                }
                one => {
                    actions.insert(one.as_str().expect("an action").to_owned());
                }
            }
        }
    }
    for id in ids {
        assert!(
            found.contains(*id),
            "{} has no statement {id}",
            page.display()
        );
    }
    actions
}

/// Compares the statements with these ids in `docs/install.md` with the actions that were seen:
/// none is missing, and none is asked for in vain.
pub fn expect_just(ids: &[&str], seen: &BTreeSet<String>) {
    let mut documented = documented("docs/install.md", ids);
    for free in FREE {
        assert!(!documented.contains(free), "{free} needs no permission");
        documented.insert(free.to_owned());
    }
    let missing: Vec<_> = seen.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "called, but not documented: {missing:?}"
    );
    let free: BTreeSet<String> = FREE.iter().map(ToString::to_string).collect();
    let vain: Vec<_> = documented
        .difference(seen)
        .filter(|action| !free.contains(*action))
        .collect();
    assert!(vain.is_empty(), "documented, but never called: {vain:?}");
}
