//! What the judgement looks like to those who read it.

pub mod json;
pub mod table;
