//! Ways to run an attempt: one file per kind of work behind [`Runner`].
//!
//! A runner gets everything it may know in a [`Run`] and gives back an [`Outcome`]; it never sees
//! the scheduler. Runners are called from a pool's workers: one at a time per worker.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::model::{Failure, HandlerName, HandlerSpec, Payload, StopMethod, TaskId, TraceContext};

pub mod builtin;
#[cfg(test)]
mod conformance;
pub mod output;
pub mod process;
pub mod stop;

pub use output::OutputBuffer;
pub use stop::{Stop, StopCause};

/// What a runner is given.
pub struct Run {
    /// The task.
    pub task: TaskId,
    /// 1 for the first try.
    pub attempt: u32,
    /// The input.
    pub payload: Bytes,
    /// Its content type.
    pub content_type: Arc<str>,
    /// Arguments of the submitter, for handlers that accept them.
    pub args: Box<[Box<str>]>,
    /// `PoolWorker-3`.
    pub worker: Arc<str>,
    /// Where in a trace it stands, to be handed on.
    pub trace: Option<Arc<TraceContext>>,
    /// Told when it has to end: cancel, time-out, drain. Also knows the deadline.
    pub stop: Arc<Stop>,
    /// Where it writes.
    pub output: Arc<OutputBuffer>,
    /// Called with 0..=1 and a note; coalesced.
    pub progress: ProgressSink,
}

/// Where a handler reports how far it is.
pub type ProgressSink = Arc<dyn Fn(f32, &str) + Send + Sync>;

/// How an attempt ended.
#[derive(Debug)]
pub enum Ended {
    /// It returned a result.
    Completed(Payload),
    /// It failed by itself.
    Failed(Failure),
    /// It ended because `Run::stop` said so; the cause is the stop's.
    Stopped(StopMethod),
}

/// How an attempt ended and what it cost, as far as the runner can tell.
#[derive(Debug)]
pub struct Outcome {
    /// How.
    pub ended: Ended,
    /// Processor time.
    pub cpu_time: Option<Duration>,
    /// Largest resident size in bytes.
    pub peak_memory_bytes: Option<u64>,
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        Self { ended, cpu_time: None, peak_memory_bytes: None }
    }
}

/// A future that borrows nothing.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Something that can run.
pub trait Runner: Send + Sync + 'static {
    /// Runs one attempt to its end. Must return soon after `run.stop` was told, and only when
    /// nothing of the attempt runs any more. May block its thread only when the handler's spec says
    /// `blocking`. Panics are caught by the caller.
    fn run(&self, run: Run) -> BoxFuture<Outcome>;
}

/// A handler and what runs it.
pub struct Registered {
    /// As submitters see it.
    pub spec: HandlerSpec,
    /// What runs it.
    pub runner: Arc<dyn Runner>,
}

/// All registered handlers; fixed after start.
#[derive(Default)]
pub struct Registry {
    handlers: BTreeMap<HandlerName, Registered>,
}

impl Registry {
    /// Adds a handler; a later one of the same name replaces it.
    pub fn register(&mut self, spec: HandlerSpec, runner: Arc<dyn Runner>) {
        self.handlers.insert(spec.name.clone(), Registered { spec, runner });
    }

    /// The handler of that name.
    pub fn get(&self, name: &HandlerName) -> Option<&Registered> {
        self.handlers.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.handlers.values()
    }
}
