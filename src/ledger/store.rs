//! The ledger as sources see it.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::{Appended, Ledger, LedgerError, Page, Undecodable, trail::FileRow};
use crate::{
    event::{EventName, Interval},
    source::{
        self, FilePage, KnownFile, Learned, Place, Store, StoreError, Stored, TrailState,
        UndecodableRecord,
    },
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
            .coverage_where(Some(place), super::coverage::LOG_FILES, false)
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
            let undecodable = undecodable(&page.undecodable, fallback);
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
            Ok(appended.into())
        })
    }

    fn append_file(&self, page: FilePage) -> BoxFuture<'_, Result<Stored, StoreError>> {
        Box::pin(async move {
            let undecodable = undecodable(&page.undecodable, page.delivered);
            let file = page.end.map(|(read, hash)| FileRow {
                delivered: page.delivered,
                unique: &page.unique,
                hash,
                read,
            });
            let facts = Page {
                source: &page.trail,
                account: &page.place.account,
                region: &page.place.region,
                names: &[],
                events: &page.events,
                undecodable: &undecodable,
                covered: None,
                settled: None,
            };
            Ok(self.append_with(&facts, file.as_ref()).await?.into())
        })
    }

    fn files<'a>(
        &'a self,
        trail: &'a str,
        place: &'a Place,
        delivered: Interval,
    ) -> BoxFuture<'a, Result<Vec<KnownFile>, StoreError>> {
        Box::pin(async move { Ok(self.trail_files(trail, place, delivered).await?) })
    }

    fn trail<'a>(
        &'a self,
        trail: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<Place, TrailState>, StoreError>> {
        Box::pin(async move { Ok(self.trail_state(trail).await?) })
    }

    fn learn<'a>(
        &'a self,
        trail: &'a str,
        place: &'a Place,
        learned: Learned,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { Ok(self.learn_trail(trail, place, &learned).await?) })
    }
}

impl From<Appended> for Stored {
    fn from(appended: Appended) -> Self {
        Self {
            new_events: u64::try_from(appended.new_events).unwrap_or(u64::MAX),
            by_name: appended.by_name,
            repositories: appended.repositories.into_iter().collect(),
        }
    }
}

fn undecodable(records: &[UndecodableRecord], fallback: Timestamp) -> Vec<Undecodable<'_>> {
    records
        .iter()
        .map(|record| Undecodable {
            text: &record.text,
            reason: &record.error,
            time: record.time.unwrap_or(fallback),
        })
        .collect()
}
