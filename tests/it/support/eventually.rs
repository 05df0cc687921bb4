//! Waiting for a condition that another process brings about.

use std::time::{Duration, Instant};

/// Deadline of everything that a test waits for; generous, because test machines may be heavily loaded.
pub const TIMEOUT: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until the result is `Ok`. Panics with the last error after [`TIMEOUT`].
pub async fn eventually<T>(mut poll: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match poll().await {
            Ok(found) => return found,
            Err(state) => assert!(Instant::now() < deadline, "after {TIMEOUT:?}: {state}"),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// [`eventually`] for tests without a runtime.
pub fn eventually_blocking<T>(mut poll: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match poll() {
            Ok(found) => return found,
            Err(state) => assert!(Instant::now() < deadline, "after {TIMEOUT:?}: {state}"),
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// `Ok` if the condition holds, else a description of the state.
pub fn check(condition: bool, state: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(state()) }
}
