//! `io`: waits without using a thread, like work that waits for a network or a disk.

use std::time::Duration;

use serde::Deserialize;

use super::payload::{in_range, parse};
use super::work::{WorkError, run_async};
use crate::model::Failure;
use crate::runners::{BoxFuture, Run, RunReport, Runner, StopCause};

/// Longest wait: one day.
const SECONDS_MAX: f64 = 86_400.0;

#[derive(Clone, Copy, Debug)]
pub struct Io;

impl Runner for Io {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        run_async(async move {
            let seconds = seconds(&run.payload)?;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => {
                    Ok(format!(r#"{{"waited_seconds":{seconds}}}"#))
                }
                _ = run.stop.wait(StopCause::Timeout) => Err(WorkError::Stopped),
            }
        })
    }
}

fn seconds(payload: &[u8]) -> Result<f64, Failure> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, expecting = "an object with `seconds`")]
    struct Request {
        seconds: f64,
    }
    let text = payload.trim_ascii();
    let seconds = if text.starts_with(b"{") { parse::<Request>(text)?.seconds } else { parse(text)? };
    in_range("seconds", seconds, 0.0, SECONDS_MAX)
}
