//! An attempt that a remote worker has, or is about to get.

use std::sync::Arc;

use crate::model::{OutputStream, Timestamp};
use crate::runners::StopSignal;
use crate::runners::remote::{Link, LinkedAttempt, Token};

use super::attempt::Attempt;

/// The link to a remote worker of a pool.
pub type WorkerLink = Link<RunningAttempt>;

#[derive(Clone, Debug)]
pub struct RunningAttempt {
    pub attempt: Arc<Attempt>,
    pub started_at: Timestamp,
}

impl RunningAttempt {
    pub fn token_of(attempt: &Attempt) -> Token {
        Token(attempt.ticket().fence)
    }
}

impl LinkedAttempt for RunningAttempt {
    fn token(&self) -> Token {
        Self::token_of(&self.attempt)
    }

    fn at_most_once(&self) -> bool {
        self.attempt.spec().options.at_most_once
    }

    fn stop(&self) -> &StopSignal {
        self.attempt.stop_signal()
    }

    fn write_output(&self, stream: OutputStream, data: &[u8]) {
        self.attempt.open_output().write(stream, data);
    }

    fn report_progress(&self, fraction: f32, note: &str) {
        self.attempt.set_progress(fraction, note);
    }
}
