//! Errors after which a server must not continue.

use std::fmt::Display;

/// Exit code after such an error.
const EXIT_CODE: i32 = 1;

/// Logs the error and ends the process at once, without closing anything. To the store and to the processes of handlers
/// this is a crash, from which the next start recovers.
pub fn exit(error: &dyn Display) -> ! {
    tracing::error!(%error, "the server exits, since it can no longer rely on its store; the next start recovers");
    std::process::exit(EXIT_CODE);
}
