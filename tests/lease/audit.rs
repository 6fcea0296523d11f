//! The API server's audit log: who changed what, when, and on which version it was judged.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use crate::support::Options;
use crate::support::servers::Folder;

const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Request
  verbs: [create, update, patch, delete]
  resources:
  - {group: coordination.k8s.io, resources: [leases]}
  - {group: ecraudit.io}
- level: None
";

/// Where the API server writes its log.
pub(crate) struct AuditLog {
    file: PathBuf,
}

/// A change that the API server made.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Who asked for it.
    pub(crate) user: String,
    pub(crate) verb: String,
    /// Resource and subresource.
    pub(crate) resource: String,
    pub(crate) received: Timestamp,
    pub(crate) request: Value,
    pub(crate) code: u64,
}

impl AuditLog {
    /// One in this folder, and what tells the API server of it.
    pub(crate) fn new(folder: &Folder) -> (Self, Options) {
        let policy = folder.path().join("audit-policy.yaml");
        fs::write(&policy, POLICY).unwrap();
        let file = folder.path().join("audit.log");
        let options = Options {
            api_server_flags: vec![
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", file.display()),
            ],
            ..Options::default()
        };
        (Self { file }, options)
    }

    /// Everything so far, in the order in which it was received.
    pub(crate) fn requests(&self) -> Vec<Change> {
        let text = fs::read_to_string(&self.file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut all: Vec<Change> = lines.map(|line: Value| Self::change(&line)).collect();
        all.sort_by_key(|change| change.received);
        all
    }

    fn change(line: &Value) -> Change {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subresource = text(&line["objectRef"]["subresource"]);
        let user = match &line["impersonatedUser"]["username"] {
            Value::String(user) => user.clone(),
            _ => text(&line["user"]["username"]),
        };
        Change {
            user,
            verb: text(&line["verb"]),
            resource: format!("{}/{subresource}", text(&line["objectRef"]["resource"])),
            received: text(&line["requestReceivedTimestamp"]).parse().unwrap(),
            request: line["requestObject"].clone(),
            code: line["responseStatus"]["code"].as_u64().unwrap_or_default(),
        }
    }
}

impl Change {
    pub(crate) fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Who holds the lease from here on, if this says so.
    fn holder(&self) -> Option<&str> {
        let holder = &self.request["spec"]["holderIdentity"];
        self.succeeded().then(|| holder.as_str())?
    }
}

/// Fails unless every change of ours was made by the one who held the lease when the API server
/// received it; how many changes each of these made.
pub(crate) fn assert_one_writer<const N: usize>(
    requests: &[Change],
    writers: [&str; N],
) -> [usize; N] {
    let mut holder = "";
    let mut written = [0; N];
    for request in requests {
        // The API server has leases of its own.
        let Some(writer) = writers.iter().position(|name| *name == request.user) else {
            continue;
        };
        if request.resource == "leases/" {
            holder = request.holder().unwrap_or(holder);
            continue;
        }
        assert!(
            !request.succeeded() || holder == writers[writer],
            "{holder:?} held the lease: {request:?}"
        );
        written[writer] += usize::from(request.succeeded());
    }
    written
}

/// Fails unless every change of an object that there was says which version it is about.
pub(crate) fn assert_versioned(requests: &[Change], writers: &[&str]) {
    for request in requests {
        if !writers.contains(&request.user.as_str()) {
            continue;
        }
        let version = match (request.verb.as_str(), request.resource.as_str()) {
            ("create", _) => continue,
            ("delete", _) => &request.request["preconditions"]["resourceVersion"],
            _ => &request.request["metadata"]["resourceVersion"],
        };
        assert!(version.is_string(), "{request:?}");
    }
}
