//! A queue that is told of a trail's files, or gets the events themselves.

pub mod message;
