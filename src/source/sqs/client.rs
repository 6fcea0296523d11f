//! The queue's API: five calls, their answers taken apart.

use std::{collections::HashMap, time::Duration};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::{
    Client,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
        MessageSystemAttributeName, QueueAttributeName,
    },
};
use jiff::{SignedDuration, Timestamp};

use crate::source::{Reason, fault::Fault};

/// How long the queue is asked to wait for a message: the longest that SQS knows, and the cheapest.
const WAIT: i32 = 20;
/// The most messages that one call takes, gives back or deletes.
pub(super) const BATCH: usize = 10;
/// In seconds, where a queue does not say: SQS's own defaults.
const DEFAULT_VISIBILITY: i64 = 30;
const DEFAULT_RETENTION: i64 = 4 * 86_400;

/// A message as it was received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// SQS's id of the message: the same each time it is received.
    pub(super) id: String,
    /// What this reception of it is deleted by.
    pub(super) receipt: String,
    pub(super) body: String,
    /// When it was sent to the queue.
    pub(super) sent: Option<Timestamp>,
}

/// What the queue says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Messages that can be received now, about.
    pub(super) visible: u64,
    /// Messages that somebody has received and not deleted, about.
    pub(super) hidden: u64,
    /// Messages that cannot be received yet, about.
    pub(super) delayed: u64,
    /// How long a message that was received stays hidden from others.
    pub(super) visibility: Duration,
    /// How long a message stays in the queue.
    pub(super) retention: SignedDuration,
    /// Whether messages that cannot be read are put aside after some tries.
    pub(super) redrives: bool,
}

/// One queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    pub(super) fn new(config: &SdkConfig, url: &str) -> Self {
        // A long poll is longer than other calls. What fails is tried again by the reader, which
        // also says so.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(Duration::from_secs(30))
            .operation_attempt_timeout(Duration::from_secs(35))
            .build();
        let config = aws_sdk_sqs::config::Builder::from(config)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(1))
            .build();
        Self {
            client: Client::from_conf(config),
            url: url.to_owned(),
        }
    }

    /// Waits for messages, at most [`WAIT`] seconds. None in an answer means that there were none.
    pub(super) async fn receive(&self, visibility: Duration) -> Result<Vec<Received>, Fault> {
        let output = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(BATCH).unwrap_or(10))
            .wait_time_seconds(WAIT)
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(|error| Fault::of(&error))?;
        let messages = output.messages.unwrap_or_default();
        let received = messages.into_iter().filter_map(|message| {
            let sent = message
                .attributes
                .as_ref()
                .and_then(|all| all.get(&MessageSystemAttributeName::SentTimestamp))
                .and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok());
            Some(Received {
                id: message.message_id?,
                // Without it the message can only be left alone.
                receipt: message.receipt_handle?,
                body: message.body.unwrap_or_default(),
                sent,
            })
        });
        Ok(received.collect())
    }

    /// Deletes messages, at most [`BATCH`]; the places of those that were not.
    pub(super) async fn delete(&self, receipts: &[String]) -> Result<Vec<usize>, Fault> {
        let mut entries = Vec::with_capacity(receipts.len());
        for (place, receipt) in receipts.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(receipt)
                .build()
                .map_err(|error| Fault::new(Reason::Refused, error.to_string()))?;
            entries.push(entry);
        }
        let output = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| Fault::of(&error))?;
        let failed = output.failed.iter();
        Ok(failed.filter_map(|entry| entry.id.parse().ok()).collect())
    }

    /// Hides messages for that long from now on, at most [`BATCH`].
    pub(super) async fn hide(
        &self,
        receipts: &[String],
        visibility: Duration,
    ) -> Result<(), Fault> {
        let mut entries = Vec::with_capacity(receipts.len());
        for (place, receipt) in receipts.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(seconds(visibility))
                .build()
                .map_err(|error| Fault::new(Reason::Refused, error.to_string()))?;
            entries.push(entry);
        }
        self.client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            // One that has become visible meanwhile is received again: nothing is lost.
            .map(|_| ())
            .map_err(|error| Fault::of(&error))
    }

    pub(super) async fn attributes(&self) -> Result<Attributes, Fault> {
        let output = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .set_attribute_names(Some(vec![
                QueueAttributeName::ApproximateNumberOfMessages,
                QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
                QueueAttributeName::ApproximateNumberOfMessagesDelayed,
                QueueAttributeName::VisibilityTimeout,
                QueueAttributeName::MessageRetentionPeriod,
                QueueAttributeName::RedrivePolicy,
            ]))
            .send()
            .await
            .map_err(|error| Fault::of(&error))?;
        let all = output.attributes.unwrap_or_default();
        Attributes::of(&all)
            .ok_or_else(|| Fault::new(Reason::Malformed, "the queue does not say what is in it"))
    }
}

impl Attributes {
    fn of(all: &HashMap<QueueAttributeName, String>) -> Option<Self> {
        let text = |name| all.get(&name).map(String::as_str);
        let seconds = |name, default: i64| {
            let given = text(name).and_then(|text| text.parse::<i64>().ok());
            given.unwrap_or(default).clamp(1, 14 * 86_400)
        };
        let visibility = seconds(QueueAttributeName::VisibilityTimeout, DEFAULT_VISIBILITY);
        let retention = seconds(
            QueueAttributeName::MessageRetentionPeriod,
            DEFAULT_RETENTION,
        );
        Some(Self {
            visible: text(QueueAttributeName::ApproximateNumberOfMessages)?
                .parse()
                .ok()?,
            hidden: text(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)?
                .parse()
                .ok()?,
            delayed: text(QueueAttributeName::ApproximateNumberOfMessagesDelayed)?
                .parse()
                .ok()?,
            visibility: Duration::from_secs(visibility.unsigned_abs()),
            retention: SignedDuration::from_secs(retention),
            redrives: text(QueueAttributeName::RedrivePolicy).is_some_and(|text| !text.is_empty()),
        })
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs().max(1)).unwrap_or(43_200)
}
