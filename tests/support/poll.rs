//! Waiting for what takes a moment, with a limit and a message that says what was missing.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(100);

/// Asks `probe` until it answers `Ok`, and returns that. After `limit` the test fails
/// with what was waited for and the last `Err`, which should say what was there instead.
pub async fn eventually<T, E: Display>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    let mut seen = "nothing, the first look did not come to an end".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(reason)) => seen = reason.to_string(),
            Err(_) => {}
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} for {what}, last seen: {seen}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
