//! The fold: a repository's events in event-time order → the state of every digest and tag.

use std::sync::Arc;

use crate::event::Event;

/// What a repository's events say of its images and tags, at any time.
#[derive(Debug, Default)]
pub struct History {
    _events: Vec<Arc<Event>>,
}
