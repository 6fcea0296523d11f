//! The ledger as sources see it.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::{Ledger, LedgerError, Page, Undecodable};
use crate::{
    event::EventName,
    source::{self, Place, Store, StoreError, Stored},
};

impl From<LedgerError> for StoreError {
    fn from(error: LedgerError) -> Self {
        Self(error.to_string())
    }
}

impl Ledger {
    /// What one source has read of an account and region, by event name.
    pub async fn coverage_of(
        &self,
        source: &str,
        place: &Place,
    ) -> Result<BTreeMap<EventName, source::Coverage>, LedgerError> {
        let place = (source, place.account.as_ref(), place.region.as_ref());
        Ok(self
            .coverage_where(Some(place))
            .await?
            .into_iter()
            .map(|coverage| {
                let (read, settled) = (coverage.read, coverage.settled);
                (coverage.name, source::Coverage { read, settled })
            })
            .collect())
    }
}

impl Store for Ledger {
    fn coverage<'a>(
        &'a self,
        source: &'a str,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<BTreeMap<EventName, source::Coverage>, StoreError>> {
        Box::pin(async move { Ok(self.coverage_of(source, place).await?) })
    }

    fn append(&self, page: source::Page) -> BoxFuture<'_, Result<Stored, StoreError>> {
        Box::pin(async move {
            // A record without a readable time lies within what the page spans.
            let fallback = page
                .read
                .map(|read| read.end)
                .or_else(|| page.events.last().map(|event| event.time))
                .unwrap_or_default();
            let undecodable: Vec<Undecodable<'_>> = page
                .undecodable
                .iter()
                .map(|record| Undecodable {
                    text: &record.text,
                    reason: &record.error,
                    time: record.time.unwrap_or(fallback),
                })
                .collect();
            let appended = Ledger::append(
                self,
                &Page {
                    source: &page.source,
                    account: &page.place.account,
                    region: &page.place.region,
                    names: &page.names,
                    events: &page.events,
                    undecodable: &undecodable,
                    covered: page.read,
                    settled: page.settled,
                },
            )
            .await?;
            Ok(Stored {
                new_events: u64::try_from(appended.new_events).unwrap_or(u64::MAX),
                repositories: appended.repositories.into_iter().collect(),
            })
        })
    }
}
