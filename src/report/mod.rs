//! What the judgement looks like to those who read it.
//!
//! For the cluster: a policy's conditions and status ([`judgement`], [`status`]) in a bounded
//! [`vocabulary`], one object for each finding ([`objects`]), and [`metrics`]. What was published
//! before is kept while the evidence does not reach ([`carry`]). For a browser: [`page`]. For
//! `check`: [`json`] and [`table`]. Everything is a pure function of what was assessed and read.

pub mod carry;
pub mod evidence;
pub mod json;
pub mod judgement;
pub mod metrics;
pub mod objects;
pub mod page;
mod process;
pub mod sentence;
pub mod status;
pub mod table;
pub mod text;
pub mod vocabulary;

#[cfg(test)]
mod tests;
