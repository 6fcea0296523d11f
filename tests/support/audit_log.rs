//! What service accounts really asked of the API server, from its audit log, and what they are
//! allowed to ask by the roles that are bound to them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde_json::Value;

/// The audit policy: who asked for what, without bodies.
pub const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: [\"system:serviceaccounts\"]
  - level: None
";

/// A verb on a resource, as an RBAC rule allows it and a request uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: String,
    pub group: String,
    /// With the subresource: `ecrauditpolicies/status`.
    pub resource: String,
    /// The one object that it is about. None: any, or a whole list.
    pub name: Option<String>,
}

impl Right {
    /// Whether a rule that gives this allows `other`.
    fn covers(&self, other: &Self) -> bool {
        let Self {
            verb,
            group,
            resource,
            name,
        } = self;
        *verb == other.verb
            && *group == other.group
            && *resource == other.resource
            && (name.is_none() || *name == other.name)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            group,
            resource,
            name,
        } = self;
        write!(f, "{verb} {resource}.{group}")?;
        name.as_ref()
            .map_or(Ok(()), |name| write!(f, " named {name}"))
    }
}

/// What was asked, in order.
#[derive(Debug)]
pub struct AuditLog {
    entries: Vec<Value>,
}

impl AuditLog {
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The last line may be on its way.
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Self { entries }
    }

    fn of<'a>(&'a self, account: &str) -> impl Iterator<Item = &'a Value> {
        let user = format!("system:serviceaccount:{account}");
        self.entries
            .iter()
            .filter(move |entry| entry["user"]["username"] == *user)
    }

    /// What the service account `namespace:name` was allowed to do, and did.
    pub fn used(&self, account: &str) -> BTreeSet<Right> {
        self.of(account)
            .filter(|entry| entry["annotations"]["authorization.k8s.io/decision"] == "allow")
            .filter_map(|entry| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let object = entry["objectRef"].as_object()?;
                let field = |name| object.get(name).map(text).unwrap_or_default();
                let (mut resource, subresource) = (field("resource"), field("subresource"));
                if !subresource.is_empty() {
                    resource = format!("{resource}/{subresource}");
                }
                Some(Right {
                    verb: text(&entry["verb"]),
                    group: field("apiGroup"),
                    resource,
                    name: Some(field("name")).filter(|name| !name.is_empty()),
                })
            })
            .collect()
    }

    /// The requests of the service account `namespace:name` that were refused for want of a right.
    pub fn refused(&self, account: &str) -> Vec<String> {
        self.of(account)
            .filter(|entry| {
                entry["responseStatus"]["code"] == 403
                    || entry["annotations"]["authorization.k8s.io/decision"] == "forbid"
            })
            .map(|entry| format!("{} {}", entry["verb"], entry["requestURI"]))
            .collect()
    }
}

/// What the roles among `objects` give to the service account `namespace:name` by the bindings
/// among them.
pub fn granted(objects: &[Value], account: &str) -> BTreeSet<Right> {
    let (namespace, name) = account.split_once(':').expect("namespace:name");
    let is_account = |subject: &Value| {
        subject["kind"] == "ServiceAccount"
            && subject["namespace"] == namespace
            && subject["name"] == name
    };
    let bindings = objects.iter().filter(|object| {
        let kind = object["kind"].as_str().unwrap_or_default();
        matches!(kind, "RoleBinding" | "ClusterRoleBinding")
            && object["subjects"]
                .as_array()
                .is_some_and(|subjects| subjects.iter().any(is_account))
    });
    let mut rights = BTreeSet::new();
    for binding in bindings {
        let reference = &binding["roleRef"];
        let role = objects
            .iter()
            .find(|object| {
                object["kind"] == reference["kind"]
                    && object["metadata"]["name"] == reference["name"]
            })
            .expect("the role that is bound");
        for rule in role["rules"].as_array().expect("rules") {
            rights.extend(expand(rule));
        }
    }
    rights
}

fn expand(rule: &Value) -> Vec<Right> {
    let list = |name: &str| -> Vec<String> {
        let items = rule[name].as_array().cloned().unwrap_or_default();
        let items = items.into_iter();
        items
            .map(|item| item.as_str().expect("a string").to_owned())
            .collect()
    };
    let names: Vec<Option<String>> = match list("resourceNames") {
        names if names.is_empty() => vec![None],
        names => names.into_iter().map(Some).collect(),
    };
    let mut rights = vec![];
    for group in list("apiGroups") {
        for resource in list("resources") {
            for verb in list("verbs") {
                for name in &names {
                    let right = Right {
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                    };
                    assert!(!right.to_string().contains('*'), "a wildcard: {right}");
                    rights.push(right);
                }
            }
        }
    }
    rights
}

/// The rights that nobody used.
pub fn unused<'a>(granted: &'a BTreeSet<Right>, used: &BTreeSet<Right>) -> Vec<&'a Right> {
    granted
        .iter()
        .filter(|right| !used.iter().any(|used| right.covers(used)))
        .collect()
}
