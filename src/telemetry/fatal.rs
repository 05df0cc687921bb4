//! Errors after which a server must not continue.

use std::fmt::Display;
use std::io::{Write, stderr};

/// Exit code after such an error.
const EXIT_CODE: i32 = 1;

/// Logs the error and ends the process at once, without closing anything. To the store and to the processes of handlers
/// this is a crash, from which the next start recovers.
pub fn exit(error: &dyn Display) -> ! {
    if tracing::dispatcher::has_been_set() {
        tracing::error!(%error, "the server exits, since it can no longer rely on its store; the next start recovers");
    } else {
        // A command that has no log. Without stderr there is nowhere to report it.
        let _ = writeln!(stderr(), "error: {error}");
    }
    std::process::exit(EXIT_CODE);
}
