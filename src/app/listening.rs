//! Opens listening sockets.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long an address may stay in use: a server that was killed holds it until its last process has ended.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `bind` until the address is free, for a moment.
///
/// # Errors
/// The last error of `bind`.
pub(super) async fn bind_when_free<T, E>(
    mut bind: impl AsyncFnMut() -> Result<T, E>,
    source: impl Fn(&E) -> &io::Error,
) -> Result<T, E> {
    let started = Instant::now();
    let mut logged = false;
    loop {
        let bound = bind().await;
        let in_use = bound.as_ref().is_err_and(|error| source(error).kind() == io::ErrorKind::AddrInUse);
        if !in_use || started.elapsed() > IN_USE_TIMEOUT {
            return bound;
        }
        if !logged {
            logged = true;
            tracing::warn!(timeout = ?IN_USE_TIMEOUT, "an address is in use; waiting until it is free");
        }
        sleep(PAUSE).await;
    }
}
