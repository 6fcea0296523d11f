//! The first line of the page: what is wrong, or since when nothing is, in one sentence.

use std::collections::BTreeSet;

use super::{Level, MESSAGE, PolicyPage, policies::Sums};
use crate::report::{
    text::{counted, plain},
    vocabulary::{ConditionType, Truth},
};

/// Workloads, principals or policies that one line names.
const NAMED: usize = 5;

/// The answer, and what else there is to know at once.
pub(super) struct Answer {
    pub class: &'static str,
    pub text: String,
    /// What follows from it.
    pub then: Option<String>,
    /// What else was found.
    pub also: Vec<String>,
    /// Where the answer may lack something.
    pub doubts: Vec<String>,
}

impl Answer {
    pub(super) fn new(policies: &[PolicyPage]) -> Self {
        let sums = together(policies);
        let mut told = found(&sums).into_iter();
        let doubts = doubts(policies);
        let then = if sums.unpullable.is_empty() {
            None
        } else {
            Some(format!(
                "Push {} again or redeploy; until then do not drain or replace the nodes that run {}.",
                if sums.unpullable.len() == 1 {
                    "it"
                } else {
                    "them"
                },
                named(&sums.stuck)
            ))
        };
        if let Some((level, text)) = told.next() {
            return Self {
                class: level.class(),
                text,
                then,
                also: told.map(|(_, text)| text).collect(),
                doubts,
            };
        }
        let (level, text) = nothing_found(policies);
        Self {
            class: level.class(),
            text,
            then: None,
            also: vec![],
            doubts,
        }
    }
}

fn together(policies: &[PolicyPage]) -> Sums {
    let mut all = Sums::default();
    for policy in policies {
        let Sums {
            unpullable,
            removed,
            changed,
            pushed,
            pullers,
            refused,
            stuck,
        } = policy.sums.clone();
        all.unpullable.extend(unpullable);
        all.removed.extend(removed);
        all.changed.extend(changed);
        all.pushed.extend(pushed);
        all.pullers.extend(pullers);
        all.refused.extend(refused);
        all.stuck.extend(stuck);
    }
    all
}

/// What was found, the worst first.
fn found(sums: &Sums) -> Vec<(Level, String)> {
    let mut told = Vec::new();
    let mut tell = |level, number: usize, text: &dyn Fn(&str) -> String| {
        if number > 0 {
            told.push((level, text(&counted(number, "running image"))));
        }
    };
    tell(Level::Bad, sums.unpullable.len(), &|images| {
        format!("{images} cannot be pulled by a new node")
    });
    tell(Level::Bad, sums.removed.len(), &|images| {
        format!("{images} removed: what a new node would get is not known")
    });
    tell(Level::Warn, sums.changed.len(), &|images| {
        format!("{images} would change on a new node")
    });
    tell(Level::Warn, sums.pushed.len(), &|images| {
        format!("{images} pushed or re-tagged by somebody who is not expected")
    });
    let mut who = |set: &BTreeSet<String>, did: &str| {
        if !set.is_empty() {
            let text = format!("{} {did}", counted(set.len(), "unexpected principal"));
            told.push((Level::Warn, text));
        }
    };
    who(&sums.pullers, "pulled what runs");
    who(
        &sums.refused,
        "tried to pull or push what runs, and was refused",
    );
    told
}

/// What to say when no finding says it: never more than the evidence does.
fn nothing_found(policies: &[PolicyPage]) -> (Level, String) {
    if policies.is_empty() {
        return (
            Level::Unknown,
            "There is no policy yet, so nothing is audited".to_owned(),
        );
    }
    let unsure: BTreeSet<String> = policies
        .iter()
        .filter(|policy| policy.condition(ConditionType::ImagesRetained).0 != Truth::True.as_str())
        .map(|policy| policy.name.clone())
        .collect();
    if !unsure.is_empty() {
        return (
            Level::Unknown,
            "Nothing was found, but not everything is known".to_owned(),
        );
    }
    let since = policies.iter().filter_map(|p| p.status.covered_since).max();
    let runs = policies.iter().any(|policy| {
        let images = policy.status.images.as_ref();
        images.is_some_and(|images| images.running > 0)
    });
    match since {
        Some(since) if runs => (
            Level::Good,
            format!(
                "No running image has been removed since {}",
                since.strftime("%Y-%m-%d %H:%M UTC")
            ),
        ),
        _ => (Level::Good, "No image of Amazon ECR runs".to_owned()),
    }
}

/// Where evidence or the operator itself lacks something.
fn doubts(policies: &[PolicyPage]) -> Vec<String> {
    let mut doubts = Vec::new();
    for policy in policies {
        for kind in [ConditionType::Ready, ConditionType::EvidenceComplete] {
            let (status, reason, message) = policy.condition(kind);
            let line = format!("{reason}: {message}");
            // What both conditions say is said once.
            if status != Truth::True.as_str() && !doubts.iter().any(|(_, said)| *said == line) {
                doubts.push((&policy.name, line));
            }
        }
    }
    let more = doubts.len().saturating_sub(NAMED);
    let mut lines: Vec<String> = doubts
        .into_iter()
        .take(NAMED)
        .map(|(policy, line)| plain(&format!("{policy}: {line}"), MESSAGE))
        .collect();
    if more > 0 {
        lines.push(format!("and {more} more, under Policies"));
    }
    lines
}

fn named(names: &BTreeSet<String>) -> String {
    let first = names.iter().take(NAMED);
    let first: Vec<String> = first.map(|name| plain(name, MESSAGE / NAMED)).collect();
    let text = first.join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
