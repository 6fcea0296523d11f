//! Waiting for what takes a moment, with a limit and a message that says what was missing.

use std::fmt::Display;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// Asks `probe` until it answers `Ok`, and returns that. After `limit` the test fails
/// with what was waited for and the last `Err`, which should say what was there instead.
pub async fn eventually<T, E: Display>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(reason) if start.elapsed() >= limit => {
                panic!("waited {limit:?} for {what}, last seen: {reason}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
