//! What a program writes, as it arrives.

use super::reports::{Notice, Reports};
use super::wire::Channel;
use crate::model::OutputStream;
use crate::runners::Run;
use crate::runners::result::ResultBuffer;

pub(super) struct Received<'a> {
    run: &'a Run,
    /// What came through the pipe for results or from the file of the result; without both, stdout.
    pub(super) result: ResultBuffer,
    has_result: bool,
    pub(super) reports: Reports,
    /// Its result is lost if there is no memory for it.
    is_killed: bool,
}

impl<'a> Received<'a> {
    /// `has_result`: the result is never stdout.
    pub(super) fn new(run: &'a Run, has_result: bool) -> Self {
        let result = ResultBuffer::new(run.result_memory.clone());
        Self { run, result, has_result, reports: Reports::default(), is_killed: false }
    }

    /// Takes a piece of output, once there is memory for it. Takes nothing if it is cancelled.
    pub(super) async fn take(&mut self, channel: Channel, bytes: &[u8]) {
        if channel == Channel::Result && !self.has_result && !bytes.is_empty() {
            self.has_result = true;
            drop(self.result.take());
        }
        let is_result = channel == if self.has_result { Channel::Result } else { Channel::Stdout };
        if is_result && !self.is_killed {
            self.result.wait_for_room(bytes.len()).await;
        }
        match channel {
            Channel::Stdout => self.run.output.write(OutputStream::Stdout, bytes),
            Channel::Stderr => self.run.output.write(OutputStream::Stderr, bytes),
            Channel::Report => self.reports.push(bytes, &mut |notice| show(self.run, notice)),
            Channel::Result => {}
        }
        if is_result {
            self.result.push(bytes);
        }
    }

    /// The program is killed: what it has written is taken without a wait for memory.
    pub(super) fn killed(&mut self) {
        self.is_killed = true;
    }

    /// No more will come.
    pub(super) fn finish(&mut self) {
        self.reports.finish(&mut |notice| show(self.run, notice));
    }
}

fn show(run: &Run, notice: Notice<'_>) {
    match notice {
        Notice::Progress(fraction, note) => (run.progress)(fraction, note),
        // Where its authors look.
        Notice::Invalid(line, problem) => {
            let text = format!("lineshaft: {problem}; the line was: {line}\n");
            run.output.write(OutputStream::Stderr, text.as_bytes());
        }
    }
}
