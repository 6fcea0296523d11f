//! A queue that is told of a trail's files, or gets the events themselves.
//!
//! Any number of processes may read one queue: SQS hands each message to one of them at a time,
//! facts are stored once whoever brings them, and a message is deleted only after everything that
//! it brings is in the ledger. So nothing has to be agreed upon, and a process that dies loses
//! nothing: its messages come to another one when the visibility timeout is over.
//!
//! What cannot be read at all (a message that nobody sends, a file that is damaged) is left alone,
//! counted, and named: the queue's redrive policy puts it aside. What cannot be read now (a
//! permission that is missing, a service that fails) is held and tried again, so that an outage
//! does not empty the queue into its dead-letter queue.

mod client;
mod cover;
mod drive;
mod faults;
pub mod message;
mod reader;
mod work;

pub(crate) use reader::Reader;
