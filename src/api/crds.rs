//! The custom resource definitions as YAML: what `ecr-audit crd` prints and `crds/` holds.

use kube::CustomResourceExt;

use super::{EcrAuditFinding, EcrAuditPolicy};

/// Both definitions, as YAML documents.
///
/// # Errors
/// When a definition cannot be written as YAML, which would be a defect of this crate.
pub fn crds_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for crd in [EcrAuditPolicy::crd(), EcrAuditFinding::crd()] {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd)?);
    }
    Ok(text)
}
