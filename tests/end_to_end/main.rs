//! Promise: from CloudTrail's Event history to `kubectl get ecrauditpolicies`. The real program
//! runs against a real API server and a replayed CloudTrail, with the arguments, the environment
//! and the rights that the chart gives it and no others: what happens to images that run is told
//! within seconds, faults say what is wrong and when it is over, and what was told survives the
//! end of the process and the loss of its ledger.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail their test"
)]

mod cluster;
mod crash;
mod faults;
mod policies;
mod story;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// How many tests run together, at least: each waits for most of its time.
const TOGETHER: usize = 7;

macro_rules! tests {
    ($($module:ident::$name:ident;)*) => {
        vec![$(
            Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(|error| error.to_string())?.block_on($module::$name());
                Ok(())
            }),
        )*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cores.max(TOGETHER));
    let tests = tests! {
        story::the_story_is_told_from_cloudtrail_to_kubectl;
        story::late_double_and_shuffled_events_give_the_same_answer;
        faults::faults_show_in_conditions_and_pass;
        crash::what_was_told_survives_a_kill_and_the_loss_of_the_ledger;
        cluster::missing_and_older_definitions_are_named_and_waited_for;
        cluster::a_right_that_is_missing_is_named_and_its_return_is_noticed;
        policies::policies_share_readers_and_are_judged_each_for_itself;
    };
    libtest_mimic::run(&arguments, tests).exit_code()
}
