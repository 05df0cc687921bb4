//! Signals that end a command.

use std::future::pending;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGINT, SIGTERM or SIGHUP, and returns the exit code that a shell reports for a process killed by it. The
/// caller can then remove its files and end the processes that it has started.
pub async fn interrupted() -> ExitCode {
    let received = async |kind: SignalKind, number: u8| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
            ExitCode::from(128 + number)
        }
        // The signal keeps its default action.
        Err(_) => pending().await,
    };
    tokio::select! {
        code = received(SignalKind::interrupt(), 2) => code,
        code = received(SignalKind::terminate(), 15) => code,
        code = received(SignalKind::hangup(), 1) => code,
    }
}
