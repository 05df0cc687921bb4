//! A stream of a remote worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;

use crate::model::TaskSpec;
use crate::runners::remote::{Chunk, Command, Polled, Token, WorkerReport};

use super::attempts::RemoteAttempts;
use super::worker::RemoteWorker;

/// A stream of a worker. When it is dropped, the worker is no longer connected and its lease begins to run.
pub struct RemoteConnection {
    pub(super) attempts: Arc<RemoteAttempts>,
    pub(super) worker: Arc<RemoteWorker>,
    pub(super) stream: u64,
    /// Attempts that the worker has and that are not its own any more.
    pub stale: Vec<Token>,
}

impl RemoteConnection {
    /// Takes the commands for the worker, and wakes the context when there are some. The last one is [`Command::Close`].
    pub fn poll_commands(&self, context: &Context<'_>, commands: &mut VecDeque<Command>) -> Polled {
        self.worker.link.poll_commands(self.stream, context, commands)
    }

    /// The next part of a large payload.
    pub fn next_chunk(&self) -> Option<Chunk> {
        self.worker.link.next_chunk(self.stream)
    }

    /// The task of an attempt that is the worker's and has not ended.
    pub fn task_of(&self, token: Token) -> Option<Arc<TaskSpec>> {
        self.worker.link.find(token).map(|running| running.attempt.spec().clone())
    }

    /// Processes messages of the worker, none if it only shows that it is alive. The stream has to look for commands
    /// afterwards. Does nothing if another stream has replaced this one.
    pub fn receive(&self, reports: Vec<WorkerReport>) {
        if let Some(happened) = self.worker.link.receive(self.stream, reports) {
            self.attempts.process(&self.worker, happened);
        }
    }

    /// The worker accepts no further attempts, unless another stream has replaced this one.
    pub fn leave(&self) {
        let streams = self.worker.streams.lock();
        if !self.worker.link.is_newest(self.stream) {
            return;
        }
        self.worker.leave();
        self.attempts.queue.close(self.worker.key);
        drop(streams);
        self.attempts.report_slots();
    }

    /// Qualified name of the worker.
    pub fn worker(&self) -> &str {
        &self.worker.name
    }
}

impl Drop for RemoteConnection {
    fn drop(&mut self) {
        let streams = self.worker.streams.lock();
        if !self.worker.link.disconnect(self.stream) {
            return;
        }
        self.attempts.queue.close(self.worker.key);
        drop(streams);
        self.attempts.report_slots();
        tracing::info!(worker = &*self.worker.name, running = self.worker.running(), "remote worker disconnected");
    }
}
