//! A policy's spec, compiled: matchers for principals, exceptions, the lookback.

use crate::api::EcrAuditPolicySpec;

/// A policy that cannot be judged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {reason}")]
pub struct InvalidPolicy {
    /// Path of the field, for example `spec.exceptions[0].until`.
    pub field: String,
    /// What is wrong, and what was expected.
    pub reason: String,
}

/// A policy's spec, validated and compiled.
#[derive(Debug, Clone)]
pub struct Rules {}

impl Rules {
    /// Compiles a policy. Checks what the CRD's schema checks, for policies that no API server saw.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with the field's path.
    pub fn compile(_spec: &EcrAuditPolicySpec) -> Result<Self, InvalidPolicy> {
        Ok(Self {})
    }

    /// The rules of `check` without a policy: only removals are judged, for every image.
    #[must_use]
    pub fn removals_only() -> Self {
        Self {}
    }
}
