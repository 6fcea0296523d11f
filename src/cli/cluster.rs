//! What runs, asked of the current kube context: the same objects that `kubectl get -o json` writes,
//! page by page.

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::ListParams, core::Request};
use serde::Deserialize;

use crate::inventory::{self, Index, Kind, Scope};

/// Objects of one answer.
const PAGE: u32 = 500;

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
    let what = kind.plural();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let request = Request::new(format!("/api/v1/{what}"));
        let request = request.list(&params).with_context(|| what.to_owned())?;
        let text = client
            .request_text(request)
            .await
            .with_context(|| format!("the cluster's {what}"))?;
        inventory::read::read(&format!("the cluster's {what}"), text.as_bytes(), index)?;
        let page: Page =
            serde_json::from_str(&text).with_context(|| format!("the cluster's {what}"))?;
        match page.metadata.next.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(()),
        }
    }
}
