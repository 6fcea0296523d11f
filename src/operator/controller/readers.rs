//! Which readers of sources there shall be.

use std::collections::BTreeSet;

use super::Controller;
use crate::{
    ledger::Backend,
    operator::visit,
    source::{PollerSpec, SourceKind},
};

impl Controller {
    /// Makes the readers those that the policies ask for.
    pub(super) fn read_sources(&mut self) {
        let mut wanted = Vec::new();
        let synced = self.inventory.synced();
        for policy in self.policies.values_mut() {
            if let Ok(compiled) = &policy.compiled {
                let regions = visit::regions(&policy.cache);
                // Regions that are not known yet are no reason to stop reading.
                if synced || !compiled.derives_regions() {
                    policy.readers = compiled.readers(&regions);
                }
                wanted.extend(policy.readers.iter().map(|(_, spec)| spec.clone()));
            }
        }
        self.want(wanted);
    }

    /// The readers that every replica runs: those of queues, which hand each message to one of
    /// them, where the replicas share the ledger.
    pub(super) fn shared_readers(&self) -> Vec<PollerSpec> {
        if self.ledger.backend() == Backend::Sqlite {
            return vec![];
        }
        let compiled = self
            .policies
            .values()
            .map(|policy| policy.compiled.as_ref());
        compiled
            .filter_map(Result::ok)
            .flat_map(|compiled| compiled.readers(&BTreeSet::new()))
            .map(|(_, spec)| spec)
            .filter(|spec| spec.key.kind() == SourceKind::Sqs)
            .collect()
    }

    pub(super) fn want(&mut self, wanted: Vec<PollerSpec>) {
        if wanted != self.wanted {
            self.wanted.clone_from(&wanted);
            self.pollers.set(wanted);
        }
    }
}
