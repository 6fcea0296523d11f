//! The loop: receives, lets messages be worked on, hides them meanwhile, deletes them after.
//!
//! One task owns all of it. What waits for AWS or the ledger are futures that it polls together;
//! what is held at a time is bounded, so a backlog stays in the queue, where it is safe.

mod show;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::debug;

use super::{
    client::{Attributes, BATCH, Received},
    faults::Task,
    message::{self, Content},
    work::{End, KIND, Worker},
};
use crate::source::{Board, fault::Fault};

/// The most messages that are held at a time.
const MOST_HELD: usize = 100;
/// How many receptions wait side by side while the queue is full.
const MOST_RECEIVING: usize = 4;
/// How often what is due is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often the queue is asked how much is in it.
const LOOK: Duration = Duration::from_secs(10);
/// How often coverage moves on.
const CLAIM: Duration = Duration::from_secs(30);
/// A message that was received and not yet deleted.
struct Held {
    id: String,
    receipt: String,
    /// Since when it is hidden from others.
    hidden: Instant,
}

/// What came back of a call.
enum Called {
    Deleted(Vec<u64>, Result<Vec<usize>, Fault>),
    Hidden(Result<(), Fault>),
    Looked {
        at: Timestamp,
        /// Messages that were received before the question have lower numbers.
        before: u64,
        attributes: Result<Attributes, Fault>,
    },
    Renewed,
    Claimed,
}

/// What the loop knows.
#[expect(clippy::struct_excessive_bools, reason = "each says what goes on")]
pub(super) struct Loop<'w> {
    worker: &'w Worker,
    health: &'w Board,
    attributes: Attributes,
    receiving: FuturesUnordered<BoxFuture<'w, Result<Vec<Received>, Fault>>>,
    working: FuturesUnordered<BoxFuture<'w, Vec<(u64, End)>>>,
    calls: FuturesUnordered<BoxFuture<'w, Called>>,
    /// By number, in the order of reception.
    held: BTreeMap<u64, Held>,
    next: u64,
    /// Those that may be deleted.
    done: Vec<u64>,
    /// Messages that were left to the queue, until when they are hidden.
    left: HashMap<String, Instant>,
    /// The last reception was full: there is more.
    is_full: bool,
    /// Whether anything was received since the start.
    has_received: bool,
    receive_from: Instant,
    looked: Option<Instant>,
    is_looking: bool,
    /// Once no message below this number is held, the queue had nothing in it then.
    barrier: Option<(Timestamp, u64)>,
    was_drained: bool,
    claimed: Option<Instant>,
    claim_period: Duration,
    is_claiming: bool,
    renewed: Instant,
    poisoned: Option<Instant>,
    unhidden: Option<Instant>,
    last_success: Option<Timestamp>,
}

impl<'w> Loop<'w> {
    /// Nothing received yet.
    pub(super) fn new(worker: &'w Worker, health: &'w Board, attributes: Attributes) -> Self {
        Self {
            worker,
            health,
            attributes,
            receiving: FuturesUnordered::new(),
            working: FuturesUnordered::new(),
            calls: FuturesUnordered::new(),
            held: BTreeMap::new(),
            next: 0,
            done: vec![],
            left: HashMap::new(),
            is_full: false,
            has_received: false,
            receive_from: Instant::now(),
            looked: None,
            is_looking: false,
            barrier: None,
            was_drained: false,
            claimed: None,
            claim_period: CLAIM,
            is_claiming: false,
            renewed: Instant::now(),
            poisoned: None,
            unhidden: None,
            last_success: None,
        }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(&mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.receive();
            tokio::select! {
                Some(received) = self.receiving.next(), if !self.receiving.is_empty() => {
                    self.received(received);
                }
                Some(ended) = self.working.next(), if !self.working.is_empty() => {
                    self.ended(ended);
                }
                Some(called) = self.calls.next(), if !self.calls.is_empty() => {
                    self.called(called);
                }
                _ = tick.tick() => {
                    self.delete(true);
                    self.hide();
                    self.look();
                    self.publish();
                }
            }
            self.delete(false);
            self.drained();
        }
    }

    /// Starts to wait for messages, if there is room for them.
    fn receive(&mut self) {
        let wanted = if self.is_full { MOST_RECEIVING } else { 1 };
        while self.receiving.len() < wanted
            && self.held.len() + BATCH * (self.receiving.len() + 1) <= MOST_HELD
            && Instant::now() >= self.receive_from
        {
            let (worker, visibility) = (self.worker, self.attributes.visibility);
            self.count_request();
            let receive = async move { worker.clients().queue.receive(visibility).await };
            self.receiving.push(receive.boxed());
        }
    }

    fn count_request(&self) {
        let region = self.worker.spec.borrow().key.region.clone();
        self.worker
            .counters
            .count_request(KIND, &Arc::default(), &region);
    }

    fn received(&mut self, received: Result<Vec<Received>, Fault>) {
        let messages = match received {
            Ok(messages) => messages,
            Err(fault) => {
                self.is_full = false;
                let wait = self.failed(Task::Receive, fault);
                self.receive_from = Instant::now() + wait;
                return;
            }
        };
        self.worker.works(&Task::Receive);
        self.is_full = messages.len() >= BATCH;
        self.has_received = true;
        let now = Timestamp::now();
        self.last_success = Some(now);
        let mut facts: Vec<(u64, Content)> = Vec::new();
        for message in messages {
            let number = self.next;
            self.next += 1;
            let Received {
                id,
                receipt,
                body,
                sent,
            } = message;
            let sent = sent.map_or(now, |sent| sent.min(now));
            self.left.remove(&id);
            let parsed = message::parse(&body);
            let held = Held {
                id: id.clone(),
                receipt,
                hidden: Instant::now(),
            };
            self.held.insert(number, held);
            let worker = self.worker;
            match parsed {
                Ok(content) if content.objects.is_empty() => facts.push((number, content)),
                Ok(content) => {
                    let work = async move {
                        let end = worker.objects(content.objects, sent).await;
                        let outcome = match end {
                            End::Done => "stored",
                            End::Left => "FileUnreadable",
                        };
                        worker.counters.count_message(outcome);
                        vec![(number, end)]
                    };
                    self.working.push(work.boxed());
                }
                Err(poison) => {
                    debug!(queue = %worker.name, %id, %poison, "a message cannot be read");
                    worker.counters.count_message(poison.as_str());
                    self.poisoned = Some(Instant::now());
                    let work = async move {
                        worker.poison(&id, sent, poison).await;
                        vec![(number, End::Left)]
                    };
                    self.working.push(work.boxed());
                }
            }
        }
        self.facts(facts);
    }

    /// What messages are themselves is stored together.
    fn facts(&mut self, facts: Vec<(u64, Content)>) {
        if facts.is_empty() {
            return;
        }
        let worker = self.worker;
        let work = async move {
            let (numbers, contents): (Vec<u64>, Vec<Content>) = facts.into_iter().unzip();
            for content in &contents {
                let is_fact = content.event.is_some() || content.unread.is_some();
                let outcome = if is_fact { "stored" } else { "empty" };
                worker.counters.count_message(outcome);
            }
            worker.facts(contents).await;
            let done = numbers.into_iter().map(|number| (number, End::Done));
            done.collect()
        };
        self.working.push(work.boxed());
    }

    fn ended(&mut self, ended: Vec<(u64, End)>) {
        for (number, end) in ended {
            match end {
                End::Done => self.done.push(number),
                End::Left => {
                    if let Some(held) = self.held.remove(&number) {
                        let until = held.hidden + self.attributes.visibility;
                        self.left.insert(held.id, until);
                    }
                }
            }
        }
    }

    /// Deletes what may be deleted: whole batches, or all that there is.
    fn delete(&mut self, all: bool) {
        while self.done.len() >= BATCH || (all && !self.done.is_empty()) {
            let numbers: Vec<u64> = self.done.drain(..self.done.len().min(BATCH)).collect();
            let (numbers, receipts): (Vec<u64>, Vec<String>) = numbers
                .into_iter()
                .filter_map(|number| Some((number, self.held.get(&number)?.receipt.clone())))
                .unzip();
            if numbers.is_empty() {
                continue;
            }
            let worker = self.worker;
            self.count_request();
            let delete = async move {
                let deleted = worker.clients().queue.delete(&receipts).await;
                Called::Deleted(numbers, deleted)
            };
            self.calls.push(delete.boxed());
        }
    }

    /// Hides what is held for longer, before others see it again.
    fn hide(&mut self) {
        let visibility = self.attributes.visibility;
        let due: Vec<u64> = self
            .held
            .iter()
            .filter(|(_, held)| held.hidden.elapsed() >= visibility / 3)
            .map(|(number, _)| *number)
            .collect();
        for numbers in due.chunks(BATCH) {
            let mut receipts = Vec::with_capacity(numbers.len());
            for number in numbers {
                if let Some(held) = self.held.get_mut(number) {
                    held.hidden = Instant::now();
                    receipts.push(held.receipt.clone());
                }
            }
            let worker = self.worker;
            self.count_request();
            let hide = async move {
                Called::Hidden(worker.clients().queue.hide(&receipts, visibility).await)
            };
            self.calls.push(hide.boxed());
        }
    }

    /// Asks how much is in the queue.
    fn look(&mut self) {
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if !is_due || self.is_looking || !self.has_received {
            return;
        }
        self.is_looking = true;
        let (worker, before, at) = (self.worker, self.next, Timestamp::now());
        self.count_request();
        let look = async move {
            Called::Looked {
                at,
                before,
                attributes: worker.clients().queue.attributes().await,
            }
        };
        self.calls.push(look.boxed());
    }

    fn called(&mut self, called: Called) {
        match called {
            Called::Deleted(numbers, Ok(failed)) => {
                self.worker.works(&Task::Delete);
                if !failed.is_empty() {
                    // Most often it was visible again, and somebody else has it now.
                    debug!(queue = %self.worker.name, messages = failed.len(), "not deleted");
                }
                for number in numbers {
                    self.held.remove(&number);
                }
            }
            Called::Deleted(numbers, Err(fault)) => {
                self.failed(Task::Delete, fault);
                // They come again, and are known then.
                for number in numbers {
                    self.held.remove(&number);
                }
            }
            Called::Renewed => {}
            Called::Hidden(Ok(())) => self.worker.works(&Task::Hide),
            Called::Hidden(Err(fault)) => {
                // Somebody else may receive them, too, who finds that they are known.
                self.unhidden = Some(Instant::now());
                self.failed(Task::Hide, fault);
            }
            Called::Looked {
                at,
                before,
                attributes,
            } => {
                self.is_looking = false;
                self.looked = Some(Instant::now());
                match attributes {
                    Ok(attributes) => {
                        self.worker.works(&Task::Look);
                        self.attributes = attributes;
                        self.saw(at, before);
                    }
                    Err(fault) => {
                        self.failed(Task::Look, fault);
                    }
                }
            }
            Called::Claimed => {
                self.is_claiming = false;
                self.claimed = Some(Instant::now());
                self.was_drained = true;
            }
        }
    }

    /// Nothing waits in the queue, and all that is hidden is ours: what was sent until then has
    /// been read as soon as what is held has been.
    fn saw(&mut self, at: Timestamp, before: u64) {
        let now = Instant::now();
        self.left.retain(|_, until| *until > now);
        let own = self.held.range(..before).count() + self.left.len();
        let hidden = usize::try_from(self.attributes.hidden).unwrap_or(usize::MAX);
        let is_empty = self.attributes.visible == 0 && self.attributes.delayed == 0;
        if is_empty && hidden <= own && !self.is_full && self.barrier.is_none() {
            self.barrier = Some((at, before));
        }
    }

    fn drained(&mut self) {
        let Some((at, before)) = self.barrier else {
            return;
        };
        if self.held.range(..before).next().is_some() {
            return;
        }
        self.barrier = None;
        let is_due = self
            .claimed
            .is_none_or(|claimed| claimed.elapsed() >= self.claim_period);
        if is_due && !self.is_claiming {
            self.is_claiming = true;
            let (worker, retention) = (self.worker, self.attributes.retention);
            let claim = async move {
                worker.drained(at, retention).await;
                Called::Claimed
            };
            self.calls.push(claim.boxed());
        }
    }
}
