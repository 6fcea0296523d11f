//! The watch on policies: every object as it is, decoded one by one, so that one that does not
//! decode cannot hide the others.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::mpsc;

use super::admin::{Gate, Readiness};
use crate::{api::EcrAuditPolicy, report::text::plain};

/// Policies in one page of a list.
const PAGE: u32 = 100;

/// What has become of the policies.
#[derive(Debug)]
pub(super) enum Change {
    /// These are all.
    All(Vec<DynamicObject>),
    /// One is new, or is not what it was.
    Applied(Box<DynamicObject>),
    /// One is gone.
    Deleted(String),
}

/// Watches until nobody listens. Where the custom resource is missing, says so and waits for it.
pub(super) async fn watch(client: Client, readiness: Readiness, changes: mpsc::Sender<Change>) {
    let resource = ApiResource::erase::<EcrAuditPolicy>(&());
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let config = watcher::Config::default().page_size(PAGE);
    let backoff = watcher::DefaultBackoff::default();
    let mut events = pin!(watcher(api, config).backoff(Patient(backoff)));
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.push(object);
                continue;
            }
            Ok(Event::InitDone) => {
                readiness.open(Gate::Policies);
                Change::All(std::mem::take(&mut listed))
            }
            Ok(Event::Apply(object)) => Change::Applied(Box::new(object)),
            Ok(Event::Delete(object)) => Change::Deleted(object.name_any()),
            Err(error) => {
                complain(&readiness, &error);
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn complain(readiness: &Readiness, error: &watcher::Error) {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    match status.map(|status| status.code) {
        Some(404) => readiness.wait(
            Gate::Policies,
            "the custom resource ecrauditpolicies.ecraudit.io is not installed; waiting for it \
             (ecr-audit crd prints it)",
        ),
        Some(403) => readiness.wait(
            Gate::Policies,
            &plain(
                &format!("cannot list or watch ecrauditpolicies.ecraudit.io: {error}"),
                300,
            ),
        ),
        // The watcher lists again after a while; what is known stays known.
        _ => tracing::debug!(%error, "the watch on policies was interrupted"),
    }
}

/// kube's back-off, but never longer than a person who just installed the custom resource would
/// wait.
struct Patient(watcher::DefaultBackoff);

impl Iterator for Patient {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(Duration::from_secs(5)))
    }
}

impl kube::runtime::utils::Backoff for Patient {
    fn reset(&mut self) {
        self.0.reset();
    }
}
