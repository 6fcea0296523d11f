//! Promise: the replay server speaks CloudTrail's and STS's protocols, says a client that
//! is not ours. The scenarios are in `replay_boto3.py`.

#![allow(clippy::expect_used, reason = "helpers of tests fail their test")]

mod support;

use std::path::Path;
use std::process::Command;

use support::{Replay, programs};

async fn scenario(name: &str, arguments: &[&str]) {
    let replay = Replay::start(arguments).await;
    let python = tokio::task::spawn_blocking(programs::python);
    let mut command = Command::new(python.await.expect("a Python environment"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay_boto3.py");
    command
        .arg("-B")
        .arg(script)
        .arg(name)
        .arg(replay.url())
        .envs(replay.environment());
    programs::stdout(command).await;
}

macro_rules! scenarios {
    ($($name:ident($($argument:expr),*);)*) => {$(
        #[tokio::test]
        async fn $name() {
            scenario(stringify!($name), &[$($argument),*]).await;
        }
    )*};
}

scenarios! {
    the_paginator_walks_the_whole_history("--quota", "0");
    every_attribute_key_selects("--quota", "0");
    wrong_parameters_have_their_own_errors("--quota", "0");
    a_next_token_is_not_for_other_parameters("--quota", "0");
    the_quota_throttles_and_the_sdk_waits();
    the_sdk_sees_broken_answers_as_broken("--quota", "0");
    an_assumed_role_reads_its_own_account("--quota", "0");
    a_session_ends("--quota", "0", "--session-seconds", "3");
}
