//! What runs, asked of the current kube context: the same objects that `kubectl get -o json` writes,
//! page by page.
//!
//! The API server keeps the past for some minutes only. Where the pages of one moment are not to be
//! had any more (410 Gone), it offers to go on with what is there now; else the list begins again.

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::ListParams, core::Request};
use serde::Deserialize;

use crate::inventory::{self, Index, Kind, Scope};

/// Objects of one answer.
const PAGE: u32 = 500;

/// How often a list is begun again.
const BEGINNINGS: usize = 5;

/// Reads pods and nodes, and the namespaces where their labels matter. Gives the `uid` of the
/// namespace `kube-system`, where that may be read: a ledger knows the cluster by it.
///
/// # Errors
/// When there is no kube context, or the API server does not answer.
pub(super) fn read(scope: &Scope, index: &mut Index) -> anyhow::Result<Option<String>> {
    super::runtime()?.block_on(async {
        let client = Client::try_default()
            .await
            .context("no --pods, and no cluster to ask for them")?;
        list(&client, Kind::Pod, index).await?;
        list(&client, Kind::Node, index).await?;
        if scope.needs_labels() {
            list(&client, Kind::Namespace, index).await?;
        }
        let namespaces: Api<Namespace> = Api::all(client);
        let system = namespaces.get_metadata("kube-system").await;
        Ok(system.ok().and_then(|namespace| namespace.metadata.uid))
    })
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

async fn list(client: &Client, kind: Kind, index: &mut Index) -> anyhow::Result<()> {
    let what = format!("the cluster's {}", kind.plural());
    let mut beginnings = 0;
    let mut next: Option<String> = None;
    loop {
        if next.is_none() {
            beginnings += 1;
            index.begin(kind);
        }
        let mut params = ListParams::default().limit(PAGE);
        params.continue_token = next.take();
        let request = Request::new(format!("/api/v1/{}", kind.plural()));
        let request = request.list(&params).with_context(|| what.clone())?;
        let text = match client.request_text(request).await {
            Ok(text) => text,
            Err(kube::Error::Api(status)) if status.code == 410 && beginnings < BEGINNINGS => {
                let offered = status.metadata.and_then(|metadata| metadata.continue_);
                next = offered.filter(|token| !token.is_empty());
                continue;
            }
            Err(error) => return Err(error).with_context(|| what.clone()),
        };
        inventory::read::read(&what, text.as_bytes(), index)?;
        let page: Page = serde_json::from_str(&text).with_context(|| what.clone())?;
        next = page.metadata.next.filter(|next| !next.is_empty());
        if next.is_none() {
            // What an abandoned beginning had shown, and is gone by now, is forgotten.
            index.finish(kind);
            return Ok(());
        }
    }
}
