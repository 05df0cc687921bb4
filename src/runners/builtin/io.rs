//! `io`: waits without using a thread, as work that talks to somebody else does.

use std::time::Duration;

use serde::Deserialize;

use super::{Halt, in_range, parse, wait_for};
use crate::model::Failure;
use crate::runners::{BoxFuture, Outcome, Run, Runner, StopCause};

pub(super) const DESCRIPTION: &str = "Waits for a number of seconds without using a thread.";
pub(super) const PAYLOAD: &str =
    r#"Seconds as a number, or {"seconds": number}; 0 to 86400. Result: {"waited_seconds"}."#;

/// Longest wait in seconds: a day.
pub const SECONDS_MAX: f64 = 86_400.0;

/// The runner of `io`.
#[derive(Clone, Copy, Debug)]
pub struct Io;

impl Runner for Io {
    fn run(&self, run: Run) -> BoxFuture<Outcome> {
        wait_for(async move {
            let seconds = seconds(&run.payload)?;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => {
                    Ok(format!(r#"{{"waited_seconds":{seconds}}}"#))
                }
                _ = run.stop.wait(StopCause::Timeout) => Err(Halt::Stopped),
            }
        })
    }
}

fn seconds(payload: &[u8]) -> Result<f64, Failure> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {
        seconds: f64,
    }
    let text = payload.trim_ascii();
    let seconds = if text.starts_with(b"{") { parse::<Request>(text)?.seconds } else { parse(text)? };
    in_range("seconds", seconds, 0.0, SECONDS_MAX)
}
