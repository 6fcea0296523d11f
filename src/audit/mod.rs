//! The judgement: history folded from facts, rules over it, findings out.
//!
//! Pure: no I/O, and `now` is an argument. `run` and `check` share all of it.

mod activity;
mod assess;
mod history;
mod removal;
mod rules;
mod traffic;
mod validate;

pub use activity::{Activity, ActivityKey, Deed, activity};
pub use assess::{
    ClusterNodes, Container, ImageCount, RepositoryAssessment, RepositoryEvidence, assess,
};
pub use history::{History, Removal, Tag};
pub use rules::{InvalidPolicy, Rules};
