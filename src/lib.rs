//! Joins what Amazon ECR writes to AWS CloudTrail to the Pods that run.
//!
//! A record comes in at one end, a finding leaves at the other: [`event`] reads records,
//! [`audit`] judges them against what runs, [`api`] is what users write and read. [`ledger`] keeps
//! what was read.

pub mod api;
pub mod audit;
pub mod cli;
pub mod event;
pub mod inventory;
pub mod ledger;
pub mod operator;
pub mod report;
pub mod source;
